"""A small plain network: four blocks of convolution, BatchNorm, ReLU and pooling, then one linear layer.

246 thousand parameters for 32x32 colour images; about 70 % on CIFAR-10 in five epochs.
"""

from torch import nn

from ablate.recipe import Model

WIDTHS = (32, 64, 128, 128)


def cnn4(_model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network; each block halves the sides, so images have at least 16 pixels a side."""
    layers: list[nn.Module] = []
    for width in WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        channels = width
    side = image_size // 2 ** len(WIDTHS)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, classes))
