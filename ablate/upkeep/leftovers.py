"""What killed processes leave behind in a store: drafts of files, and folders that were being removed.

Links are never followed.
"""

import os
import re
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from ablate.store.layout import Store

SAFE_AGE = 3600.0
"""Seconds after which a draft is abandoned.

A younger one may belong to a process on another machine that shares the store.
"""
PARTS = ("jobs", "studies", "searches", "ranges", "data")
"""Folders of a store that ablate writes; MLflow's files are MLflow's."""
CHECKPOINTS = ("checkpoint.pt", "previous.pt")
"""Of a job: needed until its training has ended."""
GONE = ".gone"
_DRAFT = re.compile(r"\.(?P<target>.+)\.(?P<tag>\w*\d\w*|[0-9a-f]{8})(-journal|-wal|-shm)?")
"""`.<name>.<process id, or random letters>`."""
LONGEST_PROCESS = 7
"""Digits of a process id, at most; a longer number is random."""


def doomed(path: Path) -> Path:
    """Return the name that a folder has while it is removed: nothing takes it for what it was."""
    return path.with_name(f".{path.name}{GONE}")


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Return what lies below a folder, each folder before its content.

    Nothing where there is no folder, or only a link to one. What only another user can read is left out: the
    doctor names such folders.
    """
    yield from _walk(str(folder))


def beside(store: Store) -> Iterator[os.DirEntry[str]]:
    """Return what lies in a store, without what lies in the folders that ablate writes."""
    yield from _walk(str(store.path), PARTS)


def _walk(folder: str, without: Container[str] = ()) -> Iterator[os.DirEntry[str]]:
    # Strings, as a store may have a hundred thousand folders.
    try:
        if os.path.islink(folder):  # noqa: PTH114
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        yield entry
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not entry.name.endswith(GONE) and entry.name not in without:
            yield from _walk(entry.path)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder.

    A file that vanishes meanwhile, or cannot be read, counts as 0.
    """
    total = 0
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except (FileNotFoundError, PermissionError):
        pass
    return total


def parts(store: Store) -> Iterator[os.DirEntry[str]]:
    """Return what lies in the folders of a store that ablate writes."""
    return (entry for part in PARTS for entry in walk(store.path / part))


def drafts(store: Store, entries: Iterable[os.DirEntry[str]] | None = None) -> Iterator[Path]:
    """Return the drafts that no living process will finish, and the folders whose removal was cut short.

    `entries`: its parts, where they are listed already.
    """
    beside = (path for path in store.path.iterdir() if path.is_file()) if store.path.is_dir() else iter(())
    entries = parts(store) if entries is None else entries
    # By its name first, as every file of the store is looked at.
    within = (Path(entry.path) for entry in entries if entry.name.startswith((".", "draft-")))
    for path in (*beside, *within):
        if not path.is_symlink() and _is_left(path):
            yield path


def _is_left(path: Path) -> bool:
    name = path.name
    if name.startswith(".") and name.endswith(GONE):
        return True
    draft = _DRAFT.fullmatch(name)
    decoding = name.startswith("draft-") and path.parent.name == "data"
    if not draft and not decoding:
        return False
    try:
        age = time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return False
    return age > SAFE_AGE or (draft is not None and _is_dead(draft["tag"]))


def _is_dead(tag: str) -> bool:
    """Whether a draft is named after a process that has ended."""
    if not tag.isdecimal() or len(tag) > LONGEST_PROCESS:
        return False
    try:
        os.kill(int(tag), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is another user's
        return False
    return False
