"""Effects of factors, alone and together, from the values of one metric: which runs are compared with which.

stats.py judges the per-seed differences; this module knows a study, and makes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate.analysis import pooling, scope, stats
from ablate.analysis.outcomes import FAILED_RESULT, Outcome
from ablate.analysis.scope import Scope
from ablate.analysis.stats import Estimate, Floats
from ablate.recipe import metrics
from ablate.study.file import Study
from ablate.study.grid import Cell, Grid

Kind = Literal["main", "simple", "interaction", "cell"]
Levels = tuple[str, ...]  # a level for each factor of the study, inactive ones at their baseline
POOLED = "pooled variance"
"""The flag of an effect whose noise was taken from all cells."""


@dataclass(frozen=True, slots=True)
class Failures:
    """The runs on both sides of a change that have ended, and how many of them failed."""

    before: tuple[int, int]  # failed, and all that have ended
    after: tuple[int, int]
    at_chance: int  # of those that failed after; the others diverged
    chance_values: tuple[float, ...]  # the metric of those, ascending
    scope: Scope | None  # the settings in which more failed after than before; None: all of them
    inside: tuple[int, int]  # failed, and all that have ended, after the change in these settings

    @property
    def is_unstable(self) -> bool:
        """Whether the share of failed runs is too much higher after the change."""
        return stats.unstable(*self.before, *self.after)


@dataclass(frozen=True, slots=True)
class Effect:
    """What going from `start` to `end` does: of one factor (main.

    Simple, at one level of another), of two (interaction), of a cell.
    """

    kind: Kind
    changes: tuple[tuple[str, str, str], ...]  # (factor, start, end): one, or the two of an interaction
    estimate: Estimate
    per_seed: Mapping[int, float]
    flags: tuple[str, ...]
    scope: Scope | None = (
        None  # the settings that the numbers are means over, where they are not all planned ones
    )
    left_out: tuple[
        int, ...
    ] = ()  # seeds that lack a run and have no say; a pooled variance still takes what other runs they have
    scattered: bool = False  # there are pairs of runs, and no setting has one under every seed
    survivors: stats.Verdict | None = (
        None  # where the verdict is `unstable`: what the runs that did not fail say
    )
    failures: Failures | None = None  # of two levels or two cells
    where: tuple[str, str] | None = None  # of a simple effect: the factor that is held, and its level
    depends_on: tuple[str, ...] = ()  # factors that turn the sign of a main effect round

    @property
    def says_nothing(self) -> bool:
        """Whether the interval of a share has all that the share can change by, from -1 to 1."""
        return (self.estimate.low, self.estimate.high) == (-1.0, 1.0)

    @property
    def factor(self) -> str:
        """Name the factor, or the two as `A x B`."""
        return " x ".join(factor for factor, _, _ in self.changes)

    @property
    def start(self) -> str:
        """Name the level that is left, or the two as `a / b`."""
        return " / ".join(start for _, start, _ in self.changes)

    @property
    def end(self) -> str:
        """Name the level that is reached, or the two as `a / b`."""
        return " / ".join(end for _, _, end in self.changes)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Runs that are compared, not judged yet: an effect is judged within its family."""

    kind: Kind
    changes: tuple[tuple[str, str, str], ...]
    differences: Floats  # (S,), NaN for a seed that is left out
    weights: Floats  # (cells,): the same as a contrast of the cells' means
    planned: int  # settings
    scope: Scope | None  # those that the differences are means over, where they are not all
    scattered: bool  # there are pairs of runs, and no setting has one under every seed
    failures: Failures | None = None
    where: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The values of one metric by seed and by levels, and how to judge differences of them."""

    study: Study
    seeds: tuple[int, ...]
    values: Floats  # (S, cells); NaN where there is no value
    ended: NDArray[np.bool_]  # (S, cells): the run has a result
    failed: NDArray[np.bool_]  # (S, cells): which is none that may be averaged
    at_chance: NDArray[np.bool_]  # (S, cells): failed for that reason
    chance_values: Floats  # (S, cells); NaN where there is none
    cells: Mapping[Levels, Cell]
    columns: Mapping[Levels, int]
    benefit: int
    min_effect: float | None
    reach: float | None = (
        None  # to which intervals are cut: of the accuracy of one class, which few seeds know badly
    )

    def block(self, settings: Sequence[Levels]) -> Floats:
        """Return the (S, M) values of some cells."""
        return self.values[:, [self.columns[levels] for levels in settings]]

    def failures(self, settings: Sequence[Levels]) -> NDArray[np.int_]:
        """Count the failed and all ended runs of some cells, and those that failed at chance level: (3, M)."""
        columns = [self.columns[levels] for levels in settings]
        return np.array([runs[:, columns].sum(axis=0) for runs in (self.failed, self.ended, self.at_chance)])

    def weights(self, settings: Sequence[Levels], shares: Floats) -> Floats:
        """Return the (cells,) weights of a mean over some cells."""
        found = np.zeros(self.values.shape[1])
        np.add.at(found, [self.columns[levels] for levels in settings], shares)
        return found


def tabulate(
    study: Study, grid: Grid, outcomes: tuple[Outcome, ...], metric: str, direction: metrics.Direction
) -> Table:
    """Lay out one metric by seed and cell; runs that have failed, or are missing, have no value."""
    seeds, ids = sorted(study.seeds), [cell.id for cell in grid.cells]
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (seeds, ids))
    values, chance_values = (np.full((len(seeds), len(ids)), np.nan) for _ in range(2))
    ended, failed, at_chance = (np.zeros(values.shape, bool) for _ in range(3))
    for o in outcomes:
        place = row[o.run.seed], column[o.run.cell.id]
        failed[place], at_chance[place] = o.status in FAILED_RESULT, o.status == "at_chance"
        ended[place] = failed[place] or o.status == "finished"
        if ended[place]:
            (chance_values if failed[place] else values)[place] = o.metrics.get(metric, np.nan)
    found = lay_out(study, grid, tuple(seeds), values)
    least = study.min_effect if metric == study.metric else None
    reach = 1.0 if metric.startswith(metrics.PER_CLASS) else None
    benefit = 1 if direction == "max" else -1
    return replace(
        found,
        ended=ended,
        failed=failed,
        at_chance=at_chance,
        chance_values=chance_values,
        benefit=benefit,
        min_effect=least,
        reach=reach,
    )


def lay_out(study: Study, grid: Grid, seeds: tuple[int, ...], values: Floats) -> Table:
    """Lay out (S, cells) values, of which larger is better and none has failed."""
    levels = [_filled(study, cell.levels) for cell in grid.cells]
    return Table(
        study=study,
        seeds=seeds,
        values=values,
        ended=np.isfinite(values),
        failed=np.zeros(values.shape, bool),
        at_chance=np.zeros(values.shape, bool),
        chance_values=np.full(values.shape, np.nan),
        cells=dict(zip(levels, grid.cells, strict=True)),
        columns={one: i for i, one in enumerate(levels)},
        benefit=1,
        min_effect=None,
    )


def _filled(study: Study, levels: Mapping[str, str]) -> Levels:
    """Fill in a level of every factor: one that is inactive there counts as being at its baseline."""
    return tuple(levels.get(factor.name, factor.levels[0].name) for factor in study.factors)


def contrasts(study: Study) -> Iterator[tuple[int, str, str]]:
    """List every level against its factor's baseline: (position of the factor, start, end)."""
    for i, factor in enumerate(study.factors):
        for level in factor.levels[1:]:
            yield i, factor.levels[0].name, level.name


