"""The names of effects in words: what changes, in which settings, and without which seeds."""

from collections.abc import Sequence

from ablate.analysis.effects import POOLED, Effect
from ablate.analysis.findings import Findings
from ablate.analysis.scope import Scope
from ablate.study.grid import short_names

NAMED = 4  # parts of the settings that are named
LISTED = 8  # seeds and ranges of seeds that are named; of more, the first ones and the last
LONGEST = 120  # characters of their names; what is longer is counted


def change(effect: Effect, findings: Findings) -> str:
    """Return the name of a change: "rotation 15 instead of 0", "random_resized_crop instead of random_crop".

    A cell is named by its label, an interaction by its two changes: "batch_norm false with rotation 15". The
    name of an effect that is known in some settings only has them: "rotation 15 instead of 0, where
    batch_norm = false".
    """
    name, scope = whole(effect, findings), where(effect.scope, findings)
    if effect.estimate.verdict == "unstable":
        return name
    if effect.where and scope.startswith(", where "):
        return f"{name} and {scope.removeprefix(', where ')}"
    return name + scope


def whole(effect: Effect, findings: Findings) -> str:
    """Return the name of a change without the settings in which its effect is known."""
    if effect.kind == "cell":
        return effect.end
    short = short_names([factor.name for factor in findings.study.factors])
    chosen = [choice(short[factor], end) for factor, _, end in effect.changes]
    held = f", where {short[effect.where[0]]} = {effect.where[1]}" if effect.where else ""
    if effect.kind == "interaction":
        return " with ".join(chosen)
    return f"{chosen[0]} instead of {effect.start}{held}"


def where(scope: Scope | None, findings: Findings) -> str:
    """Return some settings in words: ", where batch_norm = false", ", except where ..."; empty for all."""
    if scope is None:
        return ""
    short = short_names([factor.name for factor in findings.study.factors])
    terms = [
        " and ".join(f"{short[factor]} = {' or '.join(levels)}" for factor, levels in term)
        for term in scope.terms
    ]
    joined = terms[0] if len(terms) == 1 else " or ".join(f"({term})" for term in terms)
    if len(terms) > NAMED or len(joined) > LONGEST:
        return f", in {scope.settings:,} of {scope.planned:,} settings"
    return f", {'except ' if scope.outside else ''}where {joined}"


def condition(scope: Scope | None, findings: Findings) -> str | None:
    """Return the settings of a scope, for data: "where batch_norm = false"; None for all of them."""
    return where(scope, findings).removeprefix(", ") or None


def flags(effect: Effect) -> list[str]:
    """Return the flags of an effect in words, with the seeds that lack a run of it."""
    state = "left out"
    if POOLED in effect.flags:
        state = "lacks a run" if len(effect.left_out) == 1 else "lack runs"
    seeds = f"incomplete: {_seeds(effect.left_out)} {state}"
    return [seeds if flag == "incomplete" and effect.estimate.n else flag for flag in effect.flags]


def _seeds(numbers: Sequence[int]) -> str:
    """Return ascending seeds, three or more in a row as a range: "seeds 0, 3 to 9"; many by their number."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    parts = [part for row in rows for part in ([f"{row[0]} to {row[-1]}"] if len(row) > 2 else map(str, row))]
    if len(parts) > LISTED:
        return f"{len(numbers):,} seeds ({', '.join(parts[:3])}, ..., {parts[-1]})"
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(parts)}"


def choice(factor: str, level: str) -> str:
    """Return a level with the name of its factor, unless it contains that, as random_crop contains crop."""
    return level if factor in level else f"{factor} {level}"
