"""Searches and range tests to plain values, read from the files that tuning.py names. Knows no mlflow.

Metrics of the first seed have plain names, and those of another one stand behind `seed <s>/`: a median would change with
each seed that comes, and what has been sent must not change.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.recipe import identity
from ablate.store import files as store_files
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.tracking import facts
from ablate.tracking.keys import labels
from ablate.tracking.records import Line, Record, State, epochs

ENDS = {
    "complete": State("FINISHED", "finished"),
    "pruned": State("FINISHED", "pruned"),  # stopped early because it is bad: a result
    "diverged": State("FINISHED", "diverged"),
    "failed": State("FAILED", "failed"),
}
"""What becomes of a trial, by the states of trials.json but `running`."""


@dataclass(frozen=True, slots=True)
class SearchSource:
    """One search and its trials, which are looked for anew each time."""

    job: str
    folder: Path
    store: Store

    @property
    def key(self) -> str:
        """Name it by its id."""
        return f"search/{self.job[: identity.ID_SHOWN]}"

    def records(self, *, closing: bool, is_done: Callable[[str], bool]) -> Iterator[Record]:
        """Read the search, and then the trials that are not done."""
        search = store_files.read_json(self.folder / "search.json")
        if search is None:
            return
        trials = (store_files.read_json(self.folder / "trials.json") or {"trials": []})["trials"]
        ends = closing and not job_folder.is_running(Folder(self.folder))  # another study may run this very search
        open_now = {trial["number"] for trial in trials if trial["state"] == "running" and (not ends or self._goes_on(trial))}
        yield self._search(search, trials, open_now, ends=ends)
        for trial in trials:
            if not is_done(self._key(trial)):
                yield self._trial(search, trial, is_open=trial["number"] in open_now)

    def _key(self, trial: Mapping[str, Any]) -> str:
        return f"{self.key}/trial/{trial['number']}"

    def _goes_on(self, trial: Mapping[str, Any]) -> bool:
        """Whether a process trains it: that of another study, as this one's are at their end."""
        return any(job_folder.is_running(self.store.job(job)) for job in trial["jobs"].values())

    def _search(self, search: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], open_now: set[int], *, ends: bool) -> Record:
        ended = [trial for trial in trials if trial["state"] in ENDS]
        last, missing = max([search["started"], *(trial["ended"] for trial in ended)]), len(ended) < search["trials"]
        if open_now or (missing and not ends):
            state = State("RUNNING", "running")
        else:
            state = State("KILLED", "stopped", last) if missing else State("FINISHED", "finished", last)
        params = {name: _text(search[name]) for name in ("sampler", "pruner", "trials", "metric", "seeds")}
        files = [] if state.status == "RUNNING" else _there([self.folder / "trials.json"])
        return Record(
            self.key, "search", f"search: {search['label']}", params, tags={"ablate.search": self.job}, started=search["started"],
            state=state, lines={"": tuple(_best(search, ended))}, files=files,
        )  # fmt: skip

    def _trial(self, search: Mapping[str, Any], trial: Mapping[str, Any], *, is_open: bool) -> Record:
        folders = {
            _before(search["seeds"], seed): self.store.job(trial["jobs"][str(seed)])
            for seed in search["seeds"]
            if str(seed) in trial["jobs"]
        }
        lines = {before: epochs(store_files.lines(folder.journal)) for before, folder in folders.items()}
        state = State("RUNNING", "running") if is_open else _ended(trial, lines)
        names = labels(list(search["space"]))
        params = {names.get(path, path): _text(value) for path, value in trial["params"].items()} | {"trial": str(trial["number"])}
        end: tuple[Line, ...] = ()
        if trial["state"] in ENDS and trial["value"] is not None:
            first = lines.get("", ())
            end = (Line(first[-1].step if first else 0, state.ended, {"trial/value": trial["value"]}),)
        return Record(
            self._key(trial), "trial", f"trial {trial['number']}: {search['label']}", params, tags=_trial_tags(self.job, trial, folders),
            started=trial["started"], state=state, lines=lines, parent=self.key, end=end,
            attempts=max((len(store_files.lines(folder.attempts)) for folder in folders.values()), default=0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RangeSource:
    """One range test."""

    job: str
    folder: Path

    @property
    def key(self) -> str:
        """Name it by its id."""
        return f"range/{self.job[: identity.ID_SHOWN]}"

    def records(self, *, closing: bool, is_done: Callable[[str], bool]) -> Iterator[Record]:
        """Read the curves that are there, and what they suggest."""
        swept = None if is_done(self.key) else store_files.read_json(self.folder / "range.json")
        if swept is None:
            return
        suggestion = store_files.read_json(self.folder / "suggestion.json")
        paths = {seed: self.folder / f"curve-{seed}.json" for seed in swept["seeds"]}
        curves = {seed: curve for seed, path in paths.items() if (curve := store_files.read_json(path)) is not None}
        last = max([swept["started"], *(curve["timestamp"] for curve in curves.values())])
        if suggestion is None:
            goes_on = not closing or any(job_folder.is_running(Folder(self.folder / str(seed))) for seed in swept["seeds"])
            state = State("RUNNING", "running") if goes_on else State("KILLED", "stopped", last)
        else:
            state = State("FINISHED", "finished", last)
        params = {name: _text(value) for name, value in swept["sweep"].items()} | {"seeds": _text(swept["seeds"])}
        params |= {f"suggestion/{name}": _text(value) for name, value in (suggestion or {}).items()}
        files = [self.folder / "range.json", *paths.values(), self.folder / "suggestion.json"]
        yield Record(
            self.key, "range", f"range test: {swept['label']}", params, tags={"ablate.range": self.job}, started=swept["started"],
            state=state, lines={_before(swept["seeds"], seed): tuple(_points(curve)) for seed, curve in curves.items()},
            files=[] if state.status == "RUNNING" else _there(files),
        )  # fmt: skip


def searched(searches: Sequence[str], store: Store) -> tuple[SearchSource, ...]:
    """Return a source for each search of a study, by its id; it has the search and its trials."""
    return tuple(SearchSource(one, store.search(one), store) for one in searches)


def ranged(ranges: Sequence[str], store: Store) -> tuple[RangeSource, ...]:
    """Return a source for each range test of a study, by its id."""
    return tuple(RangeSource(one, store.range(one)) for one in ranges)


def _best(search: Mapping[str, Any], ended: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Return the best value so far at each trial's end, in the order in which they ended: a later one changes no earlier line.

    Only complete trials count: what a pruned one reached is of fewer epochs, and no result to choose by.
    """
    better, best = {"max": max, "min": min}[search["direction"]], None
    for trial in sorted(ended, key=lambda trial: (trial["ended"], trial["number"])):
        value = trial["value"]
        if trial["state"] == "complete" and value is not None and math.isfinite(value):
            best = value if best is None else better(best, value)
        if best is not None:
            yield Line(trial["number"], trial["ended"], {f"best/{search['metric']}": best})


def _ended(trial: Mapping[str, Any], lines: Mapping[str, tuple[Line, ...]]) -> State:
    """Return how a trial that does not go on has ended."""
    if trial["state"] == "running":
        return State("KILLED", "stopped", max([trial["started"], *(each[-1].timestamp for each in lines.values() if each)]))
    end = ENDS[trial["state"]]
    return State(end.status, end.word, trial["ended"])


def _trial_tags(search: str, trial: Mapping[str, Any], folders: Mapping[str, Folder]) -> dict[str, str]:
    tags = {"ablate.search": search, "ablate.trial": str(trial["number"])}
    return tags | ({"ablate.job": folders[""].path.name, **facts.origin(folders[""]).tags} if "" in folders else {})


def _points(curve: Mapping[str, Any]) -> Iterator[Line]:
    """Return a curve point by point, without what is not finite: MLflow would draw infinity, at 1.8e308, and nothing else."""
    for step, values in enumerate(zip(curve["rates"], curve["losses"], curve["accuracies"], strict=True)):
        named = zip(("range/lr", "range/loss", "range/accuracy"), map(float, values), strict=True)
        yield Line(step, curve["timestamp"], {name: value for name, value in named if math.isfinite(value)})


def _before(seeds: Sequence[int], seed: int) -> str:
    return "" if seed == seeds[0] else f"seed {seed}/"


def _there(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    return [(path, "") for path in paths if path.exists()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
