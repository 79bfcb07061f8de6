"""The stages of a run, one after another: range tests, searches, the grid. Each is a source of work for the scheduler."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ablate import places
from ablate.execution import executors, scheduler
from ablate.execution.executors.base import Event, Executor, Options, Program
from ablate.execution.interruption import Interruption
from ablate.execution.scheduler import Budget, Failure, Item, Ledger, Policy, Source
from ablate.messages import count
from ablate.planning import costs, tuning
from ablate.planning import work as works
from ablate.planning.costs import Pace, Time
from ablate.planning.plan import Plan, Work
from ablate.planning.work import RangeWork
from ablate.recipe import user_code
from ablate.recipe.fields import Recipe
from ablate.store import job_folder
from ablate.store.layout import Store
from ablate.store.tasks import Context, ProbeTask
from ablate.study.conditions import Expression

PRELOAD = ("torch._dynamo", "torchmetrics.functional.classification", "PIL.Image", "PIL.ImageDraw", "PIL.PngImagePlugin")
"""What every worker needs, imported once in the process that they are forked from. torch's optimizers import _dynamo, for 0.9 s."""
PROGRAM = Program("ablate.execution.worker:work", PRELOAD)


@dataclass(frozen=True, slots=True)
class Where:
    """Where and how to run: nothing that changes what is trained."""

    store: Store
    tracking_uri: str | None = None
    device: str = "auto"
    jobs: int | None = None
    jobs_per_gpu: int | None = 1  # none: as many as a probe finds best
    optuna_storage: str | None = None  # none: files of the store
    executor: str = "local"  # a row of EXECUTORS


@dataclass(frozen=True, slots=True)
class How:
    """How to go about it: nothing that changes what is trained, either."""

    retry_failed: bool = False
    fail_fast: bool = False
    only: Expression | None = None  # of the recipes that are wanted now
    budget: float | None = None  # seconds, after which nothing runs any more
    stall: float = scheduler.STALL  # seconds without a sign of life of a job
    wait: bool = False  # for another process that runs this study
    tune_only: bool = False  # end before the grid
    replace: bool = False  # a study of the same name, of another file


class Screen(Protocol):
    """What a command shows while it works; display.py has the terminal's."""

    def notice(self, text: str) -> None:
        """Show a message once."""

    def start(self, what: str, total: int, names: dict[str, str]) -> None:
        """Begin to follow a stage of so many tasks; `names` are those that are known beforehand."""

    def event(self, event: Event) -> None:
        """Follow a task."""

    def stop(self) -> None:
        """Leave the terminal as it was."""


@dataclass(slots=True)
class Stages:
    """A run under way: who does the work, and what became of it so far."""

    where: Where
    screen: Screen
    interruption: Interruption
    executor: Executor
    slots: int
    context: Context
    retry_failed: bool
    policy: Policy
    pace: Pace
    ledger: Ledger = field(default_factory=Ledger)

    def run(self, source: Source, touch: Callable[[str], None]) -> None:
        """Run one stage; `touch` hears which task has something new to show."""

        def listen(event: Event) -> None:
            self.screen.event(event)
            touch(event.task)
            if event.kind == "finished" and self.policy.budget.seconds < math.inf:
                costs.learn(self.pace, event.task)

        ledger = scheduler.run(
            source, self.where.store, self.executor,
            context=self.context, interrupted=self.is_interrupted, listen=listen, policy=self.policy,
        )  # fmt: skip
        self.ledger.add(ledger)
        self.screen.stop()

    def is_interrupted(self) -> bool:
        """Ask whether the user wants to stop."""
        return self.interruption.asked(self.screen.notice)


@contextmanager
def begin(todo: Plan, where: Where, screen: Screen, interruption: Interruption, how: How) -> Iterator[Stages]:
    """Start the workers for whatever a plan has to do; at the end none of them is left."""
    recipes = list(every_recipe(todo)) or [work.job.recipe for work in todo.work]
    context = _context(todo)
    options = Options(
        where.device, where.jobs, _jobs_per_gpu(todo, where, context, screen, interruption),
        max(recipe.training.threads for recipe in recipes),
        None if todo.trials else len(todo.work) + tuning.RANGE_SEEDS * len(todo.tuning.open_ranges),
    )  # fmt: skip
    budget = Budget() if how.budget is None else Budget(how.budget)
    pace = Pace(where.store) if how.budget is None else costs.read(where.store)
    policy = Policy(how.fail_fast, how.stall, budget, partial(_seconds, pace))
    with closing(executors.start(where.executor, PROGRAM, options)) as executor:
        resources = executor.resources()
        context = context.model_copy(update={"jobs_a_device": resources.jobs_a_device})
        yield Stages(where, screen, interruption, executor, resources.slots, context, how.retry_failed, policy, pace)


def _seconds(known: Pace, item: Item) -> float:
    """Return how long a piece of work takes from where it stands; 0 where that is a guess: it is started as long as there is time."""
    times: list[Time | None] = []
    if isinstance(item, RangeWork):
        test = item.test
        each = test.recipe.training.batch_size if test.sweep.per == "batch" else None
        one = costs.training(known, test.recipe, test.data, each)
        times = [one] * test.sweep.steps
    elif isinstance(item, Work):
        recipe, data = item.job.recipe, item.job.data
        times = [costs.judging(known, recipe, data, evaluation) for evaluation in item.evaluations]
        trained = None if item.trained else costs.training(known, recipe, data)
        if trained is not None:
            left = 1 - len(job_folder.read_epochs(item.folder(known.store))) / recipe.training.epochs
            times.append(replace(trained, seconds=trained.seconds * left))
    return sum(time.seconds for time in times if time is not None and not time.is_guess)


