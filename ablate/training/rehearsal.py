"""One training step of two images on the CPU, which shows a network's mistakes before any training."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.recipe import networks
from ablate.recipe.fields import MeanStd, Recipe
from ablate.training import graph, images, layout, loop, lr_finder, models, optim, surgery
from ablate.training.augment import PLAIN
from ablate.training.loop import Session
from ablate.training.models import hints
from ablate.training.surgery import ModelError

CPU = torch.device("cpu")
MOST_MACS, MOST_PARAMETERS = (
    25e9,
    200e6,
)  # of a network that is not the user's own: a larger one is not rehearsed
REPEATED = 100e6  # parameters of the largest network that is built several times


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal has seen."""

    memory_format: layout.Format
    notes: tuple[str, ...] = ()  # of what works, and is hardly meant


def rehearse(recipe: Recipe, shape: models.Shape) -> Rehearsed:
    """Take a step of the optimizer with two random images, then two passes in eval mode.

    Raise a ModelError where that fails.

    Pretrained weights are left out: they change no shape. Nothing of it stays in this process.

    """
    name, precision = recipe.model.name, recipe.training.precision
    with lr_finder.undisturbed(CPU), models.python_seeded(0), _understood(name):
        network = models.build(recipe.model, shape, seed=0, pretrained=False)
        _check_trainable(network, name)
        first = _check_repeatable(network, recipe, shape) if _is_repeated(network, name) else ()
        network = layout.place(network, recipe.model, shape, precision, CPU)
        session = _session(recipe, network, shape)
        before = [key for key, _ in network.named_parameters()]
        loss = _train(session, recipe, shape)
        if not math.isfinite(loss):
            raise ModelError(
                f"{name} gives scores that are not finite numbers (its first loss is {loss}): mend the "
                "network"
            )
        if [key for key, _ in network.named_parameters()] != before:
            raise ModelError(
                f"{name} makes layers while it runs, and they are not trained: make them in __init__, or "
                "take nn.LazyLinear"
            )
        notes = _check_scores(session, shape)
        if _is_repeated(network, name):
            _check_state(session, shape)
    return Rehearsed(layout.of(network), tuple(f"{name} {note}" for note in (*first, *notes)))


def _is_repeated(network: nn.Module, name: str) -> bool:
    return networks.is_own(name) and sum(parameter.numel() for parameter in network.parameters()) <= REPEATED


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """Turn an error of a network into a ModelError, with its cause where a hint knows it."""
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        hint = hints.hint(error)
        if hint is None and networks.is_own(name) and not isinstance(error, (RuntimeError, ValueError)):
            raise  # the line where it was raised says more
        what = hint or "cannot take a training step"
        raise ModelError(f"{name} {what} ({hints.reason(error)})") from error


