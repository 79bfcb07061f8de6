"""The queue: hands work to an executor, retries what died, and stops in good order. It does not know where jobs run."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ablate import journal
from ablate.executors.base import Event, Executor, Task
from ablate.plan import Work
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


def run(
    work: Iterable[Work],
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
    items = {item.job.id: item for item in work}
    queue, running = deque(items), 0
    while running or (queue and not ledger.interrupted):
        if interrupted() and not ledger.interrupted:
            ledger.interrupted = True
            executor.stop()
        while queue and not ledger.interrupted and executor.free():
            executor.submit(_task(items[queue.popleft()], store, extra))
            running += 1
        for event in executor.events(TICK):
            listen(event)
            if event.kind in ("started", "progress"):
                continue
            running -= 1
            if event.kind == "finished":
                ledger.finished.append(event.task)
            elif event.kind == "crashed" and _dies_again(ledger, event.task):
                queue.append(event.task)
            elif event.kind != "stopped":
                _fail(ledger, store, event)
    return ledger


def _task(item: Work, store: Store, extra: dict[str, Any]) -> Task:
    folder = store.job(item.job.id)
    journal.create(folder, item.job)
    payload = extra | {
        "folder": str(folder.path),
        "job": item.job.id,
        "data": str(store.data / item.job.data),
        "evaluations": [evaluation.model_dump() for evaluation in item.evaluations],
    }
    return Task(item.job.id, payload)


def _dies_again(ledger: Ledger, job: str) -> bool:
    """Count a death, and say whether the job may be tried again."""
    ledger.deaths[job] = ledger.deaths.get(job, 0) + 1
    return ledger.deaths[job] < ATTEMPTS


def _fail(ledger: Ledger, store: Store, event: Event) -> None:
    """Write down a failure; the worker has recorded an exception itself, but a dead one could not, and another may run by now."""
    folder = store.job(event.task)
    kind = "crash" if event.kind == "crashed" else "error"
    if not folder.failure.exists() and not journal.is_running(folder):
        journal.fail(folder, kind=kind, error=event.error)
    ledger.failures.append(Failure(event.task, event.error, str(folder.log)))
