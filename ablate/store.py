"""A store: the folder with the journals of all jobs, the studies as last run, the decoded data, and MLflow's files."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from ablate import journal, recipe, study
from ablate.errors import StoreError
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


def _gitignore() -> str:
    inside = resources.files("ablate") / "mlruns.gitignore"
    beside = Path(__file__).parents[1] / "mlruns.gitignore"  # where the package runs from its source folder
    return inside.read_text() if inside.is_file() else beside.read_text()


@dataclass(frozen=True, slots=True)
class Kept:
    """A study as it was last run, and what was settled then: reading results needs neither that machine nor its images."""

    study: Study
    precision: str  # what `auto` was
    fingerprints: Mapping[str, str]  # of the decoded images, by `data_key`


def data_key(data: Data) -> str:
    """Name a data section in a Kept."""
    return recipe.digest([data.name, data.root, data.image_size])


def keep(store: Store, kept: Kept) -> None:
    """Record a study as it is run now."""
    settled = {"precision": kept.precision, "fingerprints": dict(kept.fingerprints)}
    folder = store.study(kept.study.name)
    journal.write_json(folder / "settled.json", settled)
    journal.write(folder / "study.json", study.to_json(kept.study))


def find(store: Store, name: str) -> Kept | None:
    """Read a study as it was last run, or give None when it never was."""
    folder = store.study(name)
    settled = journal.read_json(folder / "settled.json")
    if settled is None or not (folder / "study.json").exists():
        return None
    return Kept(study.from_json((folder / "study.json").read_text(encoding="utf-8")), settled["precision"], settled["fingerprints"])


def recall(store: Store, name: str) -> Study:
    """Read a study as it was last run; raise a StoreError that names the studies that are there."""
    kept = find(store, name)
    if kept is None:
        known = ", ".join(names(store)) or "none yet"
        raise StoreError(f'"{name}" is neither a study file nor a study in {store.path}; studies there: {known}')
    return kept.study


def names(store: Store) -> list[str]:
    """List the studies that were run in a store."""
    return sorted(journal.read_json(path)["study"]["name"] for path in (store.path / "studies").glob("*/study.json"))


@contextmanager
def hold(store: Store, name: str) -> Iterator[None]:
    """Hold a study while it runs; raise a StoreError that says who holds it. A dead holder lets go."""
    folder = store.study(name)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / "lock"), folder / "holder.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = json.loads(holder.read_text()) if holder.exists() else {}
        raise StoreError(
            f'study "{name}" is being run by process {who.get("pid", "?")} on {who.get("host", "?")}: wait for it, or stop it first'
        ) from None
    try:
        journal.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        lock.release()
