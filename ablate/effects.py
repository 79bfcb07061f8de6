"""Effects of factors, alone and together, from the values of one metric: which runs are compared with which.

stats.py judges the per-seed differences; this module knows a study, and makes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate import metrics, pooling, stats
from ablate.claim import Claim
from ablate.grid import Cell, Grid
from ablate.runs import FAILED_RESULT, Outcome
from ablate.stats import Estimate, Floats
from ablate.study import Study

Kind = Literal["main", "simple", "interaction", "cell"]
Levels = tuple[str, ...]  # a level for each factor of the study, inactive ones at their baseline
POOLED = "pooled variance"
"""The flag of an effect whose noise was taken from all cells."""

ClaimVerdict = Literal["confirmed", "refuted", "undecided", "not tested"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What going from `start` to `end` does: of one factor (main; simple, at one level of another), of two (interaction), of a cell."""

    kind: Kind
    changes: tuple[tuple[str, str, str], ...]  # (factor, start, end): one, or the two of an interaction
    estimate: Estimate
    per_seed: Mapping[int, float]
    flags: tuple[str, ...]
    survivors: stats.Verdict | None = None  # where the verdict is `unstable`: what the runs that did not fail say
    where: tuple[str, str] | None = None  # of a simple effect: the factor that is held, and its level
    depends_on: tuple[str, ...] = ()  # factors that turn the sign of a main effect round

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
    differences: Floats  # (S,), NaN for a seed without a pair
    incomplete: bool
    weights: Floats  # (cells,): the same as a contrast of the cells' means
    before: tuple[int, int] = (0, 0)  # failed and all ended runs
    after: tuple[int, int] = (0, 0)
    where: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ClaimFinding:
    """A claim and what the data say of it."""

    claim: Claim
    metric: str  # that of the study, unless the claim names another one
    verdict: ClaimVerdict
    estimate: Estimate | None  # of going from the second level to the first


@dataclass(frozen=True, slots=True)
class Table:
    """The values of one metric by seed and by levels, and how to judge differences of them."""

    study: Study
    seeds: tuple[int, ...]
    values: Floats  # (S, cells); NaN where there is no value
    ended: NDArray[np.bool_]  # (S, cells): the run has a result
    failed: NDArray[np.bool_]  # (S, cells): which is none that may be averaged
    cells: Mapping[Levels, Cell]
    columns: Mapping[Levels, int]
    excluded: frozenset[Levels]
    benefit: int
    min_effect: float | None

    def block(self, settings: Sequence[Levels]) -> Floats:
        """Give the (S, M) values of some cells."""
        return self.values[:, [self.columns[levels] for levels in settings]]

    def failures(self, settings: Sequence[Levels]) -> tuple[int, int]:
        """Count the failed and all ended runs of some cells."""
        columns = [self.columns[levels] for levels in settings]
        return int(self.failed[:, columns].sum()), int(self.ended[:, columns].sum())

    def weights(self, settings: Sequence[Levels], shares: Floats) -> Floats:
        """Give the (cells,) weights of a mean over some cells."""
        found = np.zeros(self.values.shape[1])
        np.add.at(found, [self.columns[levels] for levels in settings], shares)
        return found


def tabulate(study: Study, grid: Grid, outcomes: tuple[Outcome, ...], metric: str, direction: metrics.Direction) -> Table:
    """Lay out one metric by seed and cell; runs that have failed, or are missing, have no value."""
    seeds, ids = sorted(study.seeds), [cell.id for cell in grid.cells]
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (seeds, ids))
    values, ended, failed = np.full((len(seeds), len(ids)), np.nan), *(np.zeros((len(seeds), len(ids)), bool) for _ in range(2))
    for o in outcomes:
        place = row[o.run.seed], column[o.run.cell.id]
        failed[place] = o.status in FAILED_RESULT
        ended[place] = failed[place] or o.status == "finished"
        if o.status == "finished":
            values[place] = o.metrics.get(metric, np.nan)
    found = lay_out(study, grid, tuple(seeds), values)
    least = study.min_effect if metric == study.metric else None
    return replace(found, ended=ended, failed=failed, benefit=1 if direction == "max" else -1, min_effect=least)


