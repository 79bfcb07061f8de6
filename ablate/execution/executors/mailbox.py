"""A folder in which a coordinator leaves tasks, and agents on other machines take them and answer.

All of it are small files, each written by one process: a task, whose name sorts by its age; a claim, made
with O_EXCL, so that one agent gets the task; news, to which one agent appends; a request to stop or to kill.
Nothing else passes between the machines, and nobody needs the others to be there. What two agents run all
the same, since a machine that was given up lives on, is kept apart by the lease of the job.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import AblateError, UnwritableError
from ablate.execution.executors.base import ENDS, Json

PARTS = ("tasks", "claims", "news", "requests", "logs")
COORDINATOR = "coordinator"
"""Who has claimed a task that no agent shall take any more."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The paths of a mailbox."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the jobs that empty it, by which they are known again."""
        return f"ablate-{hashlib.sha256(str(self.path).encode()).hexdigest()[:12]}"

    def make(self) -> None:
        """Make its folders; they must be the user's own, as what lies there is run."""
        if self.path.parent.is_symlink():
            self.check()
        try:
            for folder in (self.path, *(self.path / part for part in PARTS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AblateError(
                f"{self.path}: must be a folder that can be made, and is not ({error.strerror})"
            ) from None
        self.check()
        with suppress(FileNotFoundError):
            self._closed.unlink()

    @property
    def is_own(self) -> bool:
        """Whether it is a folder of the user's own, which nobody else can write to and no link leads to."""
        if self.path.parent.is_symlink():
            return False
        status = self.path.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022

    def check(self) -> None:
        """Raise an AblateError where others may write into the mailbox, or a link leads elsewhere."""
        if not self.is_own:
            raise AblateError(
                f"{self.path}: must be a folder of yours that nobody else can write to, and no link may lead "
                "there, and it is not: remove it"
            )

    def clear(self) -> None:
        """Remove all that is in it, and itself."""
        if os.path.lexists(self.path):
            self.check()  # a link would have another folder removed
            shutil.rmtree(self.path, ignore_errors=True)

    # Tasks

    def names(self) -> list[str]:
        """Return the names of the tasks, the oldest first."""
        return sorted(_listed(self.path / "tasks"))

    def unclaimed(self) -> list[str]:
        """Return the names of the tasks that nobody has, the oldest first."""
        names = self.names()  # first: a claim is removed after its task
        claims = set(_listed(self.path / "claims"))
        return [name for name in names if name not in claims]

    def post(self, number: int, task: str, content: Json) -> str:
        """Leave a task; return its name."""
        name = f"{number:07d}-{hashlib.sha256(task.encode(errors='surrogatepass')).hexdigest()[:12]}"
        try:
            _write(self.path / "tasks" / name, json.dumps(content))
        except OSError as error:
            raise UnwritableError(
                f"{self.path}: cannot be written ({error.strerror}): mend that and run the same again, "
                "what is finished is kept"
            ) from None
        return name

    def read(self, name: str) -> Json | None:
        """Return the content of a task; None where it is gone."""
        try:
            return dict(json.loads((self.path / "tasks" / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a task that has ended; its claim last, as without it an agent would take the task."""
        for part in ("tasks", "requests", "claims"):
            with suppress(FileNotFoundError):
                (self.path / part / name).unlink()

    def standing(self) -> tuple[int, int]:
        """Count the tasks that have not ended: those that somebody has, and those that wait."""
        if not (os.path.lexists(self.path) and self.is_own):  # another user's: it may hold whatever
            return 0, 0
        lines = [line for who in self.lives() for line in Tail(self.news(who)).read()]
        ended = {line.get("task") for line in lines if line["kind"] in ENDS}
        left, waiting = set(self.names()) - ended, set(self.unclaimed())
        return len(left - waiting), len(left & waiting)

    # Claims

    def claim(self, name: str, who: str) -> bool:
        """Take a task; return whether it was free."""
        path = self.path / "claims" / name
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(who)
        except OSError:  # the disk is full: an empty claim would be nobody's
            self.release(name)
            raise
        if not (self.path / "tasks" / name).exists():  # it has ended since it was listed
            self.release(name)
            return False
        return True

    def inherit(self, name: str, who: str) -> None:
        """Take over a task of the same agent's earlier life."""
        _write(self.path / "claims" / name, who)

    def owner(self, name: str) -> str | None:
        """Return who has a task; None where nobody has, and nothing where that is being written."""
        try:
            return (self.path / "claims" / name).read_text()
        except FileNotFoundError:
            return None

    def claimed(self) -> Iterator[tuple[str, str]]:
        """Yield each task that somebody has, and who: nothing where the name is being written."""
        for name in sorted(_listed(self.path / "claims")):
            owner = self.owner(name)
            if owner is not None:
                yield name, owner

    def release(self, name: str) -> None:
        """Give a task back."""
        with suppress(FileNotFoundError):
            (self.path / "claims" / name).unlink()

    # Requests

    def request(self, name: str, what: str) -> None:
        """Ask the agent that has a task to `stop` or to `kill` it."""
        _write(self.path / "requests" / name, what)

    def requests(self) -> dict[str, str]:
        """Return what is asked, by task."""
        asked = {}
        for name in _listed(self.path / "requests"):
            with suppress(FileNotFoundError):
                asked[name] = (self.path / "requests" / name).read_text()
        return asked

    def close(self) -> None:
        """Ask all agents to end at once, with all that they run."""
        _write(self._closed, "")

    @property
    def is_closed(self) -> bool:
        """Whether all agents shall end."""
        return self._closed.exists() or not self.path.exists()

    @property
    def _closed(self) -> Path:
        return self.path / "closed"

    # News

    def lives(self) -> list[str]:
        """Return the agents that have said something, each life of one for itself."""
        return sorted(name.removesuffix(".jsonl") for name in _listed(self.path / "news"))

    def news(self, who: str) -> Path:
        """Return the file of what an agent says."""
        return self.path / "news" / f"{who}.jsonl"


@dataclass(slots=True)
class Tail:
    """A reader of one agent's news, from the beginning."""

    path: Path
    offset: int = 0

    def read(self) -> list[Json]:
        """Return the lines that are new; one that is being written is left for the next time."""
        with suppress(FileNotFoundError):
            with self.path.open("rb") as file:  # not stat: NFS remembers its answer for up to a minute
                if os.fstat(file.fileno()).st_size <= self.offset:
                    return []
                file.seek(self.offset)
                whole, newline, _ = file.read().rpartition(b"\n")
            self.offset += len(whole + newline)
            return [_parsed(line) for line in whole.split(b"\n") if line]
        return []


def _parsed(line: bytes) -> dict[str, Any]:
    """Return a line's content; none where a machine has died amid it."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"kind": ""}


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, without files that are being written."""
    with suppress(FileNotFoundError):
        return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 (a list of str)
    return []


def _write(path: Path, text: str) -> None:
    """Write a file that nobody sees half written."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_text(text, encoding="utf-8")
    hidden.replace(path)
