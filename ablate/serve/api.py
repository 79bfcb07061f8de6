"""The HTTP interface, under /api/v1: what the commands answer with `--json`, and what they do to the queue.

A study is named in the address (`addresses.segment` quotes a name), a job by a query. Studies are handed
in as TOML, the raw body. Every error is problem+json with all mistakes.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from ablate import __version__
from ablate.analysis.status import Status
from ablate.serve import addresses, jobs
from ablate.serve.events import MOST_FOLLOWERS, Channel
from ablate.serve.problems import TYPE, ProblemError
from ablate.serve.service import Service
from ablate.store.queue import Entry
from ablate.study.file import Study
from ablate.workflow import queue
from ablate.workflow.answers import plain
from ablate.workflow.inspect import Listed

FORMS = {"json": "application/json", "md": "text/markdown", "tex": "application/x-tex", "csv": "text/csv"}
LONGEST_KEY = 200


class ProblemBody(BaseModel):
    """What is wrong: all mistakes, each a sentence as the terminal shows it."""

    type: str
    title: str
    status: int
    detail: str
    mistakes: list[str]


class Healthy(BaseModel):
    """The service answers."""

    status: Literal["ok"]
    version: str


class Move(BaseModel):
    """Where a submission goes: one of the three."""

    model_config = ConfigDict(extra="forbid")
    before: str | None = None
    after: str | None = None
    priority: int | None = Field(None, ge=-queue.MOST_PRIORITY, le=queue.MOST_PRIORITY)


class Log(BaseModel):
    """A part of the log of a job."""

    job: str  # its identity
    text: str
    next: int  # the offset of the next part
    ended: bool  # whether nothing more comes


PROBLEM = {"model": ProblemBody, "content": {TYPE: {}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    **dict.fromkeys((400, 401, 403, 404, 408, 409, 413, 414, 415, 421, 422, 429, 500, 503, 507), PROBLEM)
}
router = APIRouter(prefix="/api/v1", responses=PROBLEMS)
StudyName = Annotated[str, Path(description="The name of a study, quoted; one with / or % is quoted twice.")]
Sets = Annotated[
    list[str], Query(alias="set", description="key=value, as --set has it; may come several times.")
]
Toml = Annotated[bytes, Body(media_type="application/toml", description="The text of a study file.")]
LastHeader = Annotated[str, Header(alias="Last-Event-ID", max_length=100)]
LastQuery = Annotated[str, Query(alias="last", max_length=100, description="As Last-Event-ID.")]
Id = Annotated[str, Path(max_length=40, description="The id of a submission.")]


def service_of(request: Request) -> Service:
    """Return what the routes of an application share."""
    service: Service = request.app.state.service
    return service


def _toml(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProblemError(422, "the study: must be text in UTF-8, and is not") from None


@router.get("/health", summary="Whether the service answers", response_model=Healthy)
async def health() -> JSONResponse:
    """Return the version; anybody may ask."""
    return JSONResponse({"status": "ok", "version": __version__})


@router.get("/studies", summary="The studies of the store", response_model=list[Listed])
async def studies(request: Request) -> JSONResponse:
    """Return the studies, and how far each is."""
    return JSONResponse(plain(await service_of(request).results.studies()))


@router.get("/studies/{study}/status", summary="How far a study is", response_model=Status)
async def status(request: Request, study: StudyName) -> JSONResponse:
    """Return what `ablate status STUDY --json` prints."""
    now = await service_of(request).results.status(addresses.name(study))
    return JSONResponse(await run_in_threadpool(plain, now))


@router.get("/studies/{study}/runs", summary="Each run of a study")
async def runs(request: Request, study: StudyName) -> list[dict[str, Any]]:
    """Return the runs: cell, seed, job, status, epoch, and the study's metric."""
    results, name = service_of(request).results, addresses.name(study)
    now, board = await results.status(name), await results.board(name)
    values = await run_in_threadpool(board.values)
    return [
        {"cell": label, "seed": seed, **plain(spot), "value": plain(values.get(label, {}).get(seed))}
        for label, spots in now.runs.items()
        for seed, spot in spots.items()
    ]


