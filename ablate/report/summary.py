"""Findings to what a terminal shows, as plain text: a table of cells and the verdicts in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.analysis.findings import CellFinding, Findings
from ablate.analysis.outcomes import NAMES, Status
from ablate.report import claims, headline, reasons, words


@dataclass(frozen=True, slots=True)
class Summary:
    """What a terminal shows at the end of a run."""

    headline: tuple[str, ...]
    counted: str  # the runs that do not count, by reason; empty where there is none
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # a cell each, the baseline first
    sentences: tuple[str, ...]  # a main effect each
    claims: tuple[str, ...]


def make(findings: Findings) -> Summary:
    """Return the findings in words for a terminal."""
    occurring = reasons.occurring(findings)
    return Summary(
        headline=tuple(headline.headline(findings)),
        counted=reasons.counted(findings),
        columns=("cell", "n", *(NAMES[status] for status in occurring), "mean", "sd", "s/epoch"),
        rows=tuple(_row(cell, occurring, findings.metric) for cell in findings.cells),
        sentences=tuple(words.sentences(findings)),
        claims=tuple(claims.sentence(claim, findings) for claim in findings.claims),
    )


def _row(cell: CellFinding, occurring: Sequence[Status], metric: str) -> tuple[str, ...]:
    return (
        cell.cell.label,
        str(cell.n),
        *(str(cell.counts.get(status, 0)) for status in occurring),
        words.value(cell.mean, metric),
        words.spread(cell.sd, metric),
        words.seconds(cell.epoch_seconds),
    )
