"""Residual networks of torchvision, with a first layer that fits the images."""

from torch import nn

from ablate.recipe import Model


def resnet18(model: Model, channels: int, _image_size: int, classes: int) -> nn.Module:
    """Build torchvision's ResNet-18 (He et al. 2016, section 4.1).

    `stem = "cifar"` starts with a 3x3 convolution of stride 1 and no pooling (ibid., section 4.2): the usual first layers
    would shrink a 32x32 image to 8x8 before the first block.
    """
    from torchvision import models  # 2 s to import: only where it is used

    network = models.resnet18(num_classes=classes)
    if model.stem == "cifar":
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does for every other one
    assert isinstance(network, nn.Module)
    return network
