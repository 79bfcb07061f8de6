"""Precision, recall and F1 are scikit-learn's and torchmetrics', also for classes that nobody has."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ablate.recipe import confusion

CASES = {
    "usual": (np.arange(6), np.arange(6)),
    "one class never the answer": (np.arange(6), np.array([0, 1, 2, 3, 5])),
    "one class without images": (np.array([0, 1, 2, 3, 5]), np.arange(6)),
    "one class neither": (np.array([0, 2, 3, 5]), np.array([0, 1, 2, 3, 5])),
    "one answer for all": (np.arange(6), np.array([2])),
}


@pytest.mark.parametrize("case", CASES)
def test_the_means_are_scikit_learns_and_torchmetrics(case):
    from torchmetrics.functional import classification  # late: it brings matplotlib to every worker

    rng = np.random.default_rng(3)
    true, answered = CASES[case]
    labels, answers = rng.choice(true, 300), rng.choice(answered, 300)
    answers = np.where(np.isin(labels, answered) & (rng.random(300) < 0.6), labels, answers)
    counts = confusion_matrix(labels, answers, labels=range(6)).tolist()
    means = confusion.macro(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of classes without an answer
        theirs = precision_recall_fscore_support(labels, answers, average="macro", zero_division=0)
        each = precision_recall_fscore_support(
            labels, answers, average=None, labels=range(6), zero_division=0
        )
    assert [means[name] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3])
    pair = torch.from_numpy(answers), torch.from_numpy(labels)
    for name, function in zip(
        ("precision", "recall", "f1"),
        (
            classification.multiclass_precision,
            classification.multiclass_recall,
            classification.multiclass_f1_score,
        ),
        strict=True,
    ):
        assert means[name] == pytest.approx(function(*pair, num_classes=6, average="macro").item(), rel=1e-6)
    for k, scores in enumerate(confusion.by_class(counts)):
        if scores is None:
            assert k not in labels
            assert k not in answers
        else:
            assert (scores.precision, scores.recall, scores.f1) == pytest.approx(
                [part[k] for part in each[:3]]
            )
            assert (scores.images, scores.answers) == ((labels == k).sum(), (answers == k).sum())


def test_without_images_there_are_no_means():
    assert confusion.macro([]) == {}
    assert confusion.macro([[0, 0], [0, 0]]) == {}
