"""What tuning found: curves of range tests, trials of searches, and the effects whose sign it reverses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis import effects
from ablate.analysis.metric_table import lay_out
from ablate.analysis.scope import Scope
from ablate.analysis.stats import Floats
from ablate.planning import tuning, work
from ablate.planning.tuning import Tuning
from ablate.planning.work import CellSearch
from ablate.recipe import range_test
from ablate.recipe.range_test import Suggestion
from ablate.store import range_folder, search_folder
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.study.search_space import Search

GRID = 24  # points a side of an interpolated map


@dataclass(frozen=True, slots=True)
class RangeCurve:
    """The range test of one recipe, the median over its seeds."""

    label: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]  # smoothed, as the rules see them; the rates are moved along
    low: tuple[float, ...]  # smallest and largest seed, not smoothed, at `tried`
    high: tuple[float, ...]
    tried: tuple[float, ...]
    suggestions: Mapping[str, Suggestion]
    chosen: Suggestion | None  # none: not ended
    accuracies: tuple[float, ...] = ()  # training accuracy at `tried`, the median of the seeds


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search."""

    number: int
    fields: Mapping[str, Any]
    value: float | None  # only of a complete one
    state: str
    proposed: bool  # by the sampler, not the recipe as it stands


@dataclass(frozen=True, slots=True)
class Map:
    """The value over two fields, interpolated between the trials: a picture, no measurement."""

    fields: tuple[str, str]  # across, and up
    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[float, ...], ...]  # [y][x]


@dataclass(frozen=True, slots=True)
class History:
    """The trials of one search."""

    label: str
    search: Search
    fields: tuple[str, ...]
    logs: frozenset[str]  # fields on a scale of ratios
    trials: tuple[Trial, ...]
    best: int | None  # number of the winner so far
    best_so_far: tuple[tuple[int, float], ...]  # after how many trials, the best value
    expected: tuple[tuple[int, float], ...]  # its mean over as many random trials; of random search only
    map: Map | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a change does at the recipe's own fields, and at the tuned ones.

    Measured on validation images, under the tuning seeds.
    """

    change: tuple[str, str, str]
    shared: float
    tuned: float
    scope: Scope | None = None  # the settings that have both, where not all do

    @property
    def is_turned(self) -> bool:
        """Whether the sign has changed."""
        return self.shared * self.tuned < 0


@dataclass(frozen=True, slots=True)
class TuningFinding:
    """Everything that a report shows of tuning."""

    ranges: tuple[RangeCurve, ...] = ()
    histories: tuple[History, ...] = ()
    turns: tuple[Turn, ...] = ()


def read(study: Study, tuned: Tuning, store: Store) -> TuningFinding | None:
    """Return what the store has of a study's tuning; None where the study asks for none."""
    if not tuned.ranges and study.search is None:
        return None
    curves = [_range_curve(tuned, store, test) for test in tuned.ranges]
    histories = {search.id: _history(search, store) for search in tuned.searches}
    turns = _turns(study, tuned, histories) if study.search is not None and study.search.per == "cell" else ()
    return TuningFinding(
        ranges=tuple(curve for curve in curves if curve is not None),
        histories=tuple(history for history in histories.values() if history.trials),
        turns=turns,
    )


def _range_curve(tuned: Tuning, store: Store, test: work.RangeTest) -> RangeCurve | None:
    """Combine the curves of a range test, as far as they are there."""
    curves = list(range_folder.read_curves(store.range(test.id)).values())
    if not curves:
        return None
    middle = range_test.combine(curves)
    smooth = range_test.smoothed(middle)
    count = len(middle.rates)
    values = np.full((len(curves), count), np.nan)
    for row, curve in enumerate(curves):
        values[row, : len(curve.losses)] = np.where(np.isfinite(curve.losses), curve.losses, np.nan)[:count]
    is_tried = ~np.isnan(values).all(axis=0)
    labels = [label for label, cell in tuned.cells.items() if cell.range_test == test.id]
    return RangeCurve(
        label=", ".join(labels) or test.label,
        rates=smooth.rates,
        losses=smooth.losses,
        low=tuple(np.nanmin(values[:, is_tried], axis=0).tolist()),
        high=tuple(np.nanmax(values[:, is_tried], axis=0).tolist()),
        tried=tuple(rate for rate, there in zip(middle.rates, is_tried, strict=True) if there),
        suggestions=tuning.suggestions(store, test),
        chosen=range_folder.read_suggestion(store.range(test.id)),
        accuracies=tuple(share for share, there in zip(middle.accuracies, is_tried, strict=True) if there),
    )


