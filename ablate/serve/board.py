"""The progress of a study, kept up to date by looking only at what can have changed.

A status reads every job of a study, which a service cannot do each second for a store of 10,000 runs. A job
that has ended is asked for the time of its folder alone; one without a folder only once some folder was made;
the others, as many as there are slots, for their lock and the times of their files.
"""

import os
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ablate.analysis import outcomes as run_outcomes
from ablate.analysis import status as standing
from ablate.analysis.outcomes import Outcome
from ablate.analysis.status import ENDED, Status
from ablate.errors import StoreError
from ablate.planning.resolve import Resolved, resolve
from ablate.store import job_folder, study_folder
from ablate.store.layout import Store
from ablate.study.grid import Run
from ablate.workflow import argument, inspect

PACE = "time/epoch_seconds"
TUNING_PAUSE = 5.0  # seconds between two looks at what range tests and searches have found
Mark = tuple[int, ...]  # what of some files changes whenever they do


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last seen of a job."""

    mark: Mark
    outcomes: tuple[Outcome, ...]  # of its runs, without what only reports need
    has_ended: bool
    studies: tuple[str, ...]  # those that have tried it


class Board:
    """A study of a store, and what was last seen of it. Threads may share it: one looks at a time."""

    def __init__(self, store: Store, name: str) -> None:
        """Take a study by its name; nothing is read yet."""
        self.store, self.name = store, name
        self.version = 0
        """Changes whenever a run has ended or the study is another: results of before are old then."""
        self._lock = threading.Lock()
        self._mark: Mark | None = None
        self._resolved: Resolved | None = None
        self._resolved_at = 0.0
        self._runs: dict[str, list[Run]] = {}  # by job
        self._seen: dict[str, Seen] = {}
        self._jobs_mark: Mark = ()
        self._status: Status | None = None

    def look(self) -> Status:
        """Return the status as of now: the same object as before where nothing has changed.

        Raises a StoreError where the store has no such study.
        """
        with self._lock:
            is_other = self._resolve()
            # First: a watcher that sees the study released must then see all that was done.
            being_run = study_folder.is_held(self.store, self.name)
            queued = inspect.queued(self.name, self.store)
            changed = self._look_at_jobs() or is_other
            resolved = self._resolved
            assert resolved is not None
            last = self._status
            has_tuning = bool(resolved.tuning.ranges or resolved.tuning.searches)
            is_as_before = last is not None and (last.being_run, last.queued) == (being_run, queued)
            if last is not None and is_as_before and not changed and not has_tuning:
                return last
            if changed or last is None:
                now = self._put_together(resolved, being_run=being_run)
            else:
                now = replace(standing.with_tuning(last, resolved.tuning, self.store), being_run=being_run)
            now = replace(now, queued=queued)
            if now != last:
                self._status = now
            assert self._status is not None
            return self._status

    @property
    def resolved(self) -> Resolved:
        """The study as `look` has last resolved it."""
        if self._resolved is None:
            self.look()
        assert self._resolved is not None
        return self._resolved

    def values(self) -> dict[str, dict[int, float]]:
        """Return the study's metric of every run that has one, by cell and seed, as last seen."""
        metric, values = self.resolved.study.metric, dict[str, dict[int, float]]()
        with self._lock:
            for seen in self._seen.values():
                for outcome in seen.outcomes:
                    if metric in outcome.metrics:
                        values.setdefault(outcome.run.cell.label, {})[outcome.run.seed] = outcome.metrics[
                            metric
                        ]
        return values

    def _resolve(self) -> bool:
        """Resolve the study again where it may have changed; whether it was."""
        folder = self.store.study(self.name)
        paths = (
            folder / "study.json",
            folder / "settled.json",
            folder / "origin.json",
            self.store.data / "index",
        )
        mark, old = _marks(paths), self._resolved
        is_tuned = old is not None and bool(old.tuning.open_ranges or old.tuning.open_searches)
        rests = not is_tuned or time.monotonic() < self._resolved_at + TUNING_PAUSE
        if old is not None and mark == self._mark and rests:
            return False
        resolved = resolve(argument.recall(self.name, self.store), self.store)
        self._mark, self._resolved, self._resolved_at = mark, resolved, time.monotonic()
        runs: dict[str, list[Run]] = {}
        for run in resolved.runs:
            runs.setdefault(run.job_id, []).append(run)
        if runs == self._runs and old is not None and old.study == resolved.study:
            return False
        self._seen = {job: seen for job, seen in self._seen.items() if runs.get(job) == self._runs.get(job)}
        self._runs, self._jobs_mark = runs, ()
        self.version += 1
        return True

    def _look_at_jobs(self) -> bool:
        """Look at every job that can have changed; whether one has."""
        jobs_mark = _marks([self.store.path / "jobs"])
        may_be_new, changed = jobs_mark != self._jobs_mark, False
        for job, runs in self._runs.items():
            seen = self._seen.get(job)
            if seen is not None and not seen.mark and not may_be_new:
                continue
            mark = self._mark_of(job, seen)
            if seen is not None and seen.mark == mark:
                continue
            now = self._read(job, runs, mark, runs_on=seen is not None and not seen.has_ended)
            if seen is None and mark and not now.has_ended:  # rare in a large study: its files are looked at
                now = self._read(job, runs, self._mark_of(job, now), runs_on=True)
            if seen is None or seen.outcomes != now.outcomes:
                changed = True
                self.version += now.has_ended or (seen is not None and seen.has_ended)
            self._seen[job] = now
        self._jobs_mark = jobs_mark
        return changed

    def _mark_of(self, job: str, seen: Seen | None) -> Mark:
        """Return what changes whenever a job does; empty where it has no folder."""
        path = f"{self.store.path}/jobs/{job}"
        try:
            there = os.stat(path)  # noqa: PTH116 (a Path takes longer than the look, and there are thousands)
        except OSError:
            return ()
        mark = (there.st_mtime_ns, there.st_ino)
        if seen is None or seen.has_ended:
            return mark
        folder = self.store.job(job)
        outcomes = [Path(path, "outcomes"), *Path(path, "outcomes").glob("*")]
        files = (folder.journal, folder.attempts, folder.result, folder.failure, *outcomes)
        return (*mark, job_folder.is_running(folder), *_marks(files))

    def _read(self, job: str, runs: list[Run], mark: Mark, *, runs_on: bool) -> Seen:
        """Read the outcomes of a job's runs; all at once of one that `runs_on`, as it has hardly ended."""
        outcomes = run_outcomes.read(tuple(runs), self.store, whole=bool(mark) and runs_on)
        if not mark:
            return Seen((), outcomes, has_ended=False, studies=())
        if not runs_on and any(outcome.status != "finished" for outcome in outcomes):
            outcomes = run_outcomes.read(tuple(runs), self.store)
        has_ended = all(outcome.status in ENDED for outcome in outcomes)
        slim = tuple(self._slim(outcome) for outcome in outcomes)
        return Seen(mark[:2] if has_ended else mark, slim, has_ended, standing.studies_of(job, self.store))

    def _slim(self, outcome: Outcome) -> Outcome:
        """Return an outcome without what a status does not show: it is kept as long as the service lives."""
        assert self._resolved is not None
        names = (self._resolved.study.metric, PACE)
        metrics = {name: outcome.metrics[name] for name in names if name in outcome.metrics}
        lines = outcome.lines
        if lines and outcome.status in ENDED:
            metrics[PACE], lines = statistics.mean(line.seconds for line in lines), ()
        return replace(
            outcome, metrics=metrics, lines=lines, confusion=(), classes=(), environment={}, calibration=(),
            picture="",
        )  # fmt: skip

    def _put_together(self, resolved: Resolved, *, being_run: bool) -> Status:
        left = {job: iter(self._seen[job].outcomes) for job in self._runs}
        outcomes = tuple(next(left[run.job_id]) for run in resolved.runs)
        return standing.put_together(
            self.name, outcomes, resolved.tuning, self.store,
            being_run=being_run, studies=lambda job: self._seen[job].studies,
        )  # fmt: skip


class MissingError(StoreError):
    """A study that the store does not have."""


class Boards:
    """The boards of a store's studies, made when somebody asks for one."""

    def __init__(self, store: Store) -> None:
        """Take a store, which need not be there yet."""
        self.store = store
        self._boards: dict[str, Board] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Board:
        """Return the board of a study."""
        with self._lock:
            if name not in self._boards:
                self._check(name)
                self._boards[name] = Board(self.store, name)
            return self._boards[name]

    def _check(self, name: str) -> None:
        """Raise a MissingError for a study that is not there: no board for whatever somebody asks for."""
        if name not in self.names():
            try:
                study_folder.recall(self.store, name)
            except StoreError as error:
                raise MissingError(str(error)) from None

    def names(self) -> list[str]:
        """Return the names of the studies that the store has."""
        return study_folder.names(self.store)


def _marks(paths: Iterable[Path]) -> Mark:
    mark: list[int] = []
    for path in paths:
        try:
            there = path.stat()
        except OSError:
            mark += (0, 0, 0)
        else:
            mark += (there.st_mtime_ns, there.st_size, there.st_ino)
    return tuple(mark)
