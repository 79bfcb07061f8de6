"""What tuning found, as a report shows it: the curves of range tests, the trials of searches, and whether tuning turns an effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis import effects
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
    expected: tuple[
        tuple[int, float], ...
    ]  # the same for so many random trials, on the average; of random search only
    map: Map | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a change does at the shared fields of the recipe, and at the tuned ones: on validation images, under the tuning seeds."""

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
    """All of it."""

    ranges: tuple[RangeCurve, ...] = ()
    histories: tuple[History, ...] = ()
    turns: tuple[Turn, ...] = ()


def read(study: Study, made: Tuning, store: Store) -> TuningFinding | None:
    """Read what the store has of a study's tuning; none where it asks for none."""
    if not made.ranges and study.search is None:
        return None
    ranges = [_range_curve(made, store, test) for test in made.ranges]
    histories = {one.id: _history(one, store) for one in made.searches}
    turns = _turns(study, made, histories) if study.search is not None and study.search.per == "cell" else ()
    return TuningFinding(
        tuple(one for one in ranges if one is not None),
        tuple(h for h in histories.values() if h.trials),
        turns,
    )


def _range_curve(made: Tuning, store: Store, test: work.RangeTest) -> RangeCurve | None:
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
    known = ~np.isnan(values).all(axis=0)
    labels = [label for label, one in made.cells.items() if one.range_test == test.id]
    return RangeCurve(
        label=", ".join(labels) or test.label,
        rates=smooth.rates,
        losses=smooth.losses,
        low=tuple(np.nanmin(values[:, known], axis=0).tolist()),
        high=tuple(np.nanmax(values[:, known], axis=0).tolist()),
        tried=tuple(rate for rate, there in zip(middle.rates, known, strict=True) if there),
        suggestions=tuning.suggestions(store, test),
        chosen=range_folder.read_suggestion(store.range(test.id)),
    )


def _history(one: CellSearch, store: Store) -> History:
    rows = sorted(
        (
            row
            for row in search_folder.read_trials(store.search(one.id), one.search)
            if row.number < one.search.trials
        ),
        key=lambda row: row.number,
    )
    trials = tuple(Trial(row.number, row.params, row.value, row.state, row.proposed) for row in rows)
    sign = 1 if one.search.direction == "max" else -1
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
        label=one.label,
        search=one.search,
        fields=tuple(one.search.space),
        logs=frozenset(path for path, tried in one.search.space.items() if tried.log),
        trials=trials,
        best=None if best is None else best.number,
        best_so_far=tuple(best_so_far),
        expected=expected_best(drawn, sign) if one.search.sampler == "random" else (),
        map=_map(one, trials),
    )


def expected_best(values: Sequence[float], sign: int) -> tuple[tuple[int, float], ...]:
    """Return the mean of the best of n values drawn from these N, for n from 1 to N: sum of v_(i) ((i/N)^n - ((i-1)/N)^n).

    It is the expected validation performance of Dodge et al. 2019 (arXiv 1909.03004, section 3.1), and holds for random
    draws alone. `sign` is -1 where smaller is better.
    """
    count = len(values)
    ordered = np.sort(sign * np.asarray(values, dtype=float))
    ranks = np.arange(count + 1) / max(1, count)
    return tuple((n, float(sign * (ordered @ np.diff(ranks**n)))) for n in range(1, count + 1))


def _map(one: CellSearch, trials: Sequence[Trial]) -> Map | None:
    """Interpolate between the trials over two fields: the rate and the weight decay where both are searched, else the first two."""
    usual = ("optimizer.lr", "optimizer.weight_decay")
    numbers = [path for path, tried in one.search.space.items() if tried.choices is None]
    pair = usual if set(usual) <= set(numbers) else tuple(numbers[:2])
    known = [trial for trial in trials if trial.value is not None]
    if len(pair) < 2 or len(known) < 4:
        return None
    axes, places = [], []
    for path in pair:
        tried = one.search.space[path]
        scale = np.log10 if tried.log else np.asarray
        low, high = (float(scale(end)) for end in (tried.low or 0, tried.high or 0))
        axes.append(np.linspace(low, high, GRID))
        places.append(
            (scale(np.array([trial.fields[path] for trial in known], dtype=float)) - low) / (high - low)
        )
    unit = np.linspace(0, 1, GRID)
    z = _between(np.stack(places), np.array([trial.value for trial in known], dtype=float), unit)
    x, y = (
        tuple((10**axis if one.search.space[path].log else axis).tolist())
        for path, axis in zip(pair, axes, strict=True)
    )
    return Map((pair[0], pair[1]), x, y, tuple(tuple(row) for row in z.tolist()))


def _between(places: Floats, values: Floats, unit: Floats) -> Floats:
    """Weight the values at (2, N) places by the inverse square of their distance (Shepard 1968), on a grid of the unit square."""
    x, y = np.meshgrid(unit, unit)
    distance = (x[..., None] - places[0]) ** 2 + (y[..., None] - places[1]) ** 2
    weight = 1 / (distance + 1e-4)
    return np.asarray((weight * values).sum(-1) / weight.sum(-1), dtype=np.float64)


def _turns(study: Study, made: Tuning, histories: Mapping[str, History]) -> tuple[Turn, ...]:
    """Compare each main effect at the recipe's own fields, the first trial of every search, with that at the tuned ones."""
    grid = made.grid
    shared, tuned = np.full((2, 1, len(grid.cells)), np.nan)
    for column, cell in enumerate(grid.cells):
        history = histories.get(made.cells[cell.label].search) if cell.label in made.cells else None
        first = history.trials[0] if history is not None and history.trials else None
        if (
            history is not None
            and first is not None
            and not first.proposed
            and first.value is not None
            and history.best is not None
        ):
            best = next(trial for trial in history.trials if trial.number == history.best)
            if history.search.sampler != "grid" and best.value is not None:
                shared[0, column], tuned[0, column] = first.value, best.value
    found = []
    for contrast in effects.contrasts(study):
        before, after = (
            effects.main(effects.lay_out(study, grid, (0,), values), *contrast) for values in (shared, tuned)
        )
        if np.isfinite(before.differences[0]) and np.isfinite(after.differences[0]):  # of the same cells
            found.append(
                Turn(
                    before.changes[0], float(before.differences[0]), float(after.differences[0]), before.scope
                )
            )
    return tuple(found)
