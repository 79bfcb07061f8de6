"""Tasks on this machine: one warm worker process for each slot.

Workers are forked from a server that has imported the heavy libraries and never used them, so a replacement
starts in 0.06 s instead of 5 s. Parent and worker talk JSON over one pipe each. When the parent dies, the
pipes close, and the workers end themselves: a lifeline that needs no signal and works on any POSIX system.
"""

import importlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from ablate import places
from ablate.errors import AblateError
from ablate.execution.executors import devices
from ablate.execution.executors.base import ENDS, Event, Function, Json, Slot, Task, run_here
from ablate.hardware import Resources

ENVIRONMENT = {
    # The server and Python's resource tracker are `python -c`, which has the current directory first on its
    # path: in a shared folder a file that is named like a module of Python would be run.
    "PYTHONSAFEPATH": "1",
    # One thread a job, unless the recipe asks for more: two jobs side by side with torch's default threads
    # are 2.4-3.4x slower than one after the other.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives the memory of activations back to the kernel, and faults it in again at every step: training
    # steps are 1.1-1.2x faster without that.
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_threshold=1073741824:"
        "glibc.malloc.trim_threshold=8589934592:"
        "glibc.malloc.top_pad=67108864"
    ),
    # What CUDA needs to repeat its sums (torch's note on reproducibility).
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
GRACE = 5.0  # seconds for a process to end by itself
BAD_STARTS = 3  # workers that die before they are ready, after which starting more is hopeless
OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, -signal.SIGQUIT, 255}
"""Exit codes of processes that were ended from outside: by a signal or, 255, by one to their fork server."""
OUTSIDE_START = 0.1
"""The share of a bad start that such a death counts for, before the worker is ready."""
REFUSED_START = 0.05
"""The share that a refusal by the server counts for: it is dead, and may take a while to go."""


@dataclass(slots=True)
class _Worker:
    slot: Slot
    process: ForkServerProcess
    pipe: Connection
    ready: bool = False
    task: str | None = None
    memory_kills: int = 0  # by the kernel, before the task was given to it


@dataclass(frozen=True, slots=True)
class _Queued:
    task: Task
    exclusive: bool


