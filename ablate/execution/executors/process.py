"""A worker's process, as its parent holds it: how it starts, what it is told, what it says, how it ends.

No call lasts longer than a few times GRACE, even where a process hangs in a driver or a file system, amid a
message or while it dies: then not even SIGKILL ends it.
"""

import json
import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ablate.execution.executors import server, serving
from ablate.execution.executors.base import Event, Json, Program, Slot, Task

GRACE = 5.0  # seconds for a process to end, or to take the rest of a message
OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, -signal.SIGQUIT, 255}
"""Exit codes of processes that were ended from outside: by a signal or, 255, by one to their fork server."""


class Process(ForkServerProcess):
    """A process that nobody waits for without a limit, as the interpreter's own end would."""

    hangs = False  # it was killed, and lives

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most for GRACE unless more is said, and not at all where it hangs."""
        super().join(0 if self.hangs else GRACE if timeout is None else timeout)


@dataclass(slots=True, eq=False)
class Worker:
    """The process of a slot, and the parent's end of the pipe to it."""

    slot: Slot
    process: Process
    pipe: Connection
    ready: bool = False
    unusable: str = ""  # why its device cannot be used
    task: str | None = None
    memory_kills: int = 0  # by the kernel, before the task was given to it
    is_torn: bool = False  # a message to it or from it stopped halfway: it stands still

    def give(self, task: Task) -> None:
        """Give it a task; where it has just died, its death is that of the task."""
        self.task, self.memory_kills = task.id, _memory_kills()
        self._send({"task": task.id, "payload": task.to_json()})

    def stop(self) -> None:
        """Ask it to stop its task."""
        self._send({"stop": self.task})

    def _send(self, message: Json) -> None:
        try:
            self.pipe.send_bytes(json.dumps(message).encode())
        except BlockingIOError:
            self.is_torn = True
        except OSError:  # it has just died, which is seen elsewhere
            pass

    def read(self) -> list[Json]:
        """Return the messages that have come from it."""
        messages: list[Json] = []
        try:
            while self.pipe.poll():
                messages.append(json.loads(self.pipe.recv_bytes()))
        except BlockingIOError:
            self.is_torn = True
        except (EOFError, OSError):
            pass
        return messages


def spawn(slot: Slot, program: Program, kind: type[Process] = Process) -> Worker:
    """Start a worker in a slot. Raises a RuntimeError where that is hopeless."""
    ours, theirs = multiprocessing.Pipe()
    _limit(ours)
    process = kind(
        target=serving.serve,
        args=(theirs, program.function, program.preflight, slot.device, dict(slot.environment)),
        daemon=True,
    )
    server.start(process, server.environment(slot.device))
    theirs.close()
    return Worker(slot, process, ours)


def _limit(pipe: Connection) -> None:
    """Let a message take no longer than GRACE, or a process that freezes amid it would freeze its parent."""
    seconds = struct.pack("ll", int(GRACE), int(GRACE % 1 * 1e6))
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


def end(workers: Iterable[Worker], *, at_once: bool) -> list[Worker]:
    """End processes, by SIGKILL or by closing the pipe first; return those that cannot be ended."""
    workers = list(workers)
    if not at_once:
        for worker in workers:
            worker.pipe.close()
        _join(workers)
    for worker in workers:
        if worker.process.is_alive():
            worker.process.kill()  # also where it is frozen
    _join(workers)
    hanging = [worker for worker in workers if worker.process.is_alive()]
    for worker in hanging:
        worker.process.hangs = True
    return hanging


def _join(workers: list[Worker]) -> None:
    until = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))


def death(worker: Worker) -> Event:
    """Return what the end of a process means for its task."""
    assert worker.task is not None
    code, ended = worker.process.exitcode or 0, describe_exit(worker.process.exitcode)
    if -code == signal.SIGKILL and _memory_kills() > worker.memory_kills:
        why = "the kernel has ended the process for lack of memory"
        return Event("out_of_memory", worker.task, worker.slot.name, error=why)
    return Event("killed" if code in OUTSIDE else "crashed", worker.task, worker.slot.name, error=ended)


def _memory_kills() -> int:
    """Count the processes that the kernel has ended for lack of memory since the machine was started.

    0 where the kernel does not tell.
    """
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def describe_exit(code: int | None) -> str:
    """Return in words how a process has ended."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"the process was ended by {name}"
    return f"the process ended with exit code {code}"
