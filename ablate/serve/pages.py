"""The pages: HTML made on the server, readable without scripts, with addresses by name that stay."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ablate import __version__
from ablate.errors import AblateError
from ablate.serve import addresses, jobs, problems, shown
from ablate.serve.api import service_of
from ablate.serve.board import MissingError
from ablate.serve.guard import COOKIE
from ablate.serve.problems import Problem, ProblemError
from ablate.serve.tokens import SESSION
from ablate.store import files, origin
from ablate.store import queue as submissions
from ablate.workflow import new, queue

HERE = Path(__file__).parent
FIELDS = 600  # of the grid on one page, about
TAIL = 64 << 10  # bytes of the output of a run
EMBEDDED = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
"""Of a report: it may run its own scripts, in a place without an origin, and ask for nothing."""
router = APIRouter(include_in_schema=False)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["segment"] = addresses.segment
    environment.globals.update(version=__version__, words=shown.WORDS, order=shown.ORDER)
    return environment


def page(request: Request, template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """Return a page."""
    keys, root = request.app.state.keys, request.scope.get("root_path", "")
    text = _templates().get_template(template).render(
        root=root, is_locked=bool(keys.token), mlflow=request.app.state.mlflow, **values
    )  # fmt: skip
    return HTMLResponse(text, code)


def problem(request: Request, trouble: Problem) -> Response:
    """Return what is wrong as a page."""
    title = trouble.body()["title"]
    told = page(request, "problem.html.j2", code=trouble.status, problem=trouble, title=title)
    told.headers.update(dict(trouble.headers))
    return told


def wants_page(request: Request) -> bool:
    """Whether a request comes from somebody who looks, not from a program."""
    below = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return not below.startswith("/api/") and "text/html" in request.headers.get("accept", "")


@router.get("/")
async def index(request: Request) -> Response:
    """Show the queue, and the studies of the store."""
    service = service_of(request)
    entries = await run_in_threadpool(service.entries)
    studies = await service.results.studies()
    return page(request, "queue.html.j2", **_turns(entries), studies=studies)


def _turns(entries: list[dict[str, Any]]) -> dict[str, Any]:
    states = (("running",), ("waiting", "paused"), ("done", "failed", "cancelled"))
    names = ("running", "waiting", "ended")
    return {
        name: [one for one in entries if one["state"] in of] for name, of in zip(names, states, strict=True)
    }


@router.get("/studies/{study}")
async def study(
    request: Request, study: str, part: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1
) -> Response:
    """Show a study as it runs."""
    service, name = service_of(request), addresses.name(study)
    submission = await run_in_threadpool(service.events.submission, name)
    try:
        status = await service.results.status(name)
    except MissingError:
        if submission is None:
            raise
        return page(request, "waiting.html.j2", name=name, entry=submission)
    board = await service.results.board(name)
    own, values = board.resolved.study, await run_in_threadpool(board.values)
    height = max(10, FIELDS // len(own.seeds))
    rows = slice((part - 1) * height, part * height)
    progress, verdicts = shown.progress(status), None
    if progress.ended:
        verdicts = service.results.verdicts_so_far(name, board.version)
    return page(
        request, "study.html.j2", name=name, study=own, status=status, progress=progress,
        fields=shown.fields(status, values, own.metric, rows), cells=len(status.runs),
        shades=shown.shades(values, own.direction), verdicts=verdicts, submission=submission,
        unit=shown.in_unit(own.metric), part=part, parts=-(-len(status.runs) // height),
        broken=status.broken[:20], more=max(0, len(status.broken) - 20),
    )  # fmt: skip


@router.get("/studies/{study}/report")
async def report(request: Request, study: str) -> Response:
    """Show the report of a study, in a frame of its own."""
    name = addresses.name(study)
    status = await service_of(request).results.status(name)
    return page(request, "report.html.j2", name=name, progress=shown.progress(status))


@router.get("/studies/{study}/report.html")
async def embedded(request: Request, study: str) -> Response:
    """Return the report itself, as of now: a page that needs nothing, and may do nothing."""
    path = await service_of(request).results.page(addresses.name(study))
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": EMBEDDED})


@router.get("/studies/{study}/log")
async def log(
    request: Request, study: str, cell: Annotated[str, Query(max_length=1000)], seed: int
) -> Response:
    """Show the log of a run's job."""
    service, name = service_of(request), addresses.name(study)
    status = await service.results.status(name)
    spot = status.runs.get(cell, {}).get(seed)
    if spot is None:
        raise ProblemError(404, f'"{name}" has no cell "{cell}" with a seed {seed}')
    part = jobs.Part(spot.job, "", 0, ended=False)
    if spot.status != "not_run":
        job = await run_in_threadpool(jobs.find, service.store, spot.job)
        part = await run_in_threadpool(jobs.read, job, 0)
    return page(request, "log.html.j2", name=name, cell=cell, seed=seed, spot=spot, part=part)