class LocalExecutor:
    """An Executor of worker processes that call `function`, a name such as `package.module:function`."""

    def __init__(self, function: str, slots: tuple[Slot, ...], preload: tuple[str, ...] = ()) -> None:
        """Start the server and a worker in every slot; they import in the background."""
        self._function, self._slots = function, slots
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([function.split(":", maxsplit=1)[0], *preload])
        self._bad_starts = 0.0
        self._queue: list[_Queued] = []
        # memory -> the task that has it for itself, or waits for the others there to end
        self._reserved: dict[str, str] = {}
        self._news: list[Event] = []  # of tasks that have no process
        self._workers: list[_Worker] = []
        try:
            for slot in slots:
                self._workers.append(self._spawn(slot))
        except RuntimeError:
            self.close()
            raise

    def resources(self) -> Resources:
        """Return what the slots offer."""
        return devices.resources(self._slots)

    def _spawn(self, slot: Slot) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._function, slot.device, dict(slot.environment)), daemon=True
        )
        _start(process)
        theirs.close()
        return _Worker(slot, process, ours)

    def free(self) -> int:
        """Count the idle slots, but for those in a memory that is reserved for one task."""
        return len(self._idle())

    def _idle(self) -> list[_Worker]:
        return [
            worker
            for worker in self._workers
            if worker.task is None and worker.slot.memory not in self._reserved
        ]

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        """Queue a task, and start it if a slot is free; an exclusive one gets the emptiest memory."""
        self._queue.append(_Queued(task, exclusive))
        self._news.append(Event("queued", task.id, ""))
        self._place()

    def _busy(self, memory: str) -> int:
        return sum(worker.task is not None and worker.slot.memory == memory for worker in self._workers)

    def _place(self) -> None:
        """Start what is queued and has a slot now, in its order."""
        for queued in list(self._queue):
            idle = next(iter(self._idle()), None)
            worker = self._alone_for(queued.task.id) if queued.exclusive else idle
            if worker is not None:
                self._queue.remove(queued)
                self._news.append(Event("started", queued.task.id, worker.slot.name))
                _give(worker, queued.task)

    def _alone_for(self, task: str) -> _Worker | None:
        """Reserve a memory for a task; return a worker there once nobody else is in it."""
        memories = dict.fromkeys(worker.slot.memory for worker in self._workers)
        memory = next((memory for memory, owner in self._reserved.items() if owner == task), None)
        if memory is None:
            unreserved = [memory for memory in memories if memory not in self._reserved]
            if not unreserved:
                return None
            memory = min(unreserved, key=self._busy)
            self._reserved[memory] = task
        if self._busy(memory):
            return None
        return next(worker for worker in self._workers if worker.slot.memory == memory)

    def events(self, timeout: float) -> list[Event]:
        """Wait for messages and deaths; a dead worker is replaced at once."""
        sources: dict[Any, int] = {}
        for i, worker in enumerate(self._workers):
            sources |= {worker.pipe: i, worker.process.sentinel: i}
        ready = wait(list(sources), 0 if self._news else timeout)
        heard, self._news = self._news, []
        for i in sorted({sources[source] for source in ready}):
            heard += self._drain(i)
        over = {event.task for event in heard if event.kind in ENDS}
        self._reserved = {memory: task for memory, task in self._reserved.items() if task not in over}
        self._place()
        return heard

    def _drain(self, i: int) -> list[Event]:
        """Read the messages of one worker; where it is dead, replace it."""
        worker, heard = self._workers[i], []
        with suppress(EOFError, OSError):
            while worker.pipe.poll():
                heard += self._read(worker, json.loads(worker.pipe.recv_bytes()))
        if any(event.kind == "out_of_memory" for event in heard):
            worker.process.kill()  # the next task gets a process that holds no memory yet
            worker.process.join()
        if not worker.process.is_alive():
            with suppress(EOFError, OSError):  # what it sent between the last look and its death
                while worker.pipe.poll():
                    heard += self._read(worker, json.loads(worker.pipe.recv_bytes()))
            if worker.task is not None:
                heard.append(_death(worker))
            worker.pipe.close()
            if not worker.ready:
                self._bad_starts += OUTSIDE_START if worker.process.exitcode in OUTSIDE else 1
            if self._bad_starts >= BAD_STARTS:
                self.close()  # or workers that still start would write into our message on stderr
                ended = _describe_exit(worker.process.exitcode)
                raise RuntimeError(f"no worker process can start: {ended}; its error stands above")
            self._workers[i] = self._spawn(worker.slot)
        return heard

    def _read(self, worker: _Worker, message: Json) -> list[Event]:
        if message["kind"] == "ready":
            worker.ready, self._bad_starts = True, 0
            return []
        event = Event(**message, slot=worker.slot.name)
        if event.kind in ENDS:
            worker.task = None
        return [event]

    def cancel(self, task: str) -> None:
        """Ask one task to stop."""
        for worker in self._workers:
            if worker.task == task:
                with suppress(OSError):
                    worker.pipe.send_bytes(json.dumps({"stop": task}).encode())
                return
        self._withdraw(task, "stopped")

    def kill(self, task: str) -> None:
        """End the process of one task."""
        for worker in self._workers:
            if worker.task == task:
                worker.process.kill()  # also where it is frozen
                worker.process.join(GRACE)  # or it might be given another task while it dies
                return
        self._withdraw(task, "killed")

    def _withdraw(self, task: str, kind: Literal["stopped", "killed"]) -> None:
        """End a task that is queued."""
        for queued in [queued for queued in self._queue if queued.task.id == task]:
            self._queue.remove(queued)
            self._news.append(Event(kind, task, "", error="ended before it had begun"))

    def stop(self) -> None:
        """Ask every task to stop, running or queued."""
        running = [worker.task for worker in self._workers if worker.task is not None]
        for task in [*running, *(queued.task.id for queued in self._queue)]:
            self.cancel(task)

    def close(self) -> None:
        """Close the pipes, which ends the workers; what does not end is killed."""
        for worker in self._workers:
            worker.pipe.close()
        end = time.monotonic() + GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(GRACE)  # not for ever: it may hang in a driver


