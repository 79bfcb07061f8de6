"""Two cells from inside: confused classes, calibration, the most confident mistakes. Effects by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ablate.analysis import effects, metric_table
from ablate.analysis.effects import Effect
from ablate.analysis.metric_table import Table
from ablate.analysis.outcomes import Outcome
from ablate.recipe import confusion, metrics
from ablate.study.file import Study
from ablate.study.grid import Grid

MOST_CLASSES = 20  # of the classes whose accuracies are compared: those that a change moves most


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is told from the others: means over seeds."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Detail:
    """One cell from inside, over its finished seeds."""

    label: str
    classes: tuple[str, ...]
    confusion: tuple[tuple[float, ...], ...]
    """[true class][answer]: share of the images of that class, mean over seeds."""
    calibration: tuple[tuple[int, float, float], ...]
    """For each bin that has images: their number, mean confidence, share of right answers."""
    picture: str  # path of a PNG of the most confident mistakes; empty where there is none
    picture_seed: int | None
    scores: tuple[ClassScore, ...] = ()
    """A row a class that has images or answers."""


@dataclass(frozen=True, slots=True)
class ClassEffect:
    """What a change does to the accuracy on one class."""

    name: str
    effect: Effect


def of_cells(labels: Sequence[str], outcomes: tuple[Outcome, ...]) -> tuple[Detail, ...]:
    """Return some cells from inside; cells without a finished run are left out."""
    details = []
    for label in dict.fromkeys(labels):
        own = [o for o in outcomes if o.run.cell.label == label and o.status == "finished" and o.confusion]
        if own and len({o.classes for o in own}) == 1:
            counts = np.array([o.confusion for o in own], dtype=float)
            shares = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
            pictured = next((o for o in own if o.picture), None)
            details.append(
                Detail(
                    label=label,
                    classes=own[0].classes,
                    confusion=tuple(tuple(float(share) for share in row) for row in shares),
                    calibration=_pooled([o.calibration for o in own]),
                    picture=pictured.picture if pictured else "",
                    picture_seed=pictured.run.seed if pictured else None,
                    scores=_class_scores(own),
                )
            )
    return tuple(details)


def _class_scores(own: Sequence[Outcome]) -> tuple[ClassScore, ...]:
    """Return the scores of each class, means over runs; a class that a run has nothing of counts in none."""
    rows = []
    for k, name in enumerate(own[0].classes):
        each = [scores for o in own if (scores := confusion.by_class(o.confusion)[k]) is not None]
        if each:
            means = (fmean(getattr(one, part) for one in each) for part in ("precision", "recall", "f1"))
            rows.append(ClassScore(name, each[0].images, *means))
    return tuple(rows)


def _pooled(every: Sequence[tuple[tuple[int, float, float], ...]]) -> tuple[tuple[int, float, float], ...]:
    """Pool the calibration bins of several runs; empty bins are left out."""
    if not every or any(len(bins) != len(every[0]) for bins in every):
        return ()
    pooled = []
    for same in zip(*every, strict=True):
        count = sum(n for n, _, _ in same)
        if count:
            confidence, accuracy = sum(n * c for n, c, _ in same), sum(n * a for n, _, a in same)
            pooled.append((count, confidence / count, accuracy / count))
    return tuple(pooled)


def by_class(study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> tuple[ClassEffect, ...]:
    """Return what each change does to the accuracy on every class, or on those that it moves most.

    All effects are one family.
    """
    names = sorted({name for o in outcomes for name in o.metrics if name.startswith(metrics.PER_CLASS)})
    contrasts = list(effects.contrasts(study))
    if not names or not contrasts:
        return ()
    by_metric = {}
    for name in names:
        table = metric_table.tabulate(study, grid, outcomes, name, "max")
        every = [effects.main(table, *contrast) for contrast in contrasts]
        by_metric[name] = effects.decide(table, every, len(contrasts) * len(names))
    kept: list[ClassEffect] = []
    for i in range(len(contrasts)):
        own = [ClassEffect(n.removeprefix(metrics.PER_CLASS), every[i]) for n, every in by_metric.items()]
        estimated = [effect for effect in own if effect.effect.estimate.effect is not None]
        kept += sorted(estimated, key=_largest_first)[:MOST_CLASSES]
    return tuple(kept)


def _largest_first(class_effect: ClassEffect) -> float:
    return -abs(class_effect.effect.estimate.effect or 0.0)


@dataclass(frozen=True, slots=True)
class Interplay:
    """The mean of the metric at every pair of levels of two factors: the points of an interaction plot."""

    factors: tuple[str, str]
    levels: tuple[tuple[str, ...], tuple[str, ...]]
    means: Mapping[tuple[str, str], float]
    uneven: bool  # runs are missing, and the means are not over the same seeds and settings


def interplay(table: Table, interactions: Sequence[Effect]) -> Interplay | None:
    """Return the means of the strongest interaction: the largest that is more than noise, else the largest.

    None where there is none.
    """
    estimated = [effect for effect in interactions if effect.estimate.effect is not None]
    if not estimated:
        return None
    strongest = max(estimated, key=_strength)
    names = [factor.name for factor in table.study.factors]
    first, second = (names.index(factor) for factor, _, _ in strongest.changes)
    levels = tuple(tuple(level.name for level in table.study.factors[i].levels) for i in (first, second))
    places = {
        (a, b): metric_table.settings(table, {first: a, second: b}) for a in levels[0] for b in levels[1]
    }
    has_value = np.isfinite(np.hstack([table.block(place) for place in places.values()]))
    complete = np.flatnonzero(has_value.all(axis=1))  # seeds that lack nothing
    seeds = complete if len(complete) else np.arange(len(has_value))
    means = {}
    for pair, place in places.items():
        values = table.block(place)[seeds]
        if np.isfinite(values).any():
            means[pair] = float(np.nanmean(values))
    factors = names[first], names[second]
    return Interplay(factors, (levels[0], levels[1]), means, uneven=not len(complete))


def _strength(effect: Effect) -> tuple[bool, float]:
    return effect.estimate.verdict in ("helps", "hurts"), abs(effect.estimate.effect or 0.0)
