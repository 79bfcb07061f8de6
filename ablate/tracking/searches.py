"""Searches and range tests to plain values, as of now. Knows no mlflow.

Metrics of the first seed have plain names, those of the others the prefix `seed <s>/`: a median would change
with each new seed, and what has been sent must not change.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ablate.recipe import identity
from ablate.store import files, job_folder, range_folder, search_folder
from ablate.store.job_folder import Folder
from ablate.store.job_state import state
from ablate.store.layout import Store
from ablate.store.range_folder import RangeFolder
from ablate.store.records import Search, SeedCurve, Trial
from ablate.store.search_folder import SearchFolder
from ablate.tracking import facts
from ablate.tracking.keys import labels
from ablate.tracking.records import Artifacts, Line, Record, State, epochs

ENDS = {
    "complete": State("FINISHED", "finished"),
    "pruned": State("FINISHED", "pruned"),  # stopped early because it is bad: a result
    "diverged": State("FINISHED", "diverged"),
    "failed": State("FAILED", "failed"),
}
"""The state of a trial in MLflow, by its state in trials.json, except `running`."""


@dataclass(frozen=True, slots=True)
class SearchSource:
    """One search and its trials, which are read again each time."""

    job: str
    folder: SearchFolder
    store: Store

    @property
    def key(self) -> str:
        """The key of the search, with its id."""
        return f"search/{self.job[: identity.ID_SHOWN]}"

    def records(self, *, closing: bool, is_done: Callable[[str, int], bool]) -> Iterator[Record]:
        """Return the record of the search, and then those of the trials that are not done."""
        search = search_folder.read_search(self.folder)
        if search is None:
            return
        trials = search_folder.read_any_trials(self.folder)
        ends = closing and not search_folder.is_running(self.folder)  # another study may run this very search
        running = (trial for trial in trials if trial.state == "running")
        open_now = {trial.number for trial in running if not ends or self._goes_on(trial)}
        yield self._search(search, trials, open_now, ends=ends)
        for trial in trials:
            if not is_done(self._key(trial), trial.ended or 0):
                yield self._trial(search, trial, is_open=trial.number in open_now)

    def _key(self, trial: Trial) -> str:
        return f"{self.key}/trial/{trial.number}"

    def _goes_on(self, trial: Trial) -> bool:
        """Whether a process trains it: one of another study, as those of this study have ended."""
        return any(state(self.store.job(job)).is_running for job in trial.jobs.values())

    def _search(self, search: Search, trials: Sequence[Trial], open_now: set[int], *, ends: bool) -> Record:
        ended = [trial for trial in trials if trial.state in ENDS]
        last = max([search.started, *(trial.ended or 0 for trial in ended)])
        missing = len(ended) < search.trials
        if open_now or (missing and not ends):
            stands = State("RUNNING", "running")
        else:
            stands = State("KILLED", "stopped", last) if missing else State("FINISHED", "finished", last)
        named = ("sampler", search.sampler), ("pruner", search.pruner), ("trials", search.trials)
        params = {
            name: _text(value) for name, value in (*named, ("metric", search.metric), ("seeds", search.seeds))
        }
        files = [] if stands.status == "RUNNING" else _there([self.folder.trials])
        return Record(
            self.key, "search", f"search: {search.label}", params, tags={"ablate.search": self.job},
            started=search.started, state=stands, lines={"": tuple(_best(search, ended))},
            artifacts=partial(Artifacts, files=files),
        )  # fmt: skip

    def _trial(self, search: Search, trial: Trial, *, is_open: bool) -> Record:
        folders = {
            _before(search.seeds, seed): self.store.job(trial.jobs[str(seed)])
            for seed in search.seeds
            if str(seed) in trial.jobs
        }
        lines = {before: epochs(job_folder.read_epochs(folder)) for before, folder in folders.items()}
        stands = State("RUNNING", "running") if is_open else _ended(trial, lines)
        names = labels(list(search.space))
        params = {names.get(path, path): _text(value) for path, value in trial.params.items()}
        end: tuple[Line, ...] = ()
        if trial.state in ENDS and trial.value is not None:
            first = lines.get("", ())
            end = (Line(first[-1].step if first else 0, stands.ended, {"trial/value": trial.value}),)
        return Record(
            self._key(trial), "trial", f"trial {trial.number}: {search.label}",
            params | {"trial": str(trial.number)}, tags=_trial_tags(self.job, trial, folders),
            started=trial.started or 0, state=stands, lines=lines, parent=self.key, end=end,
            attempts=max((len(job_folder.read_attempts(folder)) for folder in folders.values()), default=0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RangeSource:
    """One range test."""

    job: str
    folder: RangeFolder

    @property
    def key(self) -> str:
        """The key of the range test, with its id."""
        return f"range/{self.job[: identity.ID_SHOWN]}"

    def records(self, *, closing: bool, is_done: Callable[[str, int], bool]) -> Iterator[Record]:
        """Return the record of the curves so far, and what they suggest."""
        test = range_folder.read_test(self.folder)
        if test is None:
            return
        suggestion = range_folder.read_suggestion(self.folder)
        read = {seed: range_folder.read_seed_curve(self.folder, seed) for seed in test.seeds}
        curves = {seed: curve for seed, curve in read.items() if curve is not None}
        last = max([test.started, *(curve.timestamp for curve in curves.values())])
        if suggestion is None:
            goes_on = not closing or range_folder.is_running(self.folder, test.seeds)
            stands = State("RUNNING", "running") if goes_on else State("KILLED", "stopped", last)
        else:
            stands = State("FINISHED", "finished", last)
            if is_done(self.key, last):
                return
        params = {name: _text(value) for name, value in test.sweep.model_dump().items()} | {
            "seeds": _text(test.seeds)
        }
        suggested = asdict(suggestion) if suggestion is not None else {}
        params |= {f"suggestion/{name}": _text(value) for name, value in suggested.items()}
        files = [self.folder.test, *map(self.folder.curve, test.seeds), self.folder.suggestion]
        yield Record(
            self.key, "range", f"range test: {test.label}", params, tags={"ablate.range": self.job},
            started=test.started, state=stands,
            lines={_before(test.seeds, seed): tuple(_points(curve)) for seed, curve in curves.items()},
            artifacts=partial(Artifacts, files=[] if stands.status == "RUNNING" else _there(files)),
        )  # fmt: skip


def searched(searches: Sequence[str], store: Store) -> tuple[SearchSource, ...]:
    """Return a source for each search of a study, by its id; it has the search and its trials."""
    return tuple(SearchSource(search, store.search(search), store) for search in searches)


def ranged(ranges: Sequence[str], store: Store) -> tuple[RangeSource, ...]:
    """Return a source for each range test of a study, by its id."""
    return tuple(RangeSource(test, store.range(test)) for test in ranges)


def _best(search: Search, ended: Sequence[Trial]) -> Iterator[Line]:
    """Return the best value so far at each trial's end, in order: a later trial changes no earlier line.

    Only complete trials count: the value of a pruned one is of fewer epochs, and no result to choose by.
    """
    better, best = {"max": max, "min": min}[search.direction], None
    for trial in sorted(ended, key=lambda trial: (trial.ended or 0, trial.number)):
        value = trial.value
        if trial.state == "complete" and value is not None and math.isfinite(value):
            best = value if best is None else better(best, value)
        if best is not None:
            yield Line(trial.number, trial.ended or 0, {f"best/{search.metric}": best})


def _ended(trial: Trial, lines: Mapping[str, tuple[Line, ...]]) -> State:
    """Return the state of a trial that no process trains."""
    if trial.state == "running":
        last = max([trial.started or 0, *(each[-1].timestamp for each in lines.values() if each)])
        return State("KILLED", "stopped", last)
    end = ENDS[trial.state]
    return State(end.status, end.word, trial.ended or 0)


def _trial_tags(search: str, trial: Trial, folders: Mapping[str, Folder]) -> dict[str, str]:
    tags = {"ablate.search": search, "ablate.trial": str(trial.number)}
    if "" not in folders:
        return tags
    return {**tags, "ablate.job": folders[""].path.name, **facts.origin(folders[""]).tags}


def _points(curve: SeedCurve) -> Iterator[Line]:
    """Return the finite points of a curve: MLflow would draw infinity at 1.8e308, and hide the rest."""
    for step, values in enumerate(zip(curve.rates, curve.losses, curve.accuracies, strict=True)):
        named = zip(("range/lr", "range/loss", "range/accuracy"), map(float, values), strict=True)
        yield Line(step, curve.timestamp, {name: value for name, value in named if math.isfinite(value)})


def _before(seeds: Sequence[int], seed: int) -> str:
    return "" if seed == seeds[0] else f"seed {seed}/"


def _there(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    return [(path, "") for path in paths if files.is_regular(path)]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
