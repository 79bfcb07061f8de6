"""Effects of factors, alone and together, from the values of one metric: which runs are compared with which.

This module knows the study and computes per-seed differences; stats.py makes estimates of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from ablate.analysis import pooling, scope, stats
from ablate.analysis.metric_table import Levels, Table, filled, settings, with_levels
from ablate.analysis.scope import Scope
from ablate.analysis.stats import Estimate, Floats
from ablate.study.file import Study
from ablate.study.grid import Cell, Grid

Kind = Literal["main", "simple", "interaction", "cell"]
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
    """What going from `start` to `end` does.

    Of one factor (main; simple: at one level of another), of two factors (interaction), or of a cell.
    """

    kind: Kind
    changes: tuple[tuple[str, str, str], ...]  # (factor, start, end): one, or the two of an interaction
    estimate: Estimate
    per_seed: Mapping[int, float]
    flags: tuple[str, ...]
    scope: Scope | None = None  # the settings that the numbers are means over; None: all that were planned
    left_out: tuple[int, ...] = ()
    """Seeds that lack a run of it; a pooled variance still uses their other runs."""
    scattered: bool = False  # there are pairs of runs, and no setting has one under every seed
    survivors: stats.Verdict | None = None  # where it is unstable: the verdict by the runs that did not fail
    failures: Failures | None = None  # of two levels or two cells
    where: tuple[str, str] | None = None  # of a simple effect: the factor that is held, and its level
    depends_on: tuple[str, ...] = ()  # factors that turn the sign of a main effect round

    @property
    def says_nothing(self) -> bool:
        """Whether the interval of a share is all that a share can change by, from -1 to 1."""
        return (self.estimate.low, self.estimate.high) == (-1.0, 1.0)

    @property
    def factor(self) -> str:
        """The name of the factor, or of the two as `A x B`."""
        return " x ".join(factor for factor, _, _ in self.changes)

    @property
    def start(self) -> str:
        """The level before the change, or the two as `a / b`."""
        return " / ".join(start for _, start, _ in self.changes)

    @property
    def end(self) -> str:
        """The level after the change, or the two as `a / b`."""
        return " / ".join(end for _, _, end in self.changes)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Runs that are compared, without a verdict yet: that is decided within a family."""

    kind: Kind
    changes: tuple[tuple[str, str, str], ...]
    differences: Floats  # (S,), NaN for a seed that is left out
    weights: Floats  # (cells,): the same as a contrast of the cells' means
    planned: int  # settings
    scope: Scope | None  # those that the differences are means over, where they are not all
    scattered: bool  # there are pairs of runs, and no setting has one under every seed
    failures: Failures | None = None
    where: tuple[str, str] | None = None


def contrasts(study: Study) -> Iterator[tuple[int, str, str]]:
    """Yield every level against its factor's baseline: (position of the factor, start, end)."""
    for i, factor in enumerate(study.factors):
        for level in factor.levels[1:]:
            yield i, factor.levels[0].name, level.name


def _pairs(
    table: Table, position: int, start: str, end: str, fixed: Mapping[int, str]
) -> tuple[list[Levels], list[Levels]]:
    """Return the cells that differ in one factor only, before and after, with some others fixed."""
    planned = settings(table, {position: start, **fixed})
    before = [levels for levels in planned if with_levels(levels, {position: end}) in table.cells]
    return before, [with_levels(levels, {position: end}) for levels in before]


def decide(table: Table, contrasts: Sequence[Contrast], family: int | None = None) -> tuple[Effect, ...]:
    """Return the effects of contrasts, with verdicts: of one family, or of `family` effects."""
    size, study = family or max(1, len(contrasts)), table.study
    spreads = _pooled(table, contrasts, size) if study.variance == "pooled" else [None] * len(contrasts)
    effects = []
    for contrast, spread in zip(contrasts, spreads, strict=True):
        estimate = stats.estimate(
            contrast.differences,
            family=size,
            alpha=study.alpha,
            benefit=table.benefit,
            min_effect=table.min_effect,
            reach=table.reach,
            spread=spread,
        )
        effects.append(_effect(table, contrast, estimate))
    return tuple(effects)


