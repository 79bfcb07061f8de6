"""How far a study is: what became of each run, what runs now and for how long, what failed and why, what cost nothing."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablate.analysis import outcomes as run_outcomes
from ablate.analysis.outcomes import FAILED_RESULT, Outcome
from ablate.errors import StoreError
from ablate.messages import printable
from ablate.planning import costs
from ablate.planning.tuning import Tuning
from ablate.recipe.fields import Recipe
from ablate.store import job_folder, search_folder, study_folder
from ablate.store.layout import Store
from ablate.study.grid import Run

ENDED = ("finished", *FAILED_RESULT)
REST = 5  # times as long as a look takes
PATIENCE = 3  # looks at a store that cannot be read
LONGEST_LINE = 500  # characters
TAIL = 65536  # bytes of a log in which its last line is looked for


@dataclass(frozen=True, slots=True)
class Spot:
    """What became of one run."""

    status: str
    job: str
    epoch: int = 0  # the last one that has ended, of a run that was stopped


@dataclass(frozen=True, slots=True)
class Running:
    """A job that some process trains or judges now."""

    run: str
    epoch: int
    epochs: int
    job: str = ""
    seconds_left: float | None = (
        None  # of its training, by the pace of its own epochs; none before the first one
    )
    judging: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """A run that crashed, diverged or stayed at chance, with the log to look at."""

    run: str
    status: str
    reason: str
    log: str
    job: str = ""
    last_line: str = ""  # of the log


@dataclass(frozen=True, slots=True)
class Searched:
    """How far a search is."""

    cell: str
    ended: int
    trials: int
    running: int


@dataclass(frozen=True, slots=True)
class Free:
    """The runs, of those that have ended, that needed no training of their own."""

    runs: int = 0
    of: int = 0
    shared: int = 0  # they share another cell's training
    other_studies: Mapping[str, int] = field(default_factory=dict)  # trained by another study, by its name


@dataclass(frozen=True, slots=True)
class Status:
    """Counts of runs by what became of them, for each cell and in all, and what there is to know of single ones."""

    cells: Mapping[str, Mapping[str, int]]  # by label
    total: Mapping[str, int]
    running: tuple[Running, ...]
    broken: tuple[Broken, ...]
    range_tests: tuple[int, int] = (0, 0)  # done, and all
    searches: tuple[Searched, ...] = ()
    study: str = ""
    runs: Mapping[str, Mapping[int, Spot]] = field(default_factory=dict)  # by label and seed
    free: Free = Free()
    seconds_left: float | None = None  # of the whole study at the pace of now; none where it cannot be known
    being_run: bool = False  # some process holds the study

    @property
    def moves(self) -> bool:
        """Whether there is anything to watch."""
        return self.being_run or bool(self.running)


def summarise(outcomes: tuple[Outcome, ...]) -> Status:
    """Tell what became of the runs; a job that several runs share is listed once as running."""
    cells: dict[str, Counter[str]] = {}
    spots: dict[str, dict[int, Spot]] = {}
    running: dict[str, Running] = {}
    for one in outcomes:
        label, job = one.run.cell.label, one.run.job_id
        cells.setdefault(label, Counter())[one.status] += 1
        stopped_in = one.lines[-1].epoch if one.status == "stopped" and one.lines else 0
        spots.setdefault(label, {})[one.run.seed] = Spot(one.status, job, stopped_in)
        if one.status == "running":
            running.setdefault(job, _running(one))
    broken = tuple(
        Broken(o.run.name, o.status, o.reason, o.log, o.run.job_id, last_line(Path(o.log)) if o.log else "")
        for o in outcomes
        if o.status in (*FAILED_RESULT, "crashed")
    )
    return Status(
        cells={label: dict(counts) for label, counts in cells.items()}, total=dict(Counter(o.status for o in outcomes)),
        running=tuple(running.values()), broken=broken, runs=spots, seconds_left=_seconds_left(outcomes, tuple(running.values())),
    )  # fmt: skip


def _running(one: Outcome) -> Running:
    epoch, epochs, each = (
        one.lines[-1].epoch if one.lines else 0,
        one.run.cell.recipe.training.epochs,
        _epoch_seconds(one),
    )
    left = 0.0 if one.trained else None if each is None else (epochs - epoch) * each
    return Running(one.run.name, epoch, epochs, one.run.job_id, left, judging=one.trained)


def _epoch_seconds(one: Outcome) -> float | None:
    """Return the seconds of an epoch of one job."""
    seconds = [line.seconds for line in one.lines]
    return statistics.mean(seconds) if seconds else one.metrics.get("time/epoch_seconds")


def _seconds_left(outcomes: tuple[Outcome, ...], running: tuple[Running, ...]) -> float | None:
    """Guess when the last training ends if as many go on at a time as now.

    A job goes by its own epochs, one that waits by those of its cell under other seeds, else of the same
    network on as many images. Where there is no such job, or nothing runs, or fields are still to be found,
    nobody can know.
    """
    jobs = {one.run.job_id: one for one in outcomes}
    paces: dict[object, list[float]] = {}
    for one in jobs.values():
        each = _epoch_seconds(one)
        for key in _likes(one.run.cell.recipe) if each is not None else ():
            paces.setdefault(key, []).append(each or 0.0)
    total, longest = 0.0, 0.0
    for one in jobs.values():
        if one.status not in ("running", "stopped", "not_run") or one.trained:
            continue
        left = _running(one).seconds_left if one.status == "running" else None
        if left is None:
            known = next((paces[key] for key in _likes(one.run.cell.recipe) if key in paces), None)
            if known is None or one.run.cell.pending:
                return None
            left = statistics.median(known) * one.run.cell.recipe.training.epochs
        total, longest = total + left, max(longest, left)
    return max(longest, total / len(running)) if running else None


def _likes(recipe: Recipe) -> tuple[object, object]:
    """Name the jobs whose epochs take as long as this recipe's, the nearest first."""
    data, training = recipe.data, recipe.training
    images = (data.name, data.train_size, data.validation, training.batch_size)
    return recipe.model_copy(update={"evaluation": None}), (*costs.kind(recipe), *images)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, without what would move a terminal's cursor, and cut where it is very long."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:  # gone meanwhile
        return ""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return printable(line[:LONGEST_LINE]).replace("\t", " ")


