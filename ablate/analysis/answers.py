"""Claims answered: confirmed, refuted or undecided by the effect that each is about."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ablate.analysis import effects, stats
from ablate.analysis.effects import Contrast, Effect
from ablate.analysis.metric_table import Table, tabulate
from ablate.analysis.outcomes import Outcome
from ablate.analysis.stats import Estimate
from ablate.recipe import metrics
from ablate.study.claims import Claim
from ablate.study.file import Study
from ablate.study.grid import Grid

ClaimVerdict = Literal["confirmed", "refuted", "undecided", "not tested"]


@dataclass(frozen=True, slots=True)
class ClaimFinding:
    """A claim and what the data say of it."""

    claim: Claim
    metric: str  # that of the study, unless the claim names another one
    direction: metrics.Direction
    verdict: ClaimVerdict
    effect: Effect  # of going from the second level to the first
    is_unanswerable: bool = False  # it asks for equivalence, and no smallest effect is given

    @property
    def estimate(self) -> Estimate | None:
        """The numbers of the effect; None where there are none."""
        return None if self.effect.estimate.effect is None else self.effect.estimate


def claim_finding(claim: Claim, study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> ClaimFinding:
    """Answer a claim by the effect of going from its second level to its first.

    Its interval is simultaneous with those of the main effects.
    """
    metric = claim.metric or study.metric
    direction = study.direction if metric == study.metric else metrics.direction(metric) or "max"
    table = tabulate(study, grid, outcomes, metric, direction)
    if claim.bound is not None:
        return _bounded(claim, claim.bound, table, metric, direction)
    names = [factor.name for factor in study.factors]
    fixed = {names.index(claim.when[0]): claim.when[1]} if claim.when else {}
    position = names.index(claim.factor)
    claimed = effects.main(table, position, claim.second, claim.first, fixed)
    contrasts = [effects.main(table, *change) for change in effects.contrasts(study)]
    family = len(contrasts)
    same = (i for i, contrast in enumerate(contrasts) if _is_same(contrast, claimed))
    place = next(same, family)
    contrasts[place : place + 1] = [claimed]  # instead of the main effect that it is, or beside them
    effect = effects.decide(table, contrasts, family)[place]
    if claimed.failures is not None and stats.unstable(*claimed.failures.after, *claimed.failures.before):
        # A claim and its reverse have the same answer.
        effect = replace(effect, estimate=replace(effect.estimate, verdict="unstable"))
    is_measured = bool(np.isfinite(table.values).any())  # else failed runs are not why there is no effect
    verdict = _answer(claim.relation, effect, table) if is_measured else "not tested"
    return ClaimFinding(
        claim,
        metric,
        direction,
        verdict,
        effect,
        is_unanswerable=claim.relation == "~" and table.min_effect is None,
    )


def _bounded(
    claim: Claim, bound: float, table: Table, metric: str, direction: metrics.Direction
) -> ClaimFinding:
    """Answer a claim by how far a metric lies above a number. It is the only one of its family."""
    alone = replace(table, study=replace(table.study, variance="own"), min_effect=None)
    held = dict([(claim.factor, claim.first), *([claim.when] if claim.when else [])])
    (effect,) = effects.decide(alone, [effects.above(alone, held, bound, claim.second)])
    is_measured = bool(np.isfinite(table.values).any())
    verdict = _answer(claim.relation, effect, alone) if is_measured else "not tested"
    return ClaimFinding(claim, metric, direction, verdict, effect)


def _is_same(contrast: Contrast, other: Contrast) -> bool:
    """Whether two contrasts compare the same runs, in either direction."""
    return any(np.array_equal(contrast.weights, sign * other.weights) for sign in (1, -1))


def _answer(relation: str, effect: Effect, table: Table) -> ClaimVerdict:
    """Return the answer to a claim.

    `>` and `<` are about the values of the metric, "better than" and "worse than" about the benefit. "no
    better than" and "no worse than" are confirmed by an interval that ends before the smallest effect worth
    having, and refuted by an effect. An effect that is known in some settings only neither confirms nor
    refutes a claim about the factor.
    """
    verdict = effect.estimate.verdict
    if verdict == "unstable":
        return "undecided"
    if effect.estimate.effect is None:
        return "undecided" if effect.scattered else "not tested"
    if effect.scope is not None:
        return "undecided"
    if relation in ("no better than", "no worse than"):
        return _no_more(effect.estimate, table, -1 if relation == "no worse than" else 1)
    if verdict == "undecided":
        return "undecided"
    larger, smaller = ("helps", "hurts") if table.benefit > 0 else ("hurts", "helps")
    expected = {">": larger, "<": smaller, "better than": "helps", "worse than": "hurts", "~": "equivalent"}
    return "confirmed" if verdict == expected[relation] else "refuted"


def _no_more(estimate: Estimate, table: Table, side: int) -> ClaimVerdict:
    """Return whether an effect, or with side -1 its harm, is at most the smallest worth having."""
    if estimate.low is None or estimate.high is None:
        return "undecided"
    most = max(side * table.benefit * end for end in (estimate.low, estimate.high))
    if most <= (table.min_effect or 0):
        return "confirmed"
    return "refuted" if estimate.verdict == ("helps" if side > 0 else "hurts") else "undecided"
