"""How things are timed: variants in turn, round after round, so that a disturbance meets all of them.

Medians are compared.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from ablate.execution import provenance


@dataclass(frozen=True, slots=True)
class Timing:
    """One variant: the median of its rounds, and the worst and the best one, in `unit`."""

    name: str
    median: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against what people do: how many times better, and what is required of that."""

    title: str
    ours: Timing
    theirs: tuple[Timing, ...]
    ratio: float  # against the best of theirs
    required: float | None = None
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether the requirement holds."""
        return self.required is None or self.ratio >= self.required


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure of ours that must be at most, or at least, so much."""

    title: str
    ours: Timing
    required: float
    is_most: bool = True
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether the requirement holds."""
        return self.ours.median <= self.required if self.is_most else self.ours.median >= self.required


def rates(variants: Mapping[str, Callable[[], float]], rounds: int, unit: str) -> dict[str, Timing]:
    """Run each variant once a round; a variant gives its own figure."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            found[name].append(run())
    return {
        name: Timing(name, statistics.median(all_), min(all_), max(all_), unit)
        for name, all_ in found.items()
    }


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def faster(
    title: str, ours: Timing, *theirs: Timing, required: float | None = None, note: str = ""
) -> Comparison:
    """Compare rates, of which more is better."""
    return Comparison(title, ours, theirs, ours.median / max(t.median for t in theirs), required, note)


def shorter(
    title: str, ours: Timing, *theirs: Timing, required: float | None = None, note: str = ""
) -> Comparison:
    """Compare times, of which less is better."""
    return Comparison(title, ours, theirs, min(t.median for t in theirs) / ours.median, required, note)


def table(comparisons: Sequence[Comparison | Limit]) -> str:
    """Write a table in Markdown."""
    lines = ["| | ours | theirs | ratio | required |", "|---|---|---|---|---|"]
    for one in comparisons:
        if isinstance(one, Limit):
            required = (
                f"{'<=' if one.is_most else '>='} {one.required:g} "
                f"{one.ours.unit}{'' if one.held else ' MISSED'}"
            )
            note = f" ({one.note})" if one.note else ""
            lines.append(f"| {one.title}{note} | {one.ours.name} {_figure(one.ours)} | | | {required} |")
            continue
        theirs = "; ".join(f"{t.name} {_figure(t)}" for t in one.theirs)
        required = "" if one.required is None else f">= {one.required:g}x{'' if one.held else ' MISSED'}"
        note = f" ({one.note})" if one.note else ""
        lines.append(
            f"| {one.title}{note} | {one.ours.name} {_figure(one.ours)} | {theirs} | **{one.ratio:.2f}x** "
            f"| {required} |"
        )
    return "\n".join(lines)


def _figure(timing: Timing) -> str:
    digits = 0 if timing.median >= 100 else 3 if timing.median < 10 else 1
    return f"{timing.median:,.{digits}f} [{timing.low:,.{digits}f}-{timing.high:,.{digits}f}] {timing.unit}"


def machine() -> dict[str, object]:
    """Describe the machine and the versions."""
    packages = ("torch", "torchvision", "mlflow", "numpy", "pillow")
    described = {key: value for key, value in provenance.machine().items() if key != "host"}
    versions = {name: metadata.version(name) for name in packages}
    return described | {
        "usable_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def page(comparisons: Sequence[Comparison | Limit]) -> str:
    """Write a page of Markdown: the table, the machine, how to read it."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in dict(facts["versions"]).items())  # type: ignore[call-overload]
    return f"""# Benchmarks

Made by `python -m benchmarks --out docs/benchmarks.json`; the rows of 10,000 runs by `python -m benchmarks
stores` with the same option. Ours and theirs in turn, round after round, in one run; the figure is the median
of the rounds, in brackets the smallest and the largest one. A ratio above 1 is in favour of `ablate`; each is
against the best of theirs; a row without a ratio is a figure of ours with its limit. What is compared with
what stands at the top of each file in `benchmarks/`.

{facts["processor"]}, {facts["usable_cores"]} cores, {facts["system"]}, Python {facts["python"]}, {versions}.

{table(comparisons)}

Read with care: the images of the input, step and parallel benchmarks are noise (speed does not depend on what
they show), those of the study are the real digits. Precision bf16 is another arithmetic than the scripts'
fp32; the fp32 rows compare equal ones. Two jobs with torch's default threads collapse at times, and their
best round is the fairer figure. Nothing here was run on a GPU.
"""


def from_data(one: dict[str, Any]) -> Comparison | Limit:
    """Read a comparison or a limit back."""
    kept = {name: part for name, part in one.items() if name != "held"}
    if "theirs" not in one:
        return Limit(**kept | {"ours": Timing(**one["ours"])})
    return Comparison(
        **kept
        | {"ours": Timing(**one["ours"]), "theirs": tuple(Timing(**timing) for timing in one["theirs"])}
    )


def as_data(comparisons: Sequence[Comparison | Limit]) -> list[dict[str, object]]:
    """Return comparisons as JSON-able data."""
    return [asdict(one) | {"held": one.held} for one in comparisons]
