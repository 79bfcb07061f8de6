"""Effects of factors, alone and together, from the values of one metric: which runs are compared with which.

stats.py judges the per-seed differences; this module knows a study, and makes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate import metrics, stats
from ablate.claim import Claim
from ablate.grid import Cell, Grid
from ablate.runs import FAILED_RESULT, Outcome
from ablate.stats import Estimate, Floats
from ablate.study import Study

Levels = tuple[str, ...]  # a level for each factor of the study, inactive ones at their baseline
ClaimVerdict = Literal["confirmed", "refuted", "undecided", "not tested"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What going from `start` to `end` does: of one factor (main; simple, at one level of another), of two (interaction), of a cell."""

    kind: Literal["main", "simple", "interaction", "cell"]
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

    def judge(self, differences: Floats, family: int) -> Estimate:
        """Estimate one effect of a family."""
        return stats.estimate(differences, family=family, alpha=self.study.alpha, benefit=self.benefit, min_effect=self.min_effect)


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
    levels = [_filled(study, cell.levels) for cell in grid.cells]
    return Table(
        study=study,
        seeds=tuple(seeds),
        values=values,
        ended=ended,
        failed=failed,
        cells=dict(zip(levels, grid.cells, strict=True)),
        columns={one: i for i, one in enumerate(levels)},
        excluded=frozenset(_filled(study, one) for exclusion in grid.excluded for one in exclusion.levels),
        benefit=1 if direction == "max" else -1,
        min_effect=study.min_effect if metric == study.metric else None,
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


def _by_seed(table: Table, differences: Floats) -> dict[int, float]:
    return {int(seed): float(d) for seed, d in zip(table.seeds, differences, strict=True) if np.isfinite(d)}


def main(table: Table, family: int, position: int, start: str, end: str, fixed: Mapping[int, str] | None = None) -> Effect:
    """Compute the effect of a factor over all matched settings of the others; with `fixed`, a simple effect."""
    before, after = _pairs(table, position, start, end, fixed or {})
    differences, incomplete = stats.matched(table.block(before), table.block(after))
    incomplete |= any(_half_excluded(table, levels, position, start, end, fixed or {}) for levels in table.excluded)
    effect = Effect(
        "main", ((table.study.factors[position].name, start, end),), table.judge(differences, family),
        _by_seed(table, differences), ("incomplete",) if incomplete else (),
    )  # fmt: skip
    return _unless_unstable(effect, table.failures(before), table.failures(after))


def _unless_unstable(effect: Effect, before: tuple[int, int], after: tuple[int, int]) -> Effect:
    if not stats.unstable(*before, *after):
        return effect
    return replace(effect, estimate=replace(effect.estimate, verdict="unstable"), survivors=effect.estimate.verdict)


def interactions(table: Table) -> tuple[Effect, ...]:
    """Compute every interaction of two factors, each at one of its levels against its baseline."""
    changes = list(contrasts(table.study))
    names = [factor.name for factor in table.study.factors]
    found = []
    for (i, a0, a1), (j, b0, b1) in combinations(changes, 2):
        corners = [{i: a, j: b} for a in (a0, a1) for b in (b0, b1)]
        quads = [x for x in settings(table, corners[3]) if i != j and all(_with(x, corner) in table.cells for corner in corners)]
        quads = [x for x in quads if all({names[i], names[j]} <= set(table.cells[_with(x, corner)].levels) for corner in corners)]
        if quads:
            blocks = [table.block([_with(x, corner) for x in quads]) for corner in corners]
            found.append(((i, a0, a1), (j, b0, b1), *stats.matched_quadruples(*blocks)))
    return tuple(
        Effect(
            "interaction", ((names[i], a0, a1), (names[j], b0, b1)),
            table.judge(differences, len(found)), _by_seed(table, differences), ("incomplete",) if incomplete else (),
        )
        for (i, a0, a1), (j, b0, b1), differences, incomplete in found
    )  # fmt: skip


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
    asked = [(effect, other, level) for effect in mains for other in effect.depends_on for level in factors[other][1]]
    return tuple(
        replace(
            main(table, len(asked), factors[effect.factor][0], effect.start, effect.end, {factors[other][0]: level}),
            kind="simple",
            where=(other, level),
        )
        for effect, other, level in asked
    )


def _sign(table: Table, position: int, effect: Effect, fixed: Mapping[int, str]) -> float:
    """Say which way a factor goes where another one is fixed: -1, 0 or 1."""
    before, after = _pairs(table, position, effect.start, effect.end, fixed)
    differences, _ = stats.matched(table.block(before), table.block(after))
    return float(np.sign(np.nanmean(differences))) if np.isfinite(differences).any() else 0.0


def against_baseline(table: Table, grid: Grid) -> tuple[Effect, ...]:
    """Compare every cell with the baseline."""
    baseline, *others = grid.cells
    found = []
    for cell in others:
        before, after = ([_filled(table.study, one.levels)] for one in (baseline, cell))
        differences, incomplete = stats.matched(table.block(before), table.block(after))
        effect = Effect(
            "cell", (("cell", baseline.label, cell.label),), table.judge(differences, len(others)), _by_seed(table, differences),
            ("incomplete",) if incomplete else (),
        )  # fmt: skip
        found.append(_unless_unstable(effect, table.failures(before), table.failures(after)))
    return tuple(found)


def between(table: Table, one: Cell, other: Cell) -> Effect:
    """Compare any two cells, paired by seed: what going from the first to the second does. A family of its own."""
    before, after = ([_filled(table.study, cell.levels)] for cell in (one, other))
    differences, incomplete = stats.matched(table.block(before), table.block(after))
    effect = Effect(
        "cell", (("cell", one.label, other.label),), table.judge(differences, 1), _by_seed(table, differences),
        ("incomplete",) if incomplete else (),
    )  # fmt: skip
    return _unless_unstable(effect, table.failures(before), table.failures(after))


def claim_finding(claim: Claim, study: Study, grid: Grid, outcomes: tuple[Outcome, ...], family: int) -> ClaimFinding:
    """Answer a claim by the effect of going from its second level to its first, in the family of the main effects."""
    metric = claim.metric or study.metric
    direction = study.direction if metric == study.metric else metrics.direction(metric) or "max"
    table = tabulate(study, grid, outcomes, metric, direction)
    names = [factor.name for factor in study.factors]
    fixed = {names.index(claim.when[0]): claim.when[1]} if claim.when else {}
    position = names.index(claim.factor)
    there = main(table, family, position, claim.second, claim.first, fixed).estimate
    back = main(table, family, position, claim.first, claim.second, fixed).estimate
    estimate = replace(there, verdict="unstable") if back.verdict == "unstable" else there  # the same whichever way it is put
    if estimate.effect is None:
        return ClaimFinding(claim, metric, "undecided" if estimate.verdict == "unstable" else "not tested", None)
    return ClaimFinding(claim, metric, _answer(claim.relation, estimate.verdict), estimate)


def _answer(relation: str, verdict: stats.Verdict) -> ClaimVerdict:
    if verdict in ("undecided", "unstable"):
        return "undecided"
    return "confirmed" if verdict == {">": "helps", "<": "hurts", "~": "equivalent"}[relation] else "refuted"
