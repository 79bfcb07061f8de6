"""The wide and shallow residual network of Page 2018, "How to train your ResNet", made for fast training.

It has 6.6 million parameters. It ends in a maximum over the whole map, here an adaptive one, so that images
may have any size; the linear layer has a bias and its outputs are not scaled by 1/8, so that its learning
rates are those of the other networks.
"""

from torch import Tensor, nn

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training.models.layers import conv_norm_relu, he_initialised, named, scaled

WIDTHS = (64, 128, 256, 512)


class Residual(nn.Module):
    """Two convolutions added to what they read, or without a shortcut; (B, C, H, W) to the same."""

    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.has_shortcut = shortcut
        self.first, self.second = conv_norm_relu(width, width), conv_norm_relu(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `x` what the convolutions make of it; the last ReLU comes before the sum."""
        y: Tensor = self.second(self.first(x))
        return x + y if self.has_shortcut else y


def resnet9(model: Model, channels: int, _image_size: int, classes: int) -> nn.Module:
    """Build the network: parts `stem`, `layer1` to `layer3`, each of which halves the sides, and `head`."""
    stem, *widths = (scaled(base, model.width) for base in WIDTHS)
    layers = {"stem": conv_norm_relu(channels, stem)}
    channels = stem
    for number, width in enumerate(widths, 1):
        layer = named(**dict(conv_norm_relu(channels, width).named_children()), pool=nn.MaxPool2d(2))
        if number != 2:  # the middle layer has no residual block
            layer.add_module("residual", Residual(width, shortcut=networks.option(model, "shortcut")))
        layers[f"layer{number}"] = layer
        channels = width
    return he_initialised(
        named(**layers, pool=nn.AdaptiveMaxPool2d(1), flatten=nn.Flatten(), head=nn.Linear(channels, classes))
    )
