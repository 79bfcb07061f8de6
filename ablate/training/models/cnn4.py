"""A small plain network: four blocks of convolution, BatchNorm, ReLU and pooling, then one linear layer.

246 thousand parameters for 32x32 colour images; about 70 % on CIFAR-10 in five epochs.
"""

from torch import nn

from ablate.recipe.fields import Model
from ablate.training.models.layers import conv_norm_relu, named, scaled

WIDTHS = (32, 64, 128, 128)


def cnn4(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network: parts `block1` to `block4`, each of which halves the sides, and `head`."""
    blocks: dict[str, nn.Module] = {}
    for number, base in enumerate(WIDTHS, 1):
        width = scaled(base, model.width)
        blocks[f"block{number}"] = conv_norm_relu(channels, width)
        blocks[f"block{number}"].add_module("pool", nn.MaxPool2d(2))
        channels = width
    side = image_size // 2 ** len(WIDTHS)
    return named(**blocks, flatten=nn.Flatten(), head=nn.Linear(channels * side * side, classes))