def settings(table: Table, at: Mapping[int, str]) -> list[Levels]:
    """List the cells in which some factors have given levels, and are active."""
    names = [factor.name for factor in table.study.factors]
    return [
        levels
        for levels, cell in table.cells.items()
        if all(levels[i] == level for i, level in at.items()) and all(names[i] in cell.levels for i in at)
    ]


def _with(levels: Levels, at: Mapping[int, str]) -> Levels:
    return tuple(at.get(i, level) for i, level in enumerate(levels))


def _pairs(
    table: Table, position: int, start: str, end: str, fixed: Mapping[int, str]
) -> tuple[list[Levels], list[Levels]]:
    """Match the cells that differ in one factor only, others fixed where asked."""
    before = [
        x for x in settings(table, {position: start, **fixed}) if _with(x, {position: end}) in table.cells
    ]
    return before, [_with(levels, {position: end}) for levels in before]


def judged(table: Table, contrasts: Sequence[Contrast], family: int | None = None) -> tuple[Effect, ...]:
    """Judge contrasts together: as one family, or as members of a family of `family` effects."""
    size, study = family or max(1, len(contrasts)), table.study
    spreads = _pooled(table, contrasts, size) if study.variance == "pooled" else [None] * len(contrasts)
    found = []
    for contrast, spread in zip(contrasts, spreads, strict=True):
        estimate = stats.estimate(
            contrast.differences, family=size, alpha=study.alpha, benefit=table.benefit, min_effect=table.min_effect, reach=table.reach,
            spread=spread,
        )  # fmt: skip
        failed = contrast.failures is not None and contrast.failures.is_unstable
        there = np.isfinite(contrast.differences)
        left_out = (
            tuple(int(seed) for seed, has in zip(table.seeds, there, strict=True) if not has)
            if contrast.planned
            else ()
        )
        flags = {
            "incomplete": bool(left_out),
            "conditional": contrast.scope is not None,
            POOLED: study.variance == "pooled",
        }
        found.append(
            Effect(
                kind=contrast.kind,
                changes=contrast.changes,
                estimate=replace(estimate, verdict="unstable") if failed else estimate,
                per_seed={
                    int(seed): float(d)
                    for seed, d, has in zip(table.seeds, contrast.differences, there, strict=True)
                    if has
                },
                flags=tuple(flag for flag, is_set in flags.items() if is_set),
                scope=contrast.scope,
                left_out=left_out,
                scattered=contrast.scattered,
                survivors=estimate.verdict if failed else None,
                failures=contrast.failures,
                where=contrast.where,
            )
        )
    return tuple(found)


