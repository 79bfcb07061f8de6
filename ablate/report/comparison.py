"""Two things side by side: two studies by the effects of the same changes, or two cells of one by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.analysis.effects import Effect
from ablate.analysis.findings import CellFinding, Findings
from ablate.messages import count
from ablate.report import names, reasons, words


@dataclass(frozen=True, slots=True)
class Told:
    """An effect, by the names that the report's JSON has for it."""

    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    verdict: str
    condition: str | None  # the settings, where it is not known in all
    words: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change that one of two studies has made, or both."""

    change: str  # in words
    factor: str
    from_: str
    to: str
    effects: tuple[Told | None, Told | None]  # in the first study, and in the second
    same_verdict: str  # yes, no, or why it is neither


@dataclass(frozen=True, slots=True)
class Studies:
    """The main effects of two studies."""

    studies: tuple[str, str]
    metrics: tuple[str, str]
    changes: tuple[Change, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seed:
    """Two cells under one seed; none where a run does not count."""

    seed: int
    values: tuple[float | None, float | None]
    difference: float | None  # the second less the first


@dataclass(frozen=True, slots=True)
class Cells:
    """Two cells of a study, seed by seed."""

    study: str
    metric: str
    cells: tuple[str, str]
    seeds: tuple[Seed, ...]
    effect: Told
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A small table, what it comes to in a sentence, and the numbers behind it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    values: Studies | Cells


def of_studies(one: Findings, other: Findings) -> Comparison:
    """Return the main effects of two studies side by side; what only one of them has stands beside a dash."""
    by_change = [{_key(effect): effect for effect in findings.effects} for findings in (one, other)]
    keys = list(dict.fromkeys([*by_change[0], *by_change[1]]))
    rows, changes = [], []
    for key in keys:
        pair = [effects.get(key) for effects in by_change]
        owner = one if pair[0] is not None else other
        named = pair[0] or pair[1]
        assert named is not None
        verdicts = [_told(effect, findings) for effect, findings in zip(pair, (one, other), strict=True)]
        rows.append((names.whole(named, owner), *verdicts, _agreement(pair)))
        first = None if pair[0] is None else _numbers(pair[0], one)
        second = None if pair[1] is None else _numbers(pair[1], other)
        changes.append(Change(names.whole(named, owner), *key, (first, second), _agreement(pair)))
    shared = sum(key in by_change[0] and key in by_change[1] for key in keys)
    sentence = f"{count(shared, 'change')} in both studies, {len(keys) - shared} in one of them only"
    metrics = (one.metric, other.metric)
    differing = () if one.metric == other.metric else (f"the metrics differ: {' and '.join(metrics)}",)
    titles, sentences = (one.study.name, other.study.name), (sentence, *differing)
    values = Studies(titles, metrics, tuple(changes), sentences)
    return Comparison(("change", *titles, "same verdict"), tuple(rows), sentences, values)


def _key(effect: Effect) -> tuple[str, str, str]:
    return effect.factor, effect.start, effect.end


def _told(effect: Effect | None, findings: Findings) -> str:
    """Return the verdict with its numbers, of an undecided effect too, and the settings that they are of."""
    if effect is None:
        return "-"
    numbers = words.difference(effect.estimate, findings.metric)
    scope = "" if effect.estimate.verdict == "unstable" else names.where(effect.scope, findings)
    verdict = words.verdict_words(effect, findings) + scope
    return verdict if not numbers or numbers in verdict else f"{verdict}; {numbers}"


def _numbers(effect: Effect, findings: Findings) -> Told:
    estimate, condition = effect.estimate, names.where(effect.scope, findings).removeprefix(", ") or None
    return Told(
        estimate.effect, estimate.low, estimate.high, estimate.p, estimate.n, estimate.verdict, condition,
        _told(effect, findings),
    )  # fmt: skip


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
    """Return two cells side by side, seed by seed; `effect`: of going from the first to the second."""
    metric = findings.metric
    rows, seeds = [], []
    for seed in findings.study.seeds:
        seeds.append(Seed(seed, (one.values.get(seed), other.values.get(seed)), effect.per_seed.get(seed)))
        values = [_value(cell, seed, metric) for cell in (one, other)]
        change = effect.per_seed.get(seed)
        moved = "-" if change is None else words.moved(change, metric)
        rows.append((f"seed {seed}", *values, moved))
    both = [seed for seed in findings.study.seeds if seed in effect.per_seed]  # the difference is of these
    means = [sum(cell.values[seed] for seed in both) / len(both) if both else None for cell in (one, other)]
    of = "mean" if len(both) in (0, len(findings.study.seeds)) else f"mean of {count(len(both), 'seed')}"
    difference = words.difference(effect.estimate, metric) or "-"
    rows.append((of, *(words.value(mean, metric) for mean in means), difference))
    labels = (one.cell.label, other.cell.label)
    sentence = f"{labels[1]} instead of {labels[0]}: {_told(effect, findings)}"
    others = len(findings.cells) - 1
    every = f"the report's hold together for all {others} cells against the baseline, and are wider"
    alone = f"this interval is that of a single comparison, these two cells; {every}"
    sentences = (sentence, alone) if others > 1 else (sentence,)
    numbers = Cells(findings.study.name, metric, labels, tuple(seeds), _numbers(effect, findings), sentences)
    return Comparison((metric, *labels, "difference"), tuple(rows), sentences, numbers)


def _value(cell: CellFinding, seed: int, metric: str) -> str:
    """Return the value of a cell under a seed, or why it has none."""
    if seed not in cell.values:
        return reasons.of_seed(cell, seed, metric)
    return words.value(cell.values[seed], metric)
