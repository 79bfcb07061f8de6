"""One variance for all cells: least squares with a block for each seed, and intervals that hold together (Dunnett 1955).

The model is value = cell + seed + noise, with the same noise in every cell. Where that is so, verdicts take fewer seeds
than those of stats.py; where one cell is noisier than the others they lie: on the noise measured on CIFAR-10 the chance
of a false verdict was 0.12 instead of 0.05. So it is an option, flagged wherever it was used, and never the default.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis import stats
from ablate.analysis.stats import Floats, Spread

MOST = 20
"""Effects of a family whose joint distribution is integrated: 0.3 s for 20 and 4 s for 60, so beyond it Sidak's bound is taken."""

RANDOM = 0
"""Seed of the integration's random points: the same numbers each time."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Contrasts of the cells' means, free of what the seeds do to all cells alike."""

    effects: Floats
    """(m,)"""
    errors: Floats
    """(m,): standard errors; all 0 where nothing varies, NaN without a degree of freedom."""
    df: int
    correlation: Floats
    """(m, m), of the contrasts with their signs turned so that a contrast and its reverse are one: |t| does not know signs."""


def fit(values: Floats, weights: Floats) -> Fit:
    """Fit cells and seeds to (S, C) `values`, and give the contrasts `weights` (m, C) of the cells' means.

    A value that is not finite is a missing run. Each contrast must have a seed under which all its cells have
    a value: what no seed connects cannot be told from the seeds. It is the analysis of a randomised block
    design with gaps (Searle 1971, chapter 7): the seeds are solved for first, because they are few.
    """
    there = np.isfinite(values)
    cells, seeds = there.any(axis=0), there.any(axis=1)
    y, there, weights = values[np.ix_(seeds, cells)], there[np.ix_(seeds, cells)], weights[:, cells]
    centre = float(np.mean(y[there])) if there.any() else 0.0
    y = np.where(there, y - centre, 0.0)
    runs = there.sum(axis=0)  # of each cell
    means = y.sum(axis=0) / runs
    share = there / runs
    reduced = (
        np.diag(there.sum(axis=1).astype(float)) - there @ share.T
    )  # of the seeds alone, the cells solved for
    inverse = np.linalg.pinv(reduced, rcond=1e-10, hermitian=True)
    blocks = inverse @ (y.sum(axis=1) - there @ means)
    fitted = means - blocks @ share
    df = (
        int(there.sum())
        - there.shape[1]
        - int(np.linalg.matrix_rank(reduced, tol=1e-10 * max(1, len(reduced)), hermitian=True))
    )
    rest = np.where(there, y - fitted - blocks[:, None], 0.0)
    moved = weights @ share.T
    covariance = (weights / runs) @ weights.T + moved @ inverse @ moved.T
    errors = np.sqrt(np.diag(covariance))
    noise = math.sqrt(float((rest**2).sum()) / df) if df > 0 else math.nan
    turned = errors * np.sign(weights[np.arange(len(weights)), (weights != 0).argmax(axis=1)])
    return Fit(weights @ fitted, noise * errors, df, covariance / np.outer(turned, turned))


def spreads(found: Fit, seeds: Floats, *, family: int, alpha: float) -> list[Spread]:
    """Return the spread of every contrast: simultaneous over the contrasts of the fit, or over `family` if those are more.

    `seeds`: (m,), how many have a difference. The critical value is that of the largest |t| of all contrasts, which for
    comparisons with one baseline is Dunnett's. Sidak's (1967) is never below it, and stands in for it where the family is
    large, not all here, or has contrasts that are sums of others.
    """
    # Of contrasts that depend on each other linearly the integral is wrong: 0.911 for 0.958 in one case, by
    # simulation.
    is_regular = np.linalg.matrix_rank(found.correlation, tol=1e-8) == len(found.effects)
    joint = len(found.effects) >= family and 1 < len(found.effects) <= MOST and is_regular
    least = stats.critical(found.df, stats.level(alpha, family))
    at = _largest(found, least, alpha) if joint else least
    made = []
    for effect, error, n in zip(found.effects, found.errors, seeds, strict=True):
        t = float(effect / error) if error > 0 else math.inf
        alone = stats.two_sided(t, found.df)
        p = stats.sidak(alone, family)
        if joint:  # between the two, whatever the integration's error
            p = min(max(1 - _within(abs(t), found), alone), p) if math.isfinite(t) else 0.0
        made.append(Spread(float(effect), float(error) * math.sqrt(n), found.df, at, p))
    return made


def _largest(found: Fit, high: float, alpha: float) -> float:
    """Find what the largest |t| exceeds with probability alpha: between the value for one contrast and Sidak's."""
    from scipy import optimize

    low = stats.critical(found.df, alpha)
    if _within(high, found) <= 1 - alpha:  # nearly independent contrasts: the integration's error decides
        return high
    if _within(low, found) >= 1 - alpha:  # nearly one contrast
        return low
    return float(optimize.brentq(lambda c: _within(c, found) - (1 - alpha), low, high, xtol=1e-6))


def _within(c: float, found: Fit) -> float:
    """Return the chance that no |t| exceeds c if there is no effect; right to about 1e-4."""
    multivariate_t = _distributions().multivariate_t
    every = np.full(len(found.effects), c)
    return float(
        multivariate_t.cdf(
            every,
            shape=found.correlation,
            df=found.df,
            lower_limit=-every,
            random_state=RANDOM,
            allow_singular=True,
        )
    )


def _distributions() -> Any:
    """Import scipy's distributions when they are first needed."""
    from scipy import stats as distributions

    return distributions
