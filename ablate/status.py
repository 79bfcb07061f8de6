"""How far a study is: for each cell how many seeds are done, running, failed or missing; what runs now; what failed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ablate import kept
from ablate.runs import FAILED_RESULT, Outcome
from ablate.store import Store
from ablate.tuning import Tuning


@dataclass(frozen=True, slots=True)
class Running:
    """A job that some process trains now."""

    run: str
    epoch: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A run that failed, with the log to look at."""

    run: str
    status: str
    reason: str
    log: str


@dataclass(frozen=True, slots=True)
class Searched:
    """How far a search is."""

    cell: str
    ended: int
    trials: int
    running: int


@dataclass(frozen=True, slots=True)
class Status:
    """Counts of runs by what became of them, for each cell and in all."""

    cells: Mapping[str, Mapping[str, int]]  # by label
    total: Mapping[str, int]
    running: tuple[Running, ...]
    broken: tuple[Broken, ...]
    range_tests: tuple[int, int] = (0, 0)  # done, and all
    searches: tuple[Searched, ...] = ()


def summarise(outcomes: tuple[Outcome, ...]) -> Status:
    """Count what became of the runs; a job that several runs share is listed once as running."""
    cells: dict[str, Counter[str]] = {}
    running: dict[str, Running] = {}
    for one in outcomes:
        cells.setdefault(one.run.cell.label, Counter())[one.status] += 1
        if one.status == "running":
            epoch = one.lines[-1]["epoch"] if one.lines else 0
            running.setdefault(one.run.job_id, Running(one.run.name, epoch, one.run.cell.recipe.training.epochs))
    broken = tuple(Broken(o.run.name, o.status, o.reason, o.log) for o in outcomes if o.status in (*FAILED_RESULT, "failed"))
    total: Counter[str] = Counter(o.status for o in outcomes)
    return Status({label: dict(counts) for label, counts in cells.items()}, dict(total), tuple(running.values()), broken)


def with_tuning(status: Status, made: Tuning, store: Store) -> Status:
    """Add how far range tests and searches are."""
    searches = []
    for one in made.searches:
        trials = kept.read_trials(store, one.id, one.search)
        ended, running = len(kept.ended(trials, one.search)), sum(trial["state"] == "running" for trial in trials)
        searches.append(Searched(one.label, ended, one.search.trials, running))
    return replace(status, range_tests=(len(made.ranges) - len(made.open_ranges), len(made.ranges)), searches=tuple(searches))
