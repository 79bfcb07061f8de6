"""The progress of a study: the state of each run, what runs now and for how long, what failed and why."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablate.analysis import outcomes as run_outcomes
from ablate.analysis.outcomes import FAILED_RESULT, Outcome
from ablate.errors import RefusedError, StoreError
from ablate.messages import printable
from ablate.planning import costs
from ablate.planning.tuning import Tuning
from ablate.recipe.fields import Recipe
from ablate.store import files, job_folder, search_folder, study_folder
from ablate.store.layout import Store
from ablate.study.grid import Run

ENDED = ("finished", *FAILED_RESULT)
REST = 5  # times as long as a look takes
PATIENCE = 3  # looks at a store that cannot be read
LONGEST_LINE = 500  # characters
TAIL = 65536  # bytes of a log in which its last line is looked for


@dataclass(frozen=True, slots=True)
class Spot:
    """The state of one run."""

    status: str
    job: str
    epoch: int = 0  # the last one that has ended, of a run that was stopped


@dataclass(frozen=True, slots=True)
class Running:
    """A job that some process trains or evaluates now."""

    run: str
    epoch: int
    epochs: int
    job: str = ""
    seconds_left: float | None = None  # of its training, by its own epochs; none before the first one
    evaluating: bool = False  # evaluated, not trained


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
    """The progress of a search."""

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
class Queued:
    """The tasks of a study that a cluster's queue has, whether or not a process here follows them."""

    running: int  # on its nodes
    waiting: int
    name: str  # that squeue lists them by


@dataclass(frozen=True, slots=True)
class Status:
    """Counts of runs by their state, for each cell and in all, and details of single runs."""

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
    queued: Queued | None = None  # none: a cluster has nothing of it

    @property
    def moves(self) -> bool:
        """Whether there is anything to watch."""
        return self.being_run or bool(self.running)


def summarise(outcomes: tuple[Outcome, ...]) -> Status:
    """Return the status of some runs; a job that several runs share is listed once as running."""
    cells: dict[str, Counter[str]] = {}
    spots: dict[str, dict[int, Spot]] = {}
    running: dict[str, Running] = {}
    for outcome in outcomes:
        label, job = outcome.run.cell.label, outcome.run.job_id
        cells.setdefault(label, Counter())[outcome.status] += 1
        stopped_in = outcome.lines[-1].epoch if outcome.status == "stopped" and outcome.lines else 0
        spots.setdefault(label, {})[outcome.run.seed] = Spot(outcome.status, job, stopped_in)
        if outcome.status == "running":
            running.setdefault(job, _running(outcome))
    broken = tuple(
        Broken(o.run.name, o.status, o.reason, o.log, o.run.job_id, last_line(Path(o.log)) if o.log else "")
        for o in outcomes
        if o.status in (*FAILED_RESULT, "crashed") or (o.status == "not_run" and o.reason)
    )
    return Status(
        cells={label: dict(counts) for label, counts in cells.items()},
        total=dict(Counter(o.status for o in outcomes)),
        running=tuple(running.values()),
        broken=broken,
        runs=spots,
        seconds_left=_seconds_left(outcomes, len(running)),
    )


def _running(outcome: Outcome) -> Running:
    run, seconds = outcome.run, _epoch_seconds(outcome)
    epoch, epochs = outcome.lines[-1].epoch if outcome.lines else 0, run.cell.recipe.training.epochs
    left = 0.0 if outcome.trained else None if seconds is None else (epochs - epoch) * seconds
    return Running(run.name, epoch, epochs, run.job_id, left, evaluating=outcome.trained)


def _epoch_seconds(outcome: Outcome) -> float | None:
    """Return the mean seconds of an epoch of a job; None before the first epoch has ended."""
    seconds = [line.seconds for line in outcome.lines]
    return statistics.mean(seconds) if seconds else outcome.metrics.get("time/epoch_seconds")