def _history(cell_search: CellSearch, store: Store) -> History:
    search = cell_search.search
    planned = (
        row
        for row in search_folder.read_trials(store.search(cell_search.id), search)
        if row.number < search.trials
    )
    rows = sorted(planned, key=lambda row: row.number)
    trials = tuple(Trial(row.number, row.params, row.value, row.state, row.proposed) for row in rows)
    sign = 1 if search.direction == "max" else -1
    best_so_far: list[tuple[int, float]] = []
    best: Trial | None = None
    for trial in trials:
        if trial.value is not None and (
            best is None or best.value is None or sign * trial.value > sign * best.value
        ):
            best = trial
        if best is not None and best.value is not None and trial.state in search_folder.ENDED:
            best_so_far.append((trial.number + 1, best.value))
    drawn = [trial.value for trial in trials if trial.proposed and trial.value is not None]
    return History(
        label=cell_search.label,
        search=search,
        fields=tuple(search.space),
        logs=frozenset(path for path, tried in search.space.items() if tried.log),
        trials=trials,
        best=None if best is None else best.number,
        best_so_far=tuple(best_so_far),
        expected=expected_best(drawn, sign) if search.sampler == "random" else (),
        map=_map(search, trials),
    )


def expected_best(values: Sequence[float], sign: int) -> tuple[tuple[int, float], ...]:
    """Return (n, mean of the best of n values drawn from these N) for n from 1 to N.

    The mean is the sum of v_(i) ((i/N)^n - ((i-1)/N)^n): the expected validation performance of Dodge et al.
    2019 (arXiv 1909.03004, section 3.1), which holds for random draws alone. `sign` is -1 where smaller is
    better.
    """
    count = len(values)
    ordered = np.sort(sign * np.asarray(values, dtype=float))
    ranks = np.arange(count + 1) / max(1, count)
    return tuple((n, float(sign * (ordered @ np.diff(ranks**n)))) for n in range(1, count + 1))


def _map(search: Search, trials: Sequence[Trial]) -> Map | None:
    """Interpolate between the trials over two fields.

    They are the rate and the weight decay where both are searched, else the first two that are numbers.
    """
    usual = ("optimizer.lr", "optimizer.weight_decay")
    numbers = [path for path, tried in search.space.items() if tried.choices is None]
    pair = usual if set(usual) <= set(numbers) else tuple(numbers[:2])
    complete = [trial for trial in trials if trial.value is not None]
    if len(pair) < 2 or len(complete) < 4:
        return None
    axes, places = [], []
    for path in pair:
        tried = search.space[path]
        scale = np.log10 if tried.log else np.asarray
        low, high = (float(scale(end)) for end in (tried.low or 0, tried.high or 0))
        axes.append(np.linspace(low, high, GRID))
        fields = np.array([trial.fields[path] for trial in complete], dtype=float)
        places.append((scale(fields) - low) / (high - low))
    unit = np.linspace(0, 1, GRID)
    z = _between(np.stack(places), np.array([trial.value for trial in complete], dtype=float), unit)
    x, y = (
        tuple((10**axis if search.space[path].log else axis).tolist())
        for path, axis in zip(pair, axes, strict=True)
    )
    return Map((pair[0], pair[1]), x, y, tuple(tuple(row) for row in z.tolist()))


def _between(places: Floats, values: Floats, unit: Floats) -> Floats:
    """Interpolate the values at (2, N) places on a grid of the unit square.

    The weights are the inverse squares of the distances (Shepard 1968).
    """
    x, y = np.meshgrid(unit, unit)
    distance = (x[..., None] - places[0]) ** 2 + (y[..., None] - places[1]) ** 2
    weight = 1 / (distance + 1e-4)
    return np.asarray((weight * values).sum(-1) / weight.sum(-1), dtype=np.float64)


def _turns(study: Study, tuned: Tuning, histories: Mapping[str, History]) -> tuple[Turn, ...]:
    """Compare each main effect at the recipe's own fields, a search's first trial, with the tuned one."""
    grid = tuned.grid
    values = np.full((2, 1, len(grid.cells)), np.nan)  # (shared fields and tuned ones, one seed, cells)
    for column, cell in enumerate(grid.cells):
        history = histories.get(tuned.cells[cell.label].search) if cell.label in tuned.cells else None
        if history is not None:
            values[:, 0, column] = _first_and_best(history)
    turns = []
    tables = [lay_out(study, grid, (0,), part) for part in values]
    for contrast in effects.contrasts(study):
        before, after = (effects.main(table, *contrast) for table in tables)
        shared, best = float(before.differences[0]), float(after.differences[0])
        if np.isfinite(shared) and np.isfinite(best):  # of the same cells
            turns.append(Turn(before.changes[0], shared, best, before.scope))
    return tuple(turns)


def _first_and_best(history: History) -> tuple[float, float]:
    """Return the values of the recipe as it stands and of the winner; NaN where they cannot be compared."""
    first = history.trials[0] if history.trials else None
    if first is None or first.proposed or first.value is None or history.best is None:
        return np.nan, np.nan
    best = next(trial for trial in history.trials if trial.number == history.best)
    if history.search.sampler == "grid" or best.value is None:
        return np.nan, np.nan
    return first.value, best.value