def _effect(table: Table, contrast: Contrast, estimate: Estimate) -> Effect:
    """Return an effect with its estimate; it is unstable where too many more runs fail after the change."""
    is_unstable = contrast.failures is not None and contrast.failures.is_unstable
    by_seed = {int(s): float(d) for s, d in zip(table.seeds, contrast.differences, strict=True)}
    per_seed = {seed: difference for seed, difference in by_seed.items() if np.isfinite(difference)}
    left_out = tuple(seed for seed in by_seed if seed not in per_seed) if contrast.planned else ()
    flags = {
        "incomplete": bool(left_out),
        "conditional": contrast.scope is not None,
        POOLED: table.study.variance == "pooled",
    }
    return Effect(
        kind=contrast.kind,
        changes=contrast.changes,
        estimate=replace(estimate, verdict="unstable") if is_unstable else estimate,
        per_seed=per_seed,
        flags=tuple(flag for flag, is_set in flags.items() if is_set),
        scope=contrast.scope,
        left_out=left_out,
        scattered=contrast.scattered,
        survivors=estimate.verdict if is_unstable else None,
        failures=contrast.failures,
        where=contrast.where,
    )


def _pooled(table: Table, contrasts: Sequence[Contrast], family: int) -> list[stats.Spread | None]:
    """Return the pooled variance of all cells for each contrast; None for one with fewer than two seeds."""
    seeds = np.array([np.isfinite(contrast.differences).sum() for contrast in contrasts])
    fittable = [i for i, n in enumerate(seeds) if n > 1]
    if not fittable:
        return [None] * len(contrasts)
    fitted = pooling.fit(table.values, np.array([contrasts[i].weights for i in fittable]))
    size = max(family, len(fittable))
    spreads = pooling.spreads(fitted, seeds[fittable], family=size, alpha=table.study.alpha)
    by_place = dict(zip(fittable, spreads, strict=True))
    return [by_place.get(i) for i in range(len(contrasts))]


def main(
    table: Table, position: int, start: str, end: str, fixed: Mapping[int, str] | None = None
) -> Contrast:
    """Compare two levels of a factor over all matched settings of the others.

    `fixed`: only the settings in which these other factors have these levels.
    """
    before, after = _pairs(table, position, start, end, fixed or {})
    changes = ((table.study.factors[position].name, start, end),)
    return _compared(table, "main", changes, before, after, held={position, *(fixed or {})})


def above(table: Table, held: Mapping[str, str], bound: float, words: str) -> Contrast:
    """Compare a number with the cell that has these levels, by factor, and others at their baseline."""
    cell = [levels for levels in [filled(table.study, held)] if levels in table.cells]
    values = table.block(cell)
    matched = stats.matched(np.full(values.shape, bound), values)
    (factor, level), *_ = held.items()
    return Contrast(
        kind="cell",
        changes=((factor, words, level),),
        differences=matched.effects,
        weights=table.weights(cell, matched.shares),
        planned=len(cell),
        scope=None,
        scattered=False,
    )


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
    matched = stats.matched(table.block(before), table.block(after))
    has_pair = bool((np.isfinite(table.block(before)) & np.isfinite(table.block(after))).any())
    kept = [levels for levels, is_kept in zip(before, matched.kept, strict=True) if is_kept]
    return Contrast(
        kind=kind,
        changes=changes,
        differences=matched.effects,
        weights=table.weights(after, matched.shares) - table.weights(before, matched.shares),
        planned=len(before),
        scope=_scope(table, kept, before, held),
        scattered=has_pair and not kept,
        failures=_failures(table, before, after, held),
    )


def _scope(table: Table, chosen: Sequence[Levels], planned: Sequence[Levels], held: set[int]) -> Scope | None:
    """Return the scope of some of the planned settings, by the factors that are not held."""
    free = [i for i in range(len(table.study.factors)) if i not in held]
    if len(chosen) in (0, len(planned)) or not free:
        return None
    some, every = ([tuple(levels[i] for i in free) for levels in cells] for cells in (chosen, planned))
    return scope.describe([table.study.factors[i].name for i in free], some, every)


def _failures(table: Table, before: list[Levels], after: list[Levels], held: set[int]) -> Failures:
    """Return the failed runs on both sides, and the settings in which more failed after than before."""
    (lost, ended_before, _), (failed, ended_after, at_chance) = table.failures(before), table.failures(after)
    chances = table.chance_values[:, [table.columns[levels] for levels in after]]
    worse = failed * ended_before > lost * ended_after
    worse_settings = [levels for levels, is_worse in zip(before, worse, strict=True) if is_worse]
    return Failures(
        before=(int(lost.sum()), int(ended_before.sum())),
        after=(int(failed.sum()), int(ended_after.sum())),
        at_chance=int(at_chance.sum()),
        chance_values=tuple(sorted(float(value) for value in chances.flat if np.isfinite(value))),
        scope=_scope(table, worse_settings, before, held),
        inside=(int(failed[worse].sum()), int(ended_after[worse].sum())),
    )


