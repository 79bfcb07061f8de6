"""A network of few weights that sees far: depthwise-separable blocks without pooling, the last two dilated.

Blocks after Howard et al. 2017 (MobileNets), section 3.1; dilation after Yu and Koltun 2016, section 2. 142
thousand parameters; one place of the last map sees 69 pixels a side, more than the whole of a 32x32 image.
"""

from torch import nn

from ablate.recipe.fields import Model
from ablate.training.models.layers import conv_norm_relu, he_initialised, named, scaled

STEM = 32
BLOCKS = (
    (64, 2, 1),
    (64, 1, 1),
    (128, 2, 1),
    (128, 1, 1),
    (256, 1, 2),
    (256, 1, 4),
)  # (channels, stride, dilation)


def separable(channels: int, width: int, *, stride: int, dilation: int) -> nn.Sequential:
    """Build a 3x3 convolution per channel, then a 1x1 one across channels, each with BatchNorm and ReLU."""
    depthwise = nn.Conv2d(
        channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=channels, bias=False
    )
    return named(
        depthwise=depthwise,
        norm1=nn.BatchNorm2d(channels),
        relu1=nn.ReLU(inplace=True),
        pointwise=nn.Conv2d(channels, width, 1, bias=False),
        norm2=nn.BatchNorm2d(width),
        relu2=nn.ReLU(inplace=True),
    )


def depthwise_dilated(model: Model, channels: int, _image_size: int, classes: int) -> nn.Module:
    """Build the network: `stem`, `block1` to `block6` (1 and 3 halve the sides), `head`."""
    width = scaled(STEM, model.width)
    layers: dict[str, nn.Module] = {"stem": conv_norm_relu(channels, width)}
    for number, (base, stride, dilation) in enumerate(BLOCKS, 1):
        channels, width = width, scaled(base, model.width)
        layers[f"block{number}"] = separable(channels, width, stride=stride, dilation=dilation)
    return he_initialised(
        named(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(width, classes))
    )
