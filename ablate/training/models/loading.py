"""Trained weights put into a network; where they are another network's, the layers that differ are named."""

from collections.abc import Mapping

from torch import Tensor, nn

from ablate.messages import count
from ablate.training.surgery import ModelError

NAMED = 5  # layers in one message


def load(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights into a network. Raises a ModelError that names the layers where they do not fit."""
    differing = differences(network, state)
    if differing:
        more = f"; and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
        layers = f"{count(len(differing), 'layer')} {'differs' if len(differing) == 1 else 'differ'}"
        raise ModelError(f"{layers} from the weights: {'; '.join(differing[:NAMED])}{more}")
    network.load_state_dict(state)


def differences(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Return each layer that a network and some weights do not share, with what differs in it."""
    own = network.state_dict()
    layers: dict[str, list[str]] = {}
    for key in [*own, *(key for key in state if key not in own)]:
        layer, _, part = key.rpartition(".")
        if key not in state:
            layers.setdefault(layer, []).append(f"the weights have no {part}")
        elif key not in own:
            layers.setdefault(layer, []).append(f"the network has no {part}")
        elif own[key].shape != state[key].shape:
            there, here = (_size(tensor) for tensor in (state[key], own[key]))
            layers.setdefault(layer, []).append(f"{part} of {there} in the weights, {here} in the network")
    return [f"{layer or 'the network itself'} ({', '.join(parts)})" for layer, parts in layers.items()]


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "1"
