"""The runs and the study to Findings: effects, interactions, cells, claims, curves. All that a report says.

Nothing is drawn or worded here; `report` draws and words, and computes nothing.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis import answers, diagnostics, effects
from ablate.analysis.answers import ClaimFinding
from ablate.analysis.diagnostics import ClassEffect, Detail, Interplay
from ablate.analysis.effects import Effect
from ablate.analysis.metric_table import tabulate
from ablate.analysis.model_summary import ModelSummary
from ablate.analysis.outcomes import FAILED_RESULT, Outcome, Status
from ablate.analysis.tuning import TuningFinding
from ablate.recipe import metrics
from ablate.study.file import Study
from ablate.study.grid import Cell, Exclusion, Grid

SCORES = (
    "test/accuracy", "test/loss", "test/precision", "test/recall", "test/f1",
    "fit/accuracy", "fit/loss", "gap/accuracy", "model/parameters",
)  # fmt: skip
"""What is known of every network, whatever the study compares."""
CURVES = ("train/loss", "validation/loss", "train/accuracy", "validation/accuracy")


@dataclass(frozen=True, slots=True)
class CellFinding:
    """What the runs of one cell say."""

    cell: Cell
    n: int  # runs with a value
    failed: int  # diverged, or at chance level: counted, never averaged
    missing: int  # crashed, stopped, running, or not run yet
    counts: Mapping[Status, int]  # of its runs, by status
    at_chance: Mapping[int, float]  # by seed: the values of runs at chance level, which enter no mean
    statuses: Mapping[int, Status]  # by seed
    mean: float | None
    sd: float | None  # over seeds, ddof 1
    values: Mapping[int, float]  # by seed
    epoch_seconds: float | None  # mean over seeds
    train_seconds: float | None  # sum over seeds
    shares_training: bool  # its trainings are those of an earlier cell, evaluated in another way
    scores: Mapping[str, float] = field(default_factory=dict)  # means over the finished runs, by metric


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
    """A run that failed or crashed, and why."""

    run: str
    status: Status
    reason: str
    log: str


@dataclass(frozen=True, slots=True)
class ImageCount:
    """The images that the runs were evaluated on."""

    count: int
    classes: int  # that have images
    largest_class: int  # images

    @property
    def is_balanced(self) -> bool:
        """Whether all classes have the same number of images, to one part in ten."""
        return self.largest_class * self.classes <= 1.1 * self.count


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the study, and how many parameters it has."""

    name: str
    parameters: tuple[int, ...]  # smallest and largest: surgery adds and removes some


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
    simple_effects: tuple[Effect, ...]  # of each effect that another factor reverses, at each of its levels
    cell_effects: tuple[Effect, ...]
    claims: tuple[ClaimFinding, ...]
    curves: tuple[Curve, ...]
    failures: tuple[Failure, ...]
    excluded: tuple[Exclusion, ...]
    data: tuple[str, ...]  # fingerprints
    environments: tuple[dict[str, Any], ...]  # the different ones
    details: tuple[Detail, ...]  # of the baseline and the best cell, or of those that were asked for
    class_effects: tuple[ClassEffect, ...]
    interplay: Interplay | None  # of the strongest interaction
    tuning: TuningFinding | None = None
    images: ImageCount | None = None  # none where no run is evaluated, or not all on the same number
    networks: tuple[Network, ...] = ()
    summaries: tuple[ModelSummary, ...] = ()  # of the networks whose layers are known


def find(
    study: Study,
    grid: Grid,
    outcomes: tuple[Outcome, ...],
    *,
    metric: str | None = None,
    looked_into: tuple[str, ...] = (),
    tuning: TuningFinding | None = None,
    summaries: tuple[ModelSummary, ...] = (),
) -> Findings:
    """Compute all findings of a study on its metric, or on another one (then `min_effect` does not apply).

    `looked_into`: labels of the cells that are shown from inside; by default the baseline and the best other
    one.
    """
    name = metric or study.metric
    direction = study.direction if name == study.metric else metrics.direction(name) or "max"
    table = tabulate(study, grid, outcomes, name, direction)
    interactions = effects.interactions(table) if study.design == "factorial" else ()
    main = tuple(effects.flag_turned(effect, interactions, table) for effect in effects.mains(table))
    cells = _cells(grid, outcomes, name)
    environments = _environments(outcomes)
    return Findings(
        study=study,
        metric=name,
        direction=direction,
        finished=sum(o.status in ("finished", *FAILED_RESULT) for o in outcomes),
        total=len(outcomes),
        cells=cells,
        effects=main,
        interactions=interactions,
        simple_effects=effects.simple(table, main),
        cell_effects=effects.against_baseline(table, grid),
        claims=tuple(answers.claim_finding(claim, study, grid, outcomes) for claim in study.claims),
        curves=_curves(outcomes),
        failures=_failures(outcomes),
        excluded=grid.excluded,
        data=tuple(sorted({str(one["data"]) for one in environments if one.get("data")})),
        environments=environments,
        details=diagnostics.of_cells(looked_into or _baseline_and_best(cells, direction), outcomes),
        class_effects=diagnostics.by_class(study, grid, outcomes),
        interplay=diagnostics.interplay(table, interactions),
        tuning=tuning,
        images=_images(outcomes),
        networks=_networks(outcomes),
        summaries=summaries,
    )


