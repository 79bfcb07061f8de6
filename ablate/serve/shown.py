"""What pages show, in words and places: made once, for the page as it is sent and for each event after it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.analysis.outcomes import NAMES
from ablate.analysis.status import Running, Spot, Status
from ablate.messages import count
from ablate.recipe import metrics
from ablate.recipe.metrics import Direction

SHADES = 7  # from the worst value of a study to its best
MOST_NOW = 32  # jobs that are listed while they run
MOST_ROWS = 60  # effects of one kind
ORDER = ("finished", "running", "stopped", "at_chance", "diverged", "crashed", "not_run")
WORDS: Mapping[str, str] = {str(status): word for status, word in NAMES.items()}
Values = Mapping[str, Mapping[int, float]]  # of the study's metric, by cell and seed


@dataclass(frozen=True, slots=True)
class Now:
    """A job that runs."""

    run: str
    job: str
    epoch: int
    epochs: int
    text: str
    left: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study is, in words."""

    line: str  # for a screen reader, and the title of the page
    state: str  # running, finished, or idle
    ended: int
    total: int
    counts: tuple[tuple[str, str, int], ...]  # status, word, runs
    left: str
    now: tuple[Now, ...]
    more: int  # jobs that run and are not listed


def progress(status: Status) -> Progress:
    """Return how far a study is."""
    total = sum(status.total.values())
    ended = sum(status.total.get(name, 0) for name in ("finished", "diverged", "at_chance"))
    left = f"about {seconds(status.seconds_left)} left" if status.seconds_left else ""
    counts = tuple((name, WORDS[name], status.total[name]) for name in ORDER if status.total.get(name))
    words = [f"{ended:,} of {count(total, 'run')} ended"]
    words += [f"{number:,} {word}" for name, word, number in counts if name not in ("finished", "not_run")]
    line = ", ".join((*words, left) if left else words)
    return Progress(
        line=line,
        state="running" if status.moves else "finished" if ended == total else "idle",
        ended=ended,
        total=total,
        counts=counts,
        left=left,
        now=tuple(_now(running) for running in status.running[:MOST_NOW]),
        more=max(0, len(status.running) - MOST_NOW),
    )


def _now(running: Running) -> Now:
    text = "starting" if not running.epoch else f"epoch {running.epoch} of {running.epochs}"
    left = f"{seconds(running.seconds_left)} left" if running.seconds_left else ""
    text = "evaluating" if running.evaluating else text
    return Now(running.run, running.job, running.epoch, running.epochs, text, left)


def spot(one: Spot, value: float | None, running: Mapping[str, Running], metric: str) -> str:
    """Return what a field of the grid says."""
    if one.status == "finished" and value is not None:
        return bare(value, metric)
    if one.status == "running" and (now := running.get(one.job)) is not None:
        return "eval" if now.evaluating else f"{now.epoch}/{now.epochs}"
    return WORDS.get(one.status, one.status)


def fields(
    status: Status, values: Values, metric: str, part: slice = slice(None)
) -> dict[str, dict[int, tuple[str, str]]]:
    """Return the state and the text of each field of the grid, or of a part of its rows, by cell and seed."""
    running = {now.job: now for now in status.running}
    return {
        label: {
            seed: (one.status, spot(one, values.get(label, {}).get(seed), running, metric))
            for seed, one in spots.items()
        }
        for label, spots in [*status.runs.items()][part]
    }


def shades(values: Values, direction: Direction) -> dict[str, dict[int, int]]:
    """Return for each value where it lies between the worst of a study, 0, and the best."""
    every = [value for of in values.values() for value in of.values() if math.isfinite(value)]
    low, high = (min(every), max(every)) if every else (0.0, 0.0)
    if low == high:
        return {}
    sign, start = (1, low) if direction == "max" else (-1, high)
    return {
        label: {
            seed: min(SHADES - 1, int(SHADES * sign * (value - start) / (high - low)))
            for seed, value in of.items()
            if math.isfinite(value)
        }
        for label, of in values.items()
    }


