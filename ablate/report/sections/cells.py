"""Every cell, with its value under every seed."""

from ablate.analysis.findings import CellFinding, Findings
from ablate.analysis.outcomes import NAMES
from ablate.recipe import identity, metrics
from ablate.report import reasons, words
from ablate.report.section import Section, Sheet, shown
from ablate.report.tables import Cell, Column, Label, Table, in_unit, table
from ablate.store.files import Json


def section(findings: Findings) -> Section:
    """Return the cells of a study."""
    data = {"cells": [_data(cell) for cell in findings.cells]}
    return Section("cells", "Cells", shown(cells_table(findings)), data, (_sheet(findings),))


def cells_table(findings: Findings) -> Table:
    """Return a table of every cell with its value under every seed."""
    metric = findings.metric
    columns: list[Column] = [
        ("#", "number"), ("cell", "head"), (f"mean{in_unit(metric, share='%')}", "number"),
        (f"sd{in_unit(metric)}", "number"), ("n", "number"),
        *((NAMES[status], "number") for status in reasons.occurring(findings)),
        *((f"seed\N{NO-BREAK SPACE}{seed}", "number") for seed in findings.study.seeds),
        ("s/epoch", "number"),
    ]  # fmt: skip
    if findings.tuning is not None:
        columns.append(("tuned", "text"))
    trained: dict[str, str] = {}
    rows = []
    for number, cell in enumerate(findings.cells, 1):
        # Cells that differ in their evaluation only share their trainings: the first of them has them.
        training = identity.digest(identity.canonical(cell.cell.recipe, evaluation=False))
        rows.append((str(number), *_cells(cell, trained.setdefault(training, cell.cell.label), findings)))
    caption = f"{metric} of every cell: mean and standard deviation over seeds, and each seed"
    return table("cells-table", caption, columns, rows)


def _cells(cell: CellFinding, owner: str, findings: Findings) -> tuple[Cell, ...]:
    metric = findings.metric
    values = [
        words.bare(cell.values[seed], metric) if seed in cell.values else reasons.of_seed(cell, seed, metric)
        for seed in findings.study.seeds
    ]
    shares = cell.shares_training and owner != cell.cell.label
    return (
        Label(cell.cell.label, f"shares the training of {owner}" if shares else ""),
        words.bare(cell.mean, metric),
        words.spread(cell.sd, metric),
        str(cell.n),
        *(str(cell.counts.get(status, 0)) for status in reasons.occurring(findings)),
        *values,
        words.seconds(cell.epoch_seconds),
        *((words.tuned(cell.cell),) if findings.tuning is not None else ()),
    )


def _data(cell: CellFinding) -> Json:
    return {
        "cell": cell.cell.label,
        "id": cell.cell.id[: identity.ID_SHOWN],
        "levels": dict(cell.cell.levels),
        "baseline": cell.cell.is_baseline,
        "n": cell.n,
        "failed": cell.failed,
        "missing": cell.missing,
        "outcomes": {status: cell.counts.get(status, 0) for status in NAMES},
        "at_chance": cell.at_chance,
        "mean": cell.mean,
        "sd": cell.sd,
        "values": cell.values,
        "epoch_seconds": cell.epoch_seconds,
        "train_seconds": cell.train_seconds,
        "shares_training": cell.shares_training,
        "tuned": dict(cell.cell.tuned),
    }


def _sheet(findings: Findings) -> Sheet:
    """Return a row for every cell: its levels, its runs by outcome, and its value under each seed."""
    factors, seeds = [factor.name for factor in findings.study.factors], findings.study.seeds
    columns = (
        "cell", *factors, "n", *reasons.ORDER, "mean", "sd", *(f"seed {seed}" for seed in seeds),
        *(f"seed {seed} at chance" for seed in seeds), "epoch_seconds", "metric", "unit",
    )  # fmt: skip
    rows = (
        (
            cell.cell.label,
            *(cell.cell.levels.get(name, "") for name in factors),
            cell.n,
            *(cell.counts.get(status, 0) for status in reasons.ORDER),
            cell.mean,
            cell.sd,
            *(cell.values.get(seed) for seed in seeds),
            *(cell.at_chance.get(seed) for seed in seeds),
            cell.epoch_seconds,
            findings.metric,
            metrics.plain_unit(findings.metric),
        )
        for cell in findings.cells
    )
    return Sheet("cells", columns, tuple(rows))
