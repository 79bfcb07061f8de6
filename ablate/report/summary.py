"""Findings to what a terminal shows: a table of cells and the verdicts in words. Plain text; who prints it may add colour."""

from dataclasses import dataclass

from ablate.findings import CellFinding, Findings
from ablate.report import claims, words

COLUMNS = ("cell", "n", "failed", "missing", "mean", "sd", "s/epoch")


@dataclass(frozen=True, slots=True)
class Summary:
    """What the end of a run says."""

    headline: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # a cell each, the baseline first
    sentences: tuple[str, ...]  # a main effect each
    claims: tuple[str, ...]


def make(findings: Findings) -> Summary:
    """Word the findings for a terminal."""
    return Summary(
        headline=tuple(words.headline(findings)),
        columns=COLUMNS,
        rows=tuple(_row(cell, findings.metric) for cell in findings.cells),
        sentences=tuple(words.sentences(findings)),
        claims=tuple(claims.sentence(claim, findings) for claim in findings.claims),
    )


def _row(found: CellFinding, metric: str) -> tuple[str, ...]:
    return (
        found.cell.label, str(found.n), str(found.failed), str(found.missing), words.value(found.mean, metric),
        words.spread(found.sd, metric), words.seconds(found.epoch_seconds),
    )  # fmt: skip
