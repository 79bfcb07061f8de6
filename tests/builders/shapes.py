"""Files of a store that are valid JSON and not ours, one at a time, and where each of them lies."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HUGE, DEEP = 10**400, 100_000
VALUES: dict[str, Any] = {
    "null": None, "text": "[/x]", "list": [], "table": {}, "huge": HUGE, "NaN": float("nan"),
    "infinite": float("inf"), "negative": -1, "fraction": 1.5, "true": True, "large": 10**18, "deep": "DEEP",
}  # fmt: skip
WHOLE: dict[str, bytes] = {
    "empty": b"", "a list": b"[]", "a list of one": b"[1]", "a number": b"3", "a text": b'"x"',
    "null": b"null", "an empty table": b"{}", "NaN": b"NaN", "true": b"true", "digits": b"1" * 10_000,
    "no text": b"\xff\xfe{}", "a surrogate": b'"\\ud800"', "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep tables": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
}  # fmt: skip


def shapes(content: bytes, *, is_lines: bool) -> dict[str, bytes]:
    """Return what may stand in place of a file, by what it is: `seeds = huge`, `without seeds`."""
    every = dict(WHOLE)
    try:
        table = json.loads(content.splitlines()[0] if is_lines else content)
    except (ValueError, IndexError):
        table = None
    for path in _paths(table):
        every[f"without {'.'.join(map(str, path))}"] = _dumped(_changed(table, path, remove=True))
        for name, value in VALUES.items():
            every[f"{'.'.join(map(str, path))} = {name}"] = _dumped(_changed(table, path, value))
    return {name: part + b"\n" for name, part in every.items()} if is_lines else every


def _paths(content: Any, above: tuple[Any, ...] = (), depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """Return the paths of the parts of some JSON: of lists the first element only."""
    keys = (
        list(content) if isinstance(content, dict) else [0] if isinstance(content, list) and content else []
    )
    for key in keys if depth else ():
        yield (*above, key)
        yield from _paths(content[key], (*above, key), depth - 1)


def _changed(content: Any, path: tuple[Any, ...], value: Any = None, *, remove: bool = False) -> Any:
    copy = json.loads(json.dumps(content))
    here = copy
    for key in path[:-1]:
        here = here[key]
    if remove:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return copy


def _dumped(content: Any) -> bytes:
    return json.dumps(content).encode().replace(b'"DEEP"', b"[" * DEEP + b"]" * DEEP)


def places(store: Path, study: str, others: str) -> dict[str, Path]:
    """Return a file of each kind that only one study needs, as seen from the store."""
    names = {path: path.read_text() for path in sorted(store.glob("jobs/*/attempts.jsonl"))}
    trials = json.loads(next(store.glob("searches/*/trials.json")).read_text())["trials"]
    tried = {job for trial in trials for job in trial["jobs"].values()}
    own = [path.parent for path, text in names.items() if f'"study": "{study}"' in text]
    job = next(path for path in own if path.name not in tried)
    trial = next(path for path in own if path.name in tried)
    kept = json.loads((store / "studies" / others / "settled.json").read_text())["fingerprints"].values()
    note = next(
        path
        for path in sorted(store.glob("data/index/*.json"))
        if json.loads(path.read_text())["fingerprint"] not in kept
    )
    images = store / "data" / json.loads(note.read_text())["fingerprint"]
    files = [
        *(job / name for name in (
            "recipe.json", "result.json", "failure.json", "environment.json", "model.json", "attempts.jsonl",
            "journal.jsonl", "lease-1",
        )),
        next(job.glob("outcomes/*/outcome.json")),
        *(trial / name for name in ("recipe.json", "result.json", "journal.jsonl")),
        *(store / "studies" / study / name for name in (
            "study.json", "settled.json", "origin.json", "holder.json", "sent.json", "began.json",
        )),
        *(next(store.glob("searches/*")) / name for name in ("search.json", "trials.json", "optuna.jsonl")),
        *(next(store.glob("ranges/*")) / name for name in ("range.json", "suggestion.json")),
        next(store.glob("ranges/*/curve-*.json")),
        note, images / "meta.json",
    ]  # fmt: skip
    return {_kind(path, trial): path.relative_to(store) for path in files}


def _kind(path: Path, trial: Path) -> str:
    """Return what a file is, for the name of a test."""
    if path.parent == trial:
        return f"trial {path.name}"
    return {"index": "index.json"}.get(path.parent.name, path.name.partition("-1")[0])


def every(store: Path, place: Path) -> dict[str, bytes]:
    """Return all shapes for one place."""
    path = store / place
    return shapes(path.read_bytes() if path.exists() else b"{}", is_lines=path.suffix == ".jsonl")