def _give(worker: _Worker, task: Task) -> None:
    worker.task, worker.memory_kills = task.id, _memory_kills()
    with suppress(OSError):  # it has just died: `events` sees that, and reports the task as killed or crashed
        worker.pipe.send_bytes(json.dumps({"task": task.id, "payload": task.to_json()}).encode())


def _death(worker: _Worker) -> Event:
    """Return what the end of a process means for its task."""
    assert worker.task is not None
    code, ended = worker.process.exitcode or 0, _describe_exit(worker.process.exitcode)
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


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"the process was ended by {name}"
    return f"the process ended with exit code {code}"


def _start(process: ForkServerProcess) -> None:
    """Start a worker, and first the server that it is forked from, where that does not run."""
    deaths = 0.0
    while True:
        with _environment(ENVIRONMENT | _caches()), _deaf():  # the server takes over both
            forkserver.ensure_running()
        try:
            process.start()
            return
        except (EOFError, OSError) as error:
            deaths += REFUSED_START if isinstance(error, ConnectionRefusedError) else 1
            if deaths >= BAD_STARTS:
                raise RuntimeError(
                    "no worker process can start: "
                    "the server they are forked from dies; its error stands above"
                ) from error
            time.sleep(0.1)  # a server that is just dying answers no more, and is not yet known to be dead


def _caches() -> dict[str, str]:
    """Return where matplotlib, which torchmetrics imports, keeps its cache: HOME may be read-only.

    Nowhere where there is no folder of the user's own that can be written.
    """
    if "MPLCONFIGDIR" in os.environ:
        return {}
    with suppress(AblateError):
        for folder in (places.cache(), Path(tempfile.gettempdir()) / f"ablate-{os.getuid()}"):
            with suppress(OSError):
                (folder / "matplotlib").mkdir(mode=0o700, parents=True, exist_ok=True)
                if os.access(folder / "matplotlib", os.W_OK) and folder.lstat().st_uid == os.getuid():
                    return {"MPLCONFIGDIR": str(folder / "matplotlib")}
    return {}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that starts now; what the user has set wins."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a process that starts now ignore Ctrl-C and SIGTERM at once: both go to whole process groups."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(pipe: Connection, function: str, device: str, environment: dict[str, str]) -> None:
    """Run task after task, as a worker process, until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the parent, which asks us to stop
    os.environ.update(environment)
    module, name = function.split(":")
    call: Function = getattr(importlib.import_module(module), name)
    inbox = _Inbox(pipe)
    inbox.send({"kind": "ready"})
    while True:
        message = inbox.next_task()
        task = message["task"]

        def report(detail: Json, task: str = task) -> None:
            news: Json = {"kind": "progress", "detail": detail} if detail else {"kind": "alive"}
            inbox.send(news | {"task": task})

        payload = message["payload"] | {"device": device}
        kind, detail, error = run_here(call, payload, report, inbox.should_stop)
        inbox.send({"kind": kind, "task": task, "detail": detail, "error": error})


class _Inbox:
    """The worker's end of the pipe, read by a thread, which sees a stop or the parent's death at once."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._task: Json | None = None
        self._arrived = threading.Semaphore(0)
        self._stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                message = json.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent has closed the pipe or is dead: nobody waits for this job any more
            if "stop" in message:
                self._stop.set()
            else:
                self._stop.clear()
                self._task = message
                self._arrived.release()

    def next_task(self) -> Json:
        """Wait for a task."""
        self._arrived.acquire()
        assert self._task is not None
        return self._task

    def should_stop(self) -> bool:
        """Whether the parent has asked this task to stop."""
        return self._stop.is_set()

    def send(self, message: Json) -> None:
        """Send a message to the parent; when it is dead, end."""
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError:
            os._exit(0)
