"""Findings to sentences: the same words on the page, in the terminal and in MLflow's note.

Nothing is computed here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.analysis.stats import CAP, ROUNDING, Estimate
from ablate.messages import count
from ablate.recipe import metrics
from ablate.report import names
from ablate.study.grid import Cell, short_names

REASONS = {
    "seed has no effect": "every seed shows the same difference, so nothing says how much of it is chance"
}
"""Why there is no interval, where the short reason of the JSON does not say it to everybody."""

VERDICTS = {
    "main": {},
    "simple": {},
    "cell": {},
    # An interaction is no choice, so it cannot help: it says what two choices do beyond the sum of both.
    "interaction": {"helps": "better together", "hurts": "worse together", "equivalent": "additive"},
}
"""Verdicts that are called otherwise, by the kind of effect."""


def value(number: float | None, metric: str) -> str:
    """Return one value of a metric: 0.7123 is "71.23 %", a loss "0.8312"."""
    plain = bare(number, metric)
    return f"{plain} %" if metrics.is_fraction(metric) and plain != "-" else plain


def bare(number: float | None, metric: str) -> str:
    """Return one value without its unit."""
    if number is None or not math.isfinite(number):
        return "-"
    return f"{100 * number:.2f}" if metrics.is_fraction(metric) else significant(number, 4)


def spread(number: float | None, metric: str) -> str:
    """Return a standard deviation, in points for shares."""
    if number is None or not math.isfinite(number):
        return "-"
    return f"{100 * number:.2f}" if metrics.is_fraction(metric) else significant(number, 2)


def seconds(number: float | None) -> str:
    """Return seconds without their unit, to three significant digits."""
    return "-" if number is None or not math.isfinite(number) else significant(number, 3)


def field(setting: object) -> str:
    """Return the value of a searched recipe field: numbers to three digits, the rest as in a study file."""
    if isinstance(setting, bool) or not isinstance(setting, int | float):
        return str(setting).lower() if isinstance(setting, bool) else str(setting)
    return f"{setting:,}" if isinstance(setting, int) else f"{setting:.3g}"


def tuned(cell: Cell) -> str:
    """Return what tuning has found for a cell: "lr 0.031, weight_decay 0.0005"."""
    short = short_names(list(cell.tuned))
    fields = ", ".join(f"{short[path]} {field(setting)}" for path, setting in cell.tuned.items())
    return "not found yet" if cell.pending else fields or "untuned"


def significant(number: float, digits: int) -> str:
    """Return a number with `digits` significant digits, without an exponent between 0.0001 and 10 million."""
    if number == 0 or 1e-4 <= abs(number) < 1e7:
        return f"{number:,.{_decimals(number, digits)}f}"
    return f"{number:.{digits - 1}e}"


def _decimals(number: float, digits: int) -> int:
    return 0 if number == 0 else max(0, digits - 1 - math.floor(math.log10(abs(number))))


def difference(estimate: Estimate, metric: str) -> str:
    """Return an effect and its interval: "+0.93 points [0.65, 1.21]"; without an interval the effect alone.

    Empty where there is none.
    """
    if estimate.effect is None:
        return ""
    effect, interval = effect_words(estimate, metric), interval_words(estimate, metric)
    numbers = f"{effect}{metrics.unit(metric)}"
    return f"{numbers} {interval}".strip() if interval else numbers


def effect_words(estimate: Estimate, metric: str) -> str:
    """Return an effect with its sign, in points for shares; empty where it is not known."""
    if estimate.effect is None:
        return ""
    digits = _digits(estimate, metric)
    return f"{_whole(metrics.scale(metric) * estimate.effect, digits):+,.{digits}f}"


def interval_words(estimate: Estimate, metric: str) -> str:
    """Return an interval, "[0.65, 1.21]"; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    digits = _digits(estimate, metric)
    low, high = (_whole(metrics.scale(metric) * end, digits) for end in (estimate.low, estimate.high))
    return f"[{low:,.{digits}f}, {high:,.{digits}f}]"


def moved(change: float, metric: str) -> str:
    """Return a difference that has no interval, with its unit: "+2.08 points"."""
    number = metrics.scale(metric) * change
    shown = (
        f"{_whole(number, 2):+.2f}"
        if metrics.is_fraction(metric)
        else f"{'-' if number < 0 else '+'}{significant(abs(number), 4)}"
    )
    return f"{shown}{metrics.unit(metric)}"


def _whole(number: float, digits: int) -> float:
    """Return a number, but 0 for what would read -0.00."""
    return 0.0 if round(number, digits) == 0 else number


