"""A small plain network: four blocks of convolution, BatchNorm, ReLU and pooling, then one linear layer.

246 thousand parameters for 32x32 colour images; about 70 % on CIFAR-10 in five epochs.
"""

from torch import nn

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training.models.layers import conv_norm_relu, named, scaled

WIDTHS = (32, 64, 128, 128)


def cnn4(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network: parts `block1` to `block4`, each of which halves the sides, and `head`."""
    blocks: dict[str, nn.Module] = {}
    pools = len(WIDTHS)
    for number, base in enumerate(WIDTHS, 1):
        width = scaled(base, model.width)
        parts = dict(conv_norm_relu(channels, width).named_children())
        if networks.option(model, "norm") == "after":
            parts["norm"] = parts.pop("norm")
        if number > 1 or networks.option(model, "first_pool"):
            parts["pool"] = nn.MaxPool2d(2)
        else:
            pools -= 1
        blocks[f"block{number}"] = named(**parts)
        channels = width
    side = image_size // 2**pools
    return named(**blocks, flatten=nn.Flatten(), head=nn.Linear(channels * side * side, classes))
