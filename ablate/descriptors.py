"""Descriptors of what lies in a store: opened below its folder, never through a link, regular files only.

Several people may write to a store, so a name in it may be a link to a file of the reader's own, a pipe that
hangs whoever opens it, or a device without an end. Each folder on the way is therefore opened in the one
above it (`openat`), so that nobody can put a link there between a look and the use. The store's own folder
may be a link, or lie below one: its user has named it. Outside of stores, paths are the user's own.

Whoever opens many files of one folder holds it meanwhile (`holding`): the way there is walked once.
"""

import errno
import os
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from ablate.errors import RefusedError, UnwritableError

MIB, GIB = 1 << 20, 1 << 30
LIMITS = {
    "outcome.json": 256 * MIB,  # a confusion matrix of 8,000 classes
    "trials.json": 256 * MIB,
    ".json": 64 * MIB,
    ".jsonl": 256 * MIB,
    ".pt": 256 * GIB,
    ".npy": 4096 * GIB,
    ".png": 16 * MIB,
    "log.txt": 256 * MIB,
}
"""The most bytes that are read of a file, by its name or its ending: far more than ablate writes there."""
OTHERS = 64 * MIB
SMALLEST = min(OTHERS, *LIMITS.values())
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY  # the first needs no right to list it
_roots: set[str] = set()


class _Held(threading.local):
    """The folders that this thread holds: descriptors, by their paths."""

    def __init__(self) -> None:
        self.folders: dict[str, int] = {}

    def above(self, folder: str) -> str:
        """Return the innermost of them that a folder is, or is in; empty where there is none."""
        held = (path for path in self.folders if folder == path or folder.startswith(path + os.sep))
        return max(held, key=len, default="") if self.folders else ""


_held = _Held()
_LINK = {errno.ELOOP, errno.EMLINK, errno.ENOTDIR}  # what refuses a link; the last, in place of a folder
_NO_FILE = {errno.ENXIO, errno.EISDIR, errno.ENODEV}  # of pipes and sockets, folders, devices
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # a disk takes nothing more, whatever is tried


@contextmanager
def writing(path: Path, says: str = "cannot be written", full: frozenset[int] = FULL) -> Iterator[None]:
    """Raise an UnwritableError, with what to do about it, where a disk takes nothing more."""
    try:
        yield
    except OSError as error:
        if error.errno not in full:
            raise
        do = "mount it for writing" if error.errno == errno.EROFS else "make room there"
        raise UnwritableError(
            f"{path}: {says} ({error.strerror}): {do} and run the same again, what is finished is kept"
        ) from None


def mistrust(root: Path) -> None:
    """Take what lies below a folder for other people's from now on: it is that of a store."""
    _roots.add(str(root))


def _split(folder: str) -> tuple[str, list[str]]:
    """Return the outermost store that a folder is in, or is, and the names from there; no names outside."""
    stores = (root for root in _roots if folder == root or folder.startswith(root + os.sep))
    root = min(stores, key=len, default="")
    # Strings, as this is done for every file that is opened.
    return root, folder[len(root) + 1 :].split(os.sep) if root and folder != root else []  # noqa: PTH206


def is_inside(path: Path) -> bool:
    """Whether a path is below the folder of a store."""
    return bool(_split(str(path.parent))[0])


