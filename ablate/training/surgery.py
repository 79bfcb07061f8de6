"""Ablations of a network by surgery on any nn.Module, so that one factor works for every model.

Nothing here draws random numbers, and parameters keep their names: dropout is hung on a layer as a child with
a hook, not wrapped round it.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Dropout = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


MANY = 6  # layers named in one message
STEPS = 2**16  # of a probability on the CPU: 0.1 is drawn as 6554 / 65536


class QuickDropout(nn.Dropout):
    """Dropout that draws 16 bits an element on the CPU, from torch's global generator, and scales by them.

    torch draws a Bernoulli number for each element in turn; with dropout after every convolution that was
    three quarters of an evaluation by MC dropout. cnn4, batch 128, bf16, one thread of a Xeon with AMX, 6
    interleaved rounds: a pass 80 -> 53 ms (21 without dropout), a training step 143 -> 121 ms (77).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Set each element to 0 with probability `p` rounded to 1 / 65536, and scale the others.

        Any shape.
        """
        if (
            not self.training or x.device.type != "cpu" or torch.compiler.is_compiling()
        ):  # a graph fuses torch's own, and ends here
            return super().forward(x)
        if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
            x = x.contiguous()
        drop = min(round(self.p * STEPS), STEPS - 1)
        bits = (
            torch.empty(-(-x.numel() // 4), dtype=torch.int64)
            .random_(-(2**63), None)
            .view(torch.int16)[: x.numel()]
        )
        keep = (bits >= drop - STEPS // 2).as_strided(x.shape, x.stride())
        return x * keep * (STEPS / (STEPS - drop))


class ModelError(ValueError):
    """A network that cannot be had as the recipe asks: a sentence for the user."""


def has_lazy_layers(network: nn.Module) -> bool:
    """Whether a network has layers (nn.LazyLinear, ...) whose sizes are not known yet."""
    return any(is_lazy(part) for part in (*network.parameters(), *network.buffers()))


def materialize(network: nn.Module, example: Tensor) -> None:
    """Materialize lazy layers (nn.LazyLinear, ...) by a forward pass of `example` (B, C, H, W) in eval mode.

    Their weights are drawn from torch's global generator. Every other network is left alone.
    """
    if not has_lazy_layers(network):
        return
    modes = {module: module.training for module in network.modules()}
    network.eval()
    with torch.no_grad():
        network(example)
    for module, mode in modes.items():
        module.training = mode


def remove_batch_norm(network: nn.Module, example: Tensor) -> int:
    """Take every BatchNorm out, and give the layer that fed it a bias of zeros if it had none.

    Returns how many.

    Which layer feeds which norm is seen in one forward pass of `example` (B, C, H, W), not guessed from names
    or from the order of definition, so pre-activation networks are left as they are but for the norm.
    """
    feeding = _feeding_layers(network, example)
    norms = [
        (name, module)
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, BatchNorm)
    ]
    if not norms:
        raise ModelError("model.batch_norm = false has nothing to remove: the network has no BatchNorm")
    for layer in feeding:
        if layer.bias is None:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            layer.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype, device=weight.device))
    for name, _ in norms:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
    return len({norm for _, norm in norms})


def _feeding_layers(network: nn.Module, example: Tensor) -> list[nn.Module]:
    """Return the convolutions and linear layers whose very output a BatchNorm reads."""
    made_by: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    feeding: list[nn.Module] = []

    def after_layer(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        made_by[id(output)] = (module, output)

    def before_norm(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made_by:
            feeding.append(made_by[id(inputs[0])][0])

    hooks = [
        m.register_forward_hook(after_layer)
        for m in network.modules()
        if isinstance(m, (*Convolution, nn.Linear))
    ]
    hooks += [m.register_forward_pre_hook(before_norm) for m in network.modules() if isinstance(m, BatchNorm)]
    modes = {module: module.training for module in network.modules()}
    network.eval()  # so that running statistics stay, and dropout draws nothing
    try:
        with torch.no_grad():
            network(example)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    return feeding


def add_conv_dropout(network: nn.Module, p: float) -> int:
    """Put dropout `p` after every convolution, before what follows it; return how many there are."""
    convolutions = [module for module in network.modules() if isinstance(module, Convolution)]
    if not convolutions:
        raise ModelError("model.conv_dropout has nothing to follow: the network has no convolution")
    for convolution in convolutions:
        convolution.add_module("output_dropout", QuickDropout(p).train(convolution.training))
        convolution.register_forward_hook(_drop_output)
    return len(convolutions)


def add_head_dropout(network: nn.Module, p: float) -> None:
    """Put dropout `p` before the classifier: the last linear layer, else the last convolution."""
    layers = _heads(network)
    if not layers:
        raise ModelError(
            "model.head_dropout has nothing to precede: the network has no linear layer and no convolution"
        )
    layer = layers[-1][1]
    layer.add_module("input_dropout", QuickDropout(p).train(layer.training))
    layer.register_forward_pre_hook(_drop_input)


def head(network: nn.Module) -> tuple[str, nn.Module]:
    """Return the classifier, with its name: the last linear layer, else the last convolution."""
    layers = _heads(network)
    if not layers:
        raise ModelError(
            "model.trainable needs a head, and the network has no linear layer and no convolution"
        )
    return layers[-1]


def _heads(network: nn.Module) -> list[tuple[str, nn.Module]]:
    layers = list(network.named_modules())
    linear: list[tuple[str, nn.Module]] = [
        (name, module) for name, module in layers if isinstance(module, nn.Linear)
    ]
    return linear or [(name, module) for name, module in layers if isinstance(module, Convolution)]


def _drop_output(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    dropped: Tensor = module.get_submodule("output_dropout")(output)
    return dropped


def _drop_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.get_submodule("input_dropout")(inputs[0]), *inputs[1:])


def sample_dropout(network: nn.Module) -> int:
    """Switch dropout on in a network that is in eval mode; BatchNorm keeps its running statistics.

    Returns how many.
    """
    layers = dropouts(network)
    for layer in layers:
        layer.train()
    return len(layers)


def dropouts(network: nn.Module) -> list[nn.Module]:
    """Return the layers of dropout in a network."""
    return [module for module in network.modules() if isinstance(module, Dropout)]


FROZEN = (
    "frozen_by_ablate"  # an attribute of a norm that keeps its statistics; copies of the network have it too
)


def freeze(network: nn.Module, trainable: str | tuple[str, ...]) -> None:
    """Train only some parts: `all`; `head`; or parts by their dotted names, such as `layer4`, and the head.

    Every other parameter needs no gradient from now on, and a BatchNorm elsewhere keeps its running
    statistics: use `train` in place of network.train(). Call it last, as other surgery may add biases.
    ModelError: no such part.
    """
    if trainable == "all":
        return
    names = (trainable,) if isinstance(trainable, str) else trainable
    parts = [head(network)[1], *(_part(network, name) for name in names if name != "head")]
    trained = {id(parameter) for part in parts for parameter in part.parameters()}
    for parameter in network.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad = False
    inside = {module for part in parts for module in part.modules()}
    for module in network.modules():
        if isinstance(module, BatchNorm) and module not in inside:
            setattr(module, FROZEN, True)
            module.eval()


def train(network: nn.Module) -> None:
    """Put a network into training mode, but for the norms that `freeze` has frozen."""
    network.train()
    for module in network.modules():
        if getattr(module, FROZEN, False):
            module.eval()


def _part(network: nn.Module, name: str) -> nn.Module:
    """Return a part that has something to train, or that other surgery has emptied."""
    parts = dict(network.named_modules())
    part: nn.Module | None = parts.get(name) if name else None
    if part is not None and (isinstance(part, nn.Identity) or next(part.parameters(), None) is not None):
        return part
    close = difflib.get_close_matches(name, [other for other in parts if other], n=3, cutoff=0.6)
    meant = f" (did you mean {' or '.join(close)}?)" if close and part is None else ""
    top = ", ".join(
        other for other, module in network.named_children() if next(module.parameters(), None) is not None
    )
    wrong = "no part" if part is None else "nothing to train in its part"
    raise ModelError(
        f"model.trainable: the network has {wrong} {name}{meant}: take all, head, or parts such as {top}"
    )


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return in which layers two networks differ, so that one cannot take the other's weights."""

    def layers(keys: Iterable[str]) -> str:
        names = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
        return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")

    shapes = [key for key in ours if key in theirs and ours[key].shape != theirs[key].shape]
    sentences = {
        "it has {} and those have not": [key for key in ours if key not in theirs],
        "those have {} and it has not": [key for key in theirs if key not in ours],
        "{} have other sizes": shapes,
    }
    return tuple(words.format(layers(keys)) for words, keys in sentences.items() if keys)