@router.get("/studies/{study}/report", summary="The report of a study", response_class=PlainTextResponse)
async def report(
    request: Request, study: StudyName,
    form: Annotated[Literal["json", "md", "tex", "csv"], Query(alias="format")] = "json",
    metric: Annotated[str | None, Query(max_length=200)] = None,
) -> PlainTextResponse:  # fmt: skip
    """Return what `ablate report STUDY --format FORMAT` prints."""
    text = await service_of(request).results.report(addresses.name(study), form, metric)
    return PlainTextResponse(text, media_type=FORMS[form])


@router.get("/studies/{study}/verdicts", summary="The verdicts of a study")
async def verdicts(request: Request, study: StudyName) -> dict[str, Any]:
    """Return of the report's JSON: headline, effects, claims."""
    return await service_of(request).results.standing(addresses.name(study))


@router.get("/studies/{study}/check", summary="The answers to the claims of a study")
async def check(request: Request, study: StudyName, *, strict: bool = False) -> dict[str, Any]:
    """Return the claims, and of `ablate check` its `text`, its `note` for stderr, and its exit code."""
    answer = await service_of(request).results.check(addresses.name(study))
    verdicts = {claim["verdict"] for claim in answer["claims"]}
    is_open = not verdicts - {"not tested"} or (strict and bool({"undecided", "not tested"} & verdicts))
    return {**answer, "exit_code": 1 if "refuted" in verdicts else 3 if is_open else 0}


@router.get("/studies/{study}/plan", summary="What is left to do of a study")
async def plan(request: Request, study: StudyName) -> dict[str, Any]:
    """Return what `ablate plan STUDY --json` prints."""
    name, results = addresses.name(study), service_of(request).results
    await results.board(name)
    answer: dict[str, Any] = await results.plan(name)
    return answer


@router.get("/studies/{study}/file", summary="The text of a study", response_class=PlainTextResponse)
async def file(request: Request, study: StudyName) -> PlainTextResponse:
    """Return the study's file as it was last run, its --set lines below it as comments."""
    board = await service_of(request).results.board(addresses.name(study))
    loaded: Study = await run_in_threadpool(lambda: board.resolved.study)
    return PlainTextResponse(loaded.text, media_type="application/toml")


@router.get("/studies/{study}/events", summary="What happens to a study, as it happens")
async def events(
    request: Request, study: StudyName,
    last: LastHeader = "", after: LastQuery = "",
) -> StreamingResponse:  # fmt: skip
    """Return server-sent events: `status` (of changed runs only unless it is `whole`), and `verdicts`."""
    return stream(request, await service_of(request).events.study(addresses.name(study)), last or after)