def of(study: str, needed: tuple[Run, ...], made: Tuning, store: Store) -> Status:
    """Tell how far a study is, with its range tests and searches, whether it is being run, and what it got for free."""
    being_run = study_folder.is_held(
        store, study
    )  # first: who watches until nobody holds it must then see all that was done
    outcomes = run_outcomes.read(needed, store)
    found = with_tuning(summarise(outcomes), made, store)
    return replace(found, study=study, being_run=being_run, free=_free(study, outcomes, store))


def _free(study: str, outcomes: tuple[Outcome, ...], store: Store) -> Free:
    """Count the runs that cost the study no training.

    A line of an attempt without a study is of an older version: its own.
    """
    ended = [one for one in outcomes if one.status in ENDED]
    jobs = dict.fromkeys(one.run.job_id for one in ended)
    others: Counter[str] = Counter()
    for job in jobs:
        names = [attempt.study or study for attempt in job_folder.read_attempts(store.job(job))]
        if names and study not in names:
            others[names[-1]] += 1
    shared = len(ended) - len(jobs)
    return Free(shared + others.total(), len(ended), shared, dict(others))


def with_tuning(status: Status, made: Tuning, store: Store) -> Status:
    """Add how far range tests and searches are."""
    searches = []
    for one in made.searches:
        trials = search_folder.read_trials(store.search(one.id), one.search)
        ended, running = (
            len(search_folder.ended(trials, one.search)),
            sum(trial.state == "running" for trial in trials),
        )
        searches.append(Searched(one.label, ended, one.search.trials, running))
    return replace(
        status,
        range_tests=(len(made.ranges) - len(made.open_ranges), len(made.ranges)),
        searches=tuple(searches),
    )


def follow(read: Callable[[], Status], every: float = 2.0) -> Iterator[Status]:
    """Yield the status whenever it has changed, looking `every` so many seconds, until nothing moves.

    A large store is looked at less often, so that the jobs have their processors to themselves.

    A file that cannot be read may be one that somebody is copying: it is looked at again before that is a
    StoreError.
    """
    last, wrong = None, 0
    while True:
        began = time.monotonic()
        try:
            now = read()
        except (StoreError, KeyError, TypeError, ValueError) as error:
            wrong += 1
            if wrong > PATIENCE:
                raise StoreError(
                    f"the store cannot be read ({error}): ablate doctor says what is wrong with it"
                ) from error
        else:
            if now != last:
                yield now
            if not now.moves:
                return
            last, wrong = now, 0
        time.sleep(max(every, REST * (time.monotonic() - began)))
