"""Searches by Optuna: who proposes fields, trials as ordinary jobs, and what became of them. The only home of optuna.

A trial is RUNNING in Optuna's memory from the moment it was asked for, and its job is found by its fields. So whatever is
killed, and whenever: the next start finds the same trials, takes their jobs up where they stand, and tells each result once.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablate import journal, kept, space, tuning
from ablate import recipe as recipes
from ablate import store as stores
from ablate.errors import AblateError, UnwritableError
from ablate.grid import Job
from ablate.plan import Work
from ablate.space import Range, Search
from ablate.store import Store
from ablate.tracking import public
from ablate.tuning import CellSearch

NEEDS = {"cmaes": "cmaes"}  # packages that do not come with ablate, by sampler
DIVERGED = "ablate.diverged"
Json = dict[str, Any]


@dataclass(slots=True)
class _Trial:
    """One trial under way."""

    asked: Any  # optuna's
    fields: Mapping[str, Any]
    jobs: dict[int, str]  # by tuning seed
    told: int = 0  # epochs that the pruner has seen


@dataclass(slots=True)
class _Open:
    """One search under way."""

    search: CellSearch
    memory: Any  # optuna's study
    running: dict[int, _Trial] = field(default_factory=dict)  # by number
    asked: int = 0  # trials that there are
    rows: dict[int, Json] = field(default_factory=dict)  # as they are written down, by number


@contextmanager
def _remembered() -> Iterator[None]:
    """Say in a sentence that Optuna's memory takes nothing more, be it a file or a database."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except OSError as error:
        if error.errno not in journal.FULL:
            raise
        raise UnwritableError(f"the memory of a search cannot be written ({error.strerror}): make room, and run the same again") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        said = public(str(error).splitlines()[0])
        raise AblateError(f"Optuna's storage is gone ({said}): run the same again when it is back; nothing that was told is lost") from None


