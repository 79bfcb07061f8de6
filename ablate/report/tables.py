"""Findings to the tables of the page: every number that a picture shows, and the rest. Plain text; the template escapes it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.analysis.answers import ClaimFinding
from ablate.analysis.effects import Effect
from ablate.analysis.findings import CellFinding, Curve, Findings
from ablate.analysis.outcomes import NAMES
from ablate.recipe import identity, metrics
from ablate.report import claims as answers
from ablate.report import names, reasons, words

MOST_ROWS = 500  # of one table: a browser stays quick, and `ablate report --format json` has all of them
WRITTEN = 12  # classes up to which a confusion matrix has its numbers in it: all of them stand in the table, too
MOST_CONFUSIONS = 15  # else
MOST_EPOCHS = 40  # of one training in the table of curves

WIDE = "so few seeds say nothing about single classes, and only the means are shown"
"""Why the interval of a class is not shown: it has all that the accuracy of a class can change by."""

Kind = Literal["text", "head", "number", "value", "verdict"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict: the key that colours it and its words."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A name, and what is to be said of it in passing."""

    text: str
    note: str = ""


Cell = str | Mark | Label


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the template draws it."""

    name: str  # its id on the page
    caption: str
    columns: tuple[tuple[str, Kind], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def table(name: str, caption: str, columns: Sequence[tuple[str, Kind]], rows: Iterable[tuple[Cell, ...]]) -> Table:
    """Make a table of the rows that a browser can take, and say so where there are more."""
    every = tuple(rows)
    note = f"The first {MOST_ROWS} of {len(every):,} rows; `ablate report --format json` has all of them." if len(every) > MOST_ROWS else ""
    return Table(name, caption, tuple(columns), every[:MOST_ROWS], note)


def _in(metric: str, *, share: str = "points") -> str:
    """Name the unit for the head of a column."""
    return f", {share}" if metrics.is_fraction(metric) else ""


def effects(name: str, caption: str, found: Iterable[Effect], findings: Findings) -> Table:
    """Lay out effects, the best first: effect and interval first, p last."""
    unit = _in(findings.metric)
    columns: list[tuple[str, Kind]] = [
        ("change", "head"), (f"effect{unit}", "number"), (f"interval{unit}", "number"), ("verdict", "verdict"), ("seeds", "number"),
        ("wins / ties / losses", "number"), ("p (adjusted)", "number"), ("flags", "text"),
    ]  # fmt: skip
    return table(name, caption, columns, (_effect(effect, findings) for effect in words.ranked(found, findings)))


def _effect(effect: Effect, findings: Findings) -> tuple[Cell, ...]:
    estimate = effect.estimate
    return (
        names.change(effect, findings),
        words.effect_words(estimate, findings.metric) or "-",
        words.interval_words(estimate, findings.metric) or "-",
        Mark(estimate.verdict, words.verdict_alone(effect, findings)),
        str(estimate.n),
        f"{estimate.wins} / {estimate.ties} / {estimate.losses}",
        words.p_words(estimate).removeprefix("= ") or "-",
        ", ".join(names.flags(effect)),
    )


def claims(findings: Findings) -> Table:
    """Lay out what was claimed and what the data say of it."""
    columns: list[tuple[str, Kind]] = [
        ("claim", "head"), ("verdict", "verdict"), ("expected", "text"), ("effect of the first level against the second", "value"),
        ("source", "text"),
    ]  # fmt: skip
    rows = ((found.claim.text, Mark(found.verdict.replace(" ", "-"), found.verdict), found.claim.expect, _answer(found, findings),
             found.claim.source) for found in findings.claims)  # fmt: skip
    return table("claims-table", "What somebody says, and what these runs say of it", columns, rows)


def _answer(found: ClaimFinding, findings: Findings) -> str:
    """Write the effect of a claim, and what is to be said of it."""
    noted = "; ".join(answers.notes(found, findings))
    return (answers.numbers(found, findings) or "-") + (f" ({noted})" if noted else "")


def cells(findings: Findings) -> Table:
    """Lay out every cell with its value under every seed."""
    metric = findings.metric
    seeds: list[tuple[str, Kind]] = [(f"seed\N{NO-BREAK SPACE}{seed}", "number") for seed in findings.study.seeds]
    tuned: list[tuple[str, Kind]] = [("tuned", "text")] if findings.tuning is not None else []
    columns: list[tuple[str, Kind]] = [
        ("#", "number"), ("cell", "head"), (f"mean{_in(metric, share='%')}", "number"), (f"sd{_in(metric)}", "number"), ("n", "number"),
        *((NAMES[status], "number") for status in reasons.occurring(findings)), *seeds, ("s/epoch", "number"), *tuned,
    ]  # fmt: skip
    trained: dict[str, str] = {}
    rows = []
    for number, found in enumerate(findings.cells, 1):
        # Cells that differ in their evaluation only share their trainings: the first of them is the one that has them.
        owner = trained.setdefault(identity.digest(identity.canonical(found.cell.recipe, evaluation=False)), found.cell.label)
        rows.append((str(number), *_cell(found, owner, findings)))
    return table("cells-table", f"{metric} of every cell: mean and standard deviation over seeds, and each seed", columns, rows)


def _cell(found: CellFinding, owner: str, findings: Findings) -> tuple[Cell, ...]:
    metric = findings.metric
    values = [
        words.bare(found.values[seed], metric) if seed in found.values else reasons.of_seed(found, seed, metric)
        for seed in findings.study.seeds
    ]
    shares = found.shares_training and owner != found.cell.label
    return (
        Label(found.cell.label, f"shares the training of {owner}" if shares else ""),
        words.bare(found.mean, metric),
        words.spread(found.sd, metric),
        str(found.n),
        *(str(found.counts.get(status, 0)) for status in reasons.occurring(findings)),
        *values,
        words.seconds(found.epoch_seconds),
        *((words.tuned(found.cell),) if findings.tuning is not None else ()),
    )


def curves(findings: Findings, labels: Sequence[str]) -> Table:
    """Lay out the curves that are drawn: mean [lowest, highest seed], an epoch a row, thinned where there are many."""
    shown = list(dict.fromkeys(curve.metric for curve in findings.curves))
    columns: list[tuple[str, Kind]] = [
        ("training", "head"), ("epoch", "number"), *((f"{metric}{_in(metric, share='%')}", "number") for metric in shown)
    ]  # fmt: skip
    found = {(curve.label, curve.metric): curve for curve in findings.curves}
    rows: list[tuple[str, ...]] = []
    step = 1
    for label in labels:
        own = {metric: _points(found[label, metric]) for metric in shown if (label, metric) in found}
        epochs = sorted({epoch for points in own.values() for epoch in points})
        step = max(step, -(-len(epochs) // MOST_EPOCHS))
        kept = [epoch for i, epoch in enumerate(reversed(epochs)) if i % step == 0]  # from the last one back
        rows += [(label, str(epoch), *(own.get(metric, {}).get(epoch, "-") for metric in shown)) for epoch in reversed(kept)]
    every = f", every {step} epochs" if step > 1 else ""
    return table("curves-table", f"Learning curves: mean [lowest, highest seed]{every}", columns, rows)


def _points(curve: Curve) -> dict[int, str]:
    ends = zip(curve.epochs, curve.mean, curve.low, curve.high, strict=True)
    return {
        epoch: f"{words.bare(mean, curve.metric)} [{words.bare(low, curve.metric)}, {words.bare(high, curve.metric)}]"
        for epoch, mean, low, high in ends
    }


def class_effects(findings: Findings) -> Table:
    """Lay out what each change does to the accuracy on each class."""
    columns: list[tuple[str, Kind]] = [
        ("change", "head"), ("class", "text"), ("effect, points", "number"), ("interval, points", "number"), ("verdict", "text"),
        ("seeds", "number"),
    ]  # fmt: skip
    rows = (
        (
            names.change(one.effect, findings),
            one.name,
            words.effect_words(one.effect.estimate, metrics.PER_CLASS) or "-",
            "-" if one.effect.says_nothing else words.interval_words(one.effect.estimate, metrics.PER_CLASS) or "-",
            words.verdict(one.effect, findings),
            str(one.effect.estimate.n),
        )
        for one in findings.class_effects
    )
    wide = any(one.effect.says_nothing for one in findings.class_effects)
    caption = "Accuracy on each class: what each change does to it, the most moved classes first"
    return table("classes-table", caption + (f". Where a class has no interval, {WIDE}" if wide else ""), columns, rows)


def confusions(findings: Findings) -> Table:
    """Lay out the mistakes of the cells that are shown from inside, the commonest first, and then what was right."""
    columns: list[tuple[str, Kind]] = [("cell", "head"), ("true class", "text"), ("taken for", "text"), ("of its images, %", "number")]
    rows: list[tuple[Cell, ...]] = []
    for one in findings.details:
        pairs = [(share, i, j) for i, row in enumerate(one.confusion) for j, share in enumerate(row) if i != j and share > 0]
        best = sorted(pairs, key=lambda pair: -pair[0])
        if len(one.classes) > WRITTEN:
            best = best[:MOST_CONFUSIONS]
        else:
            best += [(row[i], i, i) for i, row in enumerate(one.confusion)]
        rows += [(one.label, one.classes[i], one.classes[j], f"{100 * share:.2f}") for share, i, j in best]
    many = any(len(one.classes) > WRITTEN for one in findings.details)
    caption = f"The {MOST_CONFUSIONS} commonest mistakes" if many else "The mistakes, the commonest first, and the right answers"
    return table("confusion-table", f"{caption}, mean over seeds", columns, rows)


def calibrations(findings: Findings) -> Table:
    """Lay out confidence against accuracy, bin by bin."""
    columns: list[tuple[str, Kind]] = [("cell", "head"), ("answers", "number"), ("mean confidence, %", "number"), ("right, %", "number")]
    rows = ((d.label, f"{n:,}", f"{100 * c:.1f}", f"{100 * a:.1f}") for d in findings.details for n, c, a in d.calibration)
    return table("calibration-table", "Confidence and accuracy of the test answers of all seeds, in 15 equal bins", columns, rows)


def interplay(findings: Findings) -> Table:
    """Lay out the means that the lines of the strongest interaction go through."""
    found = findings.interplay
    if found is None:
        return table("interplay-table", "", [("", "head")], ())
    columns: list[tuple[str, Kind]] = [(found.factors[0], "head"), *((f"{found.factors[1]} {b}", "number") for b in found.levels[1])]
    rows = ((a, *(words.bare(found.means.get((a, b)), findings.metric) for b in found.levels[1])) for a in found.levels[0])
    uneven = "; runs are missing, so that the means are not over the same seeds and settings" if found.uneven else ""
    caption = f"Mean {findings.metric}{_in(findings.metric, share='%')} at the levels of the strongest interaction{uneven}"
    return table("interplay-table", caption, columns, rows)


def failures(findings: Findings) -> Table:
    """Lay out the runs without a value that counts, why, and where their log is."""
    columns: list[tuple[str, Kind]] = [("run", "head"), ("what became of it", "text"), ("reason", "text"), ("log", "text")]
    rows = ((failure.run, NAMES[failure.status], failure.reason or "-", failure.log or "-") for failure in findings.failures)
    return table("failures-table", "Runs without a value that counts", columns, rows)


def provenance(findings: Findings) -> Table:
    """Lay out the different values that every fact about the runs' environments has."""
    columns: list[tuple[str, Kind]] = [("what", "head"), ("value", "text")]
    rows = [(name, ", ".join(values)) for name, values in _facts(findings).items()]
    rows += [("data fingerprint", fingerprint) for fingerprint in findings.data]
    return table("provenance-table", "What these results came from", columns, rows)


def mixed(findings: Findings) -> list[str]:
    """List the versions, devices and commits that differ between runs: a difference between cells may be theirs."""
    facts = _facts(findings)
    telling = [name for name in facts if name.startswith("versions ") or name in ("machine device", "machine processor", "git commit")]
    return [f"{name}: {', '.join(facts[name])}" for name in telling if len(facts[name]) > 1]


def _facts(findings: Findings) -> dict[str, list[str]]:
    """Collect `section name` to the different values; a diff is too long, the fingerprint of the data stands apart."""
    facts: dict[str, dict[str, None]] = {}
    for environment in findings.environments:
        for section, content in environment.items():
            inner: dict[str, Any] = content if isinstance(content, dict) else {"": content}
            for key, value in inner.items():
                if key != "diff" and section != "data":
                    facts.setdefault(f"{section} {key}".strip(), {}).setdefault(_fact(key, value))
    return {name: list(values) for name, values in facts.items()}


def _fact(key: str, value: object) -> str:
    if key == "dirty":
        return "yes: there were uncommitted changes" if value else "no"
    return str(value)
