"""The runs and the study to Findings: effects, interactions, cells, claims, curves. All that a report says.

Nothing is drawn here and nothing is worded; report draws and words, and computes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate import metrics, stats
from ablate.claim import Claim
from ablate.grid import Cell, Exclusion, Grid
from ablate.runs import FAILED_RESULT, Outcome
from ablate.stats import Estimate, Floats
from ablate.study import Study

Levels = tuple[str, ...]  # a level for each factor of the study, inactive ones at their baseline
ClaimVerdict = Literal["confirmed", "refuted", "undecided", "not tested"]
CURVES = ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy")


@dataclass(frozen=True, slots=True)
class CellFinding:
    """What the runs of one cell say."""

    cell: Cell
    n: int  # runs with a value
    failed: int  # diverged, or at chance level: counted, never averaged
    missing: int  # crashed, or not run yet
    mean: float | None
    sd: float | None  # over seeds, ddof 1
    values: Mapping[int, float]  # by seed
    epoch_seconds: float | None  # mean over seeds
    train_seconds: float | None  # sum over seeds
    shares_training: bool  # its runs are those of an earlier cell, judged in another way


@dataclass(frozen=True, slots=True)
class Effect:
    """One factor (main), two (interaction) or a whole cell (cell): what going from `start` to `end` does."""

    kind: Literal["main", "interaction", "cell"]
    changes: tuple[tuple[str, str, str], ...]  # (factor, start, end): one, or the two of an interaction
    estimate: Estimate
    per_seed: Mapping[int, float]
    flags: tuple[str, ...]
    survivors: stats.Verdict | None = None  # where the verdict is `unstable`: what the runs that did not fail say

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
class Curve:
    """A metric over the epochs of one training, over its seeds."""

    label: str
    metric: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]  # smallest and largest seed
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A run without a value that counts, and why."""

    run: str
    status: str
    reason: str
    log: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a report shows."""

    study: Study
    metric: str
    direction: metrics.Direction
    finished: int  # runs with a result, failed ones included
    total: int
    cells: tuple[CellFinding, ...]
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    cell_effects: tuple[Effect, ...]
    claims: tuple[ClaimFinding, ...]
    curves: tuple[Curve, ...]
    failures: tuple[Failure, ...]
    excluded: tuple[Exclusion, ...]
    data: tuple[str, ...]  # fingerprints
    environments: tuple[dict[str, Any], ...]  # the different ones


@dataclass(frozen=True, slots=True)
class _Table:
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


def find(study: Study, grid: Grid, outcomes: tuple[Outcome, ...], *, metric: str | None = None) -> Findings:
    """Compute all findings of a study on its metric, or on another one (then `min_effect` does not apply)."""
    name = metric or study.metric
    direction = study.direction if name == study.metric else metrics.direction(name) or "max"
    table = _table(study, grid, outcomes, name, direction)
    contrasts = list(_contrasts(study))
    effects = [_main(table, len(contrasts), *contrast) for contrast in contrasts]
    interactions = _interactions(table) if study.design == "factorial" else ()
    environments = {str(o.environment): o.environment for o in outcomes if o.environment}
    return Findings(
        study=study,
        metric=name,
        direction=direction,
        finished=sum(o.status in ("finished", *FAILED_RESULT) for o in outcomes),
        total=len(outcomes),
        cells=_cells(grid, outcomes, name),
        effects=tuple(_flag_turned(effect, interactions, table) for effect in effects),
        interactions=interactions,
        cell_effects=_cell_effects(table, grid),
        claims=tuple(_claim(claim, study, grid, outcomes, len(contrasts)) for claim in study.claims),
        curves=_curves(outcomes),
        failures=tuple(Failure(o.run.name, o.status, o.reason, o.log) for o in outcomes if o.status in (*FAILED_RESULT, "failed")),
        excluded=grid.excluded,
        data=tuple(sorted({str(o.environment["data"]) for o in outcomes if o.environment.get("data")})),
        environments=tuple(environments.values()),
    )


def _table(study: Study, grid: Grid, outcomes: tuple[Outcome, ...], metric: str, direction: metrics.Direction) -> _Table:
    rows = pd.DataFrame(
        [(o.run.seed, o.run.cell.id, o.metrics.get(metric, np.nan) if o.status == "finished" else np.nan, o.status) for o in outcomes],
        columns=["seed", "cell", "value", "status"],
    )
    seeds, ids = sorted(study.seeds), [cell.id for cell in grid.cells]
    wide = {name: rows.pivot(index="seed", columns="cell", values=name).reindex(index=seeds, columns=ids) for name in ("value", "status")}
    status = wide["status"].to_numpy()
    failed = np.isin(status.astype(str), FAILED_RESULT)
    levels = [_filled(study, cell.levels) for cell in grid.cells]
    return _Table(
        study=study,
        seeds=tuple(seeds),
        values=wide["value"].to_numpy(dtype=float),
        ended=failed | (status == "finished"),
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


def _contrasts(study: Study) -> Iterator[tuple[int, str, str]]:
    """List every level against its factor's baseline: (position of the factor, start, end)."""
    for i, factor in enumerate(study.factors):
        for level in factor.levels[1:]:
            yield i, factor.levels[0].name, level.name


