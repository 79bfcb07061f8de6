"""Optimizers of torch, and learning-rate schedules as pure functions of the step, without a state to lose."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.recipe.fields import Optimizer, Schedule

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


def _constant(_schedule: Schedule, _step: int, _steps: int, _epochs: int) -> float:
    return 1.0


def _step(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    return float(schedule.gamma ** (step * epochs // steps // schedule.step_epochs))


def _cosine(_schedule: Schedule, step: int, steps: int, _epochs: int) -> float:
    return _between(1.0, 0.0, step / steps)


def _one_cycle(schedule: Schedule, step: int, steps: int, _epochs: int) -> float:
    peak = max(schedule.warmup * steps - 1, 0)  # a training too short to rise starts there
    between = FLANKS[schedule.flanks]
    if step <= peak and peak > 0:
        return between(schedule.start, 1.0, step / peak)
    return between(1.0, schedule.end, (step - peak) / ((steps - 1 - peak) or 1))


def _between(start: float, end: float, share: float) -> float:
    """Return a value from start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _straight(start: float, end: float, share: float) -> float:
    """Return a value from start to end along a line."""
    return start + (end - start) * share


FLANKS: dict[str, Callable[[float, float, float], float]] = {"cosine": _between, "linear": _straight}
SCHEDULES: dict[str, Callable[[Schedule, int, int, int], float]] = {
    "constant": _constant, "step": _step, "cosine": _cosine, "one_cycle": _one_cycle,
}  # fmt: skip


def lr_factor(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    """Return the share of `optimizer.lr` that holds in step 0..steps-1 of a training of so many epochs.

    cosine: Loshchilov and Hutter 2017, equation 5, without restarts, updated each step; one_cycle: Smith and
    Topin 2018 with cosine or linear flanks, as torch's OneCycleLR without its cycling of the momentum.
    """
    return SCHEDULES[schedule.name](schedule, step, steps, epochs)
