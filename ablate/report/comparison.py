"""Two things side by side: what two studies say of the same changes, or two cells of one study seed by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.analysis.effects import Effect
from ablate.analysis.findings import CellFinding, Findings
from ablate.messages import count
from ablate.report import names, reasons, words


@dataclass(frozen=True, slots=True)
class Comparison:
    """A small table, and what it comes to in a sentence."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def of_studies(one: Findings, other: Findings) -> Comparison:
    """Put the main effects of two studies side by side; what only one of them has stands beside a dash."""
    found = [{_key(effect): effect for effect in findings.effects} for findings in (one, other)]
    keys = list(dict.fromkeys([*found[0], *found[1]]))
    rows = []
    for key in keys:
        pair = [effects.get(key) for effects in found]
        owner = one if pair[0] is not None else other
        named = pair[0] or pair[1]
        assert named is not None
        told = [_told(effect, findings) for effect, findings in zip(pair, (one, other), strict=True)]
        rows.append((names.whole(named, owner), *told, _agreement(pair)))
    shared = sum(key in found[0] and key in found[1] for key in keys)
    sentence = f"{count(shared, 'change')} in both studies, {len(keys) - shared} in one of them only"
    differing = () if one.metric == other.metric else (f"the metrics differ: {one.metric} and {other.metric}",)
    return Comparison(("change", one.study.name, other.study.name, "same verdict"), tuple(rows), (sentence, *differing))


def _key(effect: Effect) -> tuple[str, str, str]:
    return effect.factor, effect.start, effect.end


def _told(effect: Effect | None, findings: Findings) -> str:
    """Write the verdict with its numbers, of an undecided effect, too, and with the settings that they are of."""
    if effect is None:
        return "-"
    numbers = words.difference(effect.estimate, findings.metric)
    scope = "" if effect.estimate.verdict == "unstable" else names.where(effect.scope, findings)
    said = words.verdict_words(effect, findings) + scope
    return said if not numbers or numbers in said else f"{said}; {numbers}"


def _agreement(pair: Sequence[Effect | None]) -> str:
    one, other = pair
    if one is None or other is None:
        return "-"
    if one.scope != other.scope:
        return "not the same effect"  # one of them is known in some settings only
    if one.estimate.verdict == other.estimate.verdict == "undecided":
        return "neither is decided"
    return "yes" if one.estimate.verdict == other.estimate.verdict else "no"


def of_cells(findings: Findings, one: CellFinding, other: CellFinding, effect: Effect) -> Comparison:
    """Put two cells side by side, seed by seed; `effect` is that of going from the first to the second."""
    metric = findings.metric
    rows = []
    for seed in findings.study.seeds:
        values = [
            words.value(found.values[seed], metric) if seed in found.values else reasons.of_seed(found, seed, metric)
            for found in (one, other)
        ]
        change = effect.per_seed.get(seed)
        moved = "-" if change is None else words.moved(change, metric)
        rows.append((f"seed {seed}", *values, moved))
    both = [seed for seed in findings.study.seeds if seed in effect.per_seed]  # the difference is one of these alone
    means = [sum(found.values[seed] for seed in both) / len(both) if both else None for found in (one, other)]
    of = "mean" if len(both) in (0, len(findings.study.seeds)) else f"mean of {count(len(both), 'seed')}"
    rows.append((of, *(words.value(mean, metric) for mean in means), words.difference(effect.estimate, metric) or "-"))
    labels = (one.cell.label, other.cell.label)
    sentence = f"{labels[1]} instead of {labels[0]}: {_told(effect, findings)}"
    others = len(findings.cells) - 1
    every = f"the report's hold together for all {others} cells against the baseline, and are wider"
    alone = f"this interval is that of a single comparison, these two cells; {every}"
    return Comparison((metric, *labels, "difference"), tuple(rows), (sentence, alone) if others > 1 else (sentence,))