def lay_out(study: Study, grid: Grid, seeds: tuple[int, ...], values: Floats) -> Table:
    """Lay out (S, cells) values, of which larger is better and none has failed."""
    levels = [_filled(study, cell.levels) for cell in grid.cells]
    return Table(
        study=study,
        seeds=seeds,
        values=values,
        ended=np.isfinite(values),
        failed=np.zeros(values.shape, bool),
        cells=dict(zip(levels, grid.cells, strict=True)),
        columns={one: i for i, one in enumerate(levels)},
        excluded=frozenset(_filled(study, one) for exclusion in grid.excluded for one in exclusion.levels),
        benefit=1,
        min_effect=None,
    )


def _filled(study: Study, levels: Mapping[str, str]) -> Levels:
    """Give a cell a level of every factor: one that is inactive there counts as being at its baseline."""
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


def _pairs(table: Table, position: int, start: str, end: str, fixed: Mapping[int, str]) -> tuple[list[Levels], list[Levels]]:
    """Match the cells that differ in one factor only, others fixed where asked."""
    before = [x for x in settings(table, {position: start, **fixed}) if _with(x, {position: end}) in table.cells]
    return before, [_with(levels, {position: end}) for levels in before]


def _half_excluded(table: Table, levels: Levels, position: int, start: str, end: str, fixed: Mapping[int, str]) -> bool:
    """Say whether an excluded cell left another one without its partner."""
    partner = {start: end, end: start}.get(levels[position])
    fits = all(levels[i] == level for i, level in fixed.items())
    return partner is not None and fits and _with(levels, {position: partner}) in table.cells


def judged(table: Table, contrasts: Sequence[Contrast], family: int | None = None) -> tuple[Effect, ...]:
    """Judge contrasts together: as one family, or as members of a family of `family` effects."""
    size, study = family or max(1, len(contrasts)), table.study
    spreads = _pooled(table, contrasts, size) if study.variance == "pooled" else [None] * len(contrasts)
    found = []
    for contrast, spread in zip(contrasts, spreads, strict=True):
        estimate = stats.estimate(
            contrast.differences, family=size, alpha=study.alpha, benefit=table.benefit, min_effect=table.min_effect, spread=spread
        )
        failed = stats.unstable(*contrast.before, *contrast.after)
        flags = {"incomplete": contrast.incomplete, POOLED: study.variance == "pooled"}
        found.append(
            Effect(
                kind=contrast.kind,
                changes=contrast.changes,
                estimate=replace(estimate, verdict="unstable") if failed else estimate,
                per_seed={int(seed): float(d) for seed, d in zip(table.seeds, contrast.differences, strict=True) if np.isfinite(d)},
                flags=tuple(flag for flag, is_set in flags.items() if is_set),
                survivors=estimate.verdict if failed else None,
                where=contrast.where,
            )
        )
    return tuple(found)


def _pooled(table: Table, contrasts: Sequence[Contrast], family: int) -> list[stats.Spread | None]:
    """Give the contrasts the variance of all cells; none to those without two seeds, of which there is nothing to say."""
    seeds = np.array([np.isfinite(contrast.differences).sum() for contrast in contrasts])
    told = [i for i, n in enumerate(seeds) if n > 1]
    spreads: list[stats.Spread | None] = [None] * len(contrasts)
    if told:
        fitted = pooling.fit(table.values, np.array([contrasts[i].weights for i in told]))
        for i, spread in zip(
            told, pooling.spreads(fitted, seeds[told], family=max(family, len(told)), alpha=table.study.alpha), strict=True
        ):
            spreads[i] = spread
    return spreads


def main(table: Table, position: int, start: str, end: str, fixed: Mapping[int, str] | None = None) -> Contrast:
    """Compare two levels of a factor over all matched settings of the others; with `fixed`, where others have these levels."""
    before, after = _pairs(table, position, start, end, fixed or {})
    found = stats.matched(table.block(before), table.block(after))
    excluded = any(_half_excluded(table, levels, position, start, end, fixed or {}) for levels in table.excluded)
    return Contrast(
        "main", ((table.study.factors[position].name, start, end),), found.effects, found.incomplete or excluded,
        table.weights(after, found.shares) - table.weights(before, found.shares), table.failures(before), table.failures(after),
    )  # fmt: skip


def mains(table: Table) -> tuple[Effect, ...]:
    """Judge every level against its factor's baseline: one family."""
    return judged(table, [main(table, *contrast) for contrast in contrasts(table.study)])


