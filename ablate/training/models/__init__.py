"""The networks by name. Each is a function of its section of the recipe and of the images.

Variants are surgery, not code.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import surgery
from ablate.training.models import weights
from ablate.training.models.own import own
from ablate.training.models.torchvision_net import torchvision_net


@dataclass(frozen=True, slots=True)
class Shape:
    """The ends of a network: images of `channels` x `image_size` x `image_size`, and `classes` outputs."""

    channels: int
    image_size: int
    classes: int


Make = Callable[[Model, int, int, int], nn.Module]
MODELS: dict[str, Make] = {
    **{name: getattr(import_module(f"{__name__}.{name}"), name) for name in networks.BUILT_IN},
    **dict.fromkeys(networks.TORCHVISION, torchvision_net),
}
"""By name. Each of ours is a function in a module of its name."""


def build(model: Model, shape: Shape, *, seed: int, pretrained: bool = True) -> nn.Module:
    """Build a network on the CPU, its weights drawn from `seed` alone, then cut it to the recipe.

    Surgery draws nothing, so a network with and without BatchNorm or dropout starts from the same weights.
    `pretrained=False` leaves pretrained weights out where others are about to be loaded. ModelError: `model`
    cannot be had, or there is nothing to cut; DataError: its pretrained weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]), python_seeded(seed):
        torch.manual_seed(seed)
        network = draw(model, shape)
        example = torch.zeros(2, shape.channels, shape.image_size, shape.image_size)
        surgery.materialize(network, example)
    if model.pretrained and pretrained:
        weights.load(network, model.name)
    cut(network, model, example)
    return network


@contextmanager
def python_seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python and numpy, too: a user's own network may draw its weights from them."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is meant)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def draw(model: Model, shape: Shape) -> nn.Module:
    """Build a network as it is before surgery, its weights drawn from torch's global generator."""
    make = own if networks.is_own(model.name) else MODELS[model.name]
    return make(model, shape.channels, shape.image_size, shape.classes)


def cut(network: nn.Module, model: Model, example: Tensor) -> None:
    """Do the surgery that `model` asks for.

    `example` (B, C, H, W) shows which layers feed which BatchNorm.
    """
    if not model.batch_norm:
        surgery.remove_batch_norm(network, example)
    if model.conv_dropout > 0:
        surgery.add_conv_dropout(network, model.conv_dropout)
    if model.head_dropout > 0:
        surgery.add_head_dropout(network, model.head_dropout)
    surgery.freeze(network, model.trainable)