class Searches:
    """The trials of some searches as a source of work. Equal budgets: each search has the same number of trials.

    The searches take turns, so that each proposal knows as many of its search's results as can be.
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
        """Open the searches, which the caller holds, and take up the trials that were under way.

        `changed` hears of each search that has something new; `names` gets the name of each job.
        """
        self._store, self._changed, self._names, self._retry_failed = store, changed, names, retry_failed
        self._open = [_Open(one, _memory(one, store, storage)) for one in searches]
        self._ready: list[Work] = []
        self._handed: dict[str, Work] = {}  # by job: given out, and not ended
        self._pruned: set[str] = set()  # jobs that were asked to stop
        for one in self._open:
            self._take_up(one)

    @_remembered()
    def next(self, fits: Callable[[Work], bool]) -> Work | None:
        """Give the next job of a trial that fits; none while all that may be asked for are under way."""
        while (work := next((work for work in self._ready if fits(work)), None)) is None:
            waiting = [one for one in self._open if one.asked < one.search.search.trials and fits(_usual(one.search))]
            if not waiting:
                return None
            self._ask(min(waiting, key=lambda one: (len(one.running), one.asked)))
        self._ready.remove(work)
        self._handed[work.job.id] = work
        return work

    @_remembered()
    def progressed(self, task: str) -> bool:
        """Show the pruner what has come; say whether the job should be stopped."""
        for one, trial in self._of(task):
            if self._is_hopeless(one, trial):
                self._tell(one, trial, "pruned")
        if self._of(task):
            return False
        self._pruned.add(task)
        return True

    @_remembered()
    def ended(self, task: str, kind: str) -> None:
        """Hear what became of a job: finished, failed or stopped."""
        work = self._handed.pop(task)
        if kind == "stopped":
            if task in self._pruned and self._of(task):  # another trial has asked for the same meanwhile
                self._ready.append(work)
            self._pruned.discard(task)
            return  # with everything: it goes on next time
        self._pruned.discard(task)
        for one, trial in self._of(task):
            self._close(one, trial)

    def over(self) -> int:
        """Count the trials that have ended."""
        return sum(row["state"] in kept.ENDED for one in self._open for row in one.rows.values())

    def touch(self, task: str) -> None:
        """Say that the searches that need a job have something new."""
        for one, _ in self._of(task):
            self._changed(one.search.id)

    def _of(self, task: str) -> list[tuple[_Open, _Trial]]:
        return [(one, trial) for one in self._open for trial in list(one.running.values()) if task in trial.jobs.values()]

    def _take_up(self, one: _Open) -> None:
        """Go on with the trials that an earlier process has left."""
        from optuna.trial import Trial

        trials = one.memory.get_trials(deepcopy=False)
        one.asked = sum(trial.state.name != "WAITING" for trial in trials)
        for known in trials:
            if known.state.name == "RUNNING" and known.number < one.search.search.trials:
                one.memory.sampler = _sampler(one.search, known.number)
                self._start(one, Trial(one.memory, known._trial_id))  # noqa: SLF001 (as Optuna's own ask does)
        self._write(one)

    def _ask(self, one: _Open) -> None:
        one.memory.sampler = _sampler(one.search, one.asked)
        asked = one.memory.ask()
        one.asked += 1
        self._start(one, asked)
        self._write(one)

    def _start(self, one: _Open, asked: Any) -> None:
        """Let a trial have its fields, and its jobs be done; a kill may have come before it had them."""
        fields = {}
        for path, tried in one.search.search.space.items():
            one.memory.sampler = _sampler(one.search, asked.number, path)
            fields[path] = _suggest(asked, path, tried)
        jobs = _jobs(one.search, fields)
        trial = one.running[asked.number] = _Trial(asked, fields, {job.seed: job.id for job in jobs})
        for job in jobs:
            self._names.setdefault(job.id, f"trial {asked.number} of {one.search.label} ({space.written(fields)})")
            folder = self._store.job(job.id)
            failed = folder.failure.exists() and not self._retry_failed
            if not folder.result.exists() and not failed and job.id not in self._under_way():
                self._ready.append(Work(job, (), trained=False))
        self._close(one, trial)  # all of its jobs may be done already

    def _close(self, one: _Open, trial: _Trial) -> None:
        """Tell a trial whose jobs have all ended."""
        folders = [self._store.job(job) for job in trial.jobs.values()]
        results = [journal.read_json(folder.result) for folder in folders]
        if any(result is not None and result["status"] == "diverged" for result in results):
            self._tell(one, trial, "diverged")
        elif results and all(result is not None for result in results):
            self._tell(one, trial, "complete")
        elif not set(trial.jobs.values()) & self._under_way():  # one has failed, and the others are as far as they will be; or none is
            self._tell(one, trial, "failed")

    def _under_way(self) -> set[str]:
        return {*self._handed, *(work.job.id for work in self._ready)}

    def _tell(self, one: _Open, trial: _Trial, state: str) -> None:
        """Tell Optuna, once, and write it down. A diverged trial is the worst there is, not one that never was."""
        from optuna.trial import TrialState

        if state == "complete":
            one.memory.tell(trial.asked, value(one.search, trial.jobs, self._store))
        elif state == "diverged":
            trial.asked.set_user_attr(DIVERGED, True)  # noqa: FBT003 (Optuna's own signature)
            one.memory.tell(trial.asked, _worst(one))
        else:
            one.memory.tell(trial.asked, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)
        del one.running[trial.asked.number]
        self._ready = [work for work in self._ready if work.job.id not in trial.jobs.values() or self._of(work.job.id)]
        self._write(one)

    def _is_hopeless(self, one: _Open, trial: _Trial) -> bool:
        """Show the pruner the epochs that every seed of a trial has come to, and ask it."""
        if one.search.search.pruner == "none":
            return False
        curves = [_metric_of(self._store, job, one.search.search.metric) for job in trial.jobs.values()]
        for epoch in range(trial.told, min(len(curve) for curve in curves)):
            reached = [curve[epoch] for curve in curves]
            if not all(math.isfinite(part) for part in reached):
                return False  # it diverges: it ends by itself
            trial.asked.report(sum(reached) / len(reached), step=epoch + 1)
            trial.told = epoch + 1
            if trial.asked.should_prune() and epoch + 1 < one.search.recipe.training.epochs:
                return True
        return False

    def _write(self, one: _Open) -> None:
        """Write every trial down: all that plans, reports and MLflow know of a search."""
        for known in one.memory.get_trials(deepcopy=False):
            trial = one.running.get(known.number)
            fields = dict(trial.fields if trial else known.params)
            written = one.rows.get(known.number, {"state": "running"})["state"] != "running"
            if known.state.name == "WAITING" or written or len(fields) < len(one.search.search.space):
                continue  # the last: killed before it had its fields, and not taken up yet
            jobs = trial.jobs if trial else {job.seed: job.id for job in _jobs(one.search, fields)}
            one.rows[known.number] = _row(known, fields, jobs)
        journal.write_json(self._store.search(one.search.id) / "trials.json", {"trials": list(one.rows.values())})
        self._changed(one.search.id)


def _usual(search: CellSearch) -> Work:
    """Give the training of a trial as it is before its fields are known, to guess at its time."""
    return Work(Job("", search.recipe, search.search.seeds[0], search.data, search.code), (), trained=False)


def _jobs(search: CellSearch, fields: Mapping[str, Any]) -> tuple[Job, ...]:
    """Give the jobs of a trial; none where its fields do not go together, such as a padding that is too large to be mirrored."""
    try:
        return search.jobs(fields)
    except ValueError:
        return ()


def _row(known: Any, fields: Json, jobs: Mapping[int, str]) -> Json:
    """Say what became of a trial."""
    state = {"COMPLETE": "complete", "FAIL": "failed", "RUNNING": "running"}.get(known.state.name, "pruned")
    if state == "complete" and DIVERGED in known.user_attrs:
        state = "diverged"
    return {
        "number": known.number, "params": fields, "jobs": {str(seed): job for seed, job in jobs.items()},
        "value": known.value if state == "complete" else None, "state": state, "proposed": "fixed_params" not in known.system_attrs,
        "started": _milliseconds(known.datetime_start), "ended": _milliseconds(known.datetime_complete),
    }  # fmt: skip


def _worst(one: _Open) -> float:
    """Give what a sampler is told of a diverged trial. As a pruned one, samplers of Gaussian processes would not see it at all."""
    if one.search.search.direction == "max":
        return 0.0  # no accuracy is below
    known: list[float] = [row["value"] for row in one.rows.values() if row["value"] is not None]
    return 2 * max([10.0, *known])


def value(search: CellSearch, jobs: Mapping[int, str], store: Store) -> float:
    """Give the value of a finished trial: the mean over its seeds, of the last epoch, or of the best where the cell selects that."""
    found = []
    for job in jobs.values():
        curve = _metric_of(store, job, search.search.metric)
        best = max(curve) if search.search.direction == "max" else min(curve)
        found.append(best if search.recipe.evaluation.select == "best_validation" else curve[-1])
    return sum(found) / len(found)


def _metric_of(store: Store, job: str, metric: str) -> list[float]:
    return [line["metrics"].get(metric, math.nan) for line in journal.lines(store.job(job).journal)]


def check(search: Search) -> None:
    """Raise an AblateError where the sampler needs a library that is not here."""
    package = NEEDS.get(search.sampler)
    if package is not None and find_spec(package) is None:
        raise AblateError(f'search.sampler: "{search.sampler}" needs the package {package}: pip install {package}, or take another sampler')


def _memory(search: CellSearch, store: Store, storage: str | None) -> Any:
    """Open Optuna's study of a search, or make it: its first trials are the recipe as it stands, or the points of a grid."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Of experimental parts, and of values reported again. For good: `catch_warnings` is not safe beside MLflow's thread.
    warnings.filterwarnings("ignore", module=r"optuna\b|ablate\.search")
    tuning.describe(search, store)
    try:
        held: Any = storage or optuna.storages.JournalStorage(_backend(store.search(search.id) / "optuna.jsonl"))
        memory = optuna.create_study(
            storage=held, study_name=f"{stores.identity(store)}/{search.id}" if storage else search.id,
            direction="maximize" if search.search.direction == "max" else "minimize",
            sampler=_sampler(search, 0), pruner=_pruner(search), load_if_exists=True,
        )  # fmt: skip
        for fields in _first(search)[len(memory.get_trials(deepcopy=False)) :]:  # a kill may have come between two of them
            memory.enqueue_trial(fields)
    except (ImportError, OSError, ValueError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise AblateError(f"Optuna's storage cannot be opened: {public(str(error).splitlines()[0])}: see --optuna-storage") from None
    over = sum(trial.state.is_finished() for trial in memory.get_trials(deepcopy=False))
    if over < len(kept.ended(kept.read_trials(store, search.id, search.search), search.search)):
        raise AblateError(
            f"the search of {search.label} has trials that this memory of Optuna does not know: give its first --optuna-storage"
        )
    return memory


def _first(search: CellSearch) -> list[Json]:
    """List the trials that no sampler proposes."""
    if search.search.sampler == "grid":  # Optuna's own sampler of grids repeats points where trials run side by side
        return list(islice(space.grid(search.search.space), search.search.trials))
    found = {path: recipes.value(search.recipe, path) for path in search.search.space}
    here = {path: "none" if given is None else given for path, given in found.items()}
    return [here] if all(space.contains(path, tried, here[path]) for path, tried in search.search.space.items()) else []


def _suggest(asked: Any, path: str, tried: Range) -> Any:
    """Ask a trial for one field; asking again gives the same."""
    if tried.choices is not None:
        return asked.suggest_categorical(path, tried.choices)
    if space.is_whole(path):
        return asked.suggest_int(path, tried.low, tried.high, log=tried.log)
    return asked.suggest_float(path, float(tried.low or 0), float(tried.high or 0), log=tried.log)


def _sampler(search: CellSearch, number: int, path: str = "") -> Any:
    """Make the sampler of one field of a trial. Its seed is theirs, so that it draws the same wherever a process is a new one."""
    from optuna import samplers

    seed = recipes.stream_seed(number, f"{search.id}/{path}") % 2**32
    match search.search.sampler:
        case "tpe":
            return samplers.TPESampler(seed=seed)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "gp":
            return samplers.GPSampler(seed=seed)
    return samplers.RandomSampler(seed=seed)


def _pruner(search: CellSearch) -> Any:
    from optuna import pruners

    match search.search.pruner:
        case "median":
            return pruners.MedianPruner()
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=search.recipe.training.epochs)
    return pruners.NopPruner()


def _milliseconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _backend(path: Path) -> Any:
    """Give the file of Optuna's memory, a line for each thing that happened; a kill may have torn the last one."""
    from optuna.storages.journal import JournalFileBackend

    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            journal.write(path, whole)
    return JournalFileBackend(str(path), lock_obj=_lock(path))


def _lock(path: Path) -> Any:
    """Give Optuna a lock that dies with its process: its own are files that a kill leaves behind, for 30 seconds."""
    held = FileLock(path.with_suffix(".lock"))

    class Lock:
        def acquire(self) -> bool:
            held.acquire()
            return True

        def release(self) -> None:
            held.release()

    return Lock()
