"""Who works for a command: built first and handed on, with its options, its workers and its observers."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ablate import places
from ablate.execution import events, executors, scheduler
from ablate.execution.events import Event, Notice, Observer, StageEnded, StageStarted, TaskEnded, Updated
from ablate.execution.executors import base
from ablate.execution.executors.base import Executor, Options, Program
from ablate.execution.interruption import Interruption
from ablate.execution.options import How, Where
from ablate.execution.scheduler import Budget, Item, Ledger, Policy, Source
from ablate.planning import costs, tuning
from ablate.planning.costs import Pace, Time
from ablate.planning.plan import Plan, Work
from ablate.planning.work import RangeWork
from ablate.recipe import identity, user_code
from ablate.store import job_folder
from ablate.store.layout import Store
from ablate.store.tasks import Context, ProbeTask

PRELOAD = (
    "torch._dynamo",
    "PIL.Image",
    "PIL.ImageDraw",
    "PIL.PngImagePlugin",
)
"""What every worker needs, imported once in the process that they are forked from.

Torch's optimizers import _dynamo, for 0.9 s.
"""
PROGRAM = Program(
    "ablate.execution.worker:work", PRELOAD, "ablate.execution.preflight:check", "ablate.execution.travel"
)


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that train, and what they are told besides their tasks."""

    executor: Executor
    slots: int
    context: Context
    policy: Policy


