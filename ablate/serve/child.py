"""What runs in a process beside the service: all that needs pandas, scipy, torch or plotly, or reads a text.

    python -m ablate.serve.child STORE NICENESS [MODULE ...]

The modules are imported before the first request is read. Each request and each answer is a line with its
length, then JSON; an answer says how many seconds of CPU it has taken. The process ends with its standard
input, which is the service's to close, however that ends.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ablate.errors import AblateError, StudyError
from ablate.execution.options import Where
from ablate.store import layout
from ablate.workflow import answers, argument

LONGEST = 16 << 20  # bytes of a request
STANDING = (
    "study", "metric", "direction", "min_effect", "seeds", "finished", "total", "headline", "effects",
    "claims",
)  # fmt: skip
"""The keys of a report's JSON that say how the questions of a study stand."""


def report(where: Where, *, study: str, form: str = "json", metric: str | None = None) -> str:
    """Return the report of a study in a form of text."""
    from ablate.report import publish
    from ablate.workflow import report as reporting

    return publish.text(reporting.report(argument.recall(study, where.store), where, metric), form)


def standing(where: Where, *, study: str) -> dict[str, Any]:
    """Return of a study's report what says how its questions stand."""
    from ablate.report import publish
    from ablate.workflow import report as reporting

    findings = reporting.report(argument.recall(study, where.store), where, whole=False)
    content = json.loads(publish.text(findings, "json"))
    return {key: content[key] for key in STANDING}


def page(where: Where, *, study: str, path: str) -> str:
    """Write the page of a study's report to a path outside of the store, and return that path."""
    from ablate.report import publish
    from ablate.workflow import report as reporting

    findings = reporting.report(argument.recall(study, where.store), where)
    return str(publish.write_page(findings, where.store, Path(path)))


def check(where: Where, *, study: str) -> dict[str, Any]:
    """Return the answers to a study's claims: as JSON, and as `ablate check` prints them."""
    from ablate.report import publish
    from ablate.workflow import report as reporting

    findings = reporting.report(argument.recall(study, where.store), where)
    return {
        "claims": json.loads(publish.claims(findings, as_json=True)),
        "text": publish.claims(findings, as_json=False),
        "note": publish.untested(findings, where.store),
    }


def compare(where: Where, *, studies: list[str], metric: str | None = None) -> dict[str, Any]:
    """Return two studies side by side: the table that people read, and its values."""
    from ablate.workflow import report as reporting

    loaded = tuple(argument.recall(name, where.store) for name in studies)
    comparison = reporting.compare(loaded, (), where, metric)
    return {
        "columns": comparison.columns, "rows": comparison.rows, "sentences": comparison.sentences,
        "values": comparison.values,
    }  # fmt: skip


def plan(where: Where, *, study: str) -> answers.Planned:
    """Return what is left to do of a study of the store."""
    from ablate.workflow import plan as planning

    return answers.planned(planning.preview(argument.recall(study, where.store), where))


def preview(where: Where, *, text: str, sets: list[str], networks: list[str]) -> answers.Planned:
    """Return what a run of a study's text would do."""
    from ablate.workflow import queue

    return answers.planned(queue.check(where.store, text, tuple(sets), networks=networks))


def look(where: Where, *, text: str, sets: list[str], networks: list[str]) -> dict[str, object]:
    """Return the same for people: beside it, which effects it can see, in words."""
    from ablate.recipe import metrics
    from ablate.workflow import queue

    there = queue.check(where.store, text, tuple(sets), networks=networks)
    outlook = there.outlook
    size = "" if outlook is None else metrics.size(float(f"{outlook.effect:.2g}"), there.plan.study.metric)
    return {"plan": answers.planned(there), "sees": size}


def submit(where: Where, **of: Any) -> Any:
    """Put a study's text into the queue, and return its submission."""
    from ablate.workflow import queue

    lists = {name: tuple(of[name]) for name in ("sets", "after", "networks")}
    return queue.submit(where.store, of.pop("text"), **(of | lists)).model_dump(mode="json")


REQUESTS: Mapping[str, Callable[..., object]] = {
    "report": report, "standing": standing, "page": page, "check": check, "compare": compare, "plan": plan,
    "preview": preview, "look": look, "submit": submit,
}  # fmt: skip


def answer(where: Where, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a request, or the error that a user is meant to read."""
    try:
        return {"value": answers.plain(REQUESTS[request["do"]](where, **request["of"]))}
    except AblateError as error:
        mistakes = list(error.mistakes) if isinstance(error, StudyError) else str(error).splitlines()
        return {"error": {"kind": type(error).__name__, "mistakes": mistakes}}
    except OSError as error:
        if error.filename is None:
            raise
        reason = f"{error.filename}: cannot be used: {error.strerror}: check the path and its permissions"
        return {"error": {"kind": "OSError", "mistakes": [reason]}}


def receive(stream: BinaryIO) -> Any:
    """Return the next message of a stream; None at its end."""
    head = stream.readline(32)
    if not head.endswith(b"\n"):
        return None
    body = stream.read(int(head))
    return json.loads(body) if len(body) == int(head) else None


def packed(message: object) -> bytes:
    """Return a message as it travels."""
    body = json.dumps(message, allow_nan=False).encode()
    return b"%d\n%s" % (len(body), body)


def main(store: str, niceness: str, *modules: str) -> None:
    """Answer requests until the input ends."""
    os.nice(int(niceness))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    where = Where(layout.open_store(Path(store)))
    for module in modules:
        importlib.import_module(module)
    while (request := receive(sys.stdin.buffer)) is not None:
        began = time.process_time()
        try:
            reply = answer(where, request)
        except Exception:  # noqa: BLE001 (a bug: told where the service logs, and the next request is answered)
            traceback.print_exc()
            reply = {"error": {"kind": "bug", "mistakes": []}}
        out.write(packed(reply | {"seconds": time.process_time() - began}))
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
