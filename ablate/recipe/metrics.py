"""The metrics that a job logs: their names, and which direction is better.

A metric is `split/name`. The splits are train, validation and test, and fit: the images that were trained
on, evaluated as those of the test set are. Both are read once, when a job ends.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from ablate.recipe import confusion as confusions

Direction = Literal["max", "min"]

METRICS: dict[str, Direction] = {
    # mean cross-entropy of the batches of an epoch, as trained (augmented, smoothed), nats
    "train/loss": "min",
    "train/accuracy": "max",  # share of them that was right, 0..1
    "validation/loss": "min",
    "validation/accuracy": "max",
    "test/loss": "min",  # mean negative log-likelihood, nats
    "test/accuracy": "max",  # 0..1
    # expected calibration error, 15 equal bins, 0..1 (Guo et al. 2017, section 2)
    "test/calibration_error": "min",
    # means over the classes of the test images, 0..1
    "test/precision": "max",
    "test/recall": "max",
    "test/f1": "max",
    # with evaluation.train: of the images that were trained on, as they are and by the final weights
    "fit/loss": "min",
    "fit/accuracy": "max",
    "gap/accuracy": "min",  # fit/accuracy less test/accuracy
    "model/parameters": "min",
    "time/epoch_seconds": "min",  # mean over the job's epochs, validation included
    "time/train_seconds": "min",  # the whole training, all attempts
    # what torch.compile, or the capture of a graph, took before the first step, all attempts; no part of the
    # two above
    "time/compile_seconds": "min",
}
PER_CLASS = "test/accuracy/"  # + class name: share of that class's test images that was right
FRACTIONS = (
    "accuracy",
    "calibration_error",
    "precision",
    "recall",
    "f1",
)  # shown in points: 0.0123 -> "1.23 points"

OF_TRAINING_IMAGES = ("fit/", "gap/")  # only measured with evaluation.train


def with_derived(measured: Mapping[str, float], confusion: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the metrics of an evaluation with those that follow from them and its confusion matrix."""
    derived = {f"test/{name}": mean for name, mean in confusions.macro(confusion).items()}
    if {"fit/accuracy", "test/accuracy"} <= measured.keys():
        derived["gap/accuracy"] = measured["fit/accuracy"] - measured["test/accuracy"]
    return {**measured, **derived}


def direction(metric: str) -> Direction | None:
    """Return which direction is better, or None for a metric that is not known here."""
    return "max" if metric.startswith(PER_CLASS) else METRICS.get(metric)


def is_fraction(metric: str) -> bool:
    """Whether a metric is a share between 0 and 1, which people read in percent and points."""
    return metric.startswith(PER_CLASS) or metric.rsplit("/", 1)[-1] in FRACTIONS


def scale(metric: str) -> float:
    """Return the factor from a metric to what people read: shares are read in percent."""
    return 100.0 if is_fraction(metric) else 1.0


def unit(metric: str) -> str:
    """Return the unit of a difference, with a space before it; empty where none is known."""
    return " points" if is_fraction(metric) else ""


def size(number: float, metric: str) -> str:
    """Return a size without a sign, such as `min_effect`: "0.2 points"."""
    shown, named = f"{scale(metric) * number:.6g}", unit(metric)
    return shown + (named.removesuffix("s") if shown == "1" else named)


def plain_unit(metric: str) -> str:
    """Return the unit of a metric's own values, for programs: "fraction", "nats", "s", "1" for a count.

    Empty if it is not known.
    """
    if is_fraction(metric):
        return "fraction"
    return {"loss": "nats", "parameters": "1"}.get(
        metric.rsplit("/", 1)[-1], "s" if metric.startswith("time/") else ""
    )
