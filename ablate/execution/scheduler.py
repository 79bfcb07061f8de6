"""The queue: hands work to an executor, retries what died, and stops in good order.

It does not know where jobs run.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from ablate.errors import AblateError, UnwritableError
from ablate.execution.executors.base import ENDS, Event, Executor
from ablate.execution.executors.base import Task as Handed
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.store.tasks import Context

TICK = 0.2  # seconds between two looks at an interruption
STALL = 600.0  # seconds without a sign of life
FROZEN = 2.0  # seconds between two looks, after which this process was frozen, or its machine asleep

ATTEMPTS = {"crashed": 3, "stalled": 2, "out_of_memory": 2, "killed": 10}
"""How often a job may end so before it has failed. An exception is its own fault and is not tried again.

A process that somebody has ended is no fault of the job; the bound is there for what ends it each time and is
not seen to do so.
"""
STREAMED = 1
"""Attempts more for what ran out of a GPU's memory: with its images left on the host."""
NO_SLOT = (
    "no slot is left: not one of their processes can be ended, they hang in a driver or a file system; "
    "restart the machine, and the same command goes on from here"
)

KINDS: Mapping[str, job_folder.Kind] = {
    "crashed": "crash", "killed": "crash", "stalled": "stall", "out_of_memory": "memory", "failed": "error",
}  # fmt: skip
"""The kind of a failure in the store, by the last end."""


@dataclass(slots=True)
class Budget:
    """The time that a run may take, from the start of its first task: to wait in a queue costs nothing."""

    seconds: float = math.inf
    ends: float = math.inf  # by the clock of the policy, once a task has started

    def start(self, now: float) -> None:
        """Begin to count, at the first call."""
        if self.ends == math.inf:
            self.ends = now + self.seconds

    def left(self, now: float) -> float:
        """Return the seconds that are left."""
        return self.seconds if self.ends == math.inf else self.ends - now


@dataclass(frozen=True, slots=True)
class Policy:
    """How far to go."""

    fail_fast: bool = False  # stop at the first failure
    stall: float = STALL  # seconds without a sign of life, after which a started job is stopped and retried
    budget: Budget = field(default_factory=Budget)  # nothing starts that would not end in it
    seconds: Callable[["Item"], float] = lambda _: 0.0  # that work takes, as far as that is known
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that did not come to an end."""

    job: str
    error: str
    log: str


@dataclass(slots=True)
class Ledger:
    """How the work ended: of every task the end of each attempt, in order. Nobody else counts attempts."""

    ends: dict[str, list[str]] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    halted: str = ""  # why nothing more was started, if that was not the user
    late: bool = False  # some work was left, as it would not have ended before the deadline
    left: list[str] = field(default_factory=list)  # tasks that go on without this process

    @property
    def is_over(self) -> bool:
        """Whether nothing more may start."""
        return self.interrupted or bool(self.halted) or bool(self.left)

    def add(self, other: "Ledger") -> None:
        """Add the ends of other work."""
        self.ends |= other.ends
        self.finished += other.finished
        self.failures += other.failures
        self.interrupted |= other.interrupted
        self.halted = self.halted or other.halted
        self.late |= other.late
        self.left += other.left


class Item(Protocol):
    """A piece of work, such as `plan.Work`."""

    @property
    def id(self) -> str:
        """The identity of its task."""

    def folder(self, store: Store) -> Folder:
        """Return the folder that it writes into."""

    def prepare(self, store: Store) -> None:
        """Make its folder ready for a worker."""

    def task(self, store: Store, context: Context) -> Handed:
        """Return what a worker is handed."""


Fits = Callable[[Item], bool]
"""Whether there is time left for a piece of work."""


class Source(Protocol):
    """Where work comes from, piece by piece: what is next may depend on what has ended."""

    def next(self, fits: Fits) -> Item | None:
        """Return the next piece that fits; None where there is none before something that runs has ended."""

    def progressed(self, task: str) -> bool:
        """Hear that a task has come further; return whether it should be stopped."""

    def ended(self, task: str, kind: Literal["finished", "failed", "stopped"]) -> None:
        """Hear the end of a task."""


class Listed:
    """A source of which all is known beforehand. What starts from another's weights waits for them."""

    def __init__(self, items: Iterable[Item], is_trained: Callable[[str], bool] = lambda _: True) -> None:
        """Take the items in this order. `is_trained`: whether there are weights of a job to start from."""
        self._items = deque(items)
        self._open = {item.id for item in self._items}
        self._is_trained = is_trained

    def next(self, fits: Fits) -> Item | None:
        """Return the next piece that fits; the pieces before it are left for another run."""
        waiting: deque[Item] = deque()
        chosen = None
        while self._items and chosen is None:
            item = self._items.popleft()
            start = getattr(item, "start", "")
            if start in self._open:
                waiting.append(item)
            elif (not start or self._is_trained(start)) and fits(item):
                chosen = item  # one that is dropped stays open: what starts from it is not run either
        self._items.extendleft(reversed(waiting))
        return chosen

    def progressed(self, _task: str) -> bool:
        """Let everything run to its end."""
        return False

    def ended(self, task: str, _kind: Literal["finished", "failed", "stopped"]) -> None:
        """Let go of what waits for it."""
        self._open.discard(task)