def _settings(table: _Table, at: Mapping[int, str]) -> list[Levels]:
    """List the cells in which some factors have given levels, and are active."""
    names = [factor.name for factor in table.study.factors]
    return [
        levels
        for levels, cell in table.cells.items()
        if all(levels[i] == level for i, level in at.items()) and all(names[i] in cell.levels for i in at)
    ]


def _with(levels: Levels, at: Mapping[int, str]) -> Levels:
    return tuple(at.get(i, level) for i, level in enumerate(levels))


def _pairs(table: _Table, position: int, start: str, end: str, fixed: Mapping[int, str]) -> tuple[list[Levels], list[Levels]]:
    """Match the cells that differ in one factor only, others fixed where asked."""
    before = [x for x in _settings(table, {position: start, **fixed}) if _with(x, {position: end}) in table.cells]
    return before, [_with(levels, {position: end}) for levels in before]


def _half_excluded(table: _Table, levels: Levels, position: int, start: str, end: str, fixed: Mapping[int, str]) -> bool:
    """Say whether an excluded cell left another one without its partner."""
    partner = {start: end, end: start}.get(levels[position])
    fits = all(levels[i] == level for i, level in fixed.items())
    return partner is not None and fits and _with(levels, {position: partner}) in table.cells


def _by_seed(table: _Table, differences: Floats) -> dict[int, float]:
    return {int(seed): float(d) for seed, d in zip(table.seeds, differences, strict=True) if np.isfinite(d)}


def _main(table: _Table, family: int, position: int, start: str, end: str, fixed: Mapping[int, str] | None = None) -> Effect:
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


def _interactions(table: _Table) -> tuple[Effect, ...]:
    """Compute every interaction of two factors, each at one of its levels against its baseline."""
    contrasts = list(_contrasts(table.study))
    names = [factor.name for factor in table.study.factors]
    found = []
    for (i, a0, a1), (j, b0, b1) in combinations(contrasts, 2):
        corners = [{i: a, j: b} for a in (a0, a1) for b in (b0, b1)]
        quads = [x for x in _settings(table, corners[3]) if i != j and all(_with(x, corner) in table.cells for corner in corners)]
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


def _flag_turned(effect: Effect, interactions: tuple[Effect, ...], table: _Table) -> Effect:
    """Flag a main effect whose sign another factor turns round, where their interaction is more than noise."""
    names = [factor.name for factor in table.study.factors]
    position, flags = names.index(effect.factor), list(effect.flags)
    for other in interactions:
        if effect.changes[0] not in other.changes or other.estimate.verdict not in ("helps", "hurts"):
            continue
        second, *ends = next(change for change in other.changes if change != effect.changes[0])
        signs = {_sign(table, position, effect, {names.index(second): level}) for level in ends}
        if {-1.0, 1.0} <= signs:
            flags.append(f"depends on {second}")
    return replace(effect, flags=tuple(dict.fromkeys(flags)))


