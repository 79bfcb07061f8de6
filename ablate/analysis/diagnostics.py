"""Two cells from inside: which classes are taken for which, how far confidence can be trusted, the most confident mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablate.analysis import effects
from ablate.analysis.effects import Effect
from ablate.analysis.outcomes import Outcome
from ablate.recipe import metrics
from ablate.study.file import Study
from ablate.study.grid import Grid

MOST_CLASSES = 20  # of the classes whose accuracies are compared: those that a change moves most


@dataclass(frozen=True, slots=True)
class Detail:
    """One cell from inside, over its finished seeds."""

    label: str
    classes: tuple[str, ...]
    confusion: tuple[
        tuple[float, ...], ...
    ]  # [true class][answer]: share of the images of that class, mean over seeds
    calibration: tuple[
        tuple[int, float, float], ...
    ]  # a bin each that has images: how many, mean confidence, share that was right
    picture: str  # path of a PNG of the most confident mistakes; empty where there is none
    picture_seed: int | None


@dataclass(frozen=True, slots=True)
class ClassEffect:
    """What a change does to the accuracy on one class."""

    name: str
    effect: Effect


def of_cells(labels: Sequence[str], outcomes: tuple[Outcome, ...]) -> tuple[Detail, ...]:
    """Describe some cells; those without a finished run are left out."""
    found = []
    for label in dict.fromkeys(labels):
        own = [o for o in outcomes if o.run.cell.label == label and o.status == "finished" and o.confusion]
        if own and len({o.classes for o in own}) == 1:
            counts = np.array([o.confusion for o in own], dtype=float)
            shares = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
            pictured = next((o for o in own if o.picture), None)
            found.append(
                Detail(
                    label=label,
                    classes=own[0].classes,
                    confusion=tuple(tuple(float(share) for share in row) for row in shares),
                    calibration=_pooled([o.calibration for o in own]),
                    picture=pictured.picture if pictured else "",
                    picture_seed=pictured.run.seed if pictured else None,
                )
            )
    return tuple(found)


def _pooled(every: Sequence[tuple[tuple[int, float, float], ...]]) -> tuple[tuple[int, float, float], ...]:
    """Pool the calibration bins of several runs; empty bins are left out."""
    if not every or any(len(bins) != len(every[0]) for bins in every):
        return ()
    found = []
    for same in zip(*every, strict=True):
        count = sum(n for n, _, _ in same)
        if count:
            found.append(
                (count, sum(n * c for n, c, _ in same) / count, sum(n * a for n, _, a in same) / count)
            )
    return tuple(found)


def by_class(study: Study, grid: Grid, outcomes: tuple[Outcome, ...]) -> tuple[ClassEffect, ...]:
    """Compute what each change does to the accuracy on every class, or on those that it moves most.

    All in one family.
    """
    names = sorted({name for o in outcomes for name in o.metrics if name.startswith(metrics.PER_CLASS)})
    contrasts = list(effects.contrasts(study))
    if not names or not contrasts:
        return ()
    judged = {}
    for name in names:
        table = effects.tabulate(study, grid, outcomes, name, "max")
        every = [effects.main(table, *contrast) for contrast in contrasts]
        judged[name] = effects.judged(table, every, len(contrasts) * len(names))
    found: list[ClassEffect] = []
    for i in range(len(contrasts)):
        own = [ClassEffect(name.removeprefix(metrics.PER_CLASS), every[i]) for name, every in judged.items()]
        known = [one for one in own if one.effect.estimate.effect is not None]
        found += sorted(known, key=_moved)[:MOST_CLASSES]
    return tuple(found)


def _moved(one: ClassEffect) -> float:
    return -abs(one.effect.estimate.effect or 0.0)


@dataclass(frozen=True, slots=True)
class Interplay:
    """The mean of the metric at every pair of levels of two factors: what the lines of an interaction are drawn from."""

    factors: tuple[str, str]
    levels: tuple[tuple[str, ...], tuple[str, ...]]
    means: Mapping[tuple[str, str], float]
    uneven: bool  # runs are missing, and the means are not over the same seeds and settings


def interplay(table: effects.Table, found: Sequence[Effect]) -> Interplay | None:
    """Take the strongest interaction: the largest that is more than noise, else the largest.

    None where there is none.
    """
    known = [effect for effect in found if effect.estimate.effect is not None]
    if not known:
        return None
    strongest = max(
        known, key=lambda e: (e.estimate.verdict in ("helps", "hurts"), abs(e.estimate.effect or 0.0))
    )
    names = [factor.name for factor in table.study.factors]
    one, other = (names.index(factor) for factor, _, _ in strongest.changes)
    levels = tuple(tuple(level.name for level in table.study.factors[i].levels) for i in (one, other))
    places = {(a, b): effects.settings(table, {one: a, other: b}) for a in levels[0] for b in levels[1]}
    there = np.isfinite(np.hstack([table.block(place) for place in places.values()]))
    whole = np.flatnonzero(there.all(axis=1))  # seeds that lack nothing
    seeds = whole if len(whole) else np.arange(len(there))
    means = {}
    for pair, place in places.items():
        values = table.block(place)[seeds]
        if np.isfinite(values).any():
            means[pair] = float(np.nanmean(values))
    return Interplay((names[one], names[other]), (levels[0], levels[1]), means, uneven=not len(whole))
