"""A ResNet-18 whose last two stages are read side by side, fine and coarse, averaged over the image.

The fused features go through two linear layers; the idea of reading several depths is that of Hariharan et
al. 2015 (hypercolumns), section 3. 11.4 million parameters.
"""

import torch
from torch import Tensor, nn

from ablate.recipe.fields import Model
from ablate.training.models.torchvision_net import torchvision_net

HIDDEN = 256
TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class Fusion(nn.Module):
    """The stages of `resnet` under their own names, then `hidden` and `head`.

    (B, C, H, W) to (B, classes).
    """

    def __init__(self, resnet: nn.Module, classes: int) -> None:
        super().__init__()
        for name in TRUNK:
            self.add_module(name, resnet.get_submodule(name))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(256 + 512, HIDDEN)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pass the stages, and join the averages of the last two."""
        for name in TRUNK[:-1]:
            x = self.get_submodule(name)(x)
        both = torch.cat([self.pool(x), self.pool(self.get_submodule("layer4")(x))], dim=1)
        scores: Tensor = self.head(self.activation(self.hidden(both.flatten(1))))
        return scores


def fusion(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network; `stem` is that of the ResNet-18 inside."""
    resnet = torchvision_net(model.model_copy(update={"name": "resnet18"}), channels, image_size, classes)
    return Fusion(resnet, classes)
