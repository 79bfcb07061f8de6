"""Seconds an epoch against the metric."""

from ablate.analysis.findings import CellFinding, Findings
from ablate.recipe import metrics
from ablate.report import words
from ablate.report.canvas import COLOURS, GREY, Figure, Picture, axis, lines, picture, safe, title
from ablate.report.section import Section, plots
from ablate.report.tables import in_unit

CAPTION = (
    "Mean of each cell, numbered as in the table of cells, with one standard deviation over seeds to either "
    "side; the baseline is the diamond. Times are those of the machines that happened to train a cell: a "
    "hint, no benchmark."
)


def section(findings: Findings) -> Section:
    """Return what each cell costs and yields: no picture of one cell, or where the metric is the cost."""
    points = _points(findings)
    is_drawn = len(points) > 1 and findings.metric != "time/epoch_seconds"
    data = [
        {
            "cell": cell.cell.label,
            "number": number,
            "epoch_seconds": cell.epoch_seconds,
            "mean": cell.mean,
            "sd": cell.sd,
        }
        for number, cell in points
    ]
    return Section(
        "cost-title", "Cost and benefit", plots(CAPTION, [cost(findings)] if is_drawn else []), {"cost": data}
    )


def _points(findings: Findings) -> list[tuple[int, CellFinding]]:
    """Return the cells that have both, with their numbers."""
    cells = enumerate(findings.cells, 1)
    return [(i, cell) for i, cell in cells if cell.epoch_seconds is not None and cell.mean is not None]


def cost(findings: Findings) -> Picture:
    """Draw seconds an epoch against the metric: a point a cell, numbered as in the table of cells."""
    by, metric, points = metrics.scale(findings.metric), findings.metric, _points(findings)
    seconds = [c.epoch_seconds or 0.0 for _, c in points]
    texts = [f"{words.value(c.mean, metric)}, {words.seconds(c.epoch_seconds)} s an epoch" for _, c in points]
    hover = [
        "<br>".join([*lines(f"{i}: {c.cell.label}"), text])
        for (i, c), text in zip(points, texts, strict=True)
    ]
    error = {
        "type": "data",
        "array": [by * (c.sd or 0.0) for _, c in points],
        "color": GREY,
        "thickness": 1,
        "width": 0,
    }
    data: list[Figure] = [{
        "type": "scatter", "x": seconds, "y": [by * (c.mean or 0.0) for _, c in points],
        "mode": "markers+text",
        "error_y": error, "text": [f"{i}" for i, _ in points],
        "textposition": [f"middle {('left', 'right')[i % 2]}" for i, _ in points],
        "hoverinfo": "text", "hovertext": hover,
        "marker": {
            "size": 12, "opacity": 0.9,
            "color": [GREY if c.cell.is_baseline else COLOURS["helps"] for _, c in points],
            "symbol": ["diamond" if c.cell.is_baseline else "circle" for _, c in points],
        },
    }]  # fmt: skip
    wide = bool(seconds) and min(seconds) > 0 and max(seconds) > 10 * min(seconds)
    across = {"text": "seconds per epoch", "standoff": 10}
    layout = {
        "height": 400, "margin": {"l": 8, "r": 24, "t": 30, "b": 50}, "showlegend": False,
        "annotations": [title(f"<b>{safe(metric)}</b>{in_unit(metric, share='%')}")],
        "xaxis": axis(showgrid=False, type="log" if wide else "linear", title=across), "yaxis": axis(),
    }  # fmt: skip
    return picture("cost", data, layout)