def _sign(table: _Table, position: int, effect: Effect, fixed: Mapping[int, str]) -> float:
    """Say which way a factor goes where another one is fixed: -1, 0 or 1."""
    before, after = _pairs(table, position, effect.start, effect.end, fixed)
    differences, _ = stats.matched(table.block(before), table.block(after))
    return float(np.sign(np.nanmean(differences))) if np.isfinite(differences).any() else 0.0


def _cell_effects(table: _Table, grid: Grid) -> tuple[Effect, ...]:
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


def _claim(claim: Claim, study: Study, grid: Grid, outcomes: tuple[Outcome, ...], family: int) -> ClaimFinding:
    """Answer a claim by the effect of going from its second level to its first, in the family of the main effects."""
    metric = claim.metric or study.metric
    direction = study.direction if metric == study.metric else metrics.direction(metric) or "max"
    table = _table(study, grid, outcomes, metric, direction)
    names = [factor.name for factor in study.factors]
    fixed = {names.index(claim.when[0]): claim.when[1]} if claim.when else {}
    position = names.index(claim.factor)
    there = _main(table, family, position, claim.second, claim.first, fixed).estimate
    back = _main(table, family, position, claim.first, claim.second, fixed).estimate
    estimate = replace(there, verdict="unstable") if back.verdict == "unstable" else there  # the same whichever way it is put
    if estimate.effect is None:
        return ClaimFinding(claim, metric, "undecided" if estimate.verdict == "unstable" else "not tested", None)
    return ClaimFinding(claim, metric, _answer(claim.relation, estimate.verdict), estimate)


def _answer(relation: str, verdict: stats.Verdict) -> ClaimVerdict:
    if verdict in ("undecided", "unstable"):
        return "undecided"
    return "confirmed" if verdict == {">": "helps", "<": "hurts", "~": "equivalent"}[relation] else "refuted"


def _cells(grid: Grid, outcomes: tuple[Outcome, ...], metric: str) -> tuple[CellFinding, ...]:
    by_cell: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_cell.setdefault(outcome.run.cell.id, []).append(outcome)
    seen: set[str] = set()
    found = []
    for cell in grid.cells:
        own = by_cell[cell.id]
        good = [o for o in own if o.status == "finished"]
        values = {o.run.seed: o.metrics[metric] for o in good if np.isfinite(o.metrics.get(metric, np.nan))}
        failed = sum(o.status in FAILED_RESULT for o in own)
        seconds = [o.metrics["time/epoch_seconds"] for o in good]
        jobs = {o.run.job_id for o in own}
        found.append(
            CellFinding(
                cell=cell,
                n=len(values),
                failed=failed,
                missing=len(own) - len(good) - failed,
                mean=float(np.mean(list(values.values()))) if values else None,
                sd=float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None,
                values=values,
                epoch_seconds=float(np.mean(seconds)) if seconds else None,
                train_seconds=float(sum(o.metrics["time/train_seconds"] for o in good)) if good else None,
                shares_training=jobs <= seen,
            )
        )
        seen |= jobs
    return tuple(found)


def _curves(outcomes: tuple[Outcome, ...]) -> tuple[Curve, ...]:
    """Average each curve over the seeds of a training; cells that share a training share its curves."""
    trainings: dict[str, list[Outcome]] = {}
    seen: set[str] = set()
    for outcome in outcomes:
        if outcome.run.job_id not in seen and outcome.lines:
            seen.add(outcome.run.job_id)
            trainings.setdefault(outcome.run.cell.label, []).append(outcome)
    found = []
    for label, own in trainings.items():
        for metric in CURVES:
            rows = pd.DataFrame([(line["epoch"], line["metrics"][metric]) for o in own for line in o.lines if metric in line["metrics"]])
            if len(rows):
                grouped = rows.replace([np.inf, -np.inf], np.nan).dropna().groupby(0)[1].agg(["mean", "min", "max"])
                ends = (tuple(float(x) for x in grouped[name]) for name in ("mean", "min", "max"))
                found.append(Curve(label, metric, tuple(int(e) for e in grouped.index), *ends))
    return tuple(found)
