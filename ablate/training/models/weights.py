"""torchvision's pretrained weights: cached or downloaded, never unpickled as code, fitted to the data."""

import contextlib
import http.client
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.errors import DataError
from ablate.recipe import networks
from ablate.training import surgery
from ablate.training.models.torchvision_net import first_convolution

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # norm.1.weight, today norm1.weight
BROKEN = (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, http.client.HTTPException)


def load(network: nn.Module, name: str) -> None:
    """Put the newest ImageNet weights of torchvision into a network that has just been built.

    Its head stays as drawn.

    For grey images the first convolution gets the sum of its weights over red, green and blue: what it
    computes is what it would compute of a grey image given as a colour one. DataError: the weights cannot be
    had, or do not fit.
    """
    state = fetch(name)
    ours = set(networks.facts(name).drawn) or {surgery.head(network)[0]}
    try:
        result = _put(network, state, ours)
    except BROKEN as error:
        raise _missing(name, _reason(error)) from error
    absent = [key for key in result.missing_keys if key.rpartition(".")[0] not in ours]
    if absent:
        raise _missing(name, f"{absent[0]} is not in it")


def fetch(name: str) -> dict[str, Tensor]:
    """Read a network's weights from torch's cache, downloading them first where they are not there.

    Raise a DataError.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch tells of a download there
            state: dict[str, Tensor] = _best(name).get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    except BROKEN as error:
        raise _missing(name, _reason(error)) from error
    return state


def file_name(name: str) -> str:
    """Return the file name of a network's weights, which has their hash in it."""
    return str(_best(name).url.rpartition("/")[2])


def _best(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(networks.facts(name).weights).DEFAULT


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _missing(name: str, reason: str) -> DataError:
    file = Path(torch.hub.get_dir(), "checkpoints", _best(name).url.rpartition("/")[2])
    return DataError(
        f"model.pretrained needs the weights of {name} in {file}, and they could not be had ({reason}): "
        f"run once where the network can be reached, or copy {file.name} to that folder, or set "
        "model.pretrained = false"
    )


def _put(network: nn.Module, state: dict[str, Tensor], ours: set[str]) -> Any:
    """Load what the network has, but for the layers named in `ours`.

    `state` is changed in place, as it carries versions of modules.
    """
    for key in list(state):
        if (modern := OLD_DENSENET.sub(r"\1\2", key)) != key:
            state[modern] = state.pop(key)
    for key in state.keys() - (own := network.state_dict()).keys():
        del state[
            key
        ]  # side heads that help training alone; the fully connected layer where fusion has others
    for key in [key for key in state if key.rpartition(".")[0] in ours]:
        del state[key]
    first = f"{first_convolution(network)[0]}.weight"
    if own[first].shape[1] == 1:
        state[first] = state[first].sum(1, keepdim=True)
    return network.load_state_dict(state, strict=False)
