"""Optimizers of torch, by the names of the recipe."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.recipe.fields import Optimizer

MAKE: dict[str, Callable[[Iterable[nn.Parameter], Optimizer], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, o: torch.optim.SGD(
        parameters,
        lr=o.lr,
        momentum=o.momentum,
        weight_decay=o.weight_decay,
        nesterov=o.nesterov and o.momentum > 0,
        fused=True,
    ),
    "adam": lambda parameters, o: torch.optim.Adam(
        parameters, lr=o.lr, weight_decay=o.weight_decay, fused=True
    ),
    "adamw": lambda parameters, o: torch.optim.AdamW(
        parameters, lr=o.lr, weight_decay=o.weight_decay, fused=True
    ),
}


def optimizer(network: nn.Module, section: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe over all parameters that are trained."""
    return MAKE[section.name]([p for p in network.parameters() if p.requires_grad], section)


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let the steps of an optimizer be one CUDA graph: what changes from step to step is in tensors.

    A learning rate on a CPU has the bits of Python's own; CUDA's kernels take 32 of them.
    """
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)
        if "capturable" in group:
            group["capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True  # noqa: SLF001 (in steps that warm up)


def with_slots(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer before its first step with what it had after some: zeros.

    SGD would else take that step without a momentum, and a graph of it all others.
    """
    if state["state"]:
        return state
    slots = optimizer.state_dict()["state"]
    zeros = {
        place: {name: torch.zeros_like(slot) for name, slot in own.items()} for place, own in slots.items()
    }
    return state | {"state": zeros}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next steps; a tensor stays the one that a graph reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimizer; learning rates that are tensors stay those that they are."""
    rates = [group["lr"] for group in optimizer.param_groups]
    # torch would go on in the very tensors of the state
    optimizer.load_state_dict(copy.deepcopy(state))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.copy_(torch.as_tensor(group["lr"]))
