"""The mathematics of a learning-rate range test: rates to try, the curve that was seen, and what it suggests.

Knows no torch.

A range test trains a few steps at ever higher rates (Smith 2017, arXiv 1506.01186, section 3.3). Its curve is
noisy, may end early, and may hold no answer, so a suggestion is a rate with a range and a status, never a
bare number. Distances between rates are in decades, log10 of the rate, whatever the spacing of the rates that
were tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ablate.errors import AblateError

Mode = Literal["exponential", "linear"]
Per = Literal["batch", "epoch"]
Ending = Literal["end", "diverged"]
Status = Literal["ok", "flat", "diverged at once", "edge of the range"]
Floats = NDArray[np.float64]

FEWEST = 5
"""Points below which a curve says nothing: its noise is measured on three points at a time."""

WINDOW = 0.1
"""Share of a curve over which it is smoothed: 10 of 100 points, and 10 points not at all.

Longer blurs the blow-up into the fall.
"""

BLOWN = 4.0
"""A training has diverged when its smoothed loss is so many times its smallest so far (fastai's LRFinder)."""

SMALLEST = 0.01
"""A fall by less than this share of the loss is no fall, however smooth the curve is."""

HUGE = 1e39
"""A loss from here on is infinite: float32, in which it was computed, has no such number."""

DONE = (0.9, 0.75, 1.0)
"""Shares of the fall that are done at the rate of `valley` and at the ends of its range.

Of 7 recipes on digits (cnn4 with SGD, Adam, without BatchNorm, clipped, without momentum, mixup in batches of
16; resnet_small; 4-5 epochs of one_cycle, rates 3x apart) 0.9 was 1-8 times below the rate of the smallest
validation loss, and never above it; a half 3-50 times, `steepest` 2-40, `min/10` 3-30.
"""

LOST = 0.2
"""Share of the fall that is lost again at the rate of `rise`."""

RULES = ("rise", "valley", "steepest", "min/10")
"""See `suggest`; `best` takes the first that has an answer. Of 8 recipes (6 epochs of one_cycle.

Cnn4 with SGD on digits and on 5,000 images of CIFAR-10, each with and without BatchNorm; with Adam on both,
and without BatchNorm on digits; resnet_small on digits) the rate of `rise` was at most 0.9 points of accuracy
below the best of a grid in all 8, that of `valley` at most 1.7 in 7, and 9.3 in one. `rise` was chosen by
these very recipes.
"""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which rates a range test tries, and how long it stays at each."""

    low: float = 1e-6
    high: float = 10.0
    steps: int = 100
    """Rates, the first `low` and the last `high`."""
    mode: Mode = "exponential"
    """Equal ratios, or equal differences, between one rate and the next."""
    per: Per = "batch"
    """One optimizer step at each rate, or one epoch."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and 0 < self.low < self.high):
            raise AblateError(
                f"A range test needs 0 < low < high, got low {self.low:g} and high {self.high:g}: give "
                "them such as 1e-6 and 10."
            )
        if self.steps < FEWEST:
            raise AblateError(
                f"A range test needs at least {FEWEST} rates, got {self.steps}: give more steps, such as 100."
            )
        for name, value, values in (("mode", self.mode, get_args(Mode)), ("per", self.per, get_args(Per))):
            if value not in values:
                raise AblateError(
                    f"The {name} of a range test must be {' or '.join(values)}, got {value}: give one of "
                    "these."
                )


@dataclass(frozen=True, slots=True)
class Curve:
    """What a range test saw, a value for each rate that it came to.

    Shorter than the sweep if it stopped early.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Training loss, not smoothed: of the step at that rate, before its update, or the mean over the epoch.

    May end in NaN or inf.
    """
    accuracies: tuple[float, ...]
    """Training accuracy, 0..1, of the same images."""
    stopped: Ending
    """`end`: after the last rate. `diverged`: where `divergence` says so; that step is the last one here."""

    def __post_init__(self) -> None:
        assert len(self.rates) == len(self.losses) == len(self.accuracies)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What one rule makes of a curve.

    The rate is one to start from, not the best rate of a whole training.
    """

    rule: str
    status: Status
    """`ok`; `flat`: the loss falls nowhere by more than its noise.

    `diverged at once`: neither does it, and the training blew up within its first 10 steps; `edge of the
    range`: the answer is at an end of the rates, or outside of them, so a wider sweep may find another.
    """
    rate: float | None = None
    """Only where the status is `ok` or `edge of the range`."""
    low: float | None = None
    high: float | None = None
    """Rates that are about as good by the same rule, see `suggest`; low <= rate <= high."""


def rates(sweep: Sweep) -> tuple[float, ...]:
    """Return the rates of a sweep, rising; the first is exactly `low` and the last exactly `high`."""
    if sweep.mode == "linear":
        inner = np.linspace(sweep.low, sweep.high, sweep.steps)
    else:
        inner = 10 ** np.linspace(math.log10(sweep.low), math.log10(sweep.high), sweep.steps)
    return (sweep.low, *np.clip(inner[1:-1], sweep.low, sweep.high).tolist(), sweep.high)


def to_json(curve: Curve) -> dict[str, Any]:
    """Return a curve as plain values; a loss that is not finite is a string, as JSON has no number for it."""
    return {
        "rates": list(curve.rates),
        "losses": [_to_json(loss) for loss in curve.losses],
        "accuracies": [_to_json(accuracy) for accuracy in curve.accuracies],
        "stopped": curve.stopped,
    }


def from_json(content: dict[str, Any]) -> Curve:
    """Read what `to_json` gave, bit by bit."""
    tried, losses, accuracies = (
        tuple(float(part) for part in content[name]) for name in ("rates", "losses", "accuracies")
    )
    return Curve(tried, losses, accuracies, content["stopped"])


def _to_json(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def beta(points: int) -> float:
    """Return the decay of the mean that reaches over `WINDOW` of so many points: 1 - 1 / reach.

    0 up to ten points.
    """
    return 1 - 1 / max(1.0, WINDOW * points)


def average(values: Floats, decay: float) -> Floats:
    """Return the exponential moving average of (N,) values, bias-corrected.

    The correction is that of Kingma and Ba 2015, section 3: without it the mean starts at 0, so that a loss
    seems to rise from there. What is not finite counts as inf, and inf stays.
    """
    assert 0 <= decay < 1
    finite = np.where(np.isfinite(values), values, np.inf)
    averages, mean = np.empty(len(finite)), 0.0
    for i, value in enumerate(finite.tolist()):
        mean = decay * mean + (1 - decay) * value if decay else value
        averages[i] = mean / (1 - decay ** (i + 1))
    return averages


def smoothed(curve: Curve, decay: float | None = None) -> Curve:
    """Return a curve smoothed by `average`, its rates too; `decay`, in [0, 1), is that of `beta` by default.

    A moving average shows steps that are past: of 10 steps ago, at a decay of 0.9, which is 0.6 decades of
    a usual sweep, and it is wrong by a factor of 4 in the rate. log10 of the rate is averaged with the same
    weights, so each smoothed loss stands at the rate that it belongs to: a loss that is linear in log10 of
    the rate is not moved at all.
    """
    decay = beta(len(curve.rates)) if decay is None else decay
    where = 10 ** average(np.log10(np.asarray(curve.rates, np.float64)), decay)
    losses, accuracies = (
        average(np.asarray(part, np.float64), decay) for part in (curve.losses, curve.accuracies)
    )
    return Curve(tuple(where.tolist()), tuple(losses.tolist()), tuple(accuracies.tolist()), curve.stopped)


def divergence(losses: Sequence[float], steps: int) -> int | None:
    """Return the step at which a sweep of `steps` has diverged, 0..len(losses) - 1, or None.

    It is the first with a loss that is not finite, or with a smoothed one above `BLOWN` times the smallest
    smoothed one before it.
    """
    smooth = average(np.asarray(losses, np.float64), beta(steps))
    blown = ~np.isfinite(smooth) | (smooth > BLOWN * np.minimum.accumulate(smooth))
    return int(blown.argmax()) if blown.any() else None


def combine(curves: Sequence[Curve]) -> Curve:
    """Return the median curve of several seeds of one sweep, as far as at least half of them came.

    A seed that has diverged counts as a loss of inf and an accuracy of 0 from there on, so that the median
    does not get better because the worst have gone. The median has diverged when half of the seeds have.
    """
    assert curves
    longest = max((curve.rates for curve in curves), key=len)
    if any(curve.rates != longest[: len(curve.rates)] for curve in curves):
        raise AblateError(
            "The curves to combine are of sweeps with different rates: sweep all seeds with the same one."
        )
    losses, accuracies = np.full((len(curves), len(longest)), np.inf), np.zeros((len(curves), len(longest)))
    for row, curve in enumerate(curves):
        losses[row, : len(curve.losses)] = np.where(np.isnan(curve.losses), np.inf, curve.losses)
        accuracies[row, : len(curve.accuracies)] = np.where(np.isnan(curve.accuracies), 0.0, curve.accuracies)
    there = np.array(
        [2 * sum(len(curve.rates) > i for curve in curves) >= len(curves) for i in range(len(longest))], bool
    )
    middle = _median(losses)[there]
    diverged = 2 * sum(curve.stopped == "diverged" for curve in curves) >= len(curves)
    return Curve(
        longest[: len(middle)],
        tuple(middle.tolist()),
        tuple(_median(accuracies)[there].tolist()),
        "diverged" if diverged else "end",
    )


def _median(values: Floats) -> Floats:
    """Return the median of each column of (S, N); numpy's own warns of inf - inf."""
    ordered, number = np.sort(values, axis=0), len(values)
    return np.asarray((ordered[(number - 1) // 2] + ordered[number // 2]) / 2, np.float64)


def suggest(curves: Sequence[Curve]) -> dict[str, Suggestion]:
    """Return the rate by each of the `RULES`, from the smoothed median curve of some seeds.

    Only its fall to the minimum counts.

    `rise`: where a fifth of the fall is lost again: about the highest rate that the training bears, at which
    a one-cycle schedule wants its peak (Smith and Topin 2018, section 3). The range is from the smallest loss
    to where two fifths are lost. `valley`: the longest run of ever smaller losses, not all of them
    neighbours, as fastai's; the rate at which 9/10 of its fall is done, and the range from 3/4 to its foot.
    fastai takes the middle of as many neighbours before the foot, and a mean that lags by up to half a sweep,
    which puts it higher; without a lag, the middle is far too low (see `DONE`). `steepest`: where the loss
    falls fastest per decade (Smith 2017; fastai), but not within the first tenth of the decades, where the
    mean is of few values; the range are the rates around it with at least half of that slope. `min/10`: a
    tenth of the rate of the smallest loss; the range is a tenth of the rates around it whose loss is at most
    a tenth of the fall above it.
    """
    curve = combine(curves)
    raw = np.asarray(curve.losses, np.float64)
    points = int(
        np.argmin(np.append(np.abs(raw) < HUGE, [False]))
    )  # those before the first that is not finite; NaN is not below
    blown = curve.stopped == "diverged" or points < len(raw)
    if points < FEWEST:
        return _no_answer("diverged at once" if blown else "flat")
    smooth = smoothed(
        Curve(curve.rates[:points], curve.losses[:points], curve.accuracies[:points], curve.stopped)
    )
    where, losses = np.log10(smooth.rates), np.asarray(smooth.losses, np.float64)
    lowest = int(losses.argmin())
    apart = _apart(raw[:points], losses, lowest)
    if apart[:lowest].any():
        return _answers(where, losses, lowest, blown=blown)
    if blown and points <= 2 * FEWEST:
        return _no_answer("diverged at once")
    if lowest == 0 and apart.any():  # the loss only rises
        first = curve.rates[0]
        return {rule: Suggestion(rule, "edge of the range", first, first, first) for rule in RULES}
    return _no_answer("flat")


def best(suggestions: dict[str, Suggestion]) -> Suggestion | None:
    """Choose the rate to train with: of the first of the `RULES` whose status is `ok`.

    None if there is none.
    """
    own = (suggestions[rule] for rule in RULES if rule in suggestions)  # none without all curves
    return next((suggestion for suggestion in own if suggestion.status == "ok"), None)


def _no_answer(status: Status) -> dict[str, Suggestion]:
    return {rule: Suggestion(rule, status) for rule in RULES}


def _apart(raw: Floats, smooth: Floats, lowest: int) -> NDArray[np.bool_]:
    """Return which smoothed losses (N,) are above the smallest by more than noise.

    They are also above it by more than `SMALLEST` of themselves. The noise of one step is the median size of
    second differences, which a slope does not enter (Gasser, Sroka and Jennen-Steinmetz 1986) and a few large
    ones do not move; what is left of it in the mean of the first t values is exact. The largest fall of a
    curve exceeds 4.2 + 22 / N of its standard deviations in about 1 % of simulated curves of pure normal
    noise, for N from 5 to 500.
    """
    count, decay = len(raw), beta(len(raw))
    noise = float(np.median(np.abs(np.diff(raw, 2)))) / (
        0.6745 * math.sqrt(6)
    )  # of a normal one: the 75 % quantile, the variance
    power = decay ** np.arange(1, count + 1)
    left = (1 - decay) / (1 + decay) * (1 + power) / (1 - power)
    margin = (4.2 + 22 / count) * noise * np.sqrt(left + left[lowest])
    return np.asarray(smooth - smooth[lowest] > np.maximum(margin, SMALLEST * np.abs(smooth)), np.bool_)


def _answers(where: Floats, losses: Floats, lowest: int, *, blown: bool) -> dict[str, Suggestion]:
    """Return the rate by each rule for smoothed losses (N,) at log10 rates `where`, falling to `lowest`."""
    last = len(losses) - 1
    falling = (
        not blown and lowest >= last - last // 20
    )  # to the end: its foot, and the smallest loss, may be beyond
    valley = _valley(where, losses, lowest)
    steepest, at_start = _steepest(where, losses, lowest)
    fall = losses[:lowest].max() - losses[lowest]
    first, final = _around(losses <= losses[lowest] + fall / 10, lowest)
    tenth = (where[lowest] - 1, where[first] - 1, where[final] - 1)
    lost = [
        lowest + np.flatnonzero(losses[lowest:] > losses[lowest] + share * fall) for share in (LOST, 2 * LOST)
    ]
    risen, far = (int(found[0]) if len(found) else last for found in lost)
    return {
        "rise": _suggestion("rise", (where[risen], where[lowest], where[far]), edge=not len(lost[0])),
        "valley": _suggestion("valley", valley, edge=falling),
        "steepest": _suggestion(
            "steepest", steepest, edge=at_start or (falling and steepest[0] >= where[lowest])
        ),
        "min/10": _suggestion("min/10", tenth, edge=falling or tenth[0] < where[0]),
    }


def _suggestion(rule: str, found: tuple[float, float, float], *, edge: bool) -> Suggestion:
    rate, low, high = (float(10**part) for part in found)
    return Suggestion(rule, "edge of the range" if edge else "ok", rate, low, high)


def _valley(where: Floats, losses: Floats, lowest: int) -> tuple[float, float, float]:
    """Return log10 of the rates at which the shares `DONE` of the longest falling run of losses are done.

    It always ends at the smallest loss: a run that ends before it could be one longer.
    """
    length, before = np.ones(lowest + 1, np.int64), np.full(lowest + 1, -1)
    for i in range(1, lowest + 1):
        higher = np.flatnonzero(losses[:i] > losses[i])
        if len(higher):
            before[i] = higher[length[higher].argmax()]
            length[i] = length[before[i]] + 1
    run = [lowest]
    while before[run[-1]] >= 0:
        run.append(int(before[run[-1]]))
    down, at = losses[run], where[run]  # from the foot upwards, as np.interp wants it
    rate, low, high = (
        float(np.interp(down[0] + (1 - done) * (down[-1] - down[0]), down, at)) for done in DONE
    )
    return rate, low, high


def _steepest(where: Floats, losses: Floats, lowest: int) -> tuple[tuple[float, float, float], bool]:
    """Return the log10 rate of the steepest fall per decade, its range, and whether it is at the start."""
    with np.errstate(divide="ignore", invalid="ignore"):  # rates so close that they are one number
        slope = np.nan_to_num(np.gradient(losses, where), nan=0.0, posinf=0.0, neginf=0.0)
    start = min(int(np.searchsorted(where, where[0] + WINDOW * (where[-1] - where[0]))), lowest)
    at = start + int(slope[start : lowest + 1].argmin())
    low, high = _around((slope <= slope[at] / 2) & (np.arange(len(slope)) <= lowest), at)
    return (where[at], where[low], where[high]), at == start


def _around(good: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """Return the ends of the stretch of good neighbours around `at`."""
    bad = np.flatnonzero(~good)
    before, after = bad[bad < at], bad[bad > at]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(good) - 1
