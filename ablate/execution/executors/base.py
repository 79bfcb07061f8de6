"""What an executor is: it places tasks on slots and reports events. Queue, retries and policy belong to the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]


class Stopped(Exception):  # noqa: N818 (no error: the answer to a request)
    """Raised by a worker's function that was asked to stop and has put its work away."""


class OutOfMemory(Exception):  # noqa: N818 (as torch calls its own)
    """Raised by a worker's function that did not get the memory that it needs; the message says how much it had at most."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one task runs at a time, with what its process finds in its environment."""

    name: str  # cpu:0, cuda:1
    device: str  # cpu, cuda
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory(self) -> str:
        """Name the memory that its tasks use: all CPU slots of a machine share one, and all slots of a GPU."""
        return "cpu" if self.device == "cpu" else self.name


@dataclass(frozen=True, slots=True)
class Task:
    """Call the worker's function with a payload of plain JSON values; the slot adds its `device`."""

    id: str
    payload: Json
    alone: bool = False  # no other task shares its slot's memory while it runs: it starts once those there have ended


Kind = Literal["started", "progress", "finished", "failed", "stopped", "crashed", "killed", "out of memory", "unwritable"]
ENDS: frozenset[Kind] = frozenset({"finished", "failed", "stopped", "crashed", "killed", "out of memory", "unwritable"})
"""After one of these nothing more is heard of a task."""


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a task.

    started: it has a slot. progress: `detail` is what it reports, empty where it is only alive. finished: `detail` is what
    it returned. stopped: it was asked to and did. failed: it raised, `error` is the last line. crashed: its process died of
    itself. killed: somebody ended its process, which is no fault of the task. out of memory: it said so, or the kernel
    did. unwritable: it could not write what it has made, and no other task could.
    """

    kind: Kind
    task: str
    slot: str
    detail: Json = field(default_factory=dict)
    error: str = ""


class Executor(Protocol):
    """The contract. Not safe for several threads: one scheduler drives one executor."""

    def free(self) -> int:
        """Count the tasks that can be submitted now; they start at once, but for one that wants to be alone."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task on a free slot."""
        ...

    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for news, and give all there is."""
        ...

    def cancel(self, task: str) -> None:
        """Ask one running task to put itself away; it then reports `stopped`, or what it became. Of no effect if it has ended."""
        ...

    def kill(self, task: str) -> None:
        """End the process of one running task at once, whatever it does; it then reports `killed`. Of no effect if it has ended."""
        ...

    def stop(self) -> None:
        """Ask every running task to put itself away; each then reports `stopped`, or what it became."""
        ...

    def close(self) -> None:
        """End every process at once. Tasks that still run are lost; no event tells of them."""
        ...
