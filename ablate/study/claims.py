"""Claims about a factor, such as `augment.crop: random_crop > random_resized_crop`."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from ablate.messages import show, unknown
from ablate.recipe import metrics

FORM = (
    "factor: a > b (or <, ~, better than, worse than, no better than, no worse than), then perhaps when "
    "factor = level, on metric; or factor: a > number on metric"
)
RELATION = re.compile(r"[<>~]|(?<=\s)(?:no\s+)?(?:better|worse)\s+than(?=\s)")
NAMES = ("factor", "first", "second", "other", "level")  # each on one line
WHEN = re.compile(r"(?<=\s)when(?=\s)")


@dataclass(frozen=True, slots=True)
class Claim:
    """`first relation second`, of two levels of a factor.

    `>` claims that the metric is larger with the first level, `better than` that it is better, `no better
    than` that it is not, by more than the smallest effect worth having, `~` that both are equivalent. Where
    the second is a number and the metric is named, `>` and `<` compare the metric itself with it, of the
    cell that has the first level and the baselines of all other factors.
    """

    text: str
    source: str
    expect: str
    factor: str
    first: str
    relation: Literal[">", "<", "~", "better than", "worse than", "no better than", "no worse than"]
    second: str
    when: tuple[str, str] | None
    metric: str | None
    bound: float | None = None  # where `second` is no level: the number that the metric is compared with


def parse(
    text: str, source: str, expect: str, factors: dict[str, list[str]]
) -> tuple[Claim | None, list[str]]:
    """Return the claim of an expectation, and what is wrong with it, by the factors and their level names."""
    part = _split(expect)
    if part is None:
        return None, [f"{show(expect)} is not of the form {FORM}"]
    is_level = part["second"] in factors.get(part["factor"], [])
    is_bound = not is_level and part["relation"] in ("<", ">") and bool(part["metric"])
    bound = _number(part["second"]) if is_bound else None  # without a metric it is a level that is not there
    wrong = [
        *_level(part["factor"], part["first"], factors),
        *(_level(part["factor"], part["second"], factors) if bound is None else []),
        *(_level(part["other"], part["level"], factors) if part["other"] else []),
    ]
    if part["metric"] and metrics.direction(part["metric"]) is None:
        wrong.append(unknown(part["metric"], "a metric", metrics.METRICS))
    if part["first"] == part["second"]:
        wrong.append(f"{show(expect)} compares a level with itself")
    when = (part["other"], part["level"]) if part["other"] else None
    relation: Any = " ".join(part["relation"].split())
    metric = part["metric"] or None
    levels = part["first"], relation, part["second"]
    claim = Claim(text, source, expect, part["factor"], *levels, when, metric, bound)
    return (None if wrong else claim), list(dict.fromkeys(wrong))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _split(expect: str) -> dict[str, str] | None:
    """Return the parts of an expectation, those that it lacks empty; None where it is of no such form.

    Each is cut off where its mark first stands, in one pass: a pattern of all of them would try every way to
    share a text among them, and a store may have texts that make that take for ever.
    """
    text = expect.strip()
    colon = text.find(":", 1)
    factor, rest = text[:colon].rstrip(), text[colon + 1 :].strip()
    relation = RELATION.search(rest, 1)
    if colon < 0 or relation is None:
        return None
    first, second = rest[: relation.start()].rstrip(), rest[relation.end() :].strip()
    other = level = ""
    when = WHEN.search(second, 1)
    if when is not None:
        before, after = second[: when.start()].rstrip(), second[when.end() :].lstrip()
        equals = after.find("=", 1)
        if equals > 0 and after[equals + 1 :].strip():
            second, other, level = before, after[:equals].rstrip(), after[equals + 1 :].lstrip()
    last = (level or second).rsplit(None, 2)
    metric = ""
    if len(last) == 3 and last[1] == "on":
        metric = last[2]
        second, level = (second, last[0]) if level else (last[0], "")
    parts = {
        "factor": factor, "first": first, "relation": relation[0], "second": second,
        "other": other, "level": level, "metric": metric,
    }  # fmt: skip
    is_whole = all(parts[name] for name in ("factor", "first", "second"))
    return parts if is_whole and not any("\n" in parts[name] for name in NAMES) else None


def _level(factor: str, level: str, factors: dict[str, list[str]]) -> list[str]:
    if factor not in factors:
        return [unknown(factor, "a factor of this study", factors)]
    if level not in factors[factor]:
        return [unknown(level, f"a level of {factor}", factors[factor])]
    return []
