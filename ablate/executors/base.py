"""What an executor is: it places tasks on slots and reports events. Queue, retries and policy belong to the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]


class Stopped(Exception):  # noqa: N818 (no error: the answer to a request)
    """Raised by a worker's function that was asked to stop and has put its work away."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one task runs at a time, with what its process finds in its environment."""

    name: str  # cpu:0, cuda:1
    device: str  # cpu, cuda
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """Call the worker's function with a payload of plain JSON values; the slot adds its `device`."""

    id: str
    payload: Json


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a task.

    started: it has a slot. progress: `detail` is what it reports. finished: `detail` is what it returned. failed: it
    raised, `error` is the last line. crashed: its process died. stopped: it was asked to and did.
    """

    kind: Literal["started", "progress", "finished", "failed", "crashed", "stopped"]
    task: str
    slot: str
    detail: Json = field(default_factory=dict)
    error: str = ""


class Executor(Protocol):
    """The contract. Not safe for several threads: one scheduler drives one executor."""

    def free(self) -> int:
        """Count the tasks that can be submitted now and start at once."""
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

    def stop(self) -> None:
        """Ask every running task to put itself away; each then reports `stopped`, or what it became."""
        ...

    def close(self) -> None:
        """End every process at once. Tasks that still run are lost; no event tells of them."""
        ...