def interactions(table: Table) -> tuple[Effect, ...]:
    """Judge every interaction of two factors, each at one of its levels against its baseline: one family."""
    names = [factor.name for factor in table.study.factors]
    found = []
    for (i, a0, a1), (j, b0, b1) in combinations(contrasts(table.study), 2):
        corners = [{i: a, j: b} for a in (a0, a1) for b in (b0, b1)]
        quads = [x for x in settings(table, corners[3]) if i != j and all(_with(x, corner) in table.cells for corner in corners)]
        quads = [x for x in quads if all({names[i], names[j]} <= set(table.cells[_with(x, corner)].levels) for corner in corners)]
        if quads:
            places = [[_with(x, corner) for x in quads] for corner in corners]
            made = stats.matched_quadruples(*(table.block(place) for place in places))
            weights = sum(sign * table.weights(place, made.shares) for sign, place in zip((1, -1, -1, 1), places, strict=True))
            changes = ((names[i], a0, a1), (names[j], b0, b1))
            found.append(Contrast("interaction", changes, made.effects, made.incomplete, np.asarray(weights)))
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
    return replace(effect, depends_on=depends_on, flags=(*effect.flags, *(f"depends on {factor}" for factor in depends_on)))


def simple(table: Table, mains: Sequence[Effect]) -> tuple[Effect, ...]:
    """Take each main effect that another factor turns round apart: the effect at every level of that factor. They are one family."""
    factors = {factor.name: (i, [level.name for level in factor.levels]) for i, factor in enumerate(table.study.factors)}
    found = []
    for effect in mains:
        for other in effect.depends_on:
            place, levels = factors[other]
            for level in levels:
                contrast = main(table, factors[effect.factor][0], effect.start, effect.end, {place: level})
                found.append(replace(contrast, kind="simple", where=(other, level)))
    return judged(table, found)


def _sign(table: Table, position: int, effect: Effect, fixed: Mapping[int, str]) -> float:
    """Say which way a factor goes where another one is fixed: -1, 0 or 1."""
    differences = main(table, position, effect.start, effect.end, fixed).differences
    return float(np.sign(np.nanmean(differences))) if np.isfinite(differences).any() else 0.0


def against_baseline(table: Table, grid: Grid) -> tuple[Effect, ...]:
    """Compare every cell with the baseline: one family."""
    baseline, *others = grid.cells
    return judged(table, [_cells(table, baseline, cell) for cell in others])


def between(table: Table, one: Cell, other: Cell) -> Effect:
    """Compare any two cells, paired by seed: what going from the first to the second does. A family of its own."""
    return judged(table, [_cells(table, one, other)])[0]


def _cells(table: Table, one: Cell, other: Cell) -> Contrast:
    before, after = ([_filled(table.study, cell.levels)] for cell in (one, other))
    found = stats.matched(table.block(before), table.block(after))
    return Contrast(
        "cell", (("cell", one.label, other.label),), found.effects, found.incomplete,
        table.weights(after, found.shares) - table.weights(before, found.shares), table.failures(before), table.failures(after),
    )  # fmt: skip


def claim_finding(claim: Claim, study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> ClaimFinding:
    """Answer a claim by the effect of going from its second level to its first, in the family of the main effects."""
    metric = claim.metric or study.metric
    direction = study.direction if metric == study.metric else metrics.direction(metric) or "max"
    table = tabulate(study, grid, outcomes, metric, direction)
    names = [factor.name for factor in study.factors]
    fixed = {names.index(claim.when[0]): claim.when[1]} if claim.when else {}
    position = names.index(claim.factor)
    there = main(table, position, claim.second, claim.first, fixed)
    every = [main(table, *contrast) for contrast in contrasts(study)]
    family = len(every)
    same = (
        i for i, one in enumerate(every) if any(np.array_equal(one.weights, sign * there.weights) for sign in (1, -1))
    )  # either way round
    place = next(same, family)
    every[place : place + 1] = [there]  # beside the main effects, or in the place of the one that it is
    estimate = judged(table, every, family)[place].estimate
    if stats.unstable(*there.after, *there.before):
        estimate = replace(estimate, verdict="unstable")  # the same whichever way it is put
    if estimate.effect is None:
        return ClaimFinding(claim, metric, "undecided" if estimate.verdict == "unstable" else "not tested", None)
    return ClaimFinding(claim, metric, _answer(claim.relation, estimate.verdict), estimate)


def _answer(relation: str, verdict: stats.Verdict) -> ClaimVerdict:
    if verdict in ("undecided", "unstable"):
        return "undecided"
    return "confirmed" if verdict == {">": "helps", "<": "hurts", "~": "equivalent"}[relation] else "refuted"