def _pooled(table: Table, contrasts: Sequence[Contrast], family: int) -> list[stats.Spread | None]:
    """Return the pooled variance of all cells for each contrast.

    None to those without two seeds, of which there is nothing to say.
    """
    seeds = np.array([np.isfinite(contrast.differences).sum() for contrast in contrasts])
    told = [i for i, n in enumerate(seeds) if n > 1]
    spreads: list[stats.Spread | None] = [None] * len(contrasts)
    if told:
        fitted = pooling.fit(table.values, np.array([contrasts[i].weights for i in told]))
        for i, spread in zip(
            told,
            pooling.spreads(fitted, seeds[told], family=max(family, len(told)), alpha=table.study.alpha),
            strict=True,
        ):
            spreads[i] = spread
    return spreads


def main(
    table: Table, position: int, start: str, end: str, fixed: Mapping[int, str] | None = None
) -> Contrast:
    """Compare two levels of a factor over all matched settings of the others.

    With `fixed`, where others have these levels.
    """
    before, after = _pairs(table, position, start, end, fixed or {})
    changes = ((table.study.factors[position].name, start, end),)
    return _compared(table, "main", changes, before, after, held={position, *(fixed or {})})


def _compared(
    table: Table,
    kind: Kind,
    changes: tuple[tuple[str, str, str], ...],
    before: list[Levels],
    after: list[Levels],
    held: set[int],
) -> Contrast:
    """Compare cells with their partners.

    `held`: positions of the factors that are the same, or change in one way, in all pairs.
    """
    found = stats.matched(table.block(before), table.block(after))
    weights = table.weights(after, found.shares) - table.weights(before, found.shares)
    has_pair = bool((np.isfinite(table.block(before)) & np.isfinite(table.block(after))).any())
    kept = [levels for levels, is_kept in zip(before, found.kept, strict=True) if is_kept]
    return Contrast(
        kind, changes, found.effects, weights, len(before), _scope(table, kept, before, held), has_pair and not kept,
        _failures(table, before, after, held),
    )  # fmt: skip


def _scope(table: Table, chosen: Sequence[Levels], planned: Sequence[Levels], held: set[int]) -> Scope | None:
    """Describe some of the planned settings by the factors that are not held."""
    free = [i for i in range(len(table.study.factors)) if i not in held]
    if len(chosen) in (0, len(planned)) or not free:
        return None
    some, every = ([tuple(levels[i] for i in free) for levels in cells] for cells in (chosen, planned))
    return scope.describe([table.study.factors[i].name for i in free], some, every)


def _failures(table: Table, before: list[Levels], after: list[Levels], held: set[int]) -> Failures:
    """Count the failed runs on both sides, and find the settings in which more failed after than before."""
    (lost, ended_before, _), (failed, ended_after, at_chance) = table.failures(before), table.failures(after)
    chances = table.chance_values[:, [table.columns[levels] for levels in after]]
    worse = failed * ended_before > lost * ended_after
    place = _scope(
        table, [levels for levels, is_worse in zip(before, worse, strict=True) if is_worse], before, held
    )
    return Failures(
        before=(int(lost.sum()), int(ended_before.sum())),
        after=(int(failed.sum()), int(ended_after.sum())),
        at_chance=int(at_chance.sum()),
        chance_values=tuple(sorted(float(value) for value in chances.flat if np.isfinite(value))),
        scope=place,
        inside=(int(failed[worse].sum()), int(ended_after[worse].sum())),
    )