def find_rates(stages: Stages, made: tuning.Tuning, touch: Callable[[str], None]) -> None:
    """Do the range tests that are missing, and say what they suggest."""
    store = stages.where.store
    for test in made.open_ranges:
        tuning.describe_range(test, store)
    work = tuning.range_work(made.open_ranges, store, retry_failed=stages.retry_failed)
    if work:
        names = {item.id: f"range test of {item.test.label}/{i}" for test in made.open_ranges for i, item in _of(work, test)}
        what = f"range tests of the learning rate: {len(made.open_ranges)}, with {count(len(work), 'curve')} to train"
        stages.screen.start(f"{what} on {count(stages.slots, 'slot')}", len(work), names)
        stages.run(scheduler.Listed(work), lambda task: touch(task.partition("/")[0]))
    else:
        stages.screen.notice("range tests of the learning rate: the curves of an earlier time are taken, nothing is trained")
    tuning.conclude(made.open_ranges, store)


def _of(work: Iterable[works.RangeWork], test: works.RangeTest) -> Iterator[tuple[int, works.RangeWork]]:
    return ((test.seeds.index(item.seed), item) for item in work if item.test.id == test.id)


def search(stages: Stages, made: tuning.Tuning, touch: Callable[[str], None]) -> None:
    """Run the searches that are missing, all of them side by side; another study's search of the same is waited for."""
    from ablate.execution.search import Searches

    store = stages.where.store
    with ExitStack() as held:
        if not tuning.hold(made.open_searches, store, held, stages.screen.notice, stages.is_interrupted):
            stages.ledger.interrupted = True
            return
        names: dict[str, str] = {}
        first = made.open_searches[0].search
        trials = Searches(made.open_searches, store, stages.where.optuna_storage, touch, names, retry_failed=stages.retry_failed)
        what = f"{count(len(made.open_searches), 'search', 'searches')} of {count(first.trials, 'trial')} ({first.sampler})"
        total = (sum(one.search.trials for one in made.open_searches) - trials.over()) * len(first.seeds)
        stages.screen.start(f"{what} on {count(stages.slots, 'slot')}", total, names)
        stages.run(trials, trials.touch)


def train(stages: Stages, todo: Plan, touch: Callable[[str], None]) -> None:
    """Train and judge the cells, as far as they are tuned."""
    ready = todo.ready
    trainings = sum(not work.trained for work in ready)
    was = "is" if len(ready) - trainings == 1 else "are"
    judged = f" and judging {len(ready) - trainings} that {was} trained" if len(ready) > trainings else ""
    known = f", {todo.done} known already" if todo.done else ""
    names = {run.job_id: run.name for run in reversed(todo.runs)}  # of the first cell that shares the job
    what = f"training {count(trainings, 'job')}{judged} on {count(stages.slots, 'slot')}{known}"
    stages.screen.start(what, len(ready), names)
    stages.run(scheduler.Listed(ready), touch)


def unanswered(made: tuning.Tuning, store: Store) -> list[Failure]:
    """List the cells that tuning could not help, as failures."""
    return [Failure("", sentence, "") for sentence in tuning.unanswered(made, store)]


def _context(todo: Plan) -> Context:
    """Return what every task has besides its own."""
    from ablate.execution import provenance

    return Context(
        study=todo.study.name,
        git=provenance.git(Path.cwd()),
        compile_cache=os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(_compiled())),
        code=user_code.folders(todo.study.folder) if todo.study.folder else None,
    )


def _compiled() -> Path:
    """Name the folder of what torch has compiled: the user's own, as torch unpickles what it finds there and a store may be shared."""
    return places.cache() / "compiled"


def _jobs_per_gpu(todo: Plan, where: Where, context: Context, screen: Screen, interruption: Interruption) -> int:
    """Return how many jobs share a GPU; where that is to be measured, by the first job that is left to train."""
    work = next((work for work in todo.work if not work.trained), None)
    if where.jobs_per_gpu is not None or where.jobs is not None or work is None:
        return where.jobs_per_gpu or 1
    resources = executors.resources(where.executor, Options(where.device, 1))
    if resources.device == "cpu":
        screen.notice("--jobs-per-gpu auto: there is no GPU to probe; jobs get a CPU core each")
        return 1
    from ablate.execution import probe

    task = ProbeTask(
        context=context, recipe=work.job.recipe, seed=work.job.seed,
        data=where.store.data / work.job.data, log=where.store.path / "probe.log",
    )  # fmt: skip
    start = partial(executors.start, where.executor, PROGRAM)
    jobs, notice = probe.probe(start, where.device, task, lambda: interruption.asked(screen.notice))
    screen.notice(notice)
    return jobs


def every_recipe(todo: Plan) -> Iterator[Recipe]:
    """List the recipes that will be trained, as far as they are known: their weights can be fetched beforehand."""
    yield from (work.job.recipe for work in todo.work if not work.trained)
    yield from (test.recipe for test in todo.tuning.open_ranges)
    yield from (one.recipe for one in todo.tuning.open_searches)