@dataclass(slots=True)
class _Queue:
    """Work under way."""

    source: Source
    store: Store
    executor: Executor
    context: Context
    policy: Policy
    ledger: Ledger = field(default_factory=Ledger)
    running: dict[str, Item] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)  # when each that has started was last seen alive
    stalled: set[str] = field(default_factory=set)  # tasks that were ended for lack of a sign of life
    looked: float = 0.0  # for stalls
    again: deque[Item] = field(default_factory=deque)
    error: AblateError | None = None  # why nothing can go on


def run(
    source: Source,
    store: Store,
    executor: Executor,
    *,
    context: Context,
    interrupted: Callable[[], bool],
    listen: Callable[[Event], None],
    policy: Policy | None = None,
) -> Ledger:
    """Run work to its end, or to the first interruption: then nothing new starts, and what runs is saved.

    `context` goes into every task; `listen` hears every event but mere signs of life. Raises
    KeyboardInterrupt through `interrupted`, which may do so when it is asked a second time after an
    interruption, and, once all tasks have stopped, the AblateError that ended it: an UnwritableError when the
    store takes nothing more, another one when the executor has no slot left.
    """
    policy = policy or Policy()
    queue = _Queue(source, store, executor, context, policy, looked=policy.clock())
    ledger = queue.ledger
    while True:
        if not ledger.is_over:
            ledger.interrupted = interrupted()
            if queue.running and policy.budget.left(policy.clock()) < 0:
                ledger.late, ledger.halted = True, "the time is up"
            if ledger.is_over:
                executor.stop()
        else:
            interrupted()
        with _halting(queue):
            _fill(queue, listen)
        if not queue.running:
            if queue.error is not None:
                raise queue.error
            return ledger
        for event in executor.events(TICK):
            with _halting(queue):
                _hear(queue, event, listen)
        _look_for_stalls(queue)
        with _halting(queue):
            if queue.error is None and not executor.resources().slots:
                raise AblateError(NO_SLOT)


@contextmanager
def _halting(queue: _Queue) -> Iterator[None]:
    """Stop everything in good order when the store, or the memory of a search, cannot be used any more."""
    try:
        yield
    except AblateError as error:
        _halt(queue, str(error))
        queue.error = queue.error or error


def _halt(queue: _Queue, why: str) -> None:
    if not queue.ledger.is_over:
        queue.executor.stop()
    queue.ledger.halted = queue.ledger.halted or why


def _fill(queue: _Queue, listen: Callable[[Event], None]) -> None:
    """Submit work while there are slots."""

    def fits(item: Item) -> bool:
        is_in_time = queue.policy.seconds(item) < queue.policy.budget.left(queue.policy.clock())
        queue.ledger.late |= not is_in_time
        return is_in_time

    takes_all = isinstance(queue.source, Listed) and queue.executor.resources().keeps_queue
    while not queue.ledger.is_over and (takes_all or queue.executor.free()):
        item = queue.source.next(fits)
        if item is None:  # what died waits behind the others
            item = next((lost for lost in queue.again if fits(lost)), None)
            if item is None:
                return
            queue.again.remove(item)
        try:
            item.prepare(queue.store)
        except OSError as error:  # its folder is somebody else's: the others go on
            reason = f"{error.filename}: {error.strerror}"
            _fail(queue, Event("failed", item.id, "", error=reason), item, "failed", listen)
            continue
        queue.running[item.id] = item
        wants = queue.ledger.ends.get(item.id, []).count("out_of_memory")
        queue.executor.submit(item.task(queue.store, _context(queue, wants)), exclusive=wants > 0)


