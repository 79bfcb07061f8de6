"""Train and test side by side: accuracy, loss, precision, recall and F1 of every cell, and the gap."""

from ablate.analysis.findings import SCORES, CellFinding, Findings
from ablate.recipe import metrics
from ablate.report import words
from ablate.report.section import Section, shown
from ablate.report.tables import Column, Table, in_unit, table

SHORT = {
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "test/precision": "precision",
    "test/recall": "recall",
    "test/f1": "F1",
    "fit/accuracy": "train accuracy",
    "fit/loss": "train loss",
    "gap/accuracy": "gap",
    "model/parameters": "parameters",
}
CAPTION = "Means over the finished runs of each cell; precision, recall and F1 are means over the classes"
FIT = (
    "; train is what the network was trained on, evaluated as the test images are, and the gap is what they "
    "lack of it"
)


def section(findings: Findings) -> Section:
    """Return what is known of every network, whatever the study compares."""
    data = [
        {"cell": cell.cell.label, **{name: cell.scores.get(name) for name in SCORES}}
        for cell in findings.cells
    ]
    return Section("scores-title", "Train and test", shown(scores_table(findings)), {"scores": data})


def scores_table(findings: Findings) -> Table:
    """Return a table of the metrics that any cell has; without rows where none has any."""
    names = [name for name in SHORT if any(name in cell.scores for cell in findings.cells)]
    columns: list[Column] = [("cell", "head")]
    columns += [
        (f"{SHORT[name]}{in_unit(name, share='points' if name.startswith('gap/') else '%')}", "number")
        for name in names
    ]
    rows = [
        (cell.cell.label, *(_number(cell, name) for name in names)) for cell in findings.cells if cell.scores
    ]
    return table("scores-table", CAPTION + (FIT if "fit/accuracy" in names else ""), columns, rows)


def _number(cell: CellFinding, name: str) -> str:
    value = cell.scores.get(name)
    if value is None:
        return "-"
    return f"{value:,.0f}" if metrics.plain_unit(name) == "1" else words.bare(value, name)
