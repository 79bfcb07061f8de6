"""The residual network for small images of He et al.

2016, section 4.2, with two blocks a stage: 14 layers, 175 thousand parameters.

Where a block changes the size, its shortcut is a 1x1 convolution (option B of section 3.3).

"""

from torch import Tensor, nn

from ablate.recipe.fields import Model
from ablate.training.models.layers import conv_norm_relu, he_initialised, named, scaled

WIDTHS = (16, 32, 64)
BLOCKS = 2


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `stride` 2 halves the sides.

    (B, C, H, W) to (B, width, H / stride, W / stride).
    """

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = named(
                conv=nn.Conv2d(channels, width, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make of `x` to its shortcut."""
        y = self.relu(self.norm1(self.conv1(x)))
        added: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return added


def resnet_small(model: Model, channels: int, _image_size: int, classes: int) -> nn.Module:
    """Build the network: `stem`, `layer1` to `layer3` (2 and 3 halve the sides), `head`."""
    width = scaled(WIDTHS[0], model.width)
    layers: dict[str, nn.Module] = {"stem": conv_norm_relu(channels, width)}
    for number, base in enumerate(WIDTHS, 1):
        channels, width = width, scaled(base, model.width)
        first = Block(channels, width, stride=1 if number == 1 else 2)
        layers[f"layer{number}"] = nn.Sequential(
            first, *(Block(width, width, stride=1) for _ in range(BLOCKS - 1))
        )
    return he_initialised(
        named(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(width, classes))
    )