def _digits(estimate: Estimate, metric: str) -> int:
    """Return how many decimals to show: two digits of the interval's half width.

    Points have two decimals, or more if both would be 0. An end that is not 0 never reads 0, so that the
    words cannot contradict the verdict.
    """
    share, by = metrics.is_fraction(metric), metrics.scale(metric)
    if estimate.low is None or estimate.high is None:
        effect = estimate.effect or 0.0
        return 2 if share else _decimals(effect, 3) if abs(effect) > ROUNDING else 0
    half = by * (estimate.high - estimate.low) / 2
    digits = max(2, _decimals(half, 1)) if share else _decimals(half, 2)
    while digits < 12 and any(
        end != 0 and round(by * end, digits) == 0 for end in (estimate.low, estimate.high)
    ):
        digits += 1
    return digits


def p_words(estimate: Estimate) -> str:
    """Return p, "= 0.012" or "< 0.001"; empty where there is none.

    It is adjusted for the family of the effect.
    """
    if estimate.p is None:
        return ""
    return "< 0.001" if estimate.p < 0.001 else f"= {estimate.p:.3f}"


def counts(estimate: Estimate) -> str:
    """Return in how many seeds the change was a benefit, nothing, a harm."""
    losses = "1 loss" if estimate.losses == 1 else f"{estimate.losses} losses"
    return f"{count(estimate.wins, 'win')} / {count(estimate.ties, 'tie')} / {losses}"


def verdict(effect: Effect, findings: Findings) -> str:
    """Return the verdict of an effect in a word or two; if unstable, with the settings of its numbers."""
    scope = (
        names.where(effect.scope, findings).removeprefix(", ")
        if effect.estimate.verdict == "unstable"
        else ""
    )
    return VERDICTS[effect.kind].get(effect.estimate.verdict, effect.estimate.verdict) + (
        f" (effect {scope})" if scope else ""
    )


def verdict_words(effect: Effect, findings: Findings) -> str:
    """Return the verdict with its numbers: "helps +0.93 points [0.65, 1.21]", "undecided: about 12 ..."."""
    return _verdict(effect, findings, difference(effect.estimate, findings.metric))


def verdict_alone(effect: Effect, findings: Findings) -> str:
    """Return the same without the numbers of the effect, for a table that has them in other columns."""
    return _verdict(effect, findings, "")


def _verdict(effect: Effect, findings: Findings, numbers: str) -> str:
    match effect.estimate.verdict:
        case "unstable":
            return f"unstable: {_failed(effect, findings)}; {_survivors(effect, findings, numbers)}"
        case "undecided":
            return f"undecided: {_undecided(effect, findings)}"
    return f"{verdict(effect, findings)} {numbers}".strip()


def _failed(effect: Effect, findings: Findings) -> str:
    """Return the failed runs on both sides of a change, by reason and setting: "5 of 10 diverged, ..."."""
    counted = effect.failures
    assert counted is not None
    (before, all_before), (after, all_after) = counted.before, counted.after
    diverged, chance = (
        after - counted.at_chance,
        f"at chance level{_range(counted.chance_values, findings.metric)}",
    )
    why = "diverged" if not counted.at_chance else f"stayed {chance}"
    if diverged and counted.at_chance:
        why = f"failed ({diverged} diverged, {counted.at_chance} {chance})"
    short = short_names([factor.name for factor in findings.study.factors])
    start = effect.start if effect.kind == "cell" else names.choice(short[effect.factor], effect.start)
    place = names.where(counted.scope, findings).removeprefix(", ")
    only = "only" if counted.inside[0] == after else "more than without it only"
    inside = f", {only} {place} ({counted.inside[0]} of {counted.inside[1]} there)" if place else ""
    return f"{after} of {count(all_after, 'run')} {why}, {before} of {all_before} with {start}{inside}"


def _range(values: Sequence[float], metric: str) -> str:
    """Return the lowest and the highest of some values: ", 9.80 % to 10.20 %"; empty where there are none."""
    ends = dict.fromkeys(value(number, metric) for number in (values[0], values[-1])) if values else ()
    return f", {metric} {' to '.join(ends)}" if ends else ""


