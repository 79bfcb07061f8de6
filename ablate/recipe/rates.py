"""The learning-rate schedules as pure functions of the step, without a state to lose."""

import math
from collections.abc import Callable

from ablate.recipe.schedules import Schedule


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