def _check_trainable(network: nn.Module, name: str) -> None:
    parameters = list(network.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        why = (
            "all of its parameters are frozen (requires_grad = False)"
            if parameters
            else "it has no parameters"
        )
        raise ModelError(
            f"{name} has nothing to train: {why}: leave something to train, the last layer at least"
        )
    if surgery.has_lazy_layers(network):
        raise ModelError(f"{name} has lazy layers that only training mode reaches: give these their sizes")


def _check_repeatable(network: nn.Module, recipe: Recipe, shape: models.Shape) -> tuple[str, ...]:
    """Return warnings of a network that, built again under the same seed, starts from other weights."""
    name, again = recipe.model.name, models.build(recipe.model, shape, seed=0, pretrained=False)
    ours = {id(module) for module in network.modules()}
    if any(id(module) in ours and next(module.parameters(), None) is not None for module in again.modules()):
        raise ModelError(
            f"{name} returns layers that it has returned before: build new ones in each call, as each job "
            "trains its own"
        )
    mine, other = network.state_dict(), again.state_dict()
    same = mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
    if same:
        return ()
    warning = (
        "starts from other weights each time: its random numbers are not those of torch, numpy or random, "
        "so seeds are no pairs"
    )
    return (warning,)


def _session(recipe: Recipe, network: nn.Module, shape: models.Shape) -> Session:
    """Set a training up as `loop.start` does, for two images of noise."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (2, shape.image_size, shape.image_size, shape.channels), dtype=np.uint8
    )
    labels = np.arange(2, dtype=np.int64) % shape.classes
    normalize = MeanStd(mean=(0.5,), std=(0.25,))
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    return Session(
        recipe=plain,
        device=CPU,
        network=network,
        forward=network,
        optimizer=optim.optimizer(network, recipe.optimizer),
        train=images.place(normalize, pixels, labels, np.arange(2), CPU),
        validation=None,
        order=torch.Generator(),
        streams={},
        augmentation=PLAIN,
    )


def _train(session: Session, recipe: Recipe, shape: models.Shape) -> float:
    """Take one step; return the loss before it."""

    def forward(x: Tensor) -> Tensor:
        return _checked(session.network(x), session.recipe.model.name, 2, shape.classes, "in training mode")

    session.forward = forward
    surgery.train(session.network)
    batch = next(session.train.batches(2))
    with _capturable(recipe):
        before = loop.step(session, batch)
    return before[0].item()


@contextmanager
def _capturable(recipe: Recipe) -> Iterator[None]:
    """Raise a ModelError where a step could be no CUDA graph: what Python decides, it would decide once."""
    name = recipe.model.name
    if recipe.training.compile != "graph":
        yield
        return
    before = random.getstate(), str(np.random.get_state())  # noqa: NPY002 (what a network draws from)
    with graph.Reads() as reads:
        yield
    drawn = before != (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    why = f"waits for its numbers ({reads.seen[0]})" if reads.seen else "draws from random or numpy"
    if reads.seen or drawn:
        raise ModelError(
            f"the step of {name} cannot be a CUDA graph: it {why}, and a graph asks Python nothing: "
            "leave that to tensors, or take training.compile = false"
        )


def _scores(session: Session, shape: models.Shape, count: int = 2) -> Tensor:
    """Return the scores (count, K) float32 of the first images, in eval mode."""
    session.network.eval()
    with torch.inference_mode(), loop.autocast(session.recipe, CPU):
        scores = session.network(next(session.train.batches(count)).images)
    return _checked(scores, session.recipe.model.name, count, shape.classes, "in eval mode").float()


def _checked(scores: Any, name: str, count: int, classes: int, mode: str) -> Tensor:
    if isinstance(scores, Tensor) and scores.shape == (count, classes):
        return scores
    got = (
        f"a tensor of shape {tuple(scores.shape)}"
        if isinstance(scores, Tensor)
        else f"a {type(scores).__name__}"
    )
    other = "" if isinstance(scores, Tensor) else ": return the scores alone, side heads are not trained"
    wanted = f"one score a class, a tensor of shape ({count}, {classes}) for {count} images"
    raise ModelError(f"{name} must give {wanted}, and gave {got} {mode}{other}")


def _check_scores(session: Session, shape: models.Shape) -> tuple[str, ...]:
    """Check the scores in eval mode, of one image as well; return warnings."""
    _scores(session, shape, 1)
    scores, again = _scores(session, shape), _scores(session, shape)
    notes = []
    if shape.classes > 1 and (scores >= 0).all() and torch.allclose(scores.sum(1), torch.ones(2), atol=0.01):
        notes.append(
            "ends in a softmax, and the loss applies its own: it learns slowly, return the scores before it"
        )
    elif shape.classes > 1 and torch.allclose(scores.logsumexp(1), torch.zeros(2), atol=0.01):
        notes.append(
            "ends in a log_softmax, which the loss applies itself: it does no harm, and can be left out"
        )
    if not torch.equal(scores, again):
        notes.append(
            "gives other scores each time in eval mode: is there an F.dropout without training=self.training?"
        )
    return tuple(notes)


def _check_state(session: Session, shape: models.Shape) -> None:
    """Check that a network of another seed with these weights, as in testing, has the same scores."""
    recipe, name = session.recipe, session.recipe.model.name
    scores, again = _scores(session, shape), _scores(session, shape)
    other = models.build(recipe.model, shape, seed=1, pretrained=False)
    other.load_state_dict(session.network.state_dict())
    trained = session.network
    session.network = layout.place(other, recipe.model, shape, recipe.training.precision, CPU)
    loaded = _scores(session, shape)
    session.network = trained
    if torch.equal(scores, again) and not torch.allclose(
        scores, loaded, rtol=0.01, atol=0.01, equal_nan=True
    ):
        kept = "numbers outside of its parameters and buffers, so that its saved weights are another network"
        raise ModelError(
            f"{name} keeps {kept}: register them with register_buffer, or make them an nn.Parameter"
        )