@dataclass(slots=True)
class Crew:
    """Where and how a command works, who may interrupt and who observes it, its workers and their ledger."""

    where: Where
    how: How
    interruption: Interruption
    observers: tuple[Observer, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    workers: Workers | None = None  # none: there is nothing to train yet
    lock: threading.RLock = field(default_factory=threading.RLock)
    # Asks whoever interrupts, whether what can do without this process is left running.
    leaves: Callable[[], bool] = lambda: True
    cooling: Callable[[], None] | None = None  # ends what has begun for workers that have not started yet
    said: set[str] = field(default_factory=set)  # notices of tasks: each once, however many tasks send it

    @property
    def store(self) -> Store:
        """The store that the command works in."""
        return self.where.store

    @property
    def slots(self) -> int:
        """The number of tasks that run at a time."""
        return self.workers.slots if self.workers is not None else 0

    def tell(self, event: Event) -> None:
        """Send an event to every observer, one at a time: MLflow's writer has a thread of its own."""
        with self.lock:
            for observe in self.observers:
                observe(event)

    def notice(self, text: str) -> None:
        """Send a message to every observer."""
        self.tell(Notice(text))

    def updated(self, id: str) -> None:  # noqa: A002 (the store's word)
        """Send the news that the store has something new of a job, a search or a range test."""
        self.tell(Updated(id))

    def is_interrupted(self) -> bool:
        """Whether the user wants to stop; the first time that this is seen, a notice is sent.

        Not where the user is asked what to do with jobs that can do without this process.
        """
        is_asked = self.workers is not None and self.workers.executor.resources().keeps_queue
        return self.interruption.asked() if is_asked else self.interruption.asked(self.notice)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Add an observer for the time of the context."""
        before = self.observers
        self.observers = (*before, observer)
        try:
            yield
        finally:
            self.observers = before

    def warm(self, device: str) -> None:
        """Let what workers wait for at their start, the imports, begin now: there will be work for them."""
        if self.cooling is None:
            self.cooling = executors.warm(self.where.executor, PROGRAM, device)

    def cool(self) -> None:
        """End that beginning, where no workers have started, and none will."""
        cooling, self.cooling = self.cooling, None
        if cooling is not None:
            cooling()

    @contextmanager
    def at_work(self, todo: Plan) -> Iterator[None]:
        """Start the workers for whatever a plan has to do; at the end none of them is left."""
        context = context_of(todo, self.store)
        recipes = todo.recipes or [work.job.recipe for work in todo.work]
        options = Options(
            device=self.where.device,
            jobs=self.where.jobs,
            jobs_per_gpu=_jobs_per_gpu(self, todo, context),
            threads=max(recipe.training.threads for recipe in recipes),
            most=None if todo.trials else len(todo.work) + tuning.RANGE_SEEDS * len(todo.tuning.open_ranges),
            folder=self.store.mailbox(todo.study.name),
            slurm=self.where.slurm,
            detach=self.how.detach,
            leaves=lambda: self.interruption.asked() and self.leaves(),
            notice=self.notice,
        )
        seconds = self.how.budget
        pace = Pace(self.store) if seconds is None else costs.read(self.store)
        budget = Budget() if seconds is None else Budget(seconds)
        policy = Policy(self.how.fail_fast, self.how.stall, budget, partial(_seconds, pace))
        learner = _nobody if seconds is None else partial(_learn, pace)
        for text in executors.notices(self.where.executor, options):
            self.notice(text)
        start = executors.start(self.where.executor, _program(self.store), options)
        self.cooling = None
        with self.observed(learner), closing(start) as executor:
            resources = executor.resources()
            context = context.model_copy(update={"jobs_a_device": resources.jobs_a_device})
            self.workers = Workers(executor, resources.slots, context, policy)
            try:
                yield
            finally:
                self.workers = None

    def run(
        self, source: Source, stage: StageStarted, names: Mapping[str, str], touch: Callable[[str], None]
    ) -> None:
        """Run the work of one stage to its end.

        `names` of tasks may grow meanwhile; `touch` hears which task has something new.
        """
        assert self.workers is not None

        def listen(heard: base.Event) -> None:
            name = names.get(heard.task, heard.task[: identity.ID_SHOWN])
            event = events.of_task(heard, name)
            if event is not None and not (isinstance(event, Notice) and event.text in self.said):
                self.tell(event)
                self.said |= {event.text} if isinstance(event, Notice) else set()
            touch(heard.task)

        self.tell(stage)
        try:
            ledger = scheduler.run(
                source,
                self.store,
                self.workers.executor,
                context=self.workers.context,
                interrupted=self.is_interrupted,
                listen=listen,
                policy=self.workers.policy,
            )
            self.ledger.add(ledger)
        finally:
            self.tell(StageEnded())


@contextmanager
def assemble(
    where: Where, how: How, *observers: Observer, leaves: Callable[[], bool] = lambda: True
) -> Iterator[Crew]:
    """Yield the crew of a command, which Ctrl-C and SIGTERM interrupt until the context ends.

    `leaves` asks whether jobs go on that can do without this process.
    """
    with Interruption() as interruption:
        crew = Crew(where, how, interruption, observers, leaves=leaves)
        try:
            yield crew
        finally:
            crew.cool()


def _program(store: Store) -> Program:
    return replace(PROGRAM, store=str(store.path))


def _nobody(_event: Event) -> None:
    """Without a budget nobody asks how long work takes."""


def _learn(pace: Pace, event: Event) -> None:
    """Learn what work costs from every task that has finished."""
    if isinstance(event, TaskEnded) and event.end == "finished":
        costs.learn(pace, event.task)


def _seconds(pace: Pace, item: Item) -> float:
    """Return how many seconds work takes from where it stands.

    0 where that is a guess, as it is then started in any case.
    """
    times: list[Time | None] = []
    if isinstance(item, RangeWork):
        test = item.test
        each = test.recipe.training.batch_size if test.sweep.per == "batch" else None
        times = [costs.training(pace, test.recipe, test.data, each)] * test.sweep.steps
    elif isinstance(item, Work):
        recipe, data = item.job.recipe, item.job.data
        times = [costs.evaluating(pace, recipe, data, evaluation) for evaluation in item.evaluations]
        trained = None if item.trained else costs.training(pace, recipe, data)
        if trained is not None:
            left = 1 - len(job_folder.read_epochs(item.folder(pace.store))) / recipe.training.epochs
            times.append(replace(trained, seconds=trained.seconds * left))
    return sum(time.seconds for time in times if time is not None and not time.is_guess)


def context_of(todo: Plan, store: Store) -> Context:
    """Return what all tasks of a command share."""
    from ablate.execution import provenance

    return Context(
        store=str(store.path),
        study=todo.study.name,
        # of the study's file: a current directory that others write to is none of its business
        git=provenance.git(Path(todo.study.folder)) if todo.study.folder else {},
        compile_cache=os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(_compiled())),
        code=user_code.folders(todo.study.folder) if todo.study.folder else None,
    )


def _compiled() -> Path:
    """Return the folder of what torch has compiled: not in the store, which is shared; torch unpickles it."""
    return places.cache() / "compiled"


def _jobs_per_gpu(crew: Crew, todo: Plan, context: Context) -> int:
    """Return how many jobs share a GPU; where that must be measured, by the heaviest one left to train."""
    where = crew.where
    if where.jobs_per_gpu is not None or where.jobs is not None or not todo.recipes:
        return where.jobs_per_gpu or 1
    resources = executors.resources(where.executor, Options(where.device, 1, slurm=where.slurm))
    if resources.keeps_queue:
        crew.notice("--jobs-per-gpu auto: the GPUs of a queue are not here to be probed: one job a GPU")
        return 1
    if resources.device == "cpu":
        crew.notice("--jobs-per-gpu auto: there is no GPU to probe; jobs get a CPU core each")
        return 1
    if resources.is_exclusive:
        crew.notice("--jobs-per-gpu auto: the GPU's compute mode lets in one process: one job a GPU")
        return 1
    from ablate.execution import heaviest, probe

    chosen = heaviest.choose(todo, context.code)
    if chosen is None:
        return 1
    task = ProbeTask(
        context=context, recipe=chosen.recipe, seed=chosen.seed,
        data=where.store.data / chosen.data, log=where.store.path / "probe.log",
    )  # fmt: skip
    start = partial(executors.start, where.executor, _program(where.store))
    jobs, notice = probe.probe(start, where.device, task, crew.is_interrupted)
    crew.notice(notice)
    return jobs
