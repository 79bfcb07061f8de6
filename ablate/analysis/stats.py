"""Per-seed effects to intervals, p values, verdicts and sample sizes: arrays in, values out; knows no study.

An effect is computed inside each seed, from runs that differ in one factor and nothing else. The spread of
these per-seed differences is the only uncertainty used: Student's t on them, simultaneous over a family of
effects by Sidak (1967). Everything is in the metric's own unit unless it says otherwise.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["helps", "hurts", "equivalent", "undecided", "unstable"]
Floats = NDArray[np.float64]

CAP = 1000
"""Seeds; what is above it is given as CAP + 1 and read "more than 1000"."""

POWER = 0.8
"""Chance to see a real effect, for sample sizes and the detectable effect (Cohen 1988, section 2.4)."""

ROUNDING = 1e-12
"""A difference of two metrics up to this size is float rounding: their last bits are near 1e-16 of them."""

SAME = 1e-9
"""Differences are one number, rounded, when their standard deviation is up to this share of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An effect with its simultaneous interval and its verdict; None where it cannot be known."""

    effect: float | None = None
    """Mean of the per-seed differences, not turned for a metric to minimise."""
    low: float | None = None
    high: float | None = None
    """Ends of the simultaneous interval."""
    p: float | None = None
    """Two-sided, adjusted for the family: below alpha exactly when the interval excludes 0."""
    n: int
    """Seeds with a difference."""
    sd: float | None = None
    """Standard deviation of the differences (ddof 1), exactly 0 where they differ by rounding only.

    None below two seeds. Of a pooled variance: what all cells together say of it.
    """
    verdict: Verdict = "undecided"
    reason: Literal["one seed", "seed has no effect", "no pairs"] | None = None
    """Why there is no interval, if there is none."""
    more_seeds: int | None = None
    """About how many seeds to add if the effect is as large as seen, 1..CAP, or CAP + 1.

    Only where it is undecided and has an interval.
    """
    more_seeds_high: int | None = None
    """The same if the noise is at its 80 % upper limit: never below `more_seeds`."""
    more_seeds_min_effect: int | None = None
    """About how many seeds to add to see an effect of `min_effect`.

    Only beside `more_seeds`, and where there is a `min_effect`.
    """
    more_seeds_min_effect_high: int | None = None
    wins: int
    ties: int
    losses: int
    """Seeds in which the difference is a benefit, nothing but rounding, a harm."""


class Matched(NamedTuple):
    """Per-seed effects, and the settings that they are means over."""

    effects: Floats
    """(S,), NaN for a seed that is left out."""
    kept: NDArray[np.bool_]
    """(M,): all settings, unless fewer than two seeds have them all.

    None where no setting can be compared.
    """

    @property
    def shares(self) -> Floats:
        """The weight of each setting, (M,): they add up to 1, or are 0 where no setting is kept."""
        return self.kept / max(1, int(self.kept.sum()))


def matched(before: Floats, after: Floats) -> Matched:
    """Average `after - before` inside each seed over the matched settings of the other factors.

    Both are (S, M), S seeds and M settings; a value that is not finite is a missing run. What is estimated is
    the mean over all settings: a seed that lacks one of them is left out. Only if that leaves fewer than two
    seeds are the settings left out instead that any seed lacks; a seed without any pair is left out in either
    case.
    """
    return _per_seed(_known(after) - _known(before))


def matched_quadruples(y00: Floats, y01: Floats, y10: Floats, y11: Floats) -> Matched:
    """Average the interaction `(y11 - y01) - (y10 - y00)` inside each seed, as `matched` does.

    The first index is the level of A, the second that of B: how much more A does at the second level of B
    than at the first.
    """
    return _per_seed((_known(y11) - _known(y01)) - (_known(y10) - _known(y00)))


def _known(values: Floats) -> Floats:
    """Make missing what is not finite, so that a diverged run never enters a mean."""
    return np.where(np.isfinite(values), values, np.nan)


def _per_seed(differences: Floats) -> Matched:
    """Average (S, M) differences to (S,) by the rule of `matched`."""
    there = ~np.isnan(differences)
    some, kept = there.any(axis=1), np.ones(differences.shape[1], dtype=bool)
    seeds = some & there.all(axis=1)
    if seeds.sum() < 2:
        kept = kept & there[some].all(axis=0) & some.any()
        seeds = some & kept.any()
    effects = np.full(len(differences), np.nan)
    if seeds.any():
        effects[seeds] = differences[np.ix_(seeds, kept)].mean(axis=1)
    return Matched(effects, kept)


class Spread(NamedTuple):
    """The uncertainty of an effect; `pooling.py` computes it from more than the effect's own differences."""

    effect: float
    sd: float
    """Of a per-seed difference: standard error times sqrt(n)."""
    df: int
    critical: float
    """What |effect / standard error| must exceed."""
    p: float
    """Adjusted for the family."""


