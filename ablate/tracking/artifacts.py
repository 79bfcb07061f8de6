"""The artifacts of a run: where they may lie in a store, and how they get there or to a server.

MLflow keeps the place of a run's artifacts in its database, which everybody with the right to write to the
store may edit, and follows links when it writes and when it serves. So what goes into a store is written by
ours alone, and into the one folder that is the run's.
"""

import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from ablate import descriptors
from ablate.errors import StoreError
from ablate.messages import printable
from ablate.store import files
from ablate.store.layout import Store

AGAIN = "delete its mlflow.db and run ablate sync for each study"
NAMED = (
    "SELECT artifact_uri FROM runs",
    "SELECT artifact_location FROM logged_models",
    "SELECT source FROM model_versions",
    "SELECT storage_location FROM model_versions",
    "SELECT value FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
)
"""Where MLflow's database names folders whose files its page shows; not every version has all tables."""


def folder(address: str, place: Path, run_id: str) -> Path:
    """Return the folder of a run's artifacts in a store; `place`: of the study, `address`: as MLflow has it.

    Raises a StoreError where MLflow has another one.
    """
    wanted = place / run_id / "artifacts"
    store = place.parents[1]
    actual = str(Path(os.path.realpath(store), wanted.relative_to(store)))
    if not re.fullmatch(r"\w+", run_id) or local(address) != actual:
        raise StoreError(
            f"MLflow's database names {printable(address)} for the artifacts of a run, and they belong in "
            f"{wanted}: {AGAIN}"
        )
    return wanted


def local(address: str) -> str:
    """Return the folder of a local address, links resolved; empty for one on a server."""
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+:", address):
        return ""
    path = address.removeprefix("file:")
    return os.path.realpath(unquote(path if not path.startswith("///") else path[2:]))


def write(place: Path, texts: Mapping[str, str], placed: Sequence[tuple[Path, str]]) -> None:
    """Write texts by their names, and copies of files, each into a folder of this name."""
    descriptors.make(place)
    with ExitStack() as held:
        for folder in (place, *sorted({source.parent for source, _ in placed})):  # a job's before those in it
            held.enter_context(descriptors.holding(folder))
        for name, text in texts.items():
            with _drafted(place / name) as path, descriptors.new(path) as file:
                file.write(text.encode())
        for source, inner in placed:
            target = place / inner / source.name
            with files.open_binary(source) as read, _drafted(target) as path, descriptors.new(path) as file:
                shutil.copyfileobj(read, file, 1 << 20)


@contextmanager
def _drafted(path: Path) -> Iterator[Path]:
    """Yield a name beside a path, and move what was written there to the path; a view need not be synced."""
    descriptors.make(path.parent)
    draft = files.draft(path)
    try:
        yield draft
        descriptors.rename(draft, path.name)
    except BaseException:
        descriptors.remove(draft)
        raise


@contextmanager
def copied(texts: Mapping[str, str], placed: Sequence[tuple[Path, str]]) -> Iterator[Path]:
    """Yield a folder for the time of an upload with texts and copies of files: never what a link leads to."""
    with tempfile.TemporaryDirectory() as held:
        write(Path(held), texts, placed)
        yield Path(held)


def check_database(store: Store) -> None:
    """Raise a RefusedError where MLflow's database, or a file that SQLite has beside it, is a link."""
    for ending in ("", "-journal", "-wal", "-shm"):
        descriptors.check(store.database.with_name(f"{store.database.name}{ending}"))


def check_served(store: Store) -> None:
    """Raise a StoreError where MLflow's page would show files from outside of a store's artifacts."""
    own = os.path.realpath(store.path)
    for address in _named(store):
        path = local(address)
        if path and Path(path) != Path(own, "artifacts") and not path.startswith(f"{own}/artifacts/"):
            raise StoreError(
                f"{store.database}: names {printable(address)}, outside of {store.artifacts}, and every user "
                f"of this machine could read what is there: {AGAIN}"
            )
    for entry in _walk(store.artifacts):
        about = entry.stat(follow_symlinks=False)
        if wrong := descriptors.wrong(about):
            raise StoreError(f"{entry.path}: {wrong}")


def _named(store: Store) -> Iterator[str]:
    """Return the addresses of artifacts in a store's own database; none where it cannot be read."""
    for question in NAMED:
        try:
            with closing(sqlite3.connect(f"file:{quote(str(store.database))}?mode=ro", uri=True)) as opened:
                yield from (str(row[0]) for row in opened.execute(question) if row[0])
        except sqlite3.Error:
            continue


def _walk(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(about.st_mode):
        raise StoreError(f"{path}: {descriptors.wrong(about)}")
    with os.scandir(path) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
