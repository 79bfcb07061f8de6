"""`ablate report`, `check` and `compare`: what the store has to findings and pages."""

from typing import TYPE_CHECKING

from ablate.errors import AblateError
from ablate.execution.options import Where
from ablate.planning.resolve import Resolved, resolve
from ablate.study.file import Study
from ablate.study.grid import Grid

if TYPE_CHECKING:  # these bring pandas, which `status` and `plan` can do without
    from ablate.analysis.findings import Findings
    from ablate.report.comparison import Comparison


def report(
    study: Study, where: Where, metric: str | None = None, cells: tuple[str, ...] = (), *, whole: bool = True
) -> "Findings":
    """Return the findings of a study from its store; `cells`: labels of cells that are shown from inside.

    Unless `whole`, without what no effect or claim rests on: curves, origins, tuning, networks.
    """
    from ablate.messages import unknown
    from ablate.recipe import metrics

    if metric is not None and metric != study.metric and metrics.direction(metric) is None:
        raise AblateError(f"--metric: {unknown(metric, 'a known metric', metrics.METRICS)}")
    resolved = resolve(study, where.store, where.device)
    check_cells(resolved.grid, cells)
    return find(resolved, metric, cells, whole=whole)


def check_cells(expanded: Grid, labels: tuple[str, ...]) -> None:
    """Raise an AblateError for a label that is no cell of the study."""
    from ablate.messages import unknown

    own = [cell.label for cell in expanded.cells]
    for label in labels:
        if label not in own:
            raise AblateError(f"--cell: {unknown(label, 'a cell of this study', own)}")


def compare(
    studies: tuple[Study, ...], cells: tuple[str, ...], where: Where, metric: str | None = None
) -> "Comparison":
    """Put two studies, or two cells of one, side by side; raise an AblateError where there are not two."""
    from ablate.report import comparison

    findings = [report(study, where, metric) for study in studies]
    if len(findings) == 2 and not cells:
        return comparison.of_studies(*findings)
    if len(findings) != 1 or len(cells) != 2 or cells[0] == cells[1]:
        raise AblateError(
            "compare needs two studies, or one study and two different cells: --cell LABEL --cell LABEL"
        )
    return _compare_cells(studies[0], findings[0], cells, where)


def _compare_cells(study: Study, findings: "Findings", labels: tuple[str, ...], where: Where) -> "Comparison":
    from ablate.analysis import effects, metric_table
    from ablate.analysis import outcomes as run_outcomes
    from ablate.report import comparison

    resolved = resolve(study, where.store, where.device)
    check_cells(resolved.grid, labels)
    outcomes = run_outcomes.read(resolved.runs, where.store)
    table = metric_table.tabulate(study, resolved.grid, outcomes, findings.metric, findings.direction)
    by_label = {cell.cell.label: cell for cell in findings.cells}
    first, second = (by_label[label] for label in labels)
    return comparison.of_cells(findings, first, second, effects.between(table, first.cell, second.cell))


def find(
    resolved: Resolved, metric: str | None = None, cells: tuple[str, ...] = (), *, whole: bool = True
) -> "Findings":
    """Read the runs of a resolved study, and compute what they say; for `whole` see `report`."""
    from ablate.analysis import findings, model_summary
    from ablate.analysis import outcomes as run_outcomes
    from ablate.analysis import tuning as tuning_findings

    study, store = resolved.study, resolved.store
    outcomes = run_outcomes.read(resolved.runs, store, whole=whole)
    history = tuning_findings.read(study, resolved.tuning, store) if whole else None
    summaries = model_summary.read(outcomes, store) if whole else ()
    return findings.find(
        study, resolved.grid, outcomes, metric=metric, looked_into=cells, tuning=history, summaries=summaries
    )