def _failures(outcomes: tuple[Outcome, ...]) -> tuple[Failure, ...]:
    failed = [o for o in outcomes if o.status in (*FAILED_RESULT, "crashed")]
    return tuple(Failure(o.run.name, o.status, o.reason, o.log) for o in failed)


def _environments(outcomes: tuple[Outcome, ...]) -> tuple[dict[str, Any], ...]:
    """Return the different environments; outcomes mostly share one, with a diff of up to 200 KB."""
    shared = {id(o.environment): o.environment for o in outcomes if o.environment}
    return tuple({str(environment): environment for environment in shared.values()}.values())


def _images(outcomes: tuple[Outcome, ...]) -> ImageCount | None:
    """Return the number of test images; None where runs differ in it."""
    counts = {tuple(sum(row) for row in o.confusion) for o in outcomes if o.confusion}
    if len(counts) != 1 or not sum(only := counts.pop()):
        return None
    return ImageCount(sum(only), sum(map(bool, only)), max(only))


def _networks(outcomes: tuple[Outcome, ...]) -> tuple[Network, ...]:
    parameters: dict[str, set[int]] = {}
    for o in outcomes:
        own = parameters.setdefault(o.run.cell.recipe.model.name, set())
        count = o.metrics.get("model/parameters", math.nan)
        own |= {int(count)} if math.isfinite(count) else set()
    return tuple(
        Network(name, tuple(sorted({min(own), max(own)})) if own else ()) for name, own in parameters.items()
    )


def _baseline_and_best(cells: tuple[CellFinding, ...], direction: metrics.Direction) -> tuple[str, ...]:
    sign = 1 if direction == "max" else -1
    others = sorted((c for c in cells[1:] if c.mean is not None), key=lambda c: -sign * (c.mean or 0.0))
    return tuple(finding.cell.label for finding in (cells[0], *others[:1]))


def _cells(grid: Grid, outcomes: tuple[Outcome, ...], metric: str) -> tuple[CellFinding, ...]:
    by_cell: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_cell.setdefault(outcome.run.cell.id, []).append(outcome)
    seen: set[str] = set()
    findings = []
    for cell in grid.cells:
        own = by_cell[cell.id]
        good = [o for o in own if o.status == "finished"]
        values = _values(good, metric)
        at_chance = _values([o for o in own if o.status == "at_chance"], metric)
        failed = sum(o.status in FAILED_RESULT for o in own)
        seconds = [o.metrics["time/epoch_seconds"] for o in good]
        jobs = {o.run.job_id for o in own}
        findings.append(
            CellFinding(
                cell=cell,
                n=len(values),
                failed=failed,
                missing=len(own) - len(good) - failed,
                counts=Counter(o.status for o in own),
                at_chance=at_chance,
                statuses={o.run.seed: o.status for o in own},
                mean=float(np.mean(list(values.values()))) if values else None,
                sd=float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None,
                values=values,
                epoch_seconds=float(np.mean(seconds)) if seconds else None,
                train_seconds=float(sum(o.metrics["time/train_seconds"] for o in good)) if good else None,
                shares_training=jobs <= seen,
                scores={
                    metric: float(np.mean(list(each.values())))
                    for metric in SCORES
                    if (each := _values(good, metric))
                },
            )
        )
        seen |= jobs
    return tuple(findings)


def _values(some: list[Outcome], metric: str) -> dict[int, float]:
    return {o.run.seed: o.metrics[metric] for o in some if np.isfinite(o.metrics.get(metric, np.nan))}


def _curves(outcomes: tuple[Outcome, ...]) -> tuple[Curve, ...]:
    """Average each curve over the seeds of a training; cells that share a training share its curves."""
    trainings: dict[str, list[Outcome]] = {}
    seen: set[str] = set()
    for outcome in outcomes:
        if outcome.run.job_id not in seen and outcome.lines:
            seen.add(outcome.run.job_id)
            trainings.setdefault(outcome.run.cell.label, []).append(outcome)
    curves = []
    for label, own in trainings.items():
        lines = [line for outcome in own for line in outcome.lines]
        for metric in CURVES:
            points = [(line.epoch, line.metrics[metric]) for line in lines if metric in line.metrics]
            if points:
                finite = pd.DataFrame(points).replace([np.inf, -np.inf], np.nan).dropna()
                grouped = finite.groupby(0)[1].agg(["mean", "min", "max"])
                columns = (tuple(float(x) for x in grouped[name]) for name in ("mean", "min", "max"))
                curves.append(Curve(label, metric, tuple(int(e) for e in grouped.index), *columns))
    return tuple(curves)