@contextmanager
def parent(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of the folder that a path is in, and its name there."""
    folder = str(path.parent)
    descriptor = _walk(path, folder, *_split(folder))
    try:
        yield descriptor, path.name
    finally:
        _leave(descriptor)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep a folder of a store open: what this thread opens in it or below it is looked for from there.

    It is the same folder all the time, whatever anybody puts in its place. One that is not there is not held.
    """
    text = str(folder)
    try:
        is_new = text not in _held.folders and _split(text)[0]
        descriptor = open_entry(folder, _FOLDER) if is_new else -1
    except FileNotFoundError:
        descriptor = -1
    if descriptor < 0:
        yield
        return
    _held.folders[text] = descriptor
    try:
        yield
    finally:
        del _held.folders[text]
        os.close(descriptor)


def _leave(descriptor: int) -> None:
    """Close what `_walk` has returned."""
    if descriptor not in _held.folders.values():
        os.close(descriptor)


def _walk(path: Path, folder: str, root: str, inner: list[str]) -> int:
    """Return a descriptor of the folder that a path is in."""
    if os.pardir in inner:
        raise RefusedError(f"{path}: leads out of the store {root}")
    near = _held.above(folder) if root else ""
    if near:
        inner = folder[len(near) + 1 :].split(os.sep) if folder != near else []  # noqa: PTH206
    try:
        descriptor = _held.folders[near] if near else os.open(root or folder, _FOLDER)
        for name in inner:
            above = descriptor
            try:
                descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
            finally:
                _leave(above)
    except OSError as error:
        _explain(error, path)
        raise
    return descriptor


def open_entry(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Return a descriptor of a file or a folder, whatever it is, but for a link."""
    text = str(path)
    folder, _, name = text.rpartition(os.sep)
    # Of a file that is opened below a descriptor, audit hooks would see the name alone.
    sys.audit("open", text, None, flags)
    held = _held.folders
    if text in held:  # itself
        name, above = os.curdir, held[text]
    elif folder in held:  # of 10,000 jobs, nearly all files
        flags, above = flags | os.O_NOFOLLOW, held[folder]
    else:
        folder = folder or (os.sep if text.startswith(os.sep) else os.curdir)
        root, inner = _split(folder)
        flags |= os.O_NOFOLLOW if root else 0
        above = _walk(path, folder, root, inner)
    try:
        # Without O_NONBLOCK, a pipe would wait for somebody at its other end.
        return os.open(name or os.curdir, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=above)
    except OSError as error:
        _explain(error, path)
        raise
    finally:
        _leave(above)


def open_file(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Return a descriptor of a regular file. Raises a RefusedError for anything else, and for a link."""
    return _open(path, flags, mode)[0]


def _open(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> tuple[int, os.stat_result]:
    descriptor = open_entry(path, flags, mode)
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        _refuse(path, about)
    return descriptor, about


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of a folder, to list or to sync it."""
    descriptor = open_entry(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a regular file; `most`: instead of the limit of its kind."""
    descriptor, about = _open(path)
    try:
        size = about.st_size
        # Nearly all files are small: neither their limit is looked up, nor their end for a second time.
        if most is None and size < SMALLEST and len(small := os.read(descriptor, size + 1)) == size:
            return small
        os.lseek(descriptor, 0, os.SEEK_SET)
        most = limit(path) if most is None else most
        check_size(path, size, most)
        parts, left = [], most + 1
        # One byte more than there are: it shows the end, or that the file grows.
        while left > 0 and (part := os.read(descriptor, min(left, size + 1))):
            parts.append(part)
            left -= len(part)
            if len(part) == size:  # all that there was: no second look at the end
                break
            size = max(size, MIB)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    check_size(path, len(content), most)
    return content


def limit(path: Path) -> int:
    """Return the most bytes that are read of a file."""
    return LIMITS.get(path.name, LIMITS.get(path.suffix, OTHERS))


def check_size(path: Path, size: int, most: int | None = None) -> None:
    """Raise a RefusedError where a file is larger than any of its kind."""
    most = limit(path) if most is None else most
    if size > most:
        raise RefusedError(
            f"{path}: has {size / 1e6:,.0f} MB, and no such file that ablate writes has more than "
            f"{most / 1e6:,.0f} MB: remove it"
        )


def new(path: Path) -> BinaryIO:
    """Return a file opened for writing, which must not be there yet."""
    return os.fdopen(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def remove(path: Path) -> None:
    """Remove a file, or a link itself; nothing where there is none."""
    with suppress(FileNotFoundError), parent(path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; links in it are removed, never followed."""
    with parent(path) as (above, name):
        shutil.rmtree(name, dir_fd=above)


def rename(path: Path, name: str) -> None:
    """Give a file or folder another name where it is, in place of any file of that name."""
    with parent(path) as (above, before):
        try:
            os.rename(before, name, src_dir_fd=above, dst_dir_fd=above)
        except IsADirectoryError:
            wrong = path.with_name(name)
            raise RefusedError(f"{wrong}: is a folder, and must be a file: move it elsewhere") from None


def names(folder: Path) -> list[str]:
    """Return the names in a folder, in order; none where there is no folder."""
    try:
        with opened(folder) as descriptor:
            return sorted(os.listdir(descriptor))  # noqa: PTH208 (a descriptor is no path)
    except FileNotFoundError:
        return []


def make(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were missing."""
    try:
        with parent(folder / "_"):
            return []
    except FileNotFoundError:
        if folder.parent == folder:
            raise
    above = make(folder.parent)
    with parent(folder) as (descriptor, name), suppress(FileExistsError):  # of another process
        os.mkdir(name, dir_fd=descriptor)
    return [*above, folder]


def check(path: Path) -> None:
    """Raise a RefusedError where a path is neither free nor a regular file, or leads through a link.

    For what a library opens by its path.
    """
    try:
        with parent(path) as (descriptor, name):
            about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(about.st_mode) and (is_inside(path) or not stat.S_ISLNK(about.st_mode)):
        _refuse(path, about)


def _explain(error: OSError, path: Path) -> None:
    """Raise a RefusedError where a link or a special file is the reason; else give the error the whole path.

    The caller raises that: a frame that raises what it holds is a cycle, and keeps all that its callers hold.
    """
    error.filename = str(path)
    if error.errno in _LINK:
        root = _split(str(path.parent))[0]
        for here in (*reversed(path.parents), path) if root else ():
            about = _about(here) if len(str(here)) > len(root) else None
            if about is not None and stat.S_ISLNK(about.st_mode):
                _refuse(here, about)
    if error.errno in _NO_FILE and (about := _about(path)) is not None:
        _refuse(path, about)


def _about(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def wrong(about: os.stat_result) -> str:
    """Return why something may not lie in a store; empty for regular files and folders."""
    kind = about.st_mode
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return ""
    if stat.S_ISLNK(kind):
        return (
            "is a link, and in a store nothing may be one: remove it "
            "(the whole store may be a link, and a part of it another disk that is mounted there)"
        )
    what = "pipe" if stat.S_ISFIFO(kind) else "socket" if stat.S_ISSOCK(kind) else "device"
    return f"is a {what}, and must be a regular file: remove it"


def _refuse(path: Path, about: os.stat_result) -> NoReturn:
    raise RefusedError(f"{path}: {wrong(about) or 'is a folder, and must be a file: move it elsewhere'}")