@router.get("/compare", summary="Two studies side by side")
async def compare(
    request: Request, study: Annotated[list[str], Query(min_length=2, max_length=2)],
    metric: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the table that `ablate compare A B` prints, its sentences, and `values` as --json has them."""
    answer: dict[str, Any] = await service_of(request).results.compare(study[0], study[1], metric)
    return answer


@router.get("/logs", summary="The log of a job", response_model=Log)
async def logs(
    request: Request, job: Annotated[str, Query(min_length=1, max_length=1000)],
    offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
    wait: Annotated[float, Query(ge=0, le=20, description="Seconds to wait for more.")] = 0,
) -> JSONResponse:  # fmt: skip
    """Return the log from an offset on; JOB is the first digits of its identity, or STUDY:cell/seed.

    An empty text is told where the job was not started yet.
    """
    service = service_of(request)
    meant = await run_in_threadpool(jobs.find, service.store, job)
    end = asyncio.get_running_loop().time() + wait
    part = await run_in_threadpool(jobs.read, meant, offset)
    while not part.text and not part.ended and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(jobs.EVERY)
        part = await run_in_threadpool(jobs.read, meant, offset)
    return JSONResponse(plain(part))


@router.post("/plan", summary="What a run of a study's text would do")
async def preview(
    request: Request, body: Toml, sets: Sets = [],  # noqa: B006 (FastAPI copies it)
) -> dict[str, Any]:  # fmt: skip
    """Return what `ablate plan FILE --json` prints, or all mistakes. Nothing is run or written."""
    service = service_of(request)
    answer: dict[str, Any] = await service.preview(_toml(body), sets)
    return answer


@router.get("/queue", summary="The queue", response_model=list[Entry])
async def entries(request: Request) -> JSONResponse:
    """Return all submissions in the order in which they run, those that have ended last."""
    return JSONResponse(await run_in_threadpool(service_of(request).entries))


@router.post("/queue", summary="Put a study into the queue", response_model=Entry, status_code=201)
async def submit(
    request: Request, body: Toml, sets: Sets = [],  # noqa: B006
    priority: Annotated[int, Query(ge=-queue.MOST_PRIORITY, le=queue.MOST_PRIORITY)] = 0,
    after: Annotated[list[str], Query(max_length=100)] = [],  # noqa: B006
    by: Annotated[str | None, Query(max_length=100)] = None,
    replace: bool = False,  # noqa: FBT001, FBT002 (a query)
    key: Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=LONGEST_KEY)] = None,
) -> JSONResponse:  # fmt: skip
    """Return the submission; the same Idempotency-Key again, and it is the one of before."""
    answer = await service_of(request).submit(
        _toml(body), sets=sets, priority=priority, after=after, key=key, by=by, replaces=replace
    )
    return JSONResponse(answer, 201)


@router.get("/queue/events", summary="What happens to the queue, as it happens")
async def queue_events(
    request: Request, last: LastHeader = "", after: LastQuery = "",
) -> StreamingResponse:  # fmt: skip
    """Return server-sent events: `queue`, all submissions whenever one has changed."""
    return stream(request, service_of(request).events.queue, last or after)


@router.get("/queue/{identity}", summary="A submission", response_model=Entry)
async def entry(request: Request, identity: Id) -> JSONResponse:
    """Return one submission."""
    return await _changed(request, queue.entry, identity)


@router.get("/queue/{identity}/file", summary="What was handed in", response_class=PlainTextResponse)
async def handed_in(request: Request, identity: Id) -> PlainTextResponse:
    """Return the text of a submission, exactly as it was handed in."""
    from ablate.store import queue as submissions

    store = service_of(request).store
    there = await run_in_threadpool(_entry, request, identity)
    text = await run_in_threadpool(submissions.read_text, store, there.id)
    return PlainTextResponse(text, media_type="application/toml")


@router.post("/queue/{identity}/cancel", summary="Cancel a submission", response_model=Entry)
async def cancel(request: Request, identity: Id) -> JSONResponse:
    """End it for good, as far as it is not done."""
    return await _changed(request, queue.cancel, identity)


@router.post("/queue/{identity}/pause", summary="Pause a submission", response_model=Entry)
async def pause(request: Request, identity: Id) -> JSONResponse:
    """Let it wait until it is resumed; what has ended of it is kept."""
    return await _changed(request, queue.pause, identity)


@router.post("/queue/{identity}/resume", summary="Resume a submission", response_model=Entry)
async def resume(request: Request, identity: Id) -> JSONResponse:
    """Let it go on, or try again what has failed."""
    return await _changed(request, queue.resume, identity)


@router.post("/queue/{identity}/move", summary="Move a submission", response_model=Entry)
async def move(request: Request, identity: Id, where: Move) -> JSONResponse:
    """Put it before or after another one, or give it a priority."""
    return await _changed(request, queue.move, identity, **where.model_dump())


def _entry(request: Request, identity: str) -> Entry:
    return service_of(request).entry(identity)


async def _changed(request: Request, change: Any, identity: str, **of: Any) -> JSONResponse:
    service = service_of(request)
    await run_in_threadpool(service.entry, identity)  # raises where there is none
    now: Entry = await run_in_threadpool(lambda: change(service.store, identity, **of))
    return JSONResponse(now.model_dump(mode="json"))


def stream(request: Request, channel: Channel, last: str) -> StreamingResponse:
    """Return the events of a channel as a response."""
    service = service_of(request)
    if service.events.followers >= MOST_FOLLOWERS:
        raise ProblemError(503, f"{MOST_FOLLOWERS} browsers follow already: close some")

    async def frames() -> AsyncIterator[bytes]:
        async for frame in channel.follow(last):
            yield frame

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)
