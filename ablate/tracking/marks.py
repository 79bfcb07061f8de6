"""A mark that MLflow has all of a study: a run with nothing to do then needs no MLflow, whose import takes seconds.

Only for the store's own SQLite file, and only as long as neither that file nor anything that is sent has changed since: whatever
else touches either, be it another study, a person in MLflow's page or a copy of the store, makes the mark void.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ablate import __version__
from ablate.recipe import identity
from ablate.store import files as store_files
from ablate.store.layout import Store
from ablate.study.file import Study, to_json
from ablate.tracking.records import RunSource

SENT = "sent.json"


def is_current(given: str | None, study: Study, state: str, store: Store) -> bool:
    """Whether MLflow is the store's own (`given`: the address that was asked for), and has all of `state`."""
    kept = (
        store_files.read_json(store.study(study.name) / SENT)
        if _is_own(given) and store.database.exists()
        else None
    )
    return kept is not None and bool(kept == _mark(state, store))


def keep(given: str | None, study: Study, state: str, store: Store) -> None:
    """Write down that MLflow has all of `state`, once it has."""
    if _is_own(given) and store.database.exists():
        store_files.write_json(store.study(study.name) / SENT, _mark(state, store), durable=False)


def state(study: Study, runs: Iterable[RunSource], tuning: Iterable[Path], store: Store) -> str:
    """Digest what MLflow is to show of a study: its runs, the folders of its searches and range tests, and its text."""
    files = [[run.key, run.run.name, *map(_stat, _read(run))] for run in runs]
    found = [
        [str(path), _stat(path)] for folder in tuning for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    return identity.digest([__version__, str(store.path), to_json(study), files, found])


def _is_own(given: str | None) -> bool:
    return not given and not os.environ.get("MLFLOW_TRACKING_URI")


def _mark(state: str, store: Store) -> dict[str, Any]:
    beside = [
        store.database.with_name(f"{store.database.name}{ending}") for ending in ("", "-wal", "-journal")
    ]
    return {"state": state, "database": [_stat(path) for path in beside]}


def _read(run: RunSource) -> Iterator[Path]:
    yield from (
        run.folder.recipe,
        run.folder.attempts,
        run.folder.journal,
        run.folder.result,
        run.folder.failure,
    )
    yield run.outcome / "outcome.json"


def _stat(path: Path) -> list[int] | None:
    """Tell a file from any other one, and from itself at another time."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]
