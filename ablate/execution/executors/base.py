"""What an executor is: it places tasks on slots and reports events.

Queue, retries and policy belong to the scheduler.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ablate.errors import UnwritableError
from ablate.hardware import Resources

Json = dict[str, Any]
Report = Callable[[Json], None]
Function = Callable[[Json, Report, Callable[[], bool]], Json]
"""A worker's function: (payload, report, should_stop) -> result. An empty report is a sign of life.

It raises Stopped when it has stopped on request, OutOfMemory, and Crashed."""


class Stopped(Exception):  # noqa: N818 (no error: the answer to a request)
    """Raised by a worker's function that was asked to stop and has saved its work."""


class OutOfMemory(Exception):  # noqa: N818 (as torch calls its own)
    """Raised by a worker's function that did not get the memory it needs.

    The message says how much it had at most.
    """


class Crashed(Exception):  # noqa: N818 (as the event)
    """Raised by a worker's function that has lost what its process cannot get back, such as a GPU.

    No further task may be given to this process.
    """


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one task runs at a time, with what its process finds in its environment."""

    name: str  # cpu:0, cuda:1
    device: str  # cpu, cuda
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory(self) -> str:
        """The name of the memory that its tasks use: one for all CPU slots, one for all slots of a GPU."""
        return "cpu" if self.device == "cpu" else self.name


class Task(Protocol):
    """A call of the worker's function: store/tasks.py has the kinds of them."""

    @property
    def id(self) -> str:
        """Its name in all events about it."""

    def to_json(self) -> Json:
        """Return what the function gets, as plain JSON values; the executor adds the `device` of the slot."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may ask of an executor; each executor lists those that it understands."""

    device: str = "auto"  # auto, cpu, cuda
    jobs: int | None = None  # at a time
    _: KW_ONLY
    jobs_per_gpu: int = 1
    threads: int = 1  # CPU cores that one job wants
    devices: int | None = None  # GPUs that are used; None: all
    most: int | None = None  # there are no more tasks than that: fewer slots will do
    folder: Path | None = None  # for what the executor must remember: for the same work the same
    slurm: tuple[str, ...] = ()  # options of sbatch: partition=gpu,time=2:00:00
    detach: bool = False  # what was submitted is left to itself at once
    leaves: Callable[[], bool] = bool  # asked at an interruption, whether what runs is left to itself
    notice: Callable[[str], None] = lambda _: None  # hears what the executor does, in words
    address: str = ""  # where the executor is, such as HOST:PORT; empty: where it finds itself


@dataclass(frozen=True, slots=True)
class Program:
    """The function that workers call, as `package.module:function`, and modules to import before it.

    `preflight` is called with the device of a GPU's slot before that gets a task, and raises an error that
    says why the device cannot be used. `travel` is the module that takes a task's files to and from a machine
    that does not see the folder `store`: its functions are those of `Travel`.
    """

    function: str
    preload: tuple[str, ...] = ()
    preflight: str = ""
    travel: str = ""
    store: str = ""


Files = dict[str, bytes]
"""Files of a task on their way, by names of a fixed list: never a path."""


class Trip(Protocol):
    """The coordinator's end of a task that works elsewhere: it holds the task's folder meanwhile."""

    files: Files  # that the task needs there

    def receive(self, files: Files) -> None:
        """Write what has come from the task into its folder."""

    def end(self) -> None:
        """Let go of the folder."""


class Stay(Protocol):
    """The other end: a task whose files are in a folder of this machine alone."""

    payload: Json  # as the function gets it here

    def changes(self) -> Files:
        """Return what has changed since the last call; no files where nothing has."""


class Travel(Protocol):
    """The functions of a module for which no folder has to be shared."""

    def depart(self, payload: Json) -> Trip | None:
        """Take hold of a task's folder; None while another process has it."""

    def arrive(self, payload: Json, files: Files, folder: Path) -> Stay:
        """Unpack a task's files in a folder of this machine."""

    def work(self, payload: Json, report: Report, should_stop: Callable[[], bool]) -> Json:
        """Do what the program's function does, on a machine that has only what was unpacked there."""


Kind = Literal[
    "queued", "started", "progress", "alive",
    "finished", "failed", "stopped", "crashed", "killed", "out_of_memory", "unwritable", "left",
]  # fmt: skip
ENDS: frozenset[Kind] = frozenset(
    {"finished", "failed", "stopped", "crashed", "killed", "out_of_memory", "unwritable", "left"}
)
"""After one of these nothing more is heard of a task."""


@dataclass(frozen=True, slots=True)
class Event:
    """News of a task.

    queued: the executor has it, or has it again, where its slot was taken away; that may last hours, and no
    clock runs. started: it has a slot. progress:
    `detail` is what it reports. alive: a sign of life. finished: `detail` is what it returned. stopped: it
    was asked to and did. failed: it raised, `error` is the last line. crashed: its process died by itself, or
    can run nothing more.
    killed: somebody ended its process, which is no fault of the task. out_of_memory: the task or the kernel
    said so. unwritable: it could not write its results, and no other task could. left: it goes on, and this
    process hears no more of it.
    """

    kind: Kind
    task: str
    slot: str  # empty while the task is queued
    detail: Json = field(default_factory=dict)
    error: str = ""


def run_here(
    function: Function, payload: Json, report: Report, should_stop: Callable[[], bool]
) -> tuple[Kind, Json, str]:
    """Run a task in this process; return how it ended, its result, and its error."""
    try:
        result = function(payload, report, should_stop)
    except Stopped:
        return "stopped", {}, ""
    except (OutOfMemory, MemoryError) as error:
        return "out_of_memory", {}, str(error) or "Python got no memory"
    except Crashed as error:
        return "crashed", {}, str(error)
    except UnwritableError as error:
        return "unwritable", {}, str(error)
    except Exception as error:  # noqa: BLE001 (the boundary of a job: whatever it raised is reported)
        return "failed", {}, "".join(traceback.format_exception_only(error)).strip()
    return "finished", result, ""


class Executor(Protocol):
    """The contract. Not safe for several threads: one scheduler drives one executor."""

    def resources(self) -> Resources:
        """Return what there is to run tasks on."""
        ...

    def free(self) -> int:
        """Count the tasks that would start at once if they were submitted now.

        An executor with a queue may take more.
        """
        ...

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        """Take a task, which is queued until a slot is free.

        `exclusive`: it asks to be the only one that uses the memory of its slot; it starts once the others
        there have ended, and none starts beside it. An executor whose slots share no memory has nothing to do
        for that.
        """
        ...

    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for news, and return all there is."""
        ...

    def cancel(self, task: str) -> None:
        """Ask a task to save its work and stop; it then reports `stopped`, or how else it ended.

        Of no effect if it has ended.
        """
        ...

    def kill(self, task: str) -> None:
        """End the process of a task at once, whatever it does; it then reports `killed`.

        Of no effect if it has ended.
        """
        ...

    def stop(self) -> None:
        """Ask every task, queued or running, to save its work and stop.

        Each then reports `stopped`, or how else it ended.
        """
        ...

    def close(self) -> None:
        """End every process at once. Tasks that still run are lost; no event tells of them."""
        ...
