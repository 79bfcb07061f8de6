"""A store: the folder with the journals of all jobs, the studies as last run, the decoded data, and MLflow's files."""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from ablate import journal, recipe, study
from ablate.errors import StoreError, StudyError
from ablate.journal import Folder
from ablate.recipe import Data
from ablate.study import Study

LONGEST_NAME = 200  # characters of a quoted study name; file systems hold 255


@dataclass(frozen=True, slots=True)
class Store:
    """The paths of a store. Making one creates nothing; `create` does."""

    path: Path

    def job(self, identity: str) -> Folder:
        """Name the folder of one job."""
        return Folder(self.path / "jobs" / identity)

    def search(self, identity: str) -> Path:
        """Name the folder of one search: its trials, and Optuna's memory."""
        return self.path / "searches" / identity

    def range(self, identity: str) -> Path:
        """Name the folder of one range test: a curve for each seed, and what they suggest."""
        return self.path / "ranges" / identity

    @property
    def data(self) -> Path:
        """Name the folder of the decoded data sets."""
        return self.path / "data"

    @property
    def database(self) -> Path:
        """Name MLflow's own SQLite file."""
        return self.path / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Name the folder of MLflow's artifacts."""
        return self.path / "artifacts"

    def study(self, name: str) -> Path:
        """Name the folder of one study; any name is allowed, so it is quoted, and cut where a file system would not hold it."""
        quoted = quote(name, safe=" ,=+").replace(".", "%2E")
        if len(quoted) > LONGEST_NAME:
            quoted = f"{quoted[:LONGEST_NAME]}-{recipe.digest(name)[: recipe.ID_SHOWN]}"
        return self.path / "studies" / quoted

    def report(self, name: str) -> Path:
        """Name the report of one study."""
        return self.study(name) / "report.html"


def open_store(path: Path) -> Store:
    """Give the store at a path, absolute, so that no later change of directory moves it."""
    return Store(path.expanduser().absolute())


def create(store: Store) -> None:
    """Make the folders of a store, and the .gitignore that keeps it out of version control."""
    try:
        for folder in ("jobs", "studies", "data", "artifacts"):
            (store.path / folder).mkdir(parents=True, exist_ok=True)
        ignore = store.path / ".gitignore"
        if not ignore.exists():
            journal.write(ignore, _gitignore())
    except OSError as error:
        reason = f"a store must be a folder that can be written to ({error.strerror})"
        raise StoreError(f"{store.path}: {reason}: choose another with --store DIR") from None


def identity(store: Store) -> str:
    """Give the name that tells this store's runs from those of other stores on one MLflow server; made at first use."""
    path = store.path / "id"
    if not path.exists():
        with FileLock(store.path / "id.lock"):  # two studies may be the first ones at once
            if not path.exists():
                journal.write(path, uuid.uuid4().hex)
    return path.read_text()


def _gitignore() -> str:
    inside = resources.files("ablate") / "mlruns.gitignore"
    beside = Path(__file__).parents[1] / "mlruns.gitignore"  # where the package runs from its source folder
    return inside.read_text() if inside.is_file() else beside.read_text()


@dataclass(frozen=True, slots=True)
class Settled:
    """What a study's last run has settled: reading its results needs neither that machine nor its images."""

    precision: str = ""  # what `auto` was; empty where the study was never run
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the decoded images, by `data_key`
    codes: Mapping[str, str] = field(default_factory=dict)  # of the user's own networks, by name


def data_key(data: Data) -> str:
    """Name a data section in a Settled."""
    return recipe.digest([data.name, data.root, data.image_size])


def keep(store: Store, checked: Study, now: Settled) -> None:
    """Record a study as it is run now."""
    folder = store.study(checked.name)
    content = {"precision": now.precision, "fingerprints": dict(now.fingerprints), "codes": dict(now.codes)}
    journal.write_json(folder / "settled.json", content)
    journal.write(folder / "study.json", study.to_json(checked))


def settled(store: Store, name: str) -> Settled:
    """Read what a study's last run has settled."""
    return Settled(**(journal.read_json(store.study(name) / "settled.json") or {}))


def recall(store: Store, name: str) -> Study:
    """Read a study as it was last run; raise a StoreError that names the studies that are there."""
    path = store.study(name) / "study.json"
    if not journal.is_there(path):
        known = ", ".join(names(store)) or "none yet"
        raise StoreError(f'"{name}" is neither a study file nor a study in {store.path}; studies there: {known}')
    try:
        return study.from_json(path.read_text(encoding="utf-8"))
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{path}: must be a study as ablate writes it, and is not: remove it, and run the study's file again") from None


def names(store: Store) -> list[str]:
    """List the studies that were run in a store; ablate doctor names files that are none."""
    found = []
    for path in study_files(store):
        with suppress(StoreError, KeyError, TypeError):
            try:
                found.append(str(journal.read_json(path)["study"]["name"]))
            except PermissionError:  # whoever asks for it is told so
                found.append(unquote(path.parent.name))
    return sorted(found)


def study_files(store: Store) -> list[Path]:
    """List the study.json of each study, those included that only another user can read. Raises an OSError where nobody can list them."""
    folder, found = store.path / "studies", []
    for path in sorted(folder.iterdir()) if journal.is_there(folder) else ():
        try:
            if path.is_dir() and journal.is_there(path / "study.json"):
                found.append(path / "study.json")
        except PermissionError:
            found.append(path / "study.json")
    return found


def is_held(store: Store, name: str) -> bool:
    """Say whether a process runs a study now."""
    return journal.is_held(store.study(name) / "lock")


@contextmanager
def hold(
    store: Store, name: str, *, waits: Callable[[str], None] | None = None, stopped: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold a study while it runs. Where another process does, wait for it (`waits` is told so), or raise a StoreError that says who.

    A dead holder lets go. `stopped` is asked while waiting, and ends it.
    """
    folder = store.study(name)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "holder.json"
    told = False
    while True:
        try:
            lock.acquire(timeout=0.1 if waits is None else 0.5)  # not 0: `is_held` has it for an instant
            break
        except Timeout:
            if waits is not None and stopped():
                raise KeyboardInterrupt from None
            who = json.loads(holder.read_text()) if holder.exists() else {}
            said = f'study "{name}" is being run by process {who.get("pid", "?")} on {who.get("host", "?")}'
            if waits is None:
                raise StoreError(f"{said}: wait for it, with --wait, or stop it first") from None
            if not told:
                waits(f"{said}: waiting for it")
                told = True
    try:
        journal.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        lock.release()
