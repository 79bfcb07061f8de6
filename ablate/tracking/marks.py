"""A mark that MLflow has all of a study: a run with nothing to do then does without its import, of seconds.

It holds only for the store's own SQLite file, and only as long as neither that file nor anything that is sent
has changed since: another study, a person in MLflow's page or a copy of the store makes it void.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ablate import __version__
from ablate.recipe import identity
from ablate.store import records
from ablate.store.layout import Store
from ablate.store.records import Mark
from ablate.study.file import Study, to_json
from ablate.tracking.records import RunSource
from ablate.tracking.sent import LAYOUT

SENT = "sent.json"


def is_current(given: str | None, study: Study, state: str, store: Store) -> bool:
    """Whether MLflow is the store's own (`given`: the command line's address), and has all of `state`."""
    if not (_is_own(given) and store.database.exists()):
        return False
    return records.read_or_empty(store.study(study.name) / SENT, Mark) == _mark(state, store)


def keep(given: str | None, study: Study, state: str, store: Store) -> None:
    """Write the mark that MLflow has all of `state`."""
    if _is_own(given) and store.database.exists():
        records.write(store.study(study.name) / SENT, _mark(state, store), durable=False)


def state(study: Study, runs: Iterable[RunSource], tuning: Iterable[Path], store: Store) -> str:
    """Return a digest of what MLflow shows of a study: its text, runs, searches and range tests."""
    files = [[run.key, run.run.name, *map(_stat, _read(run))] for run in runs]
    tuned = [
        [str(path), _stat(path)] for folder in tuning for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    return identity.digest([__version__, LAYOUT, str(store.path), to_json(study), files, tuned])


def _is_own(given: str | None) -> bool:
    return not given and not os.environ.get("MLFLOW_TRACKING_URI")


def _mark(state: str, store: Store) -> Mark:
    beside = [
        store.database.with_name(f"{store.database.name}{ending}") for ending in ("", "-wal", "-journal")
    ]
    stats = (_stat(path) for path in beside)
    return Mark(state=state, database=tuple(None if stat is None else tuple(stat) for stat in stats))


def _read(run: RunSource) -> Iterator[Path]:
    folder = run.folder
    yield from (folder.recipe, folder.attempts, folder.journal, folder.result, folder.failure)
    yield run.outcome / "outcome.json"


def _stat(path: Path) -> list[int] | None:
    """Return numbers that differ between two files, and between two versions of one; None without a file."""
    try:
        status = os.stat(path)  # noqa: PTH116 (60,000 of them)
    except OSError:
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]
