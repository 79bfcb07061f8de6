"""What a design can see before it is run: the smallest effect that its seeds would show.

It goes by the noise of earlier runs, or by a bound.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablate.analysis import effects, stats
from ablate.analysis.metric_table import tabulate
from ablate.analysis.outcomes import Outcome
from ablate.recipe import metrics
from ablate.recipe.datasets import Data, is_folder
from ablate.study.file import Study
from ablate.study.grid import Grid

FEWEST = 3
"""Seeds that another study needs before its noise is a guess at this one's: that of two is of little use."""

ERROR = 0.1  # error rate that a bound supposes, where nothing was run yet


@dataclass(frozen=True, slots=True)
class Outlook:
    """The smallest effect that a design sees with a chance of 80 %, and how that is known."""

    effect: float  # in the metric's unit
    low: float | None  # the same if the noise is at the ends of its 80 % interval; none of a bound
    high: float | None
    is_blind: bool  # no effect that there can be is seen
    basis: str
    is_bound: bool  # effects below it are out of reach, and the true one may be larger
    seeds_for_min_effect: int | None
    """`stats.CAP + 1`: more than `CAP`. None where the study names no smallest effect."""


def alike(one: Study, other: Study) -> bool:
    """Whether two studies share metric and images, so that the noise of one is a guess at the other's."""
    return (one.metric, *_images(one)) == (other.metric, *_images(other))


def _images(study: Study) -> tuple[Any, Any]:
    """Return what identifies the images of a study; a folder of images is identified by its path alone."""
    name = study.base.get("data.name", Data().name)
    return name, study.base.get("data.root") if is_folder(name) else None


class Noise(NamedTuple):
    """The standard deviations of the per-seed differences of some effects, and their fewest seeds."""

    sds: tuple[float, ...] = ()
    seeds: int = 0


def noise(study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> Noise:
    """Return the noise of a study's main effects, as far as it was run."""
    table = tabulate(study, grid, outcomes, study.metric, study.direction)
    noisy = [effect.estimate for effect in effects.mains(table) if effect.estimate.sd]
    sds = tuple(estimate.sd for estimate in noisy if estimate.sd)
    return Noise(sds, min((estimate.n for estimate in noisy), default=0))


def look(study: Study, noise: Noise, basis: str, n_test: int | None) -> Outlook | None:
    """Return what a study can see; None where there is one seed, no factor, or neither noise nor a bound.

    `noise` is that of earlier differences on the same metric, and its median counts; without any, accuracies
    on `n_test` test images have the bound of `stats.sd_lower_bound`.
    """
    family = len(list(effects.contrasts(study)))
    is_bound = not noise.sds
    if noise.sds:
        sd = statistics.median(noise.sds)
    elif n_test and study.metric == "test/accuracy":
        sd = stats.sd_lower_bound(ERROR, n_test)
        basis = (
            f"at best, if one image in {1 / ERROR:.0f} is wrong: the choice of {n_test:,} test images "
            "alone makes that noise"
        )
    else:
        return None
    if family == 0 or len(study.seeds) < 2:
        return None
    # Degrees of freedom that each further seed adds; in a factorial there are more still.
    a_seed = float(family) if study.variance == "pooled" else 1.0
    effect = stats.detectable_effect(sd, len(study.seeds), family=family, alpha=study.alpha, a_seed=a_seed)
    assert effect is not None
    needed = None
    if study.min_effect is not None:
        needed = stats.seeds_needed(sd, study.min_effect, family=family, alpha=study.alpha, a_seed=a_seed)
    reach = 1.0 if metrics.is_fraction(study.metric) else math.inf  # a share lies between 0 and 1
    low, high = None, None
    if not is_bound:
        low, high = (min(effect * share, reach) for share in stats.sd_range(noise.seeds))
    return Outlook(effect, low, high, effect >= reach, basis, is_bound, needed)
