"""What a design can see before it is run: the smallest effect that its seeds would show, from the noise of earlier runs or a bound."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablate import effects, stats
from ablate.grid import Grid
from ablate.runs import Outcome
from ablate.study import Study

ERROR = 0.1  # error rate that a bound supposes, where nothing was run yet


@dataclass(frozen=True, slots=True)
class Outlook:
    """The smallest effect seen with a chance of 80 %, in the metric's unit, what that goes by, and seeds for the smallest one wanted."""

    effect: float
    basis: str
    is_bound: bool  # effects below it are out of reach, and the true one may be larger
    seeds_for_min_effect: int | None  # stats.CAP + 1: more than that; none where the study names no smallest effect


def alike(one: Study, other: Study) -> bool:
    """Say whether two studies have the same metric and the same images, so that the noise of one is a guess at the other's."""
    return (one.metric, *_images(one)) == (other.metric, *_images(other))


def _images(study: Study) -> tuple[Any, Any]:
    """Name the images of a study; a folder of images is known by its path alone."""
    name = study.base.get("data.name", "cifar10")
    return name, study.base.get("data.root") if name == "imagefolder" else None


def noise(study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> list[float]:
    """List the standard deviations of the per-seed differences of a study's main effects, as far as it was run."""
    table = effects.tabulate(study, grid, outcomes, study.metric, study.direction)
    return [effect.estimate.sd for effect in effects.mains(table) if effect.estimate.sd]


def look(study: Study, sds: Iterable[float], basis: str, n_test: int | None) -> Outlook | None:
    """Say what a study can see; None where nothing can be said: one seed, no factor, or neither noise nor a bound is known.

    `sds` are those of earlier differences on the same metric, and their median counts; without any, accuracies on
    `n_test` test images have the bound of `stats.sd_lower_bound`.
    """
    family, known = len(list(effects.contrasts(study))), list(sds)
    is_bound = not known
    if known:
        sd = statistics.median(known)
    elif n_test and study.metric == "test/accuracy":
        sd = stats.sd_lower_bound(ERROR, n_test)
        basis = f"at best, if one image in {1 / ERROR:.0f} is wrong: the choice of {n_test:,} test images alone makes that noise"
    else:
        return None
    if family == 0 or len(study.seeds) < 2:
        return None
    a_seed = float(family) if study.variance == "pooled" else 1.0  # degrees of freedom: in a factorial there are more still
    effect = stats.detectable_effect(sd, len(study.seeds), family=family, alpha=study.alpha, a_seed=a_seed)
    assert effect is not None
    least = study.min_effect
    needed = None if least is None else stats.seeds_needed(sd, least, family=family, alpha=study.alpha, a_seed=a_seed)
    return Outlook(effect, basis, is_bound, needed)
