"""The files of a decoded set: allocated before they are filled, synced before they are named, then checked.

A mapped file that is written into has no way to say that its disk is full but the death of the process, so
its bytes are allocated first. What a power cut, or a full disk, has left half-written is told by its size.
"""

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import DataError, UnwritableError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""Of a disk, or a limit, that takes nothing more. EFBIG: of `ulimit -f`."""
UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""Of file systems that cannot allocate, or cannot sync a folder."""
AGAIN = "remove {}, and run again: they are decoded again"
LONGEST_TEXT = 1 << 26  # bytes of a meta.json: 64 MB of names of classes


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raise an UnwritableError, with what to do about it, where a disk takes nothing more."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        do = "mount it for writing" if error.errno == errno.EROFS else "make room there"
        raise UnwritableError(
            f"{place}: images cannot be decoded to it ({error.strerror}): "
            f"{do} and run the same again, what is finished is kept"
        ) from None


def allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a new array that is a file, all of whose bytes are allocated on the disk."""
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, os.fstat(file.fileno()).st_size))
            except OSError as error:
                if error.errno not in UNKNOWN:
                    raise
    return array


def save(path: Path, array: NDArray[Any]) -> None:
    """Write an array, or what was written into a mapped one, so that it outlasts a power cut."""
    if isinstance(array, np.memmap):
        array.flush()
    else:
        plain = np.ascontiguousarray(array)
        with path.open("wb") as file:  # not by numpy's save, whose error for a full disk has no number
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
            file.write(plain.data)
    sync(path)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    finally:
        os.close(descriptor)


def load(path: Path) -> NDArray[Any]:
    """Map an array into memory, copy-on-write. Raises a DataError where it is none, or is cut off."""
    reason = "it is no file" if _is_other(path) else ""
    try:
        if not reason:
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
            return array
    except FileNotFoundError:
        reason = "it is gone"
    except (EOFError, ValueError, SyntaxError, TypeError, OverflowError):
        reason = "it is cut off, or no array"
    raise DataError(
        f"{path}: must be images as ablate decodes them, and {reason}: {AGAIN.format(path.parent)}"
    )


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None where there is none, or it is torn."""
    try:
        if _is_other(path):
            return None
        with path.open("rb") as file:
            content = file.read(LONGEST_TEXT + 1)
        return json.loads(content) if len(content) <= LONGEST_TEXT else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None


def _is_other(path: Path) -> bool:
    """Whether a path is something else than a file: opening a pipe would wait for ever."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all, so that it outlasts a power cut."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            json.dump(content, file)
        sync(draft)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync(path.parent)
