"""Claims answered: confirmed, refuted or undecided by the effect that each is about."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ablate.analysis import effects, stats
from ablate.analysis.effects import Effect
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
        """Return the numbers of the effect; None where there are none."""
        return None if self.effect.estimate.effect is None else self.effect.estimate


def claim_finding(claim: Claim, study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> ClaimFinding:
    """Answer a claim by the effect of going from its second level to its first, in the family of the main effects."""
    metric = claim.metric or study.metric
    direction = study.direction if metric == study.metric else metrics.direction(metric) or "max"
    table = effects.tabulate(study, grid, outcomes, metric, direction)
    names = [factor.name for factor in study.factors]
    fixed = {names.index(claim.when[0]): claim.when[1]} if claim.when else {}
    position = names.index(claim.factor)
    there = effects.main(table, position, claim.second, claim.first, fixed)
    every = [effects.main(table, *contrast) for contrast in effects.contrasts(study)]
    family = len(every)
    same = (
        i
        for i, one in enumerate(every)
        if any(np.array_equal(one.weights, sign * there.weights) for sign in (1, -1))
    )  # either way round
    place = next(same, family)
    every[place : place + 1] = [there]  # beside the main effects, or in the place of the one that it is
    effect = effects.judged(table, every, family)[place]
    if there.failures is not None and stats.unstable(*there.failures.after, *there.failures.before):
        effect = replace(
            effect, estimate=replace(effect.estimate, verdict="unstable")
        )  # the same whichever way it is put
    is_measured = bool(
        np.isfinite(table.values).any()
    )  # else no failure of runs is why there is nothing to say
    verdict = _answer(claim.relation, effect, table.benefit) if is_measured else "not tested"
    return ClaimFinding(
        claim,
        metric,
        direction,
        verdict,
        effect,
        is_unanswerable=claim.relation == "~" and table.min_effect is None,
    )


def _answer(relation: str, effect: Effect, benefit: int) -> ClaimVerdict:
    """Answer a claim: `>` and `<` are about the values of the metric, "better than" and "worse than" about the benefit.

    An effect that is known in some settings only says neither yes nor no of the factor.
    """
    verdict = effect.estimate.verdict
    if verdict == "unstable":
        return "undecided"
    if effect.estimate.effect is None:
        return "undecided" if effect.scattered else "not tested"
    if verdict == "undecided" or effect.scope is not None:
        return "undecided"
    larger, smaller = ("helps", "hurts") if benefit > 0 else ("hurts", "helps")
    expected = {">": larger, "<": smaller, "better than": "helps", "worse than": "hurts", "~": "equivalent"}
    return "confirmed" if verdict == expected[relation] else "refuted"