def mains(table: Table) -> tuple[Effect, ...]:
    """Judge every level against its factor's baseline: one family."""
    return judged(table, [main(table, *contrast) for contrast in contrasts(table.study)])


def interactions(table: Table) -> tuple[Effect, ...]:
    """Judge every interaction of two factors, each at one of its levels against its baseline: one family."""
    names = [factor.name for factor in table.study.factors]
    found = []
    for (i, a0, a1), (j, b0, b1) in combinations(contrasts(table.study), 2):
        corners = [{i: a, j: b} for a in (a0, a1) for b in (b0, b1)]
        quads = [
            x
            for x in settings(table, corners[3])
            if i != j and all(_with(x, corner) in table.cells for corner in corners)
        ]
        quads = [
            x
            for x in quads
            if all({names[i], names[j]} <= set(table.cells[_with(x, corner)].levels) for corner in corners)
        ]
        if quads:
            places = [[_with(x, corner) for x in quads] for corner in corners]
            made = stats.matched_quadruples(*(table.block(place) for place in places))
            weights = sum(
                sign * table.weights(place, made.shares)
                for sign, place in zip((1, -1, -1, 1), places, strict=True)
            )
            changes = ((names[i], a0, a1), (names[j], b0, b1))
            kept = [levels for levels, is_kept in zip(quads, made.kept, strict=True) if is_kept]
            has_quad = bool(np.isfinite([table.block(place) for place in places]).all(axis=0).any())
            place = _scope(table, kept, quads, {i, j})
            found.append(
                Contrast(
                    "interaction",
                    changes,
                    made.effects,
                    np.asarray(weights),
                    len(quads),
                    place,
                    has_quad and not kept,
                )
            )
    return judged(table, found)


def flag_turned(effect: Effect, interactions: tuple[Effect, ...], table: Table) -> Effect:
    """Flag a main effect whose sign another factor turns round, where their interaction is more than noise."""
    names = [factor.name for factor in table.study.factors]
    position, turning = names.index(effect.factor), []
    for other in interactions:
        if effect.changes[0] not in other.changes or other.estimate.verdict not in ("helps", "hurts"):
            continue
        second, *ends = next(change for change in other.changes if change != effect.changes[0])
        signs = {_sign(table, position, effect, {names.index(second): level}) for level in ends}
        if {-1.0, 1.0} <= signs:
            turning.append(second)
    depends_on = tuple(dict.fromkeys(turning))
    return replace(
        effect,
        depends_on=depends_on,
        flags=(*effect.flags, *(f"depends on {factor}" for factor in depends_on)),
    )


def simple(table: Table, mains: Sequence[Effect]) -> tuple[Effect, ...]:
    """Take each main effect that another factor turns round apart: the effect at every level of that factor.

    They are one family.
    """
    factors = {
        factor.name: (i, [level.name for level in factor.levels])
        for i, factor in enumerate(table.study.factors)
    }
    found = []
    for effect in mains:
        for other in effect.depends_on:
            place, levels = factors[other]
            for level in levels:
                contrast = main(table, factors[effect.factor][0], effect.start, effect.end, {place: level})
                found.append(replace(contrast, kind="simple", where=(other, level)))
    return judged(table, found)


def _sign(table: Table, position: int, effect: Effect, fixed: Mapping[int, str]) -> float:
    """Return which way a factor goes where another one is fixed: -1, 0 or 1."""
    differences = main(table, position, effect.start, effect.end, fixed).differences
    return float(np.sign(np.nanmean(differences))) if np.isfinite(differences).any() else 0.0


def against_baseline(table: Table, grid: Grid) -> tuple[Effect, ...]:
    """Compare every cell with the baseline: one family."""
    baseline, *others = grid.cells
    return judged(table, [_cells(table, baseline, cell) for cell in others])


def between(table: Table, one: Cell, other: Cell) -> Effect:
    """Compare any two cells, paired by seed: what going from the first to the second does.

    A family of its own.
    """
    return judged(table, [_cells(table, one, other)])[0]


def _cells(table: Table, one: Cell, other: Cell) -> Contrast:
    before, after = ([_filled(table.study, cell.levels)] for cell in (one, other))
    return _compared(table, "cell", (("cell", one.label, other.label),), before, after, held=set())
