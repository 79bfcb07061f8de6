"""Range tests of the learning rate: training loss and accuracy while it rises, and what they suggest."""

import math
from collections.abc import Sequence

from ablate.analysis.findings import Findings
from ablate.analysis.tuning import RangeCurve
from ablate.report.canvas import LINES, Figure, Picture, axis, lines, picture, safe, title
from ablate.report.section import Section, plots, shown
from ablate.report.sections.tuning import LEGEND, LOG, NAME
from ablate.report.tables import Column, Table, table

SUGGESTED = "What the range tests suggest: the first rule that has an answer is taken"
RATES = (
    "Range tests: the training loss while the learning rate rises, the median of the seeds, smoothed, over "
    "the band of all of them. The diamond is the rate that was taken."
)
RIGHT = (
    "The same range tests: the share of the training images that was answered rightly, the median of the "
    "seeds, not smoothed."
)


def section(findings: Findings) -> Section:
    """Return the range tests that a study's learning rates come from; without blocks where there are none."""
    ranges = findings.tuning.ranges if findings.tuning else ()
    measured = [curve for curve in ranges if curve.accuracies]
    blocks = (
        *plots(RATES, [rates(ranges)] if ranges else []),
        *shown(rates_table(ranges)),
        *plots(RIGHT, [accuracies(measured)] if measured else []),
    )
    data = [{"cell": curve.label, "rates": curve.tried, "accuracies": curve.accuracies} for curve in measured]
    return Section("range-tests-title", "Range tests", blocks, {"range_tests": data})


def rates(ranges: Sequence[RangeCurve]) -> Picture:
    """Draw the loss over the rate: the smoothed median over a band of the seeds, and the chosen rate."""
    data = [trace for curve, colour in zip(ranges, LINES, strict=False) for trace in _rate(curve, colour)]
    layout = {
        "height": 380 + _key(ranges), "margin": {"l": 8, "r": 8, "t": 30, "b": 70 + _key(ranges)},
        "legend": LEGEND, "annotations": [title("<b>training loss</b>")],
        "xaxis": axis(**LOG, title={"text": "learning rate", "standoff": 8}), "yaxis": axis(),
    }  # fmt: skip
    return picture("rates", data, layout)


def _rate(curve: RangeCurve, colour: str) -> list[Figure]:
    start = curve.losses[: max(1, len(curve.losses) // 3)]
    top = 3 * max((loss for loss in start if math.isfinite(loss)), default=1.0)
    ends = zip(curve.rates, curve.losses, strict=True)
    points = [(rate, loss) for rate, loss in ends if math.isfinite(loss) and loss <= top]
    edges = zip(curve.tried, curve.low, curve.high, strict=True)
    band = [(rate, low, min(high, top)) for rate, low, high in edges if low <= top]
    shared = {"type": "scatter", "mode": "lines", "legendgroup": curve.label, "showlegend": False}
    drawn: list[Figure] = [
        shared | {
            "x": [rate for rate, _, _ in band] + [rate for rate, _, _ in reversed(band)],
            "y": [high for _, _, high in band] + [low for _, low, _ in reversed(band)],
            "fill": "toself", "fillcolor": colour, "opacity": 0.14, "line": {"width": 0}, "hoverinfo": "skip",
        },
        shared | {
            "x": [rate for rate, _ in points], "y": [loss for _, loss in points],
            "line": {"color": colour, "width": 2.5}, "name": "<br>".join(lines(curve.label, NAME)),
            "showlegend": True, "hoverinfo": "text",
            "hovertext": [
                f"{safe(curve.label)}<br>rate {rate:.2g}: loss {loss:.3g}" for rate, loss in points
            ],
        },
    ]  # fmt: skip
    chosen = curve.chosen
    if chosen is not None and chosen.rate is not None and points:
        at = min(points, key=lambda point: abs(math.log(point[0] / (chosen.rate or 1))))
        drawn.append(shared | {
            "mode": "markers", "x": [chosen.rate], "y": [at[1]],
            "marker": {"color": colour, "size": 13, "symbol": "diamond"}, "hoverinfo": "text",
            "hovertext": [f"{safe(curve.label)}<br>{chosen.rule}: {chosen.rate:.2g}"],
        })  # fmt: skip
    return drawn


def accuracies(ranges: Sequence[RangeCurve]) -> Picture:
    """Draw the training accuracy over the rate."""
    data: list[Figure] = [
        {
            "type": "scatter", "mode": "lines", "x": list(curve.tried),
            "y": [100 * share for share in curve.accuracies], "line": {"color": colour, "width": 2},
            "name": "<br>".join(lines(curve.label, NAME)), "showlegend": True, "hoverinfo": "text",
            "hovertext": [
                f"{safe(curve.label)}<br>rate {rate:.2g}: {100 * share:.1f} % right"
                for rate, share in zip(curve.tried, curve.accuracies, strict=True)
            ],
        }
        for curve, colour in zip(ranges, LINES, strict=False)
        if curve.accuracies
    ]  # fmt: skip
    layout = {
        "height": 300 + _key(ranges), "margin": {"l": 8, "r": 8, "t": 30, "b": 70 + _key(ranges)},
        "legend": LEGEND | {"y": -0.28}, "annotations": [title("<b>training accuracy</b>, %")],
        "xaxis": axis(**LOG, title={"text": "learning rate", "standoff": 8}), "yaxis": axis(),
    }  # fmt: skip
    return picture("rates-accuracy", data, layout)


def _key(ranges: Sequence[RangeCurve]) -> int:
    """Return the pixels of a legend: left to plotly, long names would shrink the plot up to its title."""
    return 20 * sum(len(lines(curve.label, NAME)) for curve in ranges[: len(LINES)])


def rates_table(ranges: Sequence[RangeCurve]) -> Table:
    """Return a table of what each rule suggests in each range test."""
    columns: list[Column] = [
        ("cell", "head"), ("rule", "text"), ("rate", "number"), ("about as good", "value"),
        ("status", "text"),
        ("taken", "text"),
    ]  # fmt: skip
    rows = []
    for curve in ranges:
        for rule, answer in curve.suggestions.items():
            rate, low, high = (
                "-" if n is None else f"{n:.2g}" for n in (answer.rate, answer.low, answer.high)
            )
            is_taken = curve.chosen is not None and curve.chosen.rule == rule and curve.chosen.status == "ok"
            near = f"{low} to {high}" if answer.rate else "-"
            rows.append((curve.label, rule, rate, near, answer.status, "yes" if is_taken else ""))
    return table("rates-table", SUGGESTED, columns, rows)
