"""The residual network for small images of He et al.

2016, section 4.2, with two blocks a stage: 14 layers, 175 thousand parameters.

Where a block changes the size, its shortcut is a 1x1 convolution (option B of section 3.3).

"""

from torch import Tensor, nn

from ablate.recipe import networks
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
        self.shortcut: nn.Module | None = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = named(
                conv=nn.Conv2d(channels, width, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make of `x` to its shortcut, if there is one."""
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.relu(y)
        return out


def resnet_small(model: Model, channels: int, _image_size: int, classes: int) -> nn.Module:
    """Build the network: `stem`, `layer1` to `layer3` (2 and 3 halve the sides), `head`."""
    width = scaled(WIDTHS[0], model.width)
    layers: dict[str, nn.Module] = {"stem": conv_norm_relu(channels, width)}
    stages = [nn.Sequential() for _ in WIDTHS]
    for number, (base, stage) in enumerate(zip(WIDTHS, stages, strict=True), 1):
        channels, width = width, scaled(base, model.width)
        stage.append(Block(channels, width, stride=1 if number == 1 else 2))
        stage.extend(Block(width, width, stride=1) for _ in range(BLOCKS - 1))
        layers[f"layer{number}"] = stage
    head = nn.Linear(width, classes)
    network = he_initialised(named(**layers, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=head))
    _deepen(stages, networks.option(model, "depth"), model.width)
    if not networks.option(model, "shortcut"):
        for block in network.modules():
            if isinstance(block, Block):
                block.shortcut = None
    return network


def _deepen(stages: list[nn.Sequential], depth: int, factor: float) -> None:
    """Extend each stage to `depth` blocks: drawn after all others, which so start from the same weights."""
    for base, stage in zip(WIDTHS, stages, strict=True):
        del stage[depth:]
        width = scaled(base, factor)
        stage.extend(he_initialised(Block(width, width, stride=1)) for _ in range(depth - len(stage)))
