"""Networks to operate on."""

import functools
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models import resnet18

from ablate.recipe.fields import Model
from ablate.training import models

SHAPE = models.Shape(channels=3, image_size=16, classes=10)


class PreActivation(nn.Module):
    """A small residual network that normalises before its convolutions (He et al. 2016b)."""

    def __init__(self, *, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1, self.norm2 = norm(8), norm(8)
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(F.relu(self.norm2(x)))
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """A plain network whose activations are no modules, and whose layers are not defined in the order of use.

    One of its convolutions has a bias.
    """

    def __init__(self, *, norm=nn.BatchNorm2d):
        super().__init__()
        self.norms = nn.ModuleDict({"second": norm(16), "first": norm(8)})
        self.head = nn.Linear(16, 10)
        self.conv3 = nn.Conv2d(16, 16, 1, bias=False)  # no norm follows
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.norms["first"](self.conv1(x)))
        x = F.relu(self.norms["second"](self.conv2(x)))
        return self.head(F.relu(self.conv3(x)).mean((2, 3)))


def nothing(_channels):
    return nn.Identity()


def built(**fields):
    return models.build(Model(**fields), SHAPE, seed=3)


class NoNorm(nn.Identity):
    """Stands where a BatchNorm was asked for, with the attributes that a network initialises."""

    def __init__(self, *_args, **_kwargs):
        super().__init__()
        self.weight, self.bias = torch.zeros(1), torch.zeros(1)


def written_without_norms(make):
    """Build a network whose own code gets no BatchNorm when it asks for one."""
    with mock.patch.object(nn, "BatchNorm2d", NoNorm):
        return make()


def bare_resnet18(stem):
    network = resnet18(num_classes=10, norm_layer=nothing)
    if stem == "cifar":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def seeded(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind()


CNN4_CONVOLUTIONS = {f"block{i}.conv" for i in range(1, 5)}
RESNET_CONVOLUTIONS = {
    "conv1", *(f"layer{i}.{j}.conv{k}" for i in range(1, 5) for j in range(2) for k in (1, 2)),
    *(f"layer{i}.0.downsample.0" for i in range(2, 5)),
}  # fmt: skip

# The network; the same written without BatchNorm; its norms; its convolutions; those whose output a norm
# reads.
NETWORKS = {
    "cnn4": (
        lambda: built(name="cnn4"),
        lambda: written_without_norms(lambda: built(name="cnn4")),
        4,
        CNN4_CONVOLUTIONS,
        CNN4_CONVOLUTIONS,
    ),
    "resnet18-cifar": (
        lambda: built(name="resnet18", stem="cifar"),
        lambda: bare_resnet18("cifar"),
        20,
        RESNET_CONVOLUTIONS,
        RESNET_CONVOLUTIONS,
    ),
    "resnet18-imagenet": (
        lambda: built(name="resnet18", stem="imagenet"),
        lambda: bare_resnet18("imagenet"),
        20,
        RESNET_CONVOLUTIONS,
        RESNET_CONVOLUTIONS,
    ),
    "pre-activation": (
        lambda: seeded(PreActivation),
        lambda: PreActivation(norm=nothing),
        2,
        {"stem", "conv1", "conv2"},
        {"stem"},
    ),
    "functional": (
        lambda: seeded(Functional),
        lambda: Functional(norm=nothing),
        2,
        {"conv1", "conv2", "conv3"},
        {"conv1", "conv2"},
    ),
}


@functools.cache
def original(make):
    """Build a network once: a large one takes longer than a test of it."""
    return make()


def images(number=4):
    return torch.rand(number, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def kinds(network, *classes):
    return {name: module for name, module in network.named_modules() if isinstance(module, classes)}


def modes(network):
    return {name: module.training for name, module in network.named_modules()}


def dropping(network):
    """Return the dropout layers that surgery put into a network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