@router.get("/queue/{identity}")
async def entry(request: Request, identity: str) -> Response:
    """Show a submission, and what its run has printed."""
    service = service_of(request)
    now = await run_in_threadpool(service.entry, identity)
    text = await run_in_threadpool(submissions.read_text, service.store, now.id)
    output = await run_in_threadpool(_tail, submissions.log(service.store, now.id))
    return page(request, "entry.html.j2", entry=now.model_dump(mode="json"), text=text, output=output)


def _tail(path: Path) -> str:
    from ablate.store import logs

    try:
        with files.open_binary(path) as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            return logs.clean(file.read().decode(errors="replace"), final=True)[0]
    except FileNotFoundError:
        return ""


@router.get("/new")
async def write(
    request: Request, study: Annotated[str | None, Query(max_length=1000)] = None,
    entry: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:  # fmt: skip
    """Show a study to be written: a first one, a copy of one of the store, or of a submission."""
    service = service_of(request)
    text, sets, copied = new.shipped()[new.FIRST], "", ""
    if study is not None:
        board = await service.results.board(study)
        own = await run_in_threadpool(lambda: board.resolved.study)
        text, *changes = own.text.split(origin.SETS)
        sets, copied = "\n".join(changes), own.name
    elif entry is not None:
        now = await run_in_threadpool(service.entry, entry)
        text = await run_in_threadpool(submissions.read_text, service.store, now.id)
        sets, copied = "\n".join(now.sets), now.study
    entries = await run_in_threadpool(service.entries)
    waiting = [one for one in entries if one["state"] in ("running", "waiting", "paused")]
    limit = queue.MOST_PRIORITY
    return page(request, "new.html.j2", text=text, sets=sets, copied=copied, waiting=waiting, limit=limit)


@router.post("/new/check")
async def look(
    request: Request, sets: Annotated[list[str], Query(alias="set")] = [],  # noqa: B006 (FastAPI copies it)
) -> dict[str, Any]:  # fmt: skip
    """Return the plan of a text, or its mistakes: no error, as half a text is none."""
    text = (await request.body()).decode(errors="replace")
    try:
        return {**await service_of(request).look(text, sets), "mistakes": []}
    except AblateError as error:
        return {"plan": None, "mistakes": problems.of(error).mistakes}


@router.get("/compare")
async def compare(
    request: Request, first: Annotated[str, Query(max_length=1000)] = "",
    second: Annotated[str, Query(max_length=1000)] = "",
) -> Response:  # fmt: skip
    """Show two studies side by side."""
    results = service_of(request).results
    names = await run_in_threadpool(results.boards.names)
    compared = await results.compare(first, second) if first and second else None
    return page(request, "compare.html.j2", names=names, first=first, second=second, compared=compared)


@router.get("/login")
async def ask(request: Request, next: str = "/") -> Response:  # noqa: A002 (a query)
    """Ask for the token."""
    return page(request, "login.html.j2", next=next, wrong="")


@router.post("/login")
async def enter(request: Request) -> Response:
    """Let somebody in who has the token, with a session instead of it."""
    form = parse_qs((await request.body()).decode(errors="replace"))
    token, there = form.get("token", [""])[0], form.get("next", ["/"])[0]
    keys, guard, root = request.app.state.keys, request.app.state.guard, request.scope.get("root_path", "")
    try:
        guard.check_token(request.scope, token)
    except ProblemError as error:
        refused = error.problem
        told = page(request, "login.html.j2", code=refused.status, next=there, wrong=refused.mistakes[0])
        told.headers.update(dict(refused.headers))
        return told
    answer = RedirectResponse(f"{root}{_inside(there)}", 303)
    answer.set_cookie(
        COOKIE, keys.session(), max_age=SESSION, httponly=True, samesite="strict", path=f"{root}/",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
async def leave(request: Request) -> Response:
    """End a session in this browser."""
    root = request.scope.get("root_path", "")
    answer = RedirectResponse(f"{root}/login", 303)
    answer.delete_cookie(COOKIE, path=f"{root}/", httponly=True, samesite="strict")
    return answer


def _inside(address: str) -> str:
    """Return an address of ours; the first page for one that leads elsewhere."""
    parts = urlsplit(address)
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.netloc
    return address if is_ours and address.isprintable() else "/"


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Return the style or the script of all pages."""
    if name not in STATIC:
        raise ProblemError(404, f"there is no {name}")
    headers = {"Cache-Control": "public, max-age=3600"}
    return FileResponse(HERE / "static" / name, media_type=STATIC[name], headers=headers)


STATIC: Mapping[str, str] = {
    "style.css": "text/css",
    "script.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
