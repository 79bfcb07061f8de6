"""Any classifier of torchvision, with a first layer and a head that fit the images."""

from typing import Any

from torch import nn

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training.surgery import ModelError


def torchvision_net(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Build the network of `model.name` with weights drawn at random.

    `weights.load` puts the pretrained ones in.

    `stem = "cifar"` starts a residual network with a 3x3 convolution of stride 1 and no pooling (He et al.
    2016, section 4.2): the usual first layers would shrink a 32x32 image to 8x8 before the first block.
    ModelError: googlenet and inception_v3 with pretrained weights and grey images.
    """
    from torchvision.models import get_model  # 2 s to import: only where it is used

    options = _options(model, channels, image_size)
    try:
        network: nn.Module = get_model(
            model.name, weights=None, num_classes=classes, **options, **model.options.given
        )
    except (TypeError, ValueError) as error:
        if not model.options.given:
            raise
        raise ModelError(
            f"model.options of {model.name} must be arguments of torchvision's function, got "
            f"{', '.join(model.options.given)}: {error}"
        ) from error
    if networks.has_stem(model.name) and model.stem == "cifar":
        _replace(network, "conv1", nn.Conv2d(channels, 64, 3, padding=1, bias=False))
        _replace(network, "maxpool", nn.Identity())
    elif channels != 3:
        name, first = first_convolution(network)
        _replace(network, name, _same_with(first, channels))
    return network


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the convolution that reads the image, with its name: torchvision defines it first everywhere."""
    return next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _options(model: Model, channels: int, image_size: int) -> dict[str, Any]:
    """Return the arguments that only some networks have.

    What pretrained weights need is what torchvision gives them.
    """
    from torchvision.models import get_model_weights

    facts = networks.facts(model.name)
    if facts.side_heads:
        if model.pretrained and channels != 3:
            raise ModelError(
                f"model.pretrained of {model.name} needs colour images: it scales red, green and blue by "
                "themselves first"
            )
        return {"aux_logits": False, "init_weights": True, "transform_input": model.pretrained}
    if not facts.sized:
        return {}
    height, width = (
        get_model_weights(model.name).DEFAULT.meta["min_size"]
        if model.pretrained
        else (image_size, image_size)
    )
    return {facts.sized: height if facts.sized == "image_size" else (height, width)}


def _same_with(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Copy a convolution's geometry for images of other channels."""
    geometry: dict[str, Any] = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding}
    return nn.Conv2d(channels, old.out_channels, **geometry, bias=old.bias is not None)


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    if isinstance(part, nn.Conv2d):
        nn.init.kaiming_normal_(
            part.weight, mode="fan_out", nonlinearity="relu"
        )  # as torchvision does for most
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, part)
