"""Precision, recall and F1 of classes, by the counts of a confusion matrix: [true class][answer].

They are scikit-learn's and torchmetrics' "macro": each class counts the same, however many images it has. A
class of which no image and no answer is has none of them; one that was never the answer has a precision of 0,
one without images a recall of 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well one class is told from the others."""

    images: int
    answers: int
    precision: float
    """Share of the answers that were right."""
    recall: float
    """Share of the images that were answered rightly: the accuracy on the class."""
    f1: float
    """Their harmonic mean."""


def by_class(confusion: Sequence[Sequence[int]]) -> tuple[ClassScores | None, ...]:
    """Return the scores of every class; None for one that is neither an image's nor an answer."""
    scores: list[ClassScores | None] = []
    for k, (row, column) in enumerate(zip(confusion, zip(*confusion, strict=True), strict=True)):
        images, answers, right = sum(row), sum(column), row[k]
        scores.append(
            ClassScores(
                images, answers, right / max(answers, 1), right / max(images, 1),
                2 * right / (images + answers),
            )
            if images or answers
            else None
        )  # fmt: skip
    return tuple(scores)


def macro(confusion: Sequence[Sequence[int]]) -> Mapping[str, float]:
    """Return the means of precision, recall and F1 over the classes; nothing without any image."""
    scores = [one for one in by_class(confusion) if one is not None]
    if not scores:
        return {}
    return {name: fmean([getattr(one, name) for one in scores]) for name in ("precision", "recall", "f1")}
