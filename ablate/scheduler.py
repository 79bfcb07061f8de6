"""The queue: hands work to an executor, retries what died, and stops in good order. It does not know where jobs run."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ablate import journal
from ablate.executors.base import Event, Executor, Task
from ablate.journal import Folder
from ablate.store import Store

ATTEMPTS = 3  # of a job whose process dies; an exception is the job's own fault and is not tried again
TICK = 0.2  # seconds between two looks at an interruption


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that did not come to an end."""

    job: str
    error: str
    log: str


@dataclass(slots=True)
class Ledger:
    """What became of the work."""

    finished: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


class Item(Protocol):
    """A piece of work, such as `plan.Work`."""

    @property
    def id(self) -> str:
        """Name its task."""

    def folder(self, store: Store) -> Folder:
        """Name where it writes."""

    def payload(self, store: Store) -> dict[str, Any]:
        """Give what the worker needs, once its folder is ready."""


class Source(Protocol):
    """Where work comes from, piece by piece: what is next may depend on what has ended."""

    def next(self) -> Item | None:
        """Give the next piece; none while there is none, until something that runs has ended."""

    def progressed(self, task: str) -> bool:
        """Hear that a task has come further; say whether it should be stopped."""

    def ended(self, task: str, kind: Literal["finished", "failed", "stopped"]) -> None:
        """Hear the end of a task."""


class Listed:
    """A source of which all is known beforehand."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Take the items in this order."""
        self._items = deque(items)

    def next(self) -> Item | None:
        """Give the next one."""
        return self._items.popleft() if self._items else None

    def progressed(self, _task: str) -> bool:
        """Let everything run to its end."""
        return False

    def ended(self, task: str, kind: Literal["finished", "failed", "stopped"]) -> None:
        """Nothing depends on it."""


def run(
    source: Source,
    store: Store,
    executor: Executor,
    *,
    extra: dict[str, Any],
    interrupted: Callable[[], bool],
    listen: Callable[[Event], None],
) -> Ledger:
    """Run work to its end, or to the first interruption: then nothing new starts, and what runs is put away.

    `extra` goes into every payload; `listen` hears every event. Raises KeyboardInterrupt through `interrupted`, which
    may do so when it is asked a second time after an interruption.
    """
    ledger = Ledger()
    running: dict[str, Item] = {}
    again: deque[Item] = deque()
    while True:
        if interrupted() and not ledger.interrupted:
            ledger.interrupted = True
            executor.stop()
        while not ledger.interrupted and executor.free():
            item = source.next() or (again.popleft() if again else None)  # what died waits behind the others
            if item is None:
                break
            running[item.id] = item
            executor.submit(Task(item.id, extra | item.payload(store)))
        if not running:
            return ledger
        for event in executor.events(TICK):
            listen(event)
            if event.kind == "progress":
                if source.progressed(event.task):
                    executor.cancel(event.task)
            elif event.kind != "started":
                _end(event, running.pop(event.task), source, store, ledger, again)


def _end(event: Event, item: Item, source: Source, store: Store, ledger: Ledger, again: deque[Item]) -> None:
    """Put down the end of a task, or put it back into the queue."""
    match event.kind:
        case "finished":
            ledger.finished.append(event.task)
            source.ended(event.task, "finished")
        case "stopped":
            source.ended(event.task, "stopped")
        case "crashed" if source.progressed(event.task):  # nobody wants it any more
            source.ended(event.task, "stopped")
        case "crashed" if _dies_again(ledger, event.task):
            again.append(item)
        case _:
            _fail(ledger, item.folder(store), event)
            source.ended(event.task, "failed")


def _dies_again(ledger: Ledger, job: str) -> bool:
    """Count a death, and say whether the job may be tried again."""
    ledger.deaths[job] = ledger.deaths.get(job, 0) + 1
    return ledger.deaths[job] < ATTEMPTS


def _fail(ledger: Ledger, folder: Folder, event: Event) -> None:
    """Write down a failure; the worker has recorded an exception itself, but a dead one could not, and another may run by now."""
    kind = "crash" if event.kind == "crashed" else "error"
    if not folder.failure.exists() and not journal.is_running(folder):
        journal.fail(folder, kind=kind, error=event.error)
    ledger.failures.append(Failure(event.task, event.error, str(folder.log)))
