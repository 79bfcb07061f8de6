"""The files of a decoded set: allocated before they are filled, synced before they are named, then checked.

A mapped file that is written into has no way to say that its disk is full but the death of the process, so
its bytes are allocated first. What a power cut, or a full disk, has left half-written is told by its size.
"""

import errno
import json
import math
import os
import secrets
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ablate import descriptors
from ablate.errors import DataError, RefusedError

FULL = descriptors.FULL | {errno.EFBIG}
"""Of a disk, or a limit, that takes nothing more. EFBIG: of `ulimit -f`."""
UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""Of file systems that cannot allocate, or cannot sync a folder."""
AGAIN = "remove {}, and run again: they are decoded again"


def writing(place: Path) -> AbstractContextManager[None]:
    """Raise an UnwritableError, with what to do about it, where a disk takes nothing more."""
    return descriptors.writing(place, "images cannot be decoded to it", FULL)


def allocate(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a new array that is a file, all of whose bytes are allocated on the disk."""
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with os.fdopen(descriptors.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), "w+b") as file:
        np.lib.format.write_array_header_1_0(file, about)
        begin = file.tell()
        size = begin + math.prod(shape) * np.dtype(dtype).itemsize
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in UNKNOWN:
                    raise
        return np.memmap(file, dtype, "r+", begin, shape)


def save(path: Path, array: NDArray[Any]) -> None:
    """Write an array, or what was written into a mapped one, so that it outlasts a power cut."""
    if isinstance(array, np.memmap):
        array.flush()
    else:
        plain = np.ascontiguousarray(array)
        with descriptors.new(path) as file:  # not by numpy's save, whose error for a full disk has no number
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
            file.write(plain.data)
    sync(path)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, outlast a power cut."""
    descriptor = descriptors.open_entry(path)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    finally:
        os.close(descriptor)


def load(path: Path) -> NDArray[Any]:
    """Map an array into memory, copy-on-write. Raises a DataError where it is none, or is cut off."""
    try:
        with os.fdopen(descriptors.open_file(path), "rb") as file:
            return _mapped(file)
    except RefusedError as error:
        raise DataError(str(error)) from None
    except FileNotFoundError:
        reason = "it is gone"
    except (EOFError, ValueError, SyntaxError, TypeError, OverflowError):
        reason = "it is cut off, or no array"
    raise DataError(
        f"{path}: must be images as ablate decodes them, and {reason}: {AGAIN.format(path.parent)}"
    )


def _mapped(file: BinaryIO) -> NDArray[Any]:
    """Map the array in a file. Numpy's own `load` does so by path only."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError
    return np.memmap(file, dtype, "c", file.tell(), shape, "F" if is_fortran else "C")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None where there is none, or it is torn."""
    try:
        return json.loads(descriptors.read(path))
    except (FileNotFoundError, NotADirectoryError, RefusedError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all, so that it outlasts a power cut."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with descriptors.new(draft) as file:
            file.write(json.dumps(content).encode())
        sync(draft)
        descriptors.rename(draft, path.name)
    except BaseException:
        with suppress(OSError):
            descriptors.remove(draft)
        raise
    sync(path.parent)