def bare(number: float, metric: str) -> str:
    """Return a value without its unit, shares in percent."""
    if not math.isfinite(number):
        return "-"
    if metrics.is_fraction(metric):
        return f"{100 * number:.2f}"
    return f"{number:.4g}"


def in_unit(metric: str) -> str:
    """Return the unit of a metric's values with a comma before it; empty where it has none."""
    return ", percent" if metrics.is_fraction(metric) else ""


def seconds(value: float) -> str:
    """Return a time as people say it: 45 s, 3 min, 2.5 h."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class Row:
    """An effect, with the places of its interval on a line from 0 to 100."""

    change: str
    verdict: str
    words: str
    numbers: str
    low: float | None
    high: float | None
    effect: float | None
    dots: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The effects of one kind on one scale."""

    kind: str
    zero: float
    band: tuple[float, float] | None  # where an effect is too small to be worth having
    rows: tuple[Row, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How the questions of a study stand."""

    headline: tuple[str, ...]
    finished: int
    total: int
    drawn: tuple[Drawn, ...]
    claims: tuple[Mapping[str, Any], ...]


def verdicts(findings: Mapping[str, Any]) -> Verdicts:
    """Return the verdicts of a report's JSON."""
    effects: Sequence[Mapping[str, Any]] = findings["effects"]
    least, metric = findings["min_effect"], findings["metric"]
    kinds = {"main": ("main", "simple"), "interaction": ("interaction",), "cell": ("cell",)}
    sign = 1 if findings["direction"] == "max" else -1
    best_first = sorted(effects, key=lambda one: -math.inf if one["effect"] is None else sign * one["effect"])
    drawn = [
        _drawn(kind, [effect for effect in reversed(best_first) if effect["kind"] in names], least, metric)
        for kind, names in kinds.items()
    ]
    return Verdicts(
        headline=tuple(findings["headline"]),
        finished=findings["finished"],
        total=findings["total"],
        drawn=tuple(one for one in drawn if one.rows),
        claims=tuple(
            {key: claim[key] for key in ("text", "source", "verdict", "effect", "low", "high")}
            for claim in findings["claims"]
        ),
    )


def _drawn(kind: str, effects: Sequence[Mapping[str, Any]], least: float | None, metric: str) -> Drawn:
    shown = effects[:MOST_ROWS]
    ends = [0.0, *_numbers(shown)]
    if least is not None:
        ends += [-1.5 * least, 1.5 * least]
    low, high = min(ends), max(ends)
    margin = (high - low or 1.0) * 0.04
    low, width = low - margin, (high - low or 1.0) + 2 * margin

    def at(number: float | None) -> float | None:
        return None if number is None else round(100 * (number - low) / width, 2)

    rows = [
        Row(
            change=effect["change"],
            verdict=effect["verdict"],
            words=effect["words"],
            numbers=numbers(effect["effect"], effect["low"], effect["high"], metric),
            low=at(effect["low"]),
            high=at(effect["high"]),
            effect=at(effect["effect"]),
            dots=tuple(x for x in map(at, effect["per_seed"].values()) if x is not None),
        )
        for effect in shown
    ]
    zero = at(0.0) or 0.0
    band = None if least is None else (at(-least) or 0.0, round(200 * least / width, 2))
    return Drawn(kind, zero, band, tuple(rows), len(effects) - len(shown))


def _numbers(effects: Iterable[Mapping[str, Any]]) -> Iterable[float]:
    for effect in effects:
        for number in (effect["low"], effect["high"], effect["effect"], *effect["per_seed"].values()):
            if number is not None:
                yield number


def numbers(effect: float | None, low: float | None, high: float | None, metric: str) -> str:
    """Return an effect and its interval: "+0.93 [0.65, 1.21]", in points for shares."""
    if effect is None:
        return ""
    by = metrics.scale(metric)
    digits = 2
    if low is not None and high is not None and high > low:
        digits = max(0, 1 - math.floor(math.log10(by * (high - low) / 2)))
        digits = max(digits, 2) if metrics.is_fraction(metric) else digits
    interval = "" if low is None or high is None else f" [{by * low:,.{digits}f}, {by * high:,.{digits}f}]"
    return f"{by * effect:+,.{digits}f}{interval}"
