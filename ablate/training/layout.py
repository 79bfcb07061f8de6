"""The memory format in which a network runs: channels_last, which is faster, or contiguous where it must be.

`x.view(len(x), -1)` after a convolution, as in most tutorials, is impossible in channels_last. Only a trial
tells.
"""

import functools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery

Format = Literal["channels_last", "contiguous"]

CONTIGUOUS = "contiguous_by_ablate"  # an attribute of a network whose images are made contiguous
WHOLE = 3  # stages of a trial: a forward pass in training mode, a backward pass, a forward pass in eval mode


def place(
    network: nn.Module, model: Model, shape: models.Shape, precision: str, device: torch.device
) -> nn.Module:
    """Move a network to a device, in the memory format that `choose` finds for networks like it."""
    if choose(model, shape, precision, device.type) == "contiguous":
        return _contiguous(network).to(device)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def of(network: nn.Module) -> Format:
    """Return the memory format in which `place` has put a network."""
    return "contiguous" if getattr(network, CONTIGUOUS, False) else "channels_last"


@functools.cache
def choose(model: Model, shape: models.Shape, precision: str, device: str) -> Format:
    """Return channels_last unless a network of the user's own gets further without it.

    That is found by a trial step of two images, with networks and random numbers of its own: the answer does
    not depend on the caller and does not disturb it. No other network is tried: they all run in
    channels_last.
    """
    if not networks.is_own(model.name):
        return "channels_last"
    reached = _reached(model, shape, precision, device, "channels_last")
    if reached < WHOLE and _reached(model, shape, precision, device, "contiguous") > reached:
        return "contiguous"
    return "channels_last"


def _contiguous(network: nn.Module) -> nn.Module:
    network.register_forward_pre_hook(_make_contiguous)
    setattr(network, CONTIGUOUS, True)
    return network


def _make_contiguous(_network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # Not .contiguous(): grey images are both formats at once, and a convolution goes by their strides.
    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])


def _reached(model: Model, shape: models.Shape, precision: str, device: str, tried: Format) -> int:
    """Count the stages of a trial step, 0..`WHOLE`, that a new network gets through."""
    done = 0
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []),
        models.python_seeded(0),
    ):
        network = models.build(model, shape, seed=0, pretrained=False)
        try:
            if tried == "contiguous":
                network = _contiguous(network).to(device)
            else:
                network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            size = shape.image_size
            images = torch.rand(2, size, size, shape.channels, device=device).permute(0, 3, 1, 2)
            labels = torch.arange(2, device=device) % shape.classes
            autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
            surgery.train(network)
            with autocast:
                scores = network(images)
            done = 1
            F.cross_entropy(scores.float(), labels).backward()  # type: ignore[no-untyped-call]
            done = 2
            network.eval()
            with torch.inference_mode(), autocast:
                network(images)
            done = WHOLE
        except torch.OutOfMemoryError:
            raise  # says nothing about the memory format
        except Exception:  # noqa: BLE001, S110 (code of the user's: whatever it raises, it got so far)
            pass
    return done
