"""A network before it is trained: its size, its cost, how far it sees, and whether it can be built at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import hints
from ablate.training.models.outline import Layer, Passage, Seen, layers
from ablate.training.models.receptive_field import ReceptiveField
from ablate.training.surgery import ModelError


@dataclass(frozen=True, slots=True)
class Summary:
    """A network in numbers, after surgery."""

    parameters: int
    trainable_parameters: int
    macs: int
    """Multiplications with an addition, for one image."""
    receptive_field: int | None
    """Pixels a side that one place of the last feature map can see, before it is averaged or flattened.

    None: the whole image.
    """
    batch_norms: int
    convolutions: int
    dropouts: int
    """Layers that can be sampled by MC dropout."""
    memory_format: str = "channels_last"
    """In which it is trained: see `training.layout`, which alone can tell of the user's own networks."""


def summarise(model: Model, shape: models.Shape) -> Summary:
    """Build a network without memory for its weights, pass one image without numbers, and count.

    Nothing is downloaded.

    ModelError: what `model` asks for cannot be had, or not of images of this size. The user's own networks
    are built in earnest, as their code may look at numbers.
    """
    return describe(model, shape)[0]


def describe(model: Model, shape: models.Shape) -> tuple[Summary, tuple[Layer, ...]]:
    """Return a summary and, from the same pass, the layers; see `summarise`."""
    device = "cpu" if networks.is_own(model.name) else "meta"
    image = torch.zeros(1, shape.channels, shape.image_size, shape.image_size, device=device)
    with torch.random.fork_rng(devices=[]), _understood(model.name, shape):
        with _WeightsOnMeta() if device == "meta" else nullcontext():
            network = models.draw(model, shape).to(device)
        macs, field, seen = _pass(model.name, network, image, shape.classes)
        models.cut(network, model, image)
    parameters = list(network.parameters())
    summary = Summary(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        macs=macs,
        receptive_field=field,
        batch_norms=sum(isinstance(module, surgery.BatchNorm) for module in network.modules()),
        convolutions=sum(isinstance(module, surgery.Convolution) for module in network.modules()),
        dropouts=sum(isinstance(module, surgery.Dropout) and module.p > 0 for module in network.modules()),
    )
    return summary, layers(network, seen)


def _pass(
    name: str, network: nn.Module, image: Tensor, classes: int
) -> tuple[int, int | None, Mapping[str, Seen]]:
    """Pass an image (1, C, H, W) in eval mode.

    Returns the multiply-adds, the receptive field, and what each module made of it.
    """
    modes = {module: module.training for module in network.modules()}
    with (
        torch.no_grad(),
        _plain_attention(),
        FlopCounterMode(display=False) as flops,
        ReceptiveField(image) as field,
        Passage(network, lambda: flops.get_total_flops() // 2) as passage,
    ):
        scores = network.eval()(image)
    for module, mode in modes.items():
        module.training = mode
    if not isinstance(scores, Tensor) or scores.shape != (1, classes):
        got = (
            f"a tensor of shape {tuple(scores.shape)}"
            if isinstance(scores, Tensor)
            else f"a {type(scores).__name__}"
        )
        raise ModelError(
            f"{name} must give one score a class, a tensor of shape (1, {classes}) for one image, and gave "
            f"{got}"
        )
    return flops.get_total_flops() // 2, field.of(scores), passage.seen()


@contextmanager
def _understood(name: str, shape: models.Shape) -> Iterator[None]:
    """Raise a ModelError that says what a network makes of images that it cannot take."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        hint = hints.hint(error) if networks.is_own(name) else None
        reason = hints.reason(error)
        if hint is not None:
            raise ModelError(f"{name} {hint} ({reason})") from error
        if not isinstance(error, (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError)):
            raise
        size = f"{shape.image_size} x {shape.image_size}"
        sentence = f"{name} cannot take images of {size} pixels and {shape.channels} channels ({reason})"
        other = "mend the network" if networks.is_own(name) else "take another network"
        raise ModelError(
            f"{sentence}: set data.image_size to another size, such as 224, or {other}"
        ) from error


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep attention from the fused operation that it takes in eval mode, which cannot be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _WeightsOnMeta(TorchFunctionMode):
    """Create tensors of torch.empty, as the weights of every layer are, without memory.

    Not `torch.device("meta")`: that takes the numbers from those who need them to build a network, as regnet
    does.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
