"""The networks by name. Each is a function of its section of the recipe and of the images; variants are surgery, not code."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ablate.recipe import Model
from ablate.training import surgery
from ablate.training.models.cnn4 import cnn4
from ablate.training.models.resnet import resnet18


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is built for: images of `channels` x `image_size` x `image_size`, and `classes` outputs."""

    channels: int
    image_size: int
    classes: int


MODELS: dict[str, Callable[[Model, int, int, int], nn.Module]] = {"cnn4": cnn4, "resnet18": resnet18}


def build(model: Model, shape: Shape, *, seed: int) -> nn.Module:
    """Build a network on the CPU, its weights drawn from `seed` alone, then cut it to the recipe.

    Surgery draws nothing, so a network with and without BatchNorm or dropout starts from the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MODELS[model.name](model, shape.channels, shape.image_size, shape.classes)
    example = torch.zeros(2, shape.channels, shape.image_size, shape.image_size)
    if not model.batch_norm:
        surgery.remove_batch_norm(network, example)
    if model.conv_dropout > 0:
        surgery.add_conv_dropout(network, model.conv_dropout)
    if model.head_dropout > 0:
        surgery.add_head_dropout(network, model.head_dropout)
    return network
