"""Evaluation of a trained network on test images: accuracy, loss, calibration, confusion, examples."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import chance, fields, identity, metrics
from ablate.recipe.fields import Recipe
from ablate.training import loop, surgery
from ablate.training.images import Images

BINS = 15  # of the calibration error: Guo et al. 2017, section 2
SHOWN_WRONG, SHOWN_RIGHT = 36, 18  # answers that are drawn: wrong ones tell more


@dataclass(frozen=True, slots=True)
class Shown:
    """One test image, and the answer to it."""

    index: int
    label: int
    answer: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one trained network under one way of evaluating it."""

    metrics: dict[str, float]
    confusion: list[list[int]]  # [true class][answer]
    calibration: list[tuple[int, float, float]]  # per bin of confidence: images, mean confidence, accuracy
    wrong: tuple[Shown, ...]  # the most confident ones first
    right: tuple[Shown, ...]  # some of every class
    at_chance: str | None  # why the answers do not depend on the class, else None


def evaluate(
    network: nn.Module,
    recipe: Recipe,
    seed: int,
    test: Images,
    classes: tuple[str, ...],
    alive: Callable[[], None] = lambda: None,
    *,
    trained_on: Images | None = None,
) -> Scores:
    """Evaluate a network as the recipe's evaluation says, for accuracy and loss also on what it learnt from.

    The same network, recipe and seed give the same numbers. `alive` is called for every pass over a batch.
    """
    p = predict(network, recipe, seed, test, alive)
    labels, answers = test.labels.cpu(), p.argmax(1)
    confusion = _confusion(answers, labels, len(classes))
    per_class = confusion.diagonal() / confusion.sum(1)
    count, confidence, accuracy = _calibration(p, answers == labels)
    error = (count * (confidence - accuracy).abs()).sum() / len(labels)  # Guo et al. 2017, equation 3
    scores = _plain("test", p, labels) | {"test/calibration_error": error.item()}
    scores |= {
        metrics.PER_CLASS + name: share
        for name, share in zip(classes, per_class.tolist(), strict=True)
        if not math.isnan(share)  # of a class without test images
    }
    if trained_on is not None:
        p_fit = predict(network, recipe, seed, trained_on, alive)
        scores |= _plain("fit", p_fit, trained_on.labels.cpu())
    return Scores(
        metrics=scores,
        confusion=confusion.tolist(),
        calibration=[
            (int(n), round(c, 6), round(a, 6))
            for n, c, a in zip(count.tolist(), confidence.tolist(), accuracy.tolist(), strict=True)
        ],
        wrong=_wrong(p, answers, labels),
        right=_right(p, answers, labels),
        at_chance=chance.at_chance(confusion.tolist(), classes),
    )


def _plain(split: str, p: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy and loss of probabilities (N, K)."""
    return {
        f"{split}/accuracy": (p.argmax(1) == labels).double().mean().item(),
        f"{split}/loss": F.nll_loss(p.clamp_min(1e-12).log(), labels).item(),
    }


def _confusion(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the counts of answers (N,) by the labels (N,) of their images: (K, K) int64, [label][answer]."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).reshape(classes, classes)


def _calibration(p: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of images, mean confidence and accuracy of each bin of confidence: (BINS,) each.

    `p`: probabilities (N, K); `right` (N,): whether each answer is. The bins are of equal width (Guo et al.
    2017, section 2); an empty one has zeros.
    """
    confidence = p.max(1).values.nan_to_num(0.0)  # of a broken network
    which = (confidence * BINS).long().clamp(0, BINS - 1)
    count = torch.bincount(which, minlength=BINS)
    mean_confidence, accuracy = (
        torch.bincount(which, weights=part.double(), minlength=BINS) / count.clamp_min(1)
        for part in (confidence, right)
    )
    return count, mean_confidence, accuracy


def predict(
    network: nn.Module, recipe: Recipe, seed: int, test: Images, alive: Callable[[], None] = lambda: None
) -> Tensor:
    """Return class probabilities (N, K) float32 on the CPU: the means that `probabilities` returns."""
    return probabilities(network, recipe, seed, test, alive)[0]


def probabilities(
    network: nn.Module, recipe: Recipe, seed: int, test: Images, alive: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """Return class probabilities and their standard deviation over passes, (N, K) float32 on the CPU.

    MC dropout averages the probabilities of T passes with dropout on and BatchNorm in eval mode (Gal and
    Ghahramani 2016, equation 6); flip TTA averages those of an image and its mirror image, or in each pass
    their logits.
    """
    views: list[Callable[[Tensor], Tensor]] = [lambda x: x]
    tta = recipe.evaluation.tta
    if tta != "none":
        views.append(lambda x: x.flip(-1))
    network.eval()
    passes = recipe.evaluation.mc_dropout if fields.is_active(recipe, "evaluation.mc_dropout") else 0
    if passes:
        surgery.sample_dropout(network)
        torch.manual_seed(identity.stream_seed(seed, "mc_dropout"))
    parts, spreads = [], []
    with torch.inference_mode(), loop.autocast(recipe, test.device):
        for batch in test.batches(loop.evaluation_batch(test.device, test.side)):
            several = []
            for _ in range(max(passes, 1)):
                alive()
                logits = [network(view(batch.images)).float() for view in views]
                if tta == "flip_logits":
                    logits = [torch.stack(logits).mean(0)]
                several += [each.softmax(1) for each in logits]
            every = torch.stack(several)
            parts.append(every.mean(0))
            spreads.append(every.std(0, correction=0))
    network.eval()
    return torch.cat(parts).cpu(), torch.cat(spreads).cpu()


def _wrong(p: Tensor, answers: Tensor, labels: Tensor) -> tuple[Shown, ...]:
    confidence = p.max(1).values
    missed = (answers != labels).nonzero()[:, 0]
    first = missed[confidence[missed].argsort(descending=True, stable=True)][:SHOWN_WRONG]
    return _shown(first, p, answers, labels)


def _right(p: Tensor, answers: Tensor, labels: Tensor) -> tuple[Shown, ...]:
    """Return some images that were answered rightly: class by class in turn, in the order of the images."""
    hits = (answers == labels).nonzero()[:, 0]
    turn = torch.zeros(len(hits), dtype=torch.int64)
    for label in set(labels[hits].tolist()):
        own = labels[hits] == label
        turn[own] = torch.arange(int(own.sum()))
    order = (turn * p.shape[1] + labels[hits]).argsort()
    return _shown(hits[order][:SHOWN_RIGHT], p, answers, labels)


def _shown(which: Tensor, p: Tensor, answers: Tensor, labels: Tensor) -> tuple[Shown, ...]:
    return tuple(
        Shown(i, int(labels[i]), int(answers[i]), round(p[i].max().item(), 4)) for i in which.tolist()
    )