def estimate(
    differences: ArrayLike,
    *,
    family: int,
    alpha: float = 0.05,
    benefit: int = 1,
    min_effect: float | None = None,
    reach: float | None = None,
    spread: Spread | None = None,
) -> Estimate:
    """Return the estimate of one effect of a family of `family`, from its (S,) per-seed differences.

    Differences that are not finite are dropped. `benefit` is +1 where larger is better and -1 where smaller
    is: it turns the verdict and wins / losses, nothing else. `min_effect`, above 0, is the smallest effect
    worth having. `reach` is the largest size that an effect can have, if there is one: intervals are cut to
    it. `spread`: by default that of these differences alone, with Student's t and Sidak. Failed runs are not
    known here: see `unstable`.
    """
    assert benefit in {-1, 1}
    assert min_effect is None or min_effect > 0
    d = np.asarray(differences, dtype=np.float64)
    d = d[np.isfinite(d)]
    n = len(d)
    wins, losses = int((benefit * d > ROUNDING).sum()), int((benefit * d < -ROUNDING).sum())
    counted = Estimate(n=n, wins=wins, ties=n - wins - losses, losses=losses, reason="no pairs")
    if n == 0:
        return counted
    effect = float(d.mean()) if spread is None else spread.effect
    if n == 1:
        return replace(counted, effect=effect, reason="one seed")
    sd = float(d.std(ddof=1)) if spread is None else spread.sd
    if sd <= max(ROUNDING, SAME * float(np.abs(d).max())):
        return replace(counted, effect=effect, sd=0.0, reason="seed has no effect")
    own = spread or _own(effect, sd, n, family, alpha)
    decided = _decided(counted, own, alpha=alpha, benefit=benefit, min_effect=min_effect)
    return decided if reach is None else _cut(decided, reach)


def _cut(uncut: Estimate, reach: float) -> Estimate:
    """Cut an interval to what an effect can be: it holds the true effect as often as before."""
    assert uncut.effect is not None
    assert uncut.low is not None
    assert uncut.high is not None
    low, high = max(uncut.low, min(-reach, uncut.effect)), min(uncut.high, max(reach, uncut.effect))
    return replace(uncut, low=low, high=high)


def _own(effect: float, sd: float, n: int, family: int, alpha: float) -> Spread:
    """Return the spread of an effect by its own differences alone."""
    p = two_sided(effect / (sd / math.sqrt(n)), n - 1)
    return Spread(effect, sd, n - 1, critical(n - 1, level(alpha, family)), sidak(p, family))


def _decided(
    counted: Estimate, spread: Spread, *, alpha: float, benefit: int, min_effect: float | None
) -> Estimate:
    """Return an effect that has a spread with its interval, p, verdict and the number of further seeds."""
    effect, sd, n = spread.effect, spread.sd, counted.n
    half = spread.critical * sd / math.sqrt(n)
    low, high = effect - half, effect + half
    # Interval and p are one statement, computed in two ways: where an end rounds to 0, the interval decides.
    p = min(spread.p, math.nextafter(alpha, 0.0)) if _excludes_zero(low, high) else max(spread.p, alpha)
    verdict = _verdict(low, high, benefit=benefit, min_effect=min_effect)
    decided = replace(counted, effect=effect, low=low, high=high, sd=sd, reason=None, p=p, verdict=verdict)
    if verdict != "undecided":
        return decided
    # df s^2 / sigma^2 is chi-squared with df degrees of freedom: the 80 % upper limit of sigma is that of
    # its 20 % quantile.
    sd_high = sd * math.sqrt(spread.df / _special().chdtri(spread.df, 0.8))
    each, a_seed = two_sided(spread.critical, spread.df), spread.df / (n - 1)

    def more(target: float) -> tuple[int, int]:
        few, many = (max(1, _needed(s, target, each, a_seed=a_seed, cap=CAP + n) - n) for s in (sd, sd_high))
        return few, many

    few, many = more(effect)
    undecided = replace(decided, more_seeds=few, more_seeds_high=many)
    if min_effect is None:
        return undecided
    few, many = more(min_effect)
    return replace(undecided, more_seeds_min_effect=few, more_seeds_min_effect_high=many)


def _excludes_zero(low: float, high: float) -> bool:
    return low > 0 or high < 0


def _verdict(low: float, high: float, *, benefit: int, min_effect: float | None) -> Verdict:
    if min_effect is not None and -min_effect <= low and high <= min_effect:
        return "equivalent"
    if _excludes_zero(low, high):
        return "helps" if (low > 0) == (benefit > 0) else "hurts"
    return "undecided"


def two_sided(t: float, df: float) -> float:
    """Return the chance that |t| is at least as large if there is no effect."""
    return min(1.0, 2.0 * float(_special().stdtr(df, -abs(t))))


def sidak(p: float, family: int) -> float:
    """Adjust the p of one effect for a family: 1 - (1 - p)^m, exact for a p near 0."""
    return 1.0 if p == 1 else -math.expm1(family * math.log1p(-p))


def unstable(failed_before: int, total_before: int, failed_after: int, total_after: int) -> bool:
    """Whether the share of failed runs after exceeds that before by more than 0.10.

    Never without runs on both sides. Computed in whole numbers: 4/10 - 3/10 is above 0.1 in floating point.
    """
    return 10 * (failed_after * total_before - failed_before * total_after) > total_before * total_after


