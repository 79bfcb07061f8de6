"""The head of a study file: its keys that are neither recipe nor factors, and how they are checked."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ablate.messages import show, unknown
from ablate.recipe import metrics
from ablate.recipe.fields import Section
from ablate.recipe.section import is_too_large
from ablate.study.checks import in_table
from ablate.study.search_space import TUNING_SEED


class Analysis(Section):
    """How verdicts are reached."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance of any false verdict in a family of effects of which none is real."""
    variance: Literal["own", "pooled"] = "own"
    """The noise of an effect: of its own differences over seeds, or one for all cells.

    The latter needs fewer seeds, and is wrong where one cell is noisier than the others.
    """


MOST_SEEDS = 1000


def _different(seeds: int | list[int]) -> int | list[int]:
    if isinstance(seeds, list) and len(seeds) > MOST_SEEDS:
        raise ValueError(f"must be at most {MOST_SEEDS:,} seeds, got {len(seeds):,}")
    if isinstance(seeds, list) and (not seeds or len(set(seeds)) < len(seeds)):
        raise ValueError(f"must be a count, or a list of different whole numbers, got {show(seeds)}")
    return seeds


class Head(Section):
    """The keys of a study file that are neither the recipe nor its factors."""

    name: str = Field(min_length=1, max_length=100)
    question: str = ""
    design: Literal["factorial", "one_at_a_time"] = "factorial"
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=MOST_SEEDS)] | list[Annotated[int, Field(ge=0)]],
        AfterValidator(_different),
    ] = 5
    metric: str = "test/accuracy"
    direction: Literal["max", "min"] | None = None
    min_effect: float | None = Field(None, gt=0)
    analysis: Analysis = Analysis()


def mistakes(head: dict[str, Any]) -> list[str]:
    """Return all that is wrong with a head by itself."""
    return [*in_table(head, Head), *_metric(head), *_min_effect(head)]


def _metric(head: dict[str, Any]) -> list[str]:
    """Check that the better direction of the metric is known."""
    metric = head.get("metric")
    if not isinstance(metric, str) or metrics.direction(metric) or head.get("direction", "none") != "none":
        return []
    unlisted = unknown(metric, "a known metric", metrics.METRICS)
    return [f'metric: {unlisted}; for another, say direction = "max" or "min"']


def _min_effect(head: dict[str, Any]) -> list[str]:
    """Refuse a smallest effect that no share can have: two shares differ by less than 1."""
    least, metric = head.get("min_effect"), head.get("metric", "test/accuracy")
    if not isinstance(least, (int, float)) or is_too_large(least) or not isinstance(metric, str):
        return []
    if not (metrics.is_fraction(metric) and 1 <= least < math.inf):
        return []
    points = f"{least:g} {'point' if least == 1 else 'points'}"
    meant = f"which is {100 * least:g} points: for {points} write {least / 100:g}"
    return [f"min_effect: must be below 1 for {metric}, got {least:g}, {meant}"]


def seed_mistakes(head: dict[str, Any], *, is_tuned: bool) -> list[str]:
    """Return what is wrong with the seeds: where `is_tuned`, trials and range tests have their own."""
    seeds = head.get("seeds", 5)
    if not is_tuned or not isinstance(seeds, list):
        return []
    if not any(isinstance(seed, int) and seed >= TUNING_SEED for seed in seeds):
        return []
    return [f"seeds: must be below {TUNING_SEED:,} beside a search: those from there on are its own"]
