"""A store: the folder of all jobs, of the studies as last run, of the decoded data, and of MLflow's files."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from ablate import descriptors
from ablate.errors import StoreError
from ablate.recipe import datasets
from ablate.recipe import identity as identities
from ablate.store import files, records
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.store.range_folder import RangeFolder
from ablate.store.search_folder import SearchFolder

USUAL = "mlruns"  # name of a store
ID = re.compile(r"[0-9a-f]{32}")
LONGEST_NAME = 200  # characters of a quoted study name; file systems hold 255


@dataclass(frozen=True, slots=True)
class Store:
    """The paths of a store. Making one creates nothing; `create` does."""

    path: Path

    def __post_init__(self) -> None:
        descriptors.mistrust(self.path)

    def job(self, identity: str) -> Folder:
        """Return the folder of one job."""
        return Folder(self.path.joinpath("jobs", identity))  # at once: stores have 10,000

    def search(self, identity: str) -> SearchFolder:
        """Return the folder of one search."""
        return SearchFolder(self.path / "searches" / identity)

    def range(self, identity: str) -> RangeFolder:
        """Return the folder of one range test."""
        return RangeFolder(self.path / "ranges" / identity)

    @property
    def queue(self) -> Path:
        """The folder of the submissions."""
        return self.path / "queue"

    @property
    def data(self) -> Path:
        """The folder of the decoded data sets."""
        return self.path / "data"

    @property
    def database(self) -> Path:
        """The store's own SQLite file for MLflow."""
        return self.path / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts."""
        return self.path / "artifacts"

    def study(self, name: str) -> Path:
        """Return the folder of one study.

        Any name is allowed, so it is quoted, and cut where it is too long for a file system.
        """
        quoted = quote(name, safe=" ,=+").replace(".", "%2E")
        if len(quoted) > LONGEST_NAME:
            quoted = f"{quoted[:LONGEST_NAME]}-{identities.digest(name)[: identities.ID_SHOWN]}"
        return self.path / "studies" / quoted

    def mailbox(self, name: str) -> Path:
        """Return the folder of what one study has left to a cluster's queue."""
        return self.path / "slurm" / self.study(name).name

    def report(self, name: str) -> Path:
        """Return the path of the report of one study."""
        return self.study(name) / "report.html"


def open_store(path: Path) -> Store:
    """Return the store at a path, absolute, so that no later change of directory moves it."""
    path = path.expanduser().absolute()
    # MLflow keeps paths: the same folder must have the same one.
    return Store(path.resolve() if ".." in path.parts else path)


def is_store(path: Path) -> bool:
    """Whether a folder is a store; MLflow, too, calls its folders mlruns."""
    try:
        return (path / "studies").is_dir() and (path / "jobs").is_dir()
    except OSError:
        return False


@contextmanager
def creating(store: Store) -> Iterator[None]:
    """Make a store; where it is new and the command fails before anything was trained, remove it again."""
    new = [path for path in (store.path, *store.path.parents) if not os.path.lexists(path)]
    create(store)
    try:
        yield
    except Exception:
        if new:
            _unmake(store, new[1:])
        raise


def _unmake(store: Store, parents: list[Path]) -> None:
    """Remove a store, and the `parents` made for it, unless it is in use.

    In use is a store in which something was trained, a folder of images was decoded, or a process works.
    """
    used = ("jobs/*", "searches/*/trials.json", "ranges/*", "queue/*")
    if any(entry for pattern in used for entry in store.path.glob(pattern)):
        return
    notes = store.data.glob("index/*.json")
    if any(_may_be_folder(note) for note in notes):  # which may have taken hours
        return
    if any(files.is_held(lock) for lock in (store.data / "lock", *store.path.glob("studies/*/lock"))):
        return
    with suppress(OSError):
        (store.path / "jobs").rmdir()  # first: a process that begins right now has put something there
        shutil.rmtree(store.path)
        for path in parents:
            path.rmdir()


def _may_be_folder(note: Path) -> bool:
    """Whether a file of data/index is of a folder of images, or cannot be read."""
    try:
        content = records.read(note, records.ImageIndex)
        return content is not None and datasets.is_folder(content.name)
    except SPOILT:
        return True


def create(store: Store) -> None:
    """Make the folders of a store, and the .gitignore that keeps it out of version control."""
    try:
        for folder in ("jobs", "studies", "data", "artifacts"):
            files.make(store.path / folder, durable=False)
        ignore = store.path / ".gitignore"
        if not ignore.exists():
            files.write(ignore, _gitignore(), durable=False)
    except OSError as error:
        reason = f"a store must be a folder that can be written to ({error.strerror})"
        raise StoreError(f"{store.path}: {reason}: choose another with --store DIR") from None


def identity(store: Store) -> str:
    """Return the id that tells a store's runs from other stores' on one MLflow server; made at first use."""
    path = store.path / "id"
    if not path.exists():
        with files.lock(store.path / "id.lock"):  # two studies may be the first ones at once
            if not path.exists():
                files.write(path, uuid.uuid4().hex)
    kept = files.read(path).decode(errors="replace").strip()
    if not ID.fullmatch(kept):  # it stands in what MLflow is asked
        raise StoreError(
            f"{path}: must be 32 hex digits, as ablate writes it, and is not: take them from the tag "
            "ablate.store of a run in MLflow, or remove it and mlflow.db, and run ablate sync for each study"
        )
    return kept


def _gitignore() -> str:
    inside = resources.files("ablate") / "mlruns.gitignore"
    beside = Path(__file__).parents[2] / "mlruns.gitignore"  # where the package runs from its source folder
    return inside.read_text() if inside.is_file() else beside.read_text()
