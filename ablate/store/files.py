"""Single files of a store: written whole or not at all, or appended to by lines, and read with clear errors.

Every one is opened by `descriptors`: below the store's folder, never through a link, as a regular file only.

What a power cut leaves: the bytes of a file are safe once the file was synced, its name once its folder was.
So whatever rests on other files is written after a `sync` of them, and its own folder is synced after the
rename.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock, FileLock

from ablate import descriptors
from ablate.errors import AblateError, RefusedError, StoreError

Json = dict[str, Any]
Line = Json  # of an append-only file
DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises of wrong bits: a wrong flag makes a file look encrypted, or compressed otherwise."""
ZIP_END = struct.Struct("<4s4H2LH")
"""The last record of an archive: its mark, numbers, size and start of the list, length of a comment."""
IN_ZIP64 = 0xFFFF_FFFF  # stands for a start beyond 4 GiB
SPOILT = (
    AblateError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, EOFError,
    OverflowError, RecursionError, OSError,
)  # fmt: skip
"""What reading files raises that ablate has not written so."""
UNSYNCED = {errno.EINVAL, errno.ENOTSUP}  # of file systems on which a folder cannot be synced
FULL, writing = descriptors.FULL, descriptors.writing


def write(path: Path, content: bytes | str, *, keep: Path | None = None, durable: bool = True) -> None:
    """Write a file whole or not at all; `keep`: where the previous version goes.

    `durable`: it outlasts a power cut as soon as this has returned. Otherwise a power cut may leave either
    version, until its folder is synced.
    """
    beside = draft(path)
    with writing(path):
        make(path.parent, durable=durable)
        try:
            with descriptors.new(beside) as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                descriptors.rename(path, keep.name)
            descriptors.rename(beside, path.name)
        except BaseException as error:
            descriptors.remove(beside)
            if isinstance(error, OSError):
                error.filename = str(path)  # not its draft, an internal name
            raise
        if durable:
            sync(path.parent)


def read(path: Path) -> bytes:
    """Return the bytes of a file."""
    return descriptors.read(path)


def draft(path: Path) -> Path:
    """Return the name under which a file is begun: nobody can foresee it, and put a file of his own there."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def is_regular(path: Path) -> bool:
    """Whether a path is a file that may be read: neither a link nor far larger than its kind."""
    try:
        open_binary(path).close()
    except (OSError, RefusedError):
        return False
    return True


def open_binary(path: Path) -> BinaryIO:
    """Return a file opened for reading, of at most as many bytes as such a file may have."""
    file = os.fdopen(descriptors.open_file(path), "rb")
    try:
        descriptors.check_size(path, os.fstat(file.fileno()).st_size)
    except BaseException:
        file.close()
        raise
    return file


def make(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and its parents."""
    for path in descriptors.make(folder):
        if durable:
            sync(path.parent)


def sync(*paths: Path) -> None:
    """Make the bytes of files, and the names in folders, outlast a power cut."""
    for path in paths:
        descriptor = descriptors.open_entry(path)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in UNSYNCED:
                error.filename = str(path)
                raise
        finally:
            os.close(descriptor)


def lock(path: Path, **options: Any) -> FileLock:
    """Return a lock, whose file may be made. Raises a RefusedError where it is a link or no regular file."""
    descriptors.check(path)  # FileLock does the same for the file itself, and not for the folders above it
    return FileLock(path, **options)


def try_to_write(folder: Path) -> None:
    """Raise an UnwritableError where the disk of a folder has no room for one more megabyte."""
    path = folder / "room"
    write(path, b"\0" * (1 << 20), durable=False)
    descriptors.remove(path)


def write_json(path: Path, content: object, *, durable: bool = True) -> None:
    """Write JSON whole or not at all.

    NaN and infinity stand as Python writes them: only Python reads these files.
    """
    write(path, json.dumps(content, ensure_ascii=False) + "\n", durable=durable)


def is_there(path: Path) -> bool:
    """Whether a file or folder exists.

    Raises an OSError where that cannot be seen; Path.exists of Python 3.14 takes that for no.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None where there is no file.

    Raises a StoreError where it is something else.
    """
    try:
        return json.loads(read(path).decode())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise StoreError(
            f"{path}: must be JSON as ablate writes it, and it is not: ablate doctor says what to do"
        ) from None


def append(path: Path, line: Line) -> None:
    """Append one line, dropping a torn one before it. A power cut may tear it until the file is synced."""
    text = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    with writing(path), os.fdopen(descriptors.open_file(path, flags), "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                whole = b"".join(
                    part for part in read(path).splitlines(keepends=True) if part.endswith(b"\n")
                )
                write(path, whole + text)
                return
        file.write(text)


def lines(path: Path) -> list[Line]:
    """Return the lines of an append-only file up to the first that is torn or damaged.

    Empty where there is no file.
    """
    whole: list[Line] = []
    try:
        content = read(path)
    except FileNotFoundError:
        return whole
    for part in content.split(b"\n")[:-1]:
        try:
            whole.append(json.loads(part))
        except ValueError:
            break
    return whole


def damage(path: Path, *, deep: bool = True) -> str:
    """Return what is wrong with a file of torch.save, a zip archive, by its checksums; empty if nothing is.

    torch.load does not look at them. Unless `deep`, only whether it is cut off is checked. A disk that cannot
    be read just now has damaged nothing, and raises its OSError.
    """
    try:
        with open_binary(path) as file:
            if not deep:
                return "is cut off, or no file of torch" if _is_cut_off(file) else ""
            with zipfile.ZipFile(file) as archive:
                bad = archive.testzip()
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset outside of the file
            raise
        return "is cut off, or no file of torch"
    except DAMAGED:
        return "is cut off, or no file of torch"
    return "does not agree with its checksums" if bad else ""


def _is_cut_off(file: BinaryIO) -> bool:
    """Whether the last record of a zip archive is missing, or the list of files that it points to.

    For a store of 10,000 jobs, of which the doctor looks at two files each: reading the lists takes seconds.
    """
    size = file.seek(0, os.SEEK_END)
    if size < ZIP_END.size:
        return True
    file.seek(size - ZIP_END.size)
    mark, *_, start, comment = ZIP_END.unpack(file.read(ZIP_END.size))
    if mark != b"PK\5\6" or comment:
        return True
    file.seek(start)
    return start != IN_ZIP64 and file.read(4) != b"PK\1\2"


def acquire(lock: BaseFileLock, patience: float) -> None:
    """Acquire a lock, waiting so many seconds; on a file system without locks it stays free.

    A lease has to do there. Raises filelock's Timeout where another process holds it.
    """
    try:
        with suppress(NotImplementedError):  # from filelock 3 where there are no locks; 4 raises ENOSYS
            lock.acquire(timeout=patience)
    except OSError as error:  # a Timeout is one, too
        if error.errno != errno.ENOSYS:
            raise


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock; its file is not made, as a reader must leave a store as it is.

    The lock is tried as a shared one, so that two readers at once do not take each other for a holder.
    """
    try:
        descriptor = descriptors.open_file(lock)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise  # else this file system has no locks
    finally:
        os.close(descriptor)
    return False
