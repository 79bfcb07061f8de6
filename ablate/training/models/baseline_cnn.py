"""What tutorials start from: three blocks of convolution, ReLU and pooling, then two linear layers.

No BatchNorm, on purpose.

620 thousand parameters for 32x32 colour images.

"""

from torch import nn

from ablate.recipe.fields import Model
from ablate.training.models.layers import named, scaled

WIDTHS = (32, 64, 128)
HIDDEN = 256


def baseline_cnn(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network: parts `block1` to `block3`, each of which halves the sides, `hidden` and `head`."""
    blocks: dict[str, nn.Module] = {}
    for number, base in enumerate(WIDTHS, 1):
        width = scaled(base, model.width)
        convolution = nn.Conv2d(channels, width, 3, padding=1)
        blocks[f"block{number}"] = named(conv=convolution, relu=nn.ReLU(inplace=True), pool=nn.MaxPool2d(2))
        channels = width
    side, units = image_size // 2 ** len(WIDTHS), scaled(HIDDEN, model.width)
    hidden = nn.Linear(channels * side * side, units)
    return named(
        **blocks,
        flatten=nn.Flatten(),
        hidden=hidden,
        relu=nn.ReLU(inplace=True),
        head=nn.Linear(units, classes),
    )