def _survivors(effect: Effect, findings: Findings, numbers: str) -> str:
    """Return what the runs that did not fail say."""
    if effect.estimate.effect is None:
        return (
            "no setting is left in which runs can be compared"
            if effect.scattered
            else "no pair of finished runs is left"
        )
    alone = replace(effect, estimate=replace(effect.estimate, verdict=effect.survivors or "undecided"))
    is_open = alone.estimate.verdict == "undecided"
    reason = (
        f" ({REASONS.get(effect.estimate.reason, effect.estimate.reason)})" if effect.estimate.reason else ""
    )
    answer = f"no verdict{reason}" if is_open else _verdict(alone, findings, numbers)
    return f"the runs that did not fail{names.where(effect.scope, findings)}: {answer}"


def _undecided(effect: Effect, findings: Findings, *, brief: bool = False) -> str:
    """Return why there is no verdict, or how many seeds would give one.

    `brief`: without their upper figures.
    """
    estimate = effect.estimate
    if estimate.reason == "no pairs":
        return (
            "no setting has its pair of runs under every seed"
            if effect.scattered
            else "no pair of finished runs"
        )
    if estimate.reason is not None or estimate.more_seeds is None:
        return REASONS.get(estimate.reason, estimate.reason) if estimate.reason else "too few runs"
    seeds = more_seeds(estimate.more_seeds, None if brief else estimate.more_seeds_high)
    as_seen = f"{seeds} if it is as large as seen"
    least, needed = findings.study.min_effect, estimate.more_seeds_min_effect
    if least is None or needed is None:
        return as_seen
    about = _about(needed, None if brief else estimate.more_seeds_min_effect_high, "")
    return f"{as_seen}, {about} to see an effect of {metrics.size(least, findings.study.metric)}"


def in_brackets(effect: Effect, findings: Findings) -> str:
    """Return the numbers behind a verdict that is named already, short, in brackets and after a space."""
    numbers = difference(effect.estimate, findings.metric)
    match effect.estimate.verdict:
        case "undecided":
            return f" ({_undecided(effect, findings, brief=True)})"
        case "unstable":
            return f" ({_failed(effect, findings)}; {_survivors(effect, findings, numbers)})"
    return f" ({numbers})"


def more_seeds(few: int, many: int | None) -> str:
    """Return how many seeds to add: "about 12 more seeds (up to 30)", "more than 1000 more seeds"."""
    return _about(few, many, f" more seed{'' if few == 1 else 's'}")


def _about(few: int, many: int | None, noun: str) -> str:
    if few > CAP:
        return f"more than {CAP}{noun}"
    about = f"about {few}{noun}"
    if many is None or many == few:
        return about
    return f"{about} (perhaps more than {CAP})" if many > CAP else f"{about} (up to {many})"


def ranked(effects: Iterable[Effect], findings: Findings) -> list[Effect]:
    """Return effects, the best first and the unknown ones last."""
    sign = 1 if findings.direction == "max" else -1
    return sorted(
        effects,
        key=lambda effect: math.inf if effect.estimate.effect is None else -sign * effect.estimate.effect,
    )


def better(findings: Findings) -> str:
    """Return which direction is better, where the sign of an effect alone would mislead; else nothing."""
    return f"lower {findings.metric} is better" if findings.direction == "min" else ""


def higher(findings: Findings) -> str:
    """Return which values of the metric are better."""
    return f"{'higher' if findings.direction == 'max' else 'lower'} is better"


def least(findings: Findings) -> str:
    """Return the smallest effect worth having; empty where the study names none for this metric."""
    smallest = findings.study.min_effect
    is_own = findings.metric == findings.study.metric
    return metrics.size(smallest, findings.metric) if smallest is not None and is_own else ""


def method(findings: Findings) -> str:
    """Return the method of the intervals: "Student's t, Sidak"."""
    return (
        "one variance for all cells, Dunnett" if findings.study.variance == "pooled" else "Student's t, Sidak"
    )


def sentences(findings: Findings) -> list[str]:
    """Return each main effect in one sentence: effect and interval first, then p and the counts."""
    return [sentence(effect, findings) for effect in findings.effects]


def sentence(effect: Effect, findings: Findings) -> str:
    """Return an effect in one sentence: "rotation 15 instead of 0: hurts -0.52 points [-0.90, -0.14] ..."."""
    estimate = effect.estimate
    said = verdict_words(effect, findings)
    numbers = difference(estimate, findings.metric)
    parts = [
        f"{names.change(effect, findings)}: {said}",
        numbers if numbers and numbers not in said else "",
        better(findings) if estimate.verdict not in ("undecided", "equivalent") else "",
        f"p (adjusted) {p_words(estimate)}" if estimate.p is not None else "",
        count(estimate.n, "seed"),
        counts(estimate) if estimate.n else "",
        *names.flags(effect),
    ]
    return ", ".join(part for part in parts if part)
