"""The stages of a run, one after another: range tests, searches, the grid. Each is work for the crew."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from ablate.execution import scheduler
from ablate.execution.crew import Crew
from ablate.execution.events import StageStarted
from ablate.execution.scheduler import Failure
from ablate.messages import count
from ablate.planning import tuning as tunings
from ablate.planning.plan import Plan
from ablate.planning.tuning import Tuning
from ablate.planning.work import RangeTest, RangeWork
from ablate.store.job_state import state
from ablate.store.layout import Store


def find_rates(crew: Crew, tuning: Tuning) -> None:
    """Do the range tests that are missing, and write down what they suggest."""
    for test in tuning.open_ranges:
        tunings.describe_range(test, crew.store)
    work = tunings.range_work(tuning.open_ranges, crew.store, retry_failed=crew.how.retry_failed)
    if work:
        names = {
            item.id: f"range test of {test.label}/{i}"
            for test in tuning.open_ranges
            for i, item in _of(work, test)
        }
        curves = count(len(work), "curve")
        what = f"range tests of the learning rate: {len(tuning.open_ranges)}, with {curves} to train"
        stage = StageStarted(f"{what} on {count(crew.slots, 'slot')}", len(work))
        crew.run(scheduler.Listed(work), stage, names, lambda task: crew.updated(task.partition("/")[0]))
    else:
        crew.notice(
            "range tests of the learning rate: the curves of an earlier time are taken, nothing is trained"
        )
    tunings.conclude(tuning.open_ranges, crew.store)


def _of(work: Iterable[RangeWork], test: RangeTest) -> Iterator[tuple[int, RangeWork]]:
    return ((test.seeds.index(item.seed), item) for item in work if item.test.id == test.id)


def search(crew: Crew, tuning: Tuning) -> None:
    """Run the searches that are missing, side by side; another study's search of the same is waited for."""
    from ablate.execution.search import Searches

    with ExitStack() as held:
        if not tunings.hold(tuning.open_searches, crew.store, held, crew.notice, crew.is_interrupted):
            crew.ledger.interrupted = True
            return
        names: dict[str, str] = {}
        first, storage = tuning.open_searches[0].search, crew.where.optuna_storage
        retry_failed = crew.how.retry_failed
        trials = Searches(
            tuning.open_searches, crew.store, storage, crew.updated, names, retry_failed=retry_failed
        )
        searches = count(len(tuning.open_searches), "search", "searches")
        what = f"{searches} of {count(first.trials, 'trial')} ({first.sampler})"
        total = (sum(each.search.trials for each in tuning.open_searches) - trials.over()) * len(first.seeds)
        crew.run(trials, StageStarted(f"{what} on {count(crew.slots, 'slot')}", total), names, trials.touch)


def train(crew: Crew, todo: Plan) -> None:
    """Train and evaluate the cells, as far as they are tuned."""
    ready = todo.ready
    trainings = sum(not work.trained for work in ready)
    was = "is" if len(ready) - trainings == 1 else "are"
    evaluated = (
        f" and evaluating {len(ready) - trainings} that {was} trained" if len(ready) > trainings else ""
    )
    already = f", {todo.done} known already" if todo.done else ""
    names = {run.job_id: run.name for run in reversed(todo.runs)}  # of the first cell that shares the job
    what = f"training {count(trainings, 'job')}{evaluated} on {count(crew.slots, 'slot')}{already}"

    def is_trained(job: str) -> bool:
        return state(crew.store.job(job)).is_trained

    crew.run(scheduler.Listed(ready, is_trained), StageStarted(what, len(ready)), names, crew.updated)


def unanswered(tuning: Tuning, store: Store) -> list[Failure]:
    """Return the cells that tuning has left without an answer, as failures."""
    return [Failure("", sentence, "") for sentence in tunings.unanswered(tuning, store)]