def level(alpha: float, family: int) -> float:
    """Return the alpha of each of `family` effects by Sidak: 1 - (1 - alpha)^(1/m).

    With it, all intervals hold at once.
    """
    assert 0 < alpha < 1
    assert family >= 1
    return -math.expm1(math.log1p(-alpha) / family)


def seeds_needed(
    sd: float,
    target: float,
    *,
    family: int,
    alpha: float,
    power: float = POWER,
    cap: int = CAP,
    a_seed: float = 1.0,
) -> int:
    """Return the fewest seeds that see an effect of `target`, up or down, with this power.

    They are 2..cap, or cap + 1 for more. `sd` is that of the per-seed differences, in the unit of `target`;
    the power is that of the two-sided t test. `a_seed`: degrees of freedom that each seed after the first
    adds, more than 1 where the variance is pooled.
    """
    assert sd >= 0
    return _needed(sd, target, level(alpha, family), power=power, cap=cap, a_seed=a_seed)


def _needed(sd: float, target: float, each: float, *, a_seed: float, cap: int, power: float = POWER) -> int:
    if sd == 0:
        return 2 if target else cap + 1
    size = abs(target) / sd
    return 2 + bisect_left(
        range(2, cap + 1), power, key=lambda n: _power(a_seed * (n - 1), size * math.sqrt(n), each)
    )


def detectable_effect(
    sd: float, n: int, *, family: int, alpha: float, power: float = POWER, a_seed: float = 1.0
) -> float | None:
    """Return the smallest effect that `n` seeds see with this power; None below 2 seeds.

    It is in the unit of `sd`, that of the per-seed differences; `a_seed` as in `seeds_needed`.
    """
    if n < 2:
        return None
    each, df = level(alpha, family), a_seed * (n - 1)
    low, high = 0.0, critical(df, each)
    while _power(df, high, each) < power:
        low, high = high, 2 * high
    for _ in range(50):  # halvings: to the last bits of a float
        middle = (low + high) / 2
        low, high = (low, middle) if _power(df, middle, each) >= power else (middle, high)
    return high * sd / math.sqrt(n)


def sd_lower_bound(error: float, n_test: int) -> float:
    """Return a guess at the sd of a per-seed difference of two accuracies: sqrt(error / N) for N test images.

    `error` is the error rate, 0..1, and the result a share of the test images as well. The accuracy of one
    run varies by at least sqrt(error / (2 N)), the choice of the test images alone, if the networks are
    calibrated (Jordan 2023, arXiv 2304.01910); the difference of two independent runs varies by sqrt(2) times
    that. It bounds the noise of runs that share nothing: where the seed makes the two runs alike (correlation
    r), the sd is sqrt(1 - r) times as large, and may be below.
    """
    assert 0 <= error <= 1
    assert n_test >= 1
    return math.sqrt(error / n_test)


def sd_range(n: int) -> tuple[float, float]:
    """Return the ends of the 80 % interval of a standard deviation of `n` values, as shares of the estimate.

    `n` is at least 2.
    """
    low, high = (math.sqrt((n - 1) / _special().chdtri(n - 1, tail)) for tail in (0.1, 0.9))
    return low, high


def critical(df: float, each: float) -> float:
    """Return what |t| of `df` degrees of freedom exceeds with probability `each` if there is no effect."""
    return -float(_special().stdtrit(df, each / 2))


def _power(df: float, noncentrality: float, each: float) -> float:
    """Return the chance that |t| exceeds its critical value.

    The noncentrality is effect / sd * sqrt(n), not negative.

    |t| > c means chi-squared < df Y^2 / c^2 with Y normal around the noncentrality, so the power is the mean
    of the chi-squared distribution function over |Y|: a smooth integral without a trap.
    `scipy.stats.nct.cdf(-c, df, noncentrality)` is NaN at a third of all points (scipy 1.17), also where the
    power is neither near 0 nor 1: df 1, c 12.7, noncentrality 11.
    """
    least = critical(df, each)
    # Beyond 1e6 times the critical value the power is 1 to all digits, and the nodes would lose theirs.
    centre = min(noncentrality, 1e6 * least)
    nodes, weights = _quadrature()
    half = (centre + 8 - max(0.0, centre - 8)) / 2  # beyond 8 standard deviations: 1e-15
    y = centre + 8 - half * (1 - nodes)
    density = (np.exp(-((y - centre) ** 2) / 2) + np.exp(-((y + centre) ** 2) / 2)) / math.sqrt(2 * math.pi)
    return float(half * weights @ (density * _special().chdtr(df, df * (y / least) ** 2)))


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Return nodes and weights on [-1, 1].

    256 of Gauss-Legendre keep the power right to 1e-7 up to 1000 seeds.
    """
    nodes, weights = np.polynomial.legendre.leggauss(256)
    return nodes, weights


def load() -> None:
    """Import what verdicts are computed with."""
    _special()


def _special() -> Any:
    """Import scipy's special functions when they are first needed: planning and help do without."""
    from scipy import special

    return special
