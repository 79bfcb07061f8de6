"""Optimizers of torch, and learning-rate schedules as pure functions of the step, without a state to lose."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from ablate.recipe.fields import Optimizer, Schedule

START, END = 1 / 25, 1 / 250_000  # of the peak: OneCycleLR's div_factor and final_div_factor
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


def _constant(_schedule: Schedule, _step: int, _steps: int, _epochs: int) -> float:
    return 1.0


def _step(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    return float(schedule.gamma ** (step * epochs // steps // schedule.step_epochs))


def _cosine(_schedule: Schedule, step: int, steps: int, _epochs: int) -> float:
    return _between(1.0, 0.0, step / steps)


def _one_cycle(schedule: Schedule, step: int, steps: int, _epochs: int) -> float:
    peak = max(schedule.warmup * steps - 1, 0)  # a training too short to rise starts there
    if step <= peak and peak > 0:
        return _between(START, 1.0, step / peak)
    return _between(1.0, END, (step - peak) / ((steps - 1 - peak) or 1))


def _between(start: float, end: float, share: float) -> float:
    """Return a value from start to end along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[Schedule, int, int, int], float]] = {
    "constant": _constant, "step": _step, "cosine": _cosine, "one_cycle": _one_cycle,
}  # fmt: skip


def lr_factor(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    """Return the share of `optimizer.lr` that holds in step 0..steps-1 of a training of so many epochs.

    cosine: Loshchilov and Hutter 2017, equation 5, without restarts, updated each step; one_cycle: Smith and
    Topin 2018 with cosine flanks, as torch's OneCycleLR without its cycling of the momentum.
    """
    return SCHEDULES[schedule.name](schedule, step, steps, epochs)
