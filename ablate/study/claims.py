"""Claims about a factor, such as `augment.crop: random_crop > random_resized_crop`."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from ablate.messages import show, unknown
from ablate.recipe import metrics

SHAPE = re.compile(
    r"\s*(?P<factor>.+?)\s*:\s*(?P<first>.+?)\s*(?P<relation>[<>~]|(?<=\s)(?:better|worse)\s+than(?=\s))\s*(?P<second>.+?)"
    r"(?:\s+when\s+(?P<other>.+?)\s*=\s*(?P<level>.+?))?(?:\s+on\s+(?P<metric>\S+))?\s*"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """`first relation second`, of two levels of a factor.

    `>` claims that the metric is larger with the first level, `better than` that it is better, `~` that both
    are equivalent.
    """

    text: str
    source: str
    expect: str
    factor: str
    first: str
    relation: Literal[">", "<", "~", "better than", "worse than"]
    second: str
    when: tuple[str, str] | None
    metric: str | None


def parse(
    text: str, source: str, expect: str, factors: dict[str, list[str]]
) -> tuple[Claim | None, list[str]]:
    """Return the claim of an expectation, and what is wrong with it, by the factors and their level names."""
    match = SHAPE.fullmatch(expect)
    if not match:
        form = "factor: a > b (or <, ~, better than, worse than), then perhaps when factor = level, on metric"
        return None, [f"{show(expect)} is not of the form {form}"]
    part = match.groupdict()
    wrong = [
        *_level(part["factor"], part["first"], factors),
        *_level(part["factor"], part["second"], factors),
        *(_level(part["other"], part["level"], factors) if part["other"] else []),
    ]
    if part["metric"] and metrics.direction(part["metric"]) is None:
        wrong.append(unknown(part["metric"], "a metric", metrics.METRICS))
    if part["first"] == part["second"]:
        wrong.append(f"{show(expect)} compares a level with itself")
    when = (part["other"], part["level"]) if part["other"] else None
    relation: Any = " ".join(part["relation"].split())
    claim = Claim(
        text, source, expect, part["factor"], part["first"], relation, part["second"], when, part["metric"]
    )
    return (None if wrong else claim), list(dict.fromkeys(wrong))


def _level(factor: str, level: str, factors: dict[str, list[str]]) -> list[str]:
    if factor not in factors:
        return [unknown(factor, "a factor of this study", factors)]
    if level not in factors[factor]:
        return [unknown(level, f"a level of {factor}", factors[factor])]
    return []
