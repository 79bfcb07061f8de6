"""Layers of several of the small networks: named parts, channels by `model.width`, He's initial weights."""

from collections import OrderedDict

from torch import nn


def scaled(channels: int, width: float) -> int:
    """Return the channels of a layer at `model.width`, never none."""
    return max(1, round(channels * width))


def named(**parts: nn.Module) -> nn.Sequential:
    """Put parts behind each other, each under its name."""
    return nn.Sequential(OrderedDict(parts))


def conv_norm_relu(channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    """Build a 3x3 convolution without bias, BatchNorm and ReLU."""
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return named(conv=convolution, norm=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))


def he_initialised(network: nn.Module) -> nn.Module:
    """Draw every convolution's weights anew so that signals keep their size through ReLUs (He et al.

    2015, section 2.2).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
