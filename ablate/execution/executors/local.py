"""Tasks on this machine: one warm worker process for each slot.

Workers are forked from a server that has imported the heavy libraries and never used them, so a replacement
starts in 0.06 s instead of 5 s. Parent and worker talk JSON over one pipe each. When the parent dies, the
pipes close, and the workers end themselves: a lifeline that needs no signal and works on any POSIX system.
"""

from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal

from ablate.errors import AblateError
from ablate.execution.executors import devices, process, server
from ablate.execution.executors.base import ENDS, Event, Kind, Program, Slot, Task
from ablate.execution.executors.process import Process, Worker
from ablate.execution.executors.server import BAD_STARTS
from ablate.hardware import Resources

OUTSIDE_START = 0.1
"""The share of a bad start that a death from outside counts for, before the worker is ready."""
SPENT: frozenset[Kind] = frozenset({"out_of_memory", "crashed"})
"""After one of these the next task gets another process: one that holds no memory, one whose device works."""


@dataclass(frozen=True, slots=True)
class _Queued:
    task: Task
    exclusive: bool


class LocalExecutor:
    """An Executor of worker processes that call `function`, a name such as `package.module:function`."""

    process: type[Process] = Process

    def __init__(
        self, function: str, slots: tuple[Slot, ...], preload: tuple[str, ...] = (), preflight: str = ""
    ) -> None:
        """Start the server and a worker in every slot; they import in the background."""
        self._program = Program(function, preload, preflight)
        self._refused: dict[
            str, int
        ] = {}  # by slot that was ready once: failures of its preflight since then
        server.preload(function, preload)
        self._bad_starts = 0.0
        self._queue: list[_Queued] = []
        # memory -> the task that has it for itself, or waits for the others there to end
        self._reserved: dict[str, str] = {}
        self._news: list[Event] = []  # of tasks that have no process
        self._workers: list[Worker] = []
        self._vacant = list(slots)  # without a process, for now
        self._hanging: list[Worker] = []  # their processes cannot be ended, and keep their slots
        self._bell: list[Any] = []  # what else ends a wait for events
        try:
            self._spawn()
        except RuntimeError:
            self.close()
            raise

    def resources(self) -> Resources:
        """Return what the slots offer that are left."""
        return devices.resources((*(worker.slot for worker in self._workers), *self._vacant))

    def _spawn(self) -> None:
        """Start a worker in every vacant slot whose memory is not one task's own."""
        for slot in [slot for slot in self._vacant if slot.memory not in self._reserved]:
            worker = process.spawn(slot, self._program, self.process)
            self._vacant.remove(slot)
            self._workers.append(worker)

    def free(self) -> int:
        """Count the idle slots, but for those in a memory that is reserved for one task."""
        return len(self._idle())

    def _idle(self) -> list[Worker]:
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
                worker.give(queued.task)
                if worker.is_torn:
                    self._news += self._kill(worker)

    def _alone_for(self, task: str) -> Worker | None:
        """Reserve a memory for a task; return the only worker there once all others have gone."""
        memories = list(dict.fromkeys(worker.slot.memory for worker in self._workers))
        memory = next((memory for memory in memories if self._reserved.get(memory) == task), None)
        if memory is None:
            unreserved = [memory for memory in memories if memory not in self._reserved]
            if not unreserved:
                return None
            hanging = [worker.slot.memory for worker in self._hanging]  # they have not freed its memory
            memory = min(unreserved, key=lambda memory: (hanging.count(memory), self._busy(memory)))
            self._reserved[memory] = task
        if self._busy(memory):
            return None
        first, *others = [worker for worker in self._workers if worker.slot.memory == memory]
        self._news += self._dismiss(others, task)  # CUDA itself takes some in each, and they may keep blocks
        return first

    def events(self, timeout: float) -> list[Event]:
        """Wait for messages and deaths; a dead worker is replaced at once."""
        sources: dict[Any, Worker] = {}
        for worker in self._workers:
            sources |= {worker.pipe: worker, worker.process.sentinel: worker}
        ready = wait([*sources, *self._bell], 0 if self._news else timeout)
        heard, self._news = self._news, []
        stirring = {sources[source] for source in ready if source in sources}
        for worker in [worker for worker in self._workers if worker in stirring]:
            heard += self._drain(worker)
        over = {event.task for event in heard if event.kind in ENDS}
        self._reserved = {memory: task for memory, task in self._reserved.items() if task not in over}
        self._regain()
        self._spawn()
        self._place()
        return heard

    def _regain(self) -> None:
        """Make the slots vacant of those that have died after all: a driver may come back."""
        for worker in [worker for worker in self._hanging if not worker.process.is_alive()]:
            self._hanging.remove(worker)
            self._vacant.append(worker.slot)

    def _drain(self, worker: Worker) -> list[Event]:
        """Read the messages of one worker; where it is dead, or of no more use, make its slot vacant."""
        heard = self._read(worker)
        spent = next((event for event in heard if event.kind in SPENT), None)
        if spent is not None or worker.is_torn:
            at = (
                len(heard) if spent is None else heard.index(spent)
            )  # nothing is heard of a task after its end
            heard[at:at] = self._kill(worker, "" if spent is None else spent.task)
        if worker in self._workers and not worker.process.is_alive():
            heard += self._read(worker)  # what it sent between the last look and its death
            if worker.task is not None:
                heard.append(process.death(worker))
            heard += self._bury(worker)
        return heard

    def _read(self, worker: Worker) -> list[Event]:
        heard = []
        for message in worker.read():
            if message["kind"] == "ready":
                worker.ready, self._bad_starts = True, 0
                self._refused[worker.slot.name] = 0
                continue
            if message["kind"] == "unusable":
                worker.unusable = message["error"]
                continue
            heard.append(Event(**message, slot=worker.slot.name))
            if heard[-1].kind in ENDS:
                worker.task = None
        return heard

    def _bury(self, worker: Worker) -> list[Event]:
        """Make the slot of a dead worker vacant; raise a RuntimeError where another start is hopeless.

        Where the device has refused it, see `_do_without`; return what is heard of that.
        """
        self._workers.remove(worker)
        self._vacant.append(worker.slot)
        worker.pipe.close()
        if worker.unusable:
            return self._do_without(worker)
        if not worker.ready:
            self._bad_starts += OUTSIDE_START if worker.process.exitcode in process.OUTSIDE else 1
        if self._bad_starts >= BAD_STARTS:
            self.close()  # or workers that still start would write into our message on stderr
            ended = process.describe_exit(worker.process.exitcode)
            raise RuntimeError(f"no worker process can start: {ended}; its error stands above")
        return []

    def _do_without(self, worker: Worker) -> list[Event]:
        """Give up a slot whose device has refused several workers in a row, though it was usable before.

        Raises an AblateError where it never was, or no other slot is left. A running task hears of it.
        """
        slot = worker.slot
        if slot.name in self._refused:
            self._refused[slot.name] += 1
            if self._refused[slot.name] < BAD_STARTS:
                return []
            self._vacant.remove(slot)
        if slot.name not in self._refused or not (self._workers or self._vacant):
            self.close()
            raise AblateError(f"{slot.name}: {worker.unusable}, or use --device cpu")
        running = next((other.task for other in self._workers if other.task is not None), "")
        notice = {"notice": f"the slot {slot.name} is given up: {worker.unusable}"}
        return [Event("progress", running, slot.name, notice)]

    def _kill(self, worker: Worker, task: str = "") -> list[Event]:
        """End a process at once; return what its task hears, or `task`, if that is not possible."""
        return self._give_up(process.end([worker], at_once=True), task)

    def _dismiss(self, workers: list[Worker], task: str) -> list[Event]:
        """End idle workers, whose slots are vacant then; return what `task` hears, for whom they go."""
        hanging = process.end(workers, at_once=False)
        for worker in workers:
            if worker not in hanging:
                self._workers.remove(worker)
                self._vacant.append(worker.slot)
        return self._give_up(hanging, task)

    def _give_up(self, hanging: list[Worker], task: str) -> list[Event]:
        """Do without the slots of processes that cannot be ended; return what their tasks hear, or `task`."""
        heard = []
        for worker in hanging:
            self._workers.remove(worker)
            self._hanging.append(worker)
            worker.pipe.close()
            name, owner = worker.slot.name, worker.task
            why = f"process {worker.process.pid} cannot be ended: it hangs in a driver or a file system"
            notice = {"notice": f"the slot {name} is given up: its {why}"}
            heard.append(Event("progress", owner or task, name, notice))
            if owner is not None:
                heard.append(Event("crashed", owner, name, error=f"its {why}"))
        return heard

    def cancel(self, task: str) -> None:
        """Ask one task to stop."""
        for worker in list(self._workers):
            if worker.task == task:
                worker.stop()
                if worker.is_torn:
                    self._news += self._kill(worker)
                return
        self._withdraw(task, "stopped")

    def kill(self, task: str) -> None:
        """End the process of one task."""
        for worker in list(self._workers):
            if worker.task == task:
                self._news += self._kill(worker)
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
        process.end(self._workers, at_once=False)