def _seconds_left(outcomes: tuple[Outcome, ...], running: int) -> float | None:
    """Return an estimate of the time until the last training ends, if `running` jobs go on at a time.

    A job goes by its own epochs; a job that waits, by those of its cell under other seeds, else of the same
    network on as many images. None where there is no such job, where nothing runs, and where fields are
    still to be found.
    """
    if not running:
        return None
    jobs = {outcome.run.job_id: outcome for outcome in outcomes}
    paces: dict[object, list[float]] = {}
    for outcome in jobs.values():
        seconds = _epoch_seconds(outcome)
        for key in _likes(outcome.run.cell.recipe) if seconds is not None else ():
            paces.setdefault(key, []).append(seconds or 0.0)
    total, longest = 0.0, 0.0
    for outcome in jobs.values():
        if outcome.status not in ("running", "stopped", "not_run") or outcome.trained:
            continue
        left, recipe = (
            _running(outcome).seconds_left if outcome.status == "running" else None,
            outcome.run.cell.recipe,
        )
        if left is None:
            pace = next((paces[key] for key in _likes(recipe) if key in paces), None)
            if pace is None or outcome.run.cell.pending:
                return None
            left = statistics.median(pace) * recipe.training.epochs
        total, longest = total + left, max(longest, left)
    return max(longest, total / running)


def _likes(recipe: Recipe) -> tuple[object, object]:
    """Return keys of the jobs whose epochs take as long as this recipe's, the nearest first."""
    data, training = recipe.data, recipe.training
    images = (data.name, data.train_size, data.validation, training.batch_size)
    return recipe.model_copy(update={"evaluation": None}), (*costs.kind(recipe), *images)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, harmless to a terminal and cut to `LONGEST_LINE`."""
    try:
        with files.open_binary(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except (OSError, RefusedError):  # gone meanwhile, or none
        return ""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return printable(line[:LONGEST_LINE]).replace("\t", " ")


def of(study: str, needed: tuple[Run, ...], tuning: Tuning, store: Store) -> Status:
    """Return the status of a study: runs, range tests, searches, whether it is being run, what was free."""
    # First: a watcher that sees the lease released must then see all that was done.
    being_run = study_folder.is_held(store, study)
    outcomes = run_outcomes.read(needed, store)
    return put_together(
        study, outcomes, tuning, store, being_run=being_run, studies=lambda job: studies_of(job, store)
    )


def put_together(
    study: str,
    outcomes: tuple[Outcome, ...],
    tuning: Tuning,
    store: Store,
    *,
    being_run: bool,
    studies: Callable[[str], Sequence[str]],
) -> Status:
    """Return the status of a study by what was read of it; `studies`: those that have tried a job."""
    status = with_tuning(summarise(outcomes), tuning, store)
    return replace(status, study=study, being_run=being_run, free=_free(study, outcomes, studies))


def studies_of(job: str, store: Store) -> tuple[str, ...]:
    """Return the study of each attempt at a job; empty text for one that an older version recorded."""
    return tuple(attempt.study or "" for attempt in job_folder.read_attempts(store.job(job)))


def _free(study: str, outcomes: tuple[Outcome, ...], studies: Callable[[str], Sequence[str]]) -> Free:
    """Count the runs that cost the study no training.

    An attempt that names no study was recorded by an older version: it counts as this study's own.
    """
    ended = [outcome for outcome in outcomes if outcome.status in ENDED]
    jobs = dict.fromkeys(outcome.run.job_id for outcome in ended)
    others: Counter[str] = Counter()
    for job in jobs:
        names = [name or study for name in studies(job)]
        if names and study not in names:
            others[names[-1]] += 1
    shared = len(ended) - len(jobs)
    return Free(shared + others.total(), len(ended), shared, dict(others))


def with_tuning(status: Status, tuning: Tuning, store: Store) -> Status:
    """Add the progress of range tests and searches."""
    searches = []
    for search in tuning.searches:
        trials = search_folder.read_trials(store.search(search.id), search.search)
        ended = len(search_folder.ended(trials, search.search))
        running = sum(trial.state == "running" for trial in trials)
        searches.append(Searched(search.label, ended, search.search.trials, running))
    done, total = len(tuning.ranges) - len(tuning.open_ranges), len(tuning.ranges)
    return replace(status, range_tests=(done, total), searches=tuple(searches))


def follow(read: Callable[[], Status], every: float = 2.0) -> Iterator[Status]:
    """Yield the status whenever it has changed, reading it every `every` seconds, until nothing moves.

    A large store is read less often, so that the jobs have their processors to themselves. A file that cannot
    be read may be one that is being copied: it is read again, `PATIENCE` times, before that is a StoreError.
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
