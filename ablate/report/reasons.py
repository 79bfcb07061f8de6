"""Why runs have no value that counts, one word a reason, and what to do where nothing can be compared."""

import math
from collections.abc import Iterable, Sequence

from ablate.analysis.findings import CellFinding, Findings, ImageCount
from ablate.analysis.outcomes import NAMES, Status
from ablate.messages import count
from ablate.recipe import metrics

ORDER: tuple[Status, ...] = ("at_chance", "diverged", "crashed", "stopped", "running", "not_run")
LISTED = 4  # values listed one by one


def occurring(findings: Findings) -> list[Status]:
    """Return the reasons that some run of the study has: each is a column of the table of cells."""
    return [status for status in ORDER if _count(findings.cells, status)]


def counted(findings: Findings) -> str:
    """Return the number of uncounted runs, by reason: "4 at chance level (10.0 %; chance 10.0 %), 1 crashed".

    Empty where there is none.
    """
    return ", ".join(_counted(findings.cells, status, findings) for status in occurring(findings))


def _count(cells: Iterable[CellFinding], status: Status) -> int:
    return sum(cell.counts.get(status, 0) for cell in cells)


def _counted(cells: Iterable[CellFinding], status: Status, findings: Findings) -> str:
    own = list(cells)
    said = f"{_count(own, status):,} {'at chance level' if status == 'at_chance' else NAMES[status]}"
    told = at_chance(own, findings) if status == "at_chance" else ""
    return f"{said} ({told})" if told else said


def at_chance(cells: Iterable[CellFinding], findings: Findings) -> str:
    """Return the values of the runs at chance level, and what chance is: "34.2, 35.4 %; chance 33.3 %"."""
    values = sorted(value for cell in cells for value in cell.at_chance.values())
    told = list(dict.fromkeys(_short(value, findings.metric) for value in values))
    if not told:
        return ""
    unit = " %" if metrics.is_fraction(findings.metric) else ""
    listed = f"{', '.join(told)}{unit}" if len(told) <= LISTED else f"{told[0]} to {told[-1]}{unit}"
    named = listed if findings.metric == "test/accuracy" else f"{findings.metric} {listed}"
    if findings.images and findings.metric == "test/accuracy":
        return f"{named}; {_chance(findings.images)}"
    return named


def _chance(images: ImageCount) -> str:
    if images.is_balanced:
        return f"chance {_short(1 / images.classes, 'test/accuracy')} %"
    share = _short(images.largest_class / images.count, "test/accuracy")
    return f"always naming the largest class gives {share} %"


def _short(number: float, metric: str) -> str:
    return f"{100 * number:.1f}" if metrics.is_fraction(metric) else f"{number:.4g}"


def nothing(findings: Findings) -> str:
    """Return why no cell has a value of the metric."""
    runs = f"{findings.total:,} run{'' if findings.total == 1 else 's'}"
    if findings.finished == 0:
        told = [
            _counted(findings.cells, status, findings)
            for status in ("crashed", "stopped")
            if _count(findings.cells, status)
        ]
        return f"Nothing is finished yet: 0 of {runs}{', and ' if told else ''}{', '.join(told)}."
    told = [_counted(findings.cells, status, findings) for status in occurring(findings)]
    done = _count(findings.cells, "finished")
    if done:
        told.insert(0, f"{done:,} finished without it")
    said = (
        f"No run has a value of {findings.metric} that counts, so nothing can be compared: of {runs}, "
        f"{', '.join(told)}."
    )
    advice = _either(_advice(findings.cells))
    return f"{said} {advice[0].upper()}{advice[1:]}." if advice else said


def no_pairs(findings: Findings) -> str:
    """Return why no change has an effect: its baseline has no value, or no two runs are a pair."""
    baseline, *others = findings.cells
    if any(effect.scattered for effect in findings.effects):
        said = (
            "No effect can be said yet: no setting of the other factors has its pair of finished runs "
            "under every seed"
        )
    elif baseline.n:
        said = "No effect can be said yet: no two finished runs differ in one factor only under the same seed"
    else:
        return _no_baseline(baseline, others, findings)
    advice = _either(_advice(findings.cells))
    uncounted = f" ({counted(findings)}){f': {advice}' if advice else ''}" if counted(findings) else ""
    return f"{said}{uncounted}."


def _no_baseline(baseline: CellFinding, others: Sequence[CellFinding], findings: Findings) -> str:
    """Return why the baseline has no value, and list the best of the other cells."""
    became = [_baseline(baseline, status, findings) for status in ORDER if baseline.counts.get(status)]
    done = baseline.counts.get("finished", 0)
    told = ", and ".join(
        [*([f"has no value of {findings.metric} in {count(done, 'finished run')}"] if done else []), *became]
    )
    advice = _either([*_advice([baseline]), *(["take a baseline that learns"] if baseline.failed else [])])
    what = f": {advice}" if advice else ""
    sign = 1 if findings.direction == "max" else -1
    trained = [cell for cell in others if cell.mean is not None]
    ranked = sorted(trained, key=lambda cell: -sign * (cell.mean or 0.0))
    unit = " %" if metrics.is_fraction(findings.metric) else ""
    listed = ", ".join(
        f"{cell.cell.label} {_short(cell.mean or 0.0, findings.metric)}{unit}" for cell in ranked[:LISTED]
    )
    rest = f", and {len(ranked) - LISTED} more" if len(ranked) > LISTED else ""
    others_listed = f" The others: {listed}{rest}." if listed else ""
    return f"The baseline {told}, so nothing can be compared with it{what}.{others_listed}"


def _baseline(cell: CellFinding, status: Status, findings: Findings) -> str:
    verbs = {
        "at_chance": "stayed at chance level", "diverged": "diverged", "crashed": "crashed",
        "stopped": "was stopped", "running": "is running", "not_run": "was not run",
    }  # fmt: skip
    told = f" ({at_chance([cell], findings)})" if status == "at_chance" and cell.at_chance else ""
    total = sum(cell.counts.values())
    return f"{verbs[status]} in {cell.counts[status]} of {total} run{'' if total == 1 else 's'}{told}"


def _either(options: Sequence[str]) -> str:
    """Join what one may do: "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, [", ".join(options[:-1]), *options[-1:]]))


def _advice(cells: Iterable[CellFinding]) -> list[str]:
    """Return what can be done about the reasons that some cells have."""
    own = list(cells)
    if _count(own, "at_chance"):
        return ["train longer", "try another learning rate (ablate lr-find)"]
    if _count(own, "diverged"):
        return ["try a lower learning rate (ablate lr-find)"]
    if _count(own, "crashed"):
        return ["see the logs that ablate status names, and try again with ablate run --retry-failed"]
    return ["go on with ablate run"] if _count(own, "stopped") or _count(own, "not_run") else []


def of_seed(cell: CellFinding, seed: int, metric: str) -> str:
    """Return what a seed has in place of a value that counts: "34.20 (at chance)", "crashed", "-"."""
    status = cell.statuses.get(seed)
    if status is None or status == "finished":
        return "-"
    value = cell.at_chance.get(seed, math.nan)
    if not math.isfinite(value):
        return NAMES[status]
    shown = f"{100 * value:.2f}" if metrics.is_fraction(metric) else f"{value:.4g}"
    return f"{shown} ({NAMES[status]})"