def _context(queue: _Queue, wants: int) -> Context:
    """Return the context of a task that ran out of memory so many times: alone it may have a whole device."""
    if wants == 0:
        return queue.context
    streamed = wants > 1 and queue.executor.resources().device != "cpu"
    return queue.context.model_copy(update={"jobs_a_device": 1, "streamed": streamed})


def _attempts(queue: _Queue, kind: str) -> int:
    """Return how often a task may end so."""
    streams = kind == "out_of_memory" and queue.executor.resources().device != "cpu"
    return ATTEMPTS[kind] + (STREAMED if streams else 0)


def _hear(queue: _Queue, event: Event, listen: Callable[[Event], None]) -> None:
    """Take in one event. The clocks of a task run from its `started`, never while it is queued."""
    if event.task not in queue.running:
        return
    now = queue.policy.clock()
    if event.kind == "queued":
        queue.seen.pop(event.task, None)
    else:
        queue.seen[event.task] = now
    if event.kind == "started":
        queue.policy.budget.start(now)
    if event.kind == "alive":
        return
    listen(event)
    if event.kind == "progress":
        if queue.source.progressed(event.task):
            queue.executor.cancel(event.task)
    elif event.kind in ENDS:
        queue.seen.pop(event.task, None)
        _end(queue, event, queue.running.pop(event.task), listen)


def _look_for_stalls(queue: _Queue) -> None:
    """Kill the tasks that give no sign of life: their processes may be frozen, or hang in a driver."""
    now = queue.policy.clock()
    if now - queue.looked > FROZEN:  # it was us who stood still, and heard nobody
        queue.seen = dict.fromkeys(queue.seen, now)
    queue.looked = now
    for task in [task for task, seen in queue.seen.items() if now - seen > queue.policy.stall]:
        queue.stalled.add(task)
        queue.seen[task] = math.inf
        queue.executor.kill(task)


def _end(queue: _Queue, event: Event, item: Item, listen: Callable[[Event], None]) -> None:
    """Record the end of a task, and retry it or not."""
    ledger, task, kind = queue.ledger, event.task, str(event.kind)
    if task in queue.stalled:
        queue.stalled.remove(task)
        kind = "stalled" if kind in ("killed", "crashed") else kind
    ledger.ends.setdefault(task, []).append(kind)
    if kind == "finished":
        ledger.finished.append(task)
        queue.source.ended(task, "finished")
    elif kind in ("stopped", "left"):
        ledger.left += [task] if kind == "left" else []
        queue.source.ended(task, "stopped")
    elif kind == "unwritable":
        queue.error = queue.error or UnwritableError(event.error)
        _halt(queue, event.error)
        queue.source.ended(task, "stopped")
    elif kind != "failed" and queue.source.progressed(task):  # nobody wants it any more
        queue.source.ended(task, "stopped")
    elif kind != "failed" and ledger.ends[task].count(kind) < _attempts(queue, kind):
        queue.again.append(item)
    else:
        _fail(queue, event, item, kind, listen)


def _fail(queue: _Queue, event: Event, item: Item, kind: str, listen: Callable[[Event], None]) -> None:
    """Record a failure.

    A worker has recorded an exception itself; a dead one could not, and another one may run by now.
    """
    error, folder = _reason(queue, kind, event.error), item.folder(queue.store)
    queue.ledger.failures.append(Failure(event.task, error, str(folder.log)))
    with suppress(PermissionError):  # where the folder is somebody else's
        job_folder.fail_for_the_dead(folder, kind=KINDS[kind], error=error)
    if kind != "failed":  # the last of several attempts
        listen(replace(event, kind="failed", error=error))
    queue.source.ended(event.task, "failed")
    if queue.policy.fail_fast:
        _halt(queue, "a job has failed, and --fail-fast was given")


def _reason(queue: _Queue, kind: str, error: str) -> str:
    match kind:
        case "out_of_memory":
            streamed = " and with its images on the host" if _attempts(queue, kind) > ATTEMPTS[kind] else ""
            return f"out of memory, also alone on its device{streamed}: {error}"
        case "stalled":
            seconds, times = queue.policy.stall, ATTEMPTS["stalled"]
            return (
                f"no sign of life for {seconds:.0f} s, {times} times: it was stopped; "
                "--stall says how long to wait"
            )
        case "killed":
            return f"{error}, {ATTEMPTS['killed']} times"
        case _:
            return error
