"""The answer to a study's question, in a few sentences."""

from collections.abc import Iterable, Sequence

from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.messages import count
from ablate.report import names, reasons, words

NAMED = 4  # effects named in one sentence; the others are counted


def headline(findings: Findings) -> list[str]:
    """Return the answer to the study's question in one to three sentences.

    One more names the effects that are known in some settings only.
    """
    if not any(cell.n for cell in findings.cells):
        return [reasons.nothing(findings)]
    if not findings.effects:
        return [_no_factor(findings)]
    visible = [
        effect
        for effect in findings.effects
        if effect.estimate.effect is not None or effect.estimate.verdict == "unstable"
    ]
    if not visible:
        answer = [reasons.no_pairs(findings)]
    elif all(_is_single_seed(effect) for effect in visible):
        answer = [_one_seed(visible, findings)]
    else:
        decided = (*_decided("helps", findings), *_decided("hurts", findings))
        answer = [*decided, *_others(findings), *_partly(findings)]
    if words.better(findings) and visible:
        answer[0] = f"{answer[0].removesuffix('.')} ({words.better(findings)})."
    if findings.finished < findings.total:
        answer[0] = f"So far ({findings.finished} of {findings.total} runs): {answer[0]}"
    omits = findings.study.omits
    return [*answer, f"{omits[0].upper()}{omits[1:]}."] if omits else answer


def _is_single_seed(effect: Effect) -> bool:
    return effect.estimate.reason == "one seed" and effect.estimate.verdict == "undecided"


def _no_factor(findings: Findings) -> str:
    cell = findings.cells[0]
    varied = (
        f"sd {words.spread(cell.sd, findings.metric)} over {count(cell.n, 'seed')}"
        if cell.sd is not None
        else count(cell.n, "seed")
    )
    return (
        f"No factor is varied, so there is nothing to compare: {findings.metric} is "
        f"{words.value(cell.mean, findings.metric)} ({varied})."
    )


def _one_seed(effects: Sequence[Effect], findings: Findings) -> str:
    seen = _listed(
        f"{names.change(effect, findings)} {words.difference(effect.estimate, findings.metric)}"
        for effect in _by_size(effects)
    )
    return (
        f"Undecided: one seed gives no verdict, because nothing says how much of it is chance. Seen: {seen}."
    )


def _decided(verdict_name: str, findings: Findings) -> list[str]:
    """Return what helps, or what hurts, the largest first."""
    effects = _by_size(
        effect
        for effect in findings.effects
        if effect.estimate.verdict == verdict_name and not _is_part(effect)
    )
    if not effects:
        return []
    if len(effects) == 1:
        (only,) = effects
        numbers, seeds = words.difference(only.estimate, findings.metric), count(only.estimate.n, "seed")
        return [f"{names.change(only, findings)} {verdict_name}: {numbers}, {seeds}{_but(only)}."]
    listed = _listed(f"{names.change(e, findings)}{words.in_brackets(e, findings)}{_but(e)}" for e in effects)
    return [f"{verdict_name.capitalize()}: {listed}."]


def _others(findings: Findings) -> list[str]:
    """Return in one sentence what is equivalent, undecided or unstable."""
    rest = [
        effect
        for effect in findings.effects
        if effect.estimate.verdict not in ("helps", "hurts") and not _is_part(effect)
    ]
    if len(rest) == 1:
        (only,) = rest
        return [f"{names.change(only, findings)}: {words.verdict_words(only, findings)}{_but(only)}."]
    parts = []
    for name in ("equivalent", "undecided", "unstable"):
        effects = [effect for effect in rest if effect.estimate.verdict == name]
        if effects:
            shown = (f"{names.change(e, findings)}{words.in_brackets(e, findings)}{_but(e)}" for e in effects)
            parts.append(f"{name}: {_listed(shown)}")
    joined = "; ".join(parts)
    return [f"{joined[0].upper()}{joined[1:]}."] if joined else []


def _is_part(effect: Effect) -> bool:
    """Whether an effect is known in some settings only, so that it is none of the whole factor."""
    return effect.scope is not None and effect.estimate.verdict != "unstable"


def _partly(findings: Findings) -> list[str]:
    """Return in one sentence what is known of effects whose runs are missing in some settings."""
    effects = _by_size(effect for effect in findings.effects if _is_part(effect))
    shown = (f"{names.change(e, findings)}: {words.verdict_words(e, findings)}{_but(e)}" for e in effects)
    listed = _listed(shown, "; ")
    return [f"Known in part only, because runs failed or are missing: {listed}."] if effects else []


def _but(effect: Effect) -> str:
    return f", but it depends on {' and on '.join(effect.depends_on)}" if effect.depends_on else ""


def _by_size(effects: Iterable[Effect]) -> list[Effect]:
    return sorted(effects, key=lambda effect: -abs(effect.estimate.effect or 0.0))


def _listed(parts: Iterable[str], between: str = ", ") -> str:
    """Join with commas, and count what is too much for a sentence."""
    every = list(parts)
    more = f"{between}and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return between.join(every[:NAMED]) + more
