"""Searches by Optuna: it proposes fields, trials are ordinary jobs, and it is told their results.

A trial is RUNNING in Optuna's memory from the moment it was asked for, and its job is found by its fields. So
whatever is killed, and whenever, the next start finds the same trials, resumes their jobs where they stand,
and tells each result once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ablate.errors import AblateError, UnwritableError
from ablate.execution.optuna_memory import (
    DIVERGED,
    OpenSearch,
    OpenTrial,
    milliseconds,
    open_memory,
    sampler,
    suggest,
    worst,
)
from ablate.messages import public
from ablate.planning.plan import Work
from ablate.planning.work import CellSearch
from ablate.store import files, job_folder, search_folder
from ablate.store.files import Json
from ablate.store.job_state import JobState, state
from ablate.store.layout import Store
from ablate.store.records import Trial
from ablate.study import search_space
from ablate.study.grid import Job

End = Literal["running", "complete", "pruned", "failed", "diverged"]
ENDS: Mapping[str, End] = {"COMPLETE": "complete", "FAIL": "failed", "RUNNING": "running"}
"""The states of a trial as trials.json has them, by Optuna's names for them."""


@contextmanager
def _remembered() -> Iterator[None]:
    """Raise an UnwritableError where Optuna's memory takes nothing more, be it a file or a database."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        raise UnwritableError(
            f"the memory of a search cannot be written ({error.strerror}): make room, and run the same again"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = public(str(error)).splitlines()[0]
        raise AblateError(
            f"Optuna's storage is gone ({reason}): run the same again when it is back; no result is lost"
        ) from None


class Searches:
    """The trials of some searches as a source of work.

    Each search has the same number of trials. The searches take turns, so that each proposal knows as many
    results of its search as can be.
    """

    def __init__(
        self,
        searches: Sequence[CellSearch],
        store: Store,
        storage: str | None,
        changed: Callable[[str], None],
        names: dict[str, str],
        *,
        retry_failed: bool = False,
    ) -> None:
        """Open the searches, which the caller holds, and resume the trials that were under way.

        `changed` hears of each search that has something new; `names` gets the name of each job.
        """
        self._store, self._changed, self._names, self._retry_failed = store, changed, names, retry_failed
        self._open = [OpenSearch(opened, open_memory(opened, store, storage)) for opened in searches]
        self._ready: list[Work] = []
        self._handed: dict[str, Work] = {}  # by job: given out, and not ended
        self._pruned: set[str] = set()  # jobs that were asked to stop
        for opened in self._open:
            self._take_up(opened)

    @_remembered()
    def next(self, fits: Callable[[Work], bool]) -> Work | None:
        """Return the next job of a trial that fits; None while all that may be asked for are under way."""
        while (work := next((work for work in self._ready if fits(work)), None)) is None:
            waiting = [
                opened
                for opened in self._open
                if opened.asked < opened.search.search.trials and fits(_usual(opened.search))
            ]
            if not waiting:
                return None
            self._ask(min(waiting, key=lambda opened: (len(opened.running), opened.asked)))
        self._ready.remove(work)
        self._handed[work.job.id] = work
        return work

    @_remembered()
    def progressed(self, task: str) -> bool:
        """Show the pruner the new epochs; return whether the job should be stopped."""
        for opened, trial in self._of(task):
            if self._is_hopeless(opened, trial):
                self._tell(opened, trial, "pruned")
        if self._of(task):
            return False
        self._pruned.add(task)
        return True

    @_remembered()
    def ended(self, task: str, kind: str) -> None:
        """Hear how a job ended: finished, failed or stopped."""
        work = self._handed.pop(task)
        if kind == "stopped":
            if task in self._pruned and self._of(task):  # another trial has asked for the same meanwhile
                self._ready.append(work)
            self._pruned.discard(task)
            return  # with everything: it goes on next time
        self._pruned.discard(task)
        for opened, trial in self._of(task):
            self._close(opened, trial)

    def over(self) -> int:
        """Count the trials that have ended."""
        return sum(
            trial.state in search_folder.ENDED for opened in self._open for trial in opened.rows.values()
        )

    def touch(self, task: str) -> None:
        """Report that the searches that need a job have something new."""
        for opened, _ in self._of(task):
            self._changed(opened.search.id)

    def _of(self, task: str) -> list[tuple[OpenSearch, OpenTrial]]:
        return [
            (opened, trial)
            for opened in self._open
            for trial in list(opened.running.values())
            if task in trial.jobs.values()
        ]

    def _take_up(self, opened: OpenSearch) -> None:
        """Resume the trials that an earlier process has left."""
        from optuna.trial import Trial

        trials = opened.memory.get_trials(deepcopy=False)
        opened.asked = sum(trial.state.name != "WAITING" for trial in trials)
        for frozen in trials:
            if frozen.state.name == "RUNNING" and frozen.number < opened.search.search.trials:
                opened.memory.sampler = sampler(opened.search, frozen.number)
                self._start(opened, Trial(opened.memory, frozen._trial_id))  # noqa: SLF001 (as Optuna's own ask does)
        self._write(opened)

    def _ask(self, opened: OpenSearch) -> None:
        opened.memory.sampler = sampler(opened.search, opened.asked)
        asked = opened.memory.ask()
        opened.asked += 1
        self._start(opened, asked)
        self._write(opened)

    def _start(self, opened: OpenSearch, asked: Any) -> None:
        """Draw the fields of a trial, or the rest of them after a kill, and queue its jobs."""
        fields = {}
        for path, tried in opened.search.search.space.items():
            opened.memory.sampler = sampler(opened.search, asked.number, path)
            fields[path] = suggest(asked, path, tried)
        jobs = _jobs(opened.search, fields)
        trial = opened.running[asked.number] = OpenTrial(asked, fields, {job.seed: job.id for job in jobs})
        for job in jobs:
            self._names.setdefault(
                job.id, f"trial {asked.number} of {opened.search.label} ({search_space.written(fields)})"
            )
            standing = state(self._store.job(job.id))
            failed = standing.stage() == "crashed" and not self._retry_failed
            if self._is_open(job.id, standing) and not failed and job.id not in self._under_way():
                self._ready.append(Work(job, (), trained=False))
        self._close(opened, trial)  # all of its jobs may be done already

    def _close(self, opened: OpenSearch, trial: OpenTrial) -> None:
        """Tell Optuna the result of a trial whose jobs have all ended."""
        states = [state(self._store.job(job)) for job in trial.jobs.values()]
        are_open = [self._is_open(job, each) for job, each in zip(trial.jobs.values(), states, strict=True)]
        if any(standing.stage() == "diverged" for standing in states):
            self._tell(opened, trial, "diverged")
        elif states and not any(are_open):
            self._tell(opened, trial, "complete")
        elif not set(trial.jobs.values()) & self._under_way():  # one has failed, or there is none
            self._tell(opened, trial, "failed")

    def _is_open(self, job: str, standing: JobState) -> bool:
        """Whether a job has no result yet, or one whose journal a power cut has shortened.

        A trial's value is read from there: it would be another one, and another trial might win.
        """
        folder, result = self._store.job(job), standing.result
        return result is None or len(job_folder.read_epochs(folder)) < result.epochs

    def _under_way(self) -> set[str]:
        return {*self._handed, *(work.job.id for work in self._ready)}

    def _tell(self, opened: OpenSearch, trial: OpenTrial, state: str) -> None:
        """Tell Optuna the end of a trial, once, and write it down.

        A diverged trial counts as the worst of all: Optuna would ignore a failed one.
        """
        from optuna.trial import TrialState

        if state == "complete":
            opened.memory.tell(trial.asked, value(opened.search, trial.jobs, self._store))
        elif state == "diverged":
            trial.asked.set_user_attr(DIVERGED, True)  # noqa: FBT003 (Optuna's own signature)
            opened.memory.tell(trial.asked, worst(opened))
        else:
            opened.memory.tell(trial.asked, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)
        del opened.running[trial.asked.number]
        self._ready = [
            work for work in self._ready if work.job.id not in trial.jobs.values() or self._of(work.job.id)
        ]
        self._write(opened)

    def _is_hopeless(self, opened: OpenSearch, trial: OpenTrial) -> bool:
        """Show the pruner the epochs that every seed of a trial has come to, and ask it."""
        if opened.search.search.pruner == "none":
            return False
        curves = [_metric_of(self._store, job, opened.search.search.metric) for job in trial.jobs.values()]
        for epoch in range(trial.told, min(len(curve) for curve in curves)):
            reached = [curve[epoch] for curve in curves]
            if not all(math.isfinite(part) for part in reached):
                return False  # it diverges: it ends by itself
            trial.asked.report(sum(reached) / len(reached), step=epoch + 1)
            trial.told = epoch + 1
            if trial.asked.should_prune() and epoch + 1 < opened.search.recipe.training.epochs:
                return True
        return False

    def _write(self, opened: OpenSearch) -> None:
        """Write every trial down: all that plans, reports and MLflow know of a search."""
        for frozen in opened.memory.get_trials(deepcopy=False):
            trial = opened.running.get(frozen.number)
            fields = dict(trial.fields if trial else frozen.params)
            written = frozen.number in opened.rows and opened.rows[frozen.number].state != "running"
            if frozen.state.name == "WAITING" or written or len(fields) < len(opened.search.search.space):
                continue  # the last: killed before it had its fields, and not resumed yet
            jobs = trial.jobs if trial else {job.seed: job.id for job in _jobs(opened.search, fields)}
            opened.rows[frozen.number] = _row(frozen, fields, jobs)
        search_folder.write_trials(self._store.search(opened.search.id), tuple(opened.rows.values()))
        self._changed(opened.search.id)


def _usual(search: CellSearch) -> Work:
    """Return the training of a trial as it is before its fields are known, to guess at its time."""
    return Work(Job("", search.recipe, search.search.seeds[0], search.data, search.code), (), trained=False)


def _jobs(search: CellSearch, fields: Mapping[str, Any]) -> tuple[Job, ...]:
    """Return the jobs of a trial.

    There are none where its fields do not go together, such as a padding that is too large to be mirrored.
    """
    try:
        return search.jobs(fields)
    except ValueError:
        return ()


def _row(frozen: Any, fields: Json, jobs: Mapping[int, str]) -> Trial:
    """Return a trial of Optuna's as it is written down."""
    end: End = ENDS.get(frozen.state.name, "pruned")
    if end == "complete" and DIVERGED in frozen.user_attrs:
        end = "diverged"
    return Trial(
        number=frozen.number,
        params=fields,
        jobs={str(seed): job for seed, job in jobs.items()},
        value=frozen.value if end == "complete" else None,
        state=end,
        proposed="fixed_params" not in frozen.system_attrs,
        started=milliseconds(frozen.datetime_start),
        ended=milliseconds(frozen.datetime_complete),
    )


def value(search: CellSearch, jobs: Mapping[int, str], store: Store) -> float:
    """Return the value of a finished trial: the mean over its seeds.

    Each seed counts by its last epoch, or by its best where the cell selects that.
    """
    values = []
    for job in jobs.values():
        curve = _metric_of(store, job, search.search.metric)
        best = max(curve) if search.search.direction == "max" else min(curve)
        values.append(best if search.recipe.evaluation.select == "best_validation" else curve[-1])
    return sum(values) / len(values)


def _metric_of(store: Store, job: str, metric: str) -> list[float]:
    return [line.metrics.get(metric, math.nan) for line in job_folder.read_epochs(store.job(job))]