def mains(table: Table) -> tuple[Effect, ...]:
    """Return the effect of every level against its factor's baseline: one family."""
    return decide(table, [main(table, *contrast) for contrast in contrasts(table.study)])


def interactions(table: Table) -> tuple[Effect, ...]:
    """Return every interaction of two factors, each at one level against its baseline: one family."""
    pairs = combinations(contrasts(table.study), 2)
    crossed = [_crossed(table, first, second) for first, second in pairs if first[0] != second[0]]
    return decide(table, [contrast for contrast in crossed if contrast is not None])


def _crossed(table: Table, first: tuple[int, str, str], second: tuple[int, str, str]) -> Contrast | None:
    """Compare the change of one factor at two levels of another; None where no setting has all four cells."""
    names = [factor.name for factor in table.study.factors]
    (i, a0, a1), (j, b0, b1) = first, second
    corners = [{i: a, j: b} for a in (a0, a1) for b in (b0, b1)]

    def is_active(levels: Levels) -> bool:
        """Whether a setting is a cell in which both factors are active."""
        return levels in table.cells and {names[i], names[j]} <= set(table.cells[levels].levels)

    planned = [
        levels
        for levels in settings(table, corners[3])
        if all(is_active(with_levels(levels, corner)) for corner in corners)
    ]
    if not planned:
        return None
    places = [[with_levels(levels, corner) for levels in planned] for corner in corners]
    blocks = [table.block(place) for place in places]
    matched = stats.matched_quadruples(*blocks)
    weights = [table.weights(place, matched.shares) for place in places]
    kept = [levels for levels, is_kept in zip(planned, matched.kept, strict=True) if is_kept]
    has_quadruple = bool(np.isfinite(blocks).all(axis=0).any())
    return Contrast(
        kind="interaction",
        changes=((names[i], a0, a1), (names[j], b0, b1)),
        differences=matched.effects,
        weights=weights[0] - weights[1] - weights[2] + weights[3],
        planned=len(planned),
        scope=_scope(table, kept, planned, {i, j}),
        scattered=has_quadruple and not kept,
    )


def flag_turned(effect: Effect, interactions: tuple[Effect, ...], table: Table) -> Effect:
    """Flag a main effect whose sign another factor reverses, where their interaction is more than noise."""
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
    flags = (*effect.flags, *(f"depends on {factor}" for factor in depends_on))
    return replace(effect, depends_on=depends_on, flags=flags)


def simple(table: Table, mains: Sequence[Effect]) -> tuple[Effect, ...]:
    """Return each main effect that another factor reverses at every level of that factor: one family."""
    positions = {factor.name: i for i, factor in enumerate(table.study.factors)}
    simples = []
    for effect in mains:
        for other in effect.depends_on:
            for level in table.study.factors[positions[other]].levels:
                fixed = {positions[other]: level.name}
                contrast = main(table, positions[effect.factor], effect.start, effect.end, fixed)
                simples.append(replace(contrast, kind="simple", where=(other, level.name)))
    return decide(table, simples)


def _sign(table: Table, position: int, effect: Effect, fixed: Mapping[int, str]) -> float:
    """Return the sign of an effect where another factor is fixed: -1, 0 or 1."""
    differences = main(table, position, effect.start, effect.end, fixed).differences
    return float(np.sign(np.nanmean(differences))) if np.isfinite(differences).any() else 0.0


def against_baseline(table: Table, grid: Grid) -> tuple[Effect, ...]:
    """Return the effect of every cell against the baseline: one family."""
    baseline, *others = grid.cells
    return decide(table, [_cells(table, baseline, cell) for cell in others])


def between(table: Table, start: Cell, end: Cell) -> Effect:
    """Return the effect of going from one cell to another, paired by seed: a family of its own."""
    return decide(table, [_cells(table, start, end)])[0]


def _cells(table: Table, start: Cell, end: Cell) -> Contrast:
    before, after = ([filled(table.study, cell.levels)] for cell in (start, end))
    return _compared(table, "cell", (("cell", start.label, end.label),), before, after, held=set())
