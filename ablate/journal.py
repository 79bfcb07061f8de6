"""The folder of one job: every path in it, and the only code that reads or writes it. The journals are the truth.

    recipe.json       what is trained: written once, before the first attempt
    attempts.jsonl    a line when an attempt starts: number, time, process, device, study
    environment.json  commit, versions and machine of the last attempt
    model.json        the network: parameters, multiplications, receptive field
    journal.jsonl     a line an epoch: epoch, timestamp, seconds, metrics
    checkpoint.pt     where the training stands; gone when it has ended
    previous.pt       where it stood an epoch before, should the other one be damaged
    last.pt, best.pt  weights after the last epoch, and of the best epoch by validation
    result.json       written last of the training: finished or diverged
    failure.json      why the last attempt failed; gone when another one starts
    outcomes/<id>/    one way of evaluating: outcome.json is written last
    log.txt           what the job printed, tracebacks included
    lock              held by the process that trains

Every file but the two append-only ones is written beside itself and renamed, so that a kill at any instant leaves the
old file or the new one. A torn last line of the other two is not a line. Nothing here asks which machine it is on: a
folder that several share will do.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablate import recipe
from ablate.errors import StoreError, UnwritableError
from ablate.grid import Job
from ablate.recipe import Recipe

Line = dict[str, Any]
DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises of bits that are wrong: of a flag it takes the file for encrypted, or for one of another method."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # of a disk that takes nothing more, whatever is tried


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths of one job."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Say what is trained."""
        return self.path / "recipe.json"

    @property
    def attempts(self) -> Path:
        """List the attempts."""
        return self.path / "attempts.jsonl"

    @property
    def journal(self) -> Path:
        """List the finished epochs."""
        return self.path / "journal.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Hold the state to go on from."""
        return self.path / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """Hold the state of an epoch before."""
        return self.path / "previous.pt"

    @property
    def log(self) -> Path:
        """Hold what the job printed."""
        return self.path / "log.txt"

    def weights(self, select: str) -> Path:
        """Hold the weights that an evaluation judges: of `last` or of `best_validation`."""
        return self.path / ("last.pt" if select == "last" else "best.pt")

    @property
    def result(self) -> Path:
        """Hold the end of the training."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Hold why the last attempt failed."""
        return self.path / "failure.json"

    def outcome(self, evaluation: str) -> Path:
        """Hold one way of evaluating."""
        return self.path / "outcomes" / evaluation[: recipe.ID_SHOWN]

    def lock(self) -> FileLock:
        """Make the lock that the training process holds; it is released when the process ends, however it ends."""
        return FileLock(self.path / "lock")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise an UnwritableError that says what to do where a disk takes nothing more."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            if error.filename is not None and Path(error.filename).parent == path.parent:
                error.filename = str(path)  # not its draft, which nobody knows
            raise
        do = "mount it for writing" if error.errno == errno.EROFS else "make room there"
        raise UnwritableError(
            f"{path}: cannot be written ({error.strerror}): {do} and run the same again, what is finished is kept"
        ) from None


def write(path: Path, content: bytes | str, *, keep: Path | None = None) -> None:
    """Write a file whole or not at all; `keep`: where the one before goes."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def try_to_write(folder: Folder) -> None:
    """Raise an UnwritableError where the disk of a job takes no more than a megabyte."""
    path = folder.path / "room"
    write(path, b"\0" * (1 << 20))
    path.unlink()


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; NaN and infinity stand as Python writes them, and only Python reads these files."""
    write(path, json.dumps(content, ensure_ascii=False) + "\n")


def is_there(path: Path) -> bool:
    """Whether there is a file or folder. Raises an OSError where that cannot be seen, which Path.exists of Python 3.14 takes for no."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_json(path: Path) -> Any:
    """Read JSON, or give None where there is none. Raises a StoreError where it is something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise StoreError(f"{path}: must be JSON as ablate writes it, and it is not: ablate doctor says what to do") from None


def append(path: Path, line: Line) -> None:
    """Add one line, mending a torn one before it."""
    text = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    with writing(path), path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                whole = b"".join(part for part in path.read_bytes().splitlines(keepends=True) if part.endswith(b"\n"))
                write(path, whole + text)
                return
        file.write(text)


def lines(path: Path) -> list[Line]:
    """Read the lines of an append-only file up to the first that is torn or damaged; none where there is no file."""
    found: list[Line] = []
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return found
    for part in content.split(b"\n")[:-1]:
        try:
            found.append(json.loads(part))
        except ValueError:
            break
    return found


def damage(path: Path, *, deep: bool = True) -> str:
    """Say what is wrong with a file of torch.save, a zip archive, by the sums that are in it; empty where nothing is.

    torch.load does not look at them. Not `deep`: only that it is not cut off. A disk that cannot be read just now has
    damaged nothing, and raises its OSError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip() if deep else None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place that there is not in the file
            raise
        return "is cut off, or no file of torch"
    except DAMAGED:
        return "is cut off, or no file of torch"
    return "does not agree with its checksums" if bad else ""


def create(folder: Folder, job: Job) -> None:
    """Write what is trained, where it is not written yet. What is there already is the same, by the job's identity."""
    if not folder.recipe.exists():
        settled = job.recipe.model_dump(mode="json")
        settled["data"].pop("root")  # a path: no part of what is trained
        settled.pop("evaluation")
        content = {"job": job.id, "seed": job.seed, "data": job.data, "code": job.code, "numerics": recipe.NUMERICS, "recipe": settled}
        write_json(folder.recipe, content)


def read_recipe(path: Path) -> tuple[Recipe, int]:
    """Read what a recipe.json says is trained: the recipe, whose root and evaluation mean nothing, and the seed."""
    content = read_json(path)
    return Recipe.model_validate(content["recipe"] | {"data": content["recipe"]["data"] | {"root": ""}}), content["seed"]


def restore_journal(folder: Folder, history: list[Line]) -> None:
    """Make the journal say what a checkpoint remembers: the kill came between the checkpoint and the line, or the disk failed."""
    text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in history)
    there = folder.journal.read_bytes() if folder.journal.exists() else b""
    if there != text:
        write(folder.journal, text)


def sweep(folder: Folder) -> None:
    """Remove what a finished training needs no more: its checkpoints, and the drafts of attempts that were killed.

    For who holds the lock: nobody else writes here, but for coordinators that say what is trained, or that it has failed.
    """
    for path in (folder.checkpoint, folder.previous, *folder.path.rglob(".*")):
        is_draft = DRAFT.fullmatch(path.name) and not path.name.startswith((".recipe.json.", ".failure.json."))
        if is_draft or not path.name.startswith("."):
            path.unlink(missing_ok=True)


def fail(folder: Folder, *, kind: str, error: str) -> None:
    """Record why a job failed: `kind` is error (an exception), crash (its process died), memory or stall."""
    write_json(folder.failure, {"kind": kind, "error": error, "timestamp": time.time_ns() // 1_000_000})


def is_running(folder: Folder) -> bool:
    """Say whether a process holds the job's lock."""
    return is_held(folder.path / "lock")


def is_held(lock: Path) -> bool:
    """Say whether a process holds a lock, without making its file: what only looks at a store must leave it as it is.

    Asked for as a reader, so that two that look at once do not take each other for a holder.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def artifacts(outcome: Path) -> Iterator[Path]:
    """List the files of one evaluation."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in outcome.iterdir() if not path.name.startswith(".") and not path.is_symlink())
