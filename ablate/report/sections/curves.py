"""Learning curves of the trainings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from ablate.analysis.findings import Curve, Findings
from ablate.recipe import metrics
from ablate.report import words
from ablate.report.canvas import CLEAR, LINES, Figure, Picture, axis, lines, picture, safe, title, whole
from ablate.report.section import Section, folded, plots
from ablate.report.tables import Column, Table, in_unit, table
from ablate.store.files import Json

LEGEND = 38  # characters of 13 px that fit on a phone beside the line of a legend
WIDE = 10  # times the median loss: then its axis is logarithmic
LOG: Figure = {"type": "log", "dtick": 1, "exponentformat": "power"}
PANEL, GAP, TOP, FOOT = 290, 60, 30, 60  # px: a panel, the gap below it, the space above and below all
MOST_EPOCHS = 40  # of one training in the table


def section(findings: Findings) -> Section:
    """Return the curves of the trainings that are nearest to the baseline; the data are those of all."""
    trainings = len({curve.label for curve in findings.curves})
    nearest = f"Drawn are the {len(LINES)} trainings that differ least from the baseline, of {trainings}."
    caption = (
        "Validation solid, train dotted; the line is the mean over seeds, the band reaches from the lowest "
        f"to the highest seed. A click on a name hides its lines. {nearest if trainings > len(LINES) else ''}"
    )
    return Section(
        "curves-title",
        "Learning curves",
        (*plots(caption, [curves(findings)]), *folded("The numbers of these curves", curves_table(findings)))
        if findings.curves
        else (),
        {"curves": [_data(curve) for curve in findings.curves]},
    )


def drawn_trainings(findings: Findings) -> list[str]:
    """Return the trainings whose curves are drawn: those nearest to the baseline, which is the first."""
    distance = {cell.cell.label: _distance(cell.cell.levels, findings) for cell in findings.cells}
    labels = dict.fromkeys(curve.label for curve in findings.curves)
    return sorted(labels, key=lambda label: distance.get(label, 0))[: len(LINES)]


def _distance(levels: Mapping[str, str], findings: Findings) -> int:
    factors = findings.study.factors
    return sum(levels.get(factor.name, factor.levels[0].name) != factor.levels[0].name for factor in factors)


def curves(findings: Findings) -> Picture:
    """Draw accuracy over loss: a colour a training, validation solid, train dotted, a band over the seeds."""
    labels = drawn_trainings(findings)
    metrics_drawn = [curve.metric for curve in findings.curves]
    panels = [
        name for name in ("accuracy", "loss") if any(metric.endswith(f"/{name}") for metric in metrics_drawn)
    ]
    data: list[Figure] = []
    for label, colour in zip(labels, LINES, strict=False):
        own = sorted(
            (curve for curve in findings.curves if curve.label == label), key=lambda curve: curve.metric
        )
        data += [trace for c in own for trace in _curve(c, colour, panels.index(c.metric.rsplit("/", 1)[-1]))]
        data[-1]["showlegend"] = True
    inside, key = PANEL * len(panels), 20 * sum(len(lines(label, LEGEND)) for label in labels)
    legend = {
        "x": 0,
        "y": -FOOT / inside,
        "xanchor": "left",
        "yanchor": "top",
        "tracegroupgap": 0,
        "bgcolor": CLEAR,
    }
    layout: Figure = {
        "height": TOP + inside + FOOT + key,
        "margin": {"l": 8, "r": 8, "t": TOP, "b": FOOT + key},
        "legend": legend,
        "annotations": [],
    }
    for i, name in enumerate(panels):
        number = "" if i == 0 else str(i + 1)
        top = 1 - i / len(panels)
        bottom = top - (PANEL - GAP if i + 1 < len(panels) else PANEL) / inside
        epoch = {"text": "epoch" if i + 1 == len(panels) else "", "standoff": 6}
        log = name == "loss" and _is_wide([curve for curve in findings.curves if curve.label in labels])
        layout[f"xaxis{number}"] = axis(
            anchor=f"y{number}", showgrid=False, title=epoch, **whole(_epochs(findings))
        )
        layout[f"yaxis{number}"] = axis(anchor=f"x{number}", domain=[bottom, top], **(LOG if log else {}))
        share = ", %" if metrics.is_fraction(f"test/{name}") else ""
        layout["annotations"].append(title(f"<b>{name}</b>{share}{', log scale' if log else ''}", top))
    return picture("curves", data, layout, tools=True)


def _epochs(findings: Findings) -> int:
    return max((curve.epochs[-1] for curve in findings.curves if curve.epochs), default=1)


def _is_wide(curves: Sequence[Curve]) -> bool:
    """Whether a loss is positive, and its first epochs would flatten all others."""
    losses = sorted(y for curve in curves if curve.metric.endswith("/loss") for y in curve.mean)
    lowest = min((y for curve in curves if curve.metric.endswith("/loss") for y in curve.low), default=0.0)
    return bool(losses) and lowest > 0 and losses[-1] > WIDE * losses[len(losses) // 2]


def _curve(curve: Curve, colour: str, panel: int) -> list[Figure]:
    """Draw one mean line over its band; the legend has an entry a training, and a click hides all of it."""
    number = f"{panel + 1}" if panel else ""
    by, axes = metrics.scale(curve.metric), {"xaxis": f"x{number}", "yaxis": f"y{number}"}
    trained = curve.metric.startswith("train/")
    shared: Figure = {"type": "scatter", "legendgroup": curve.label, "showlegend": False, **axes}
    ends = zip(curve.epochs, curve.mean, strict=True)
    hover = [f"{safe(curve.label)}<br>{curve.metric}, epoch {epoch}: {by * y:.4g}" for epoch, y in ends]
    around = [*curve.epochs, *reversed(curve.epochs)]
    edge = [by * y for y in (*curve.high, *reversed(curve.low))]
    band: Figure = {
        "mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": colour,
        "opacity": 0.08 if trained else 0.16, "hoverinfo": "skip",
    }  # fmt: skip
    line: Figure = {
        "mode": "lines+markers" if len(curve.epochs) == 1 else "lines",
        "line": {"color": colour, "width": 1.5 if trained else 2.5, "dash": "dot" if trained else "solid"},
        "hoverinfo": "text", "hovertext": hover, "name": "<br>".join(lines(curve.label, LEGEND)),
    }  # fmt: skip
    return [
        shared | band | {"x": around, "y": _short(edge)},
        shared | line | {"x": list(curve.epochs), "y": _short(by * y for y in curve.mean)},
    ]


def _short(numbers: Iterable[float]) -> list[float]:
    """Keep five digits: a pixel has three, and the page stays small."""
    return [float(f"{number:.5g}") for number in numbers]


def curves_table(findings: Findings) -> Table:
    """Return a table of the drawn curves: mean [lowest, highest seed], an epoch a row, thinned if many."""
    shown = list(dict.fromkeys(curve.metric for curve in findings.curves))
    columns: list[Column] = [("training", "head"), ("epoch", "number")]
    columns += [(f"{metric}{in_unit(metric, share='%')}", "number") for metric in shown]
    by_key = {(curve.label, curve.metric): curve for curve in findings.curves}
    rows: list[tuple[str, ...]] = []
    step = 1
    for label in drawn_trainings(findings):
        own = {metric: _points(by_key[label, metric]) for metric in shown if (label, metric) in by_key}
        epochs = sorted({epoch for points in own.values() for epoch in points})
        step = max(step, -(-len(epochs) // MOST_EPOCHS))
        kept = [epoch for i, epoch in enumerate(reversed(epochs)) if i % step == 0]  # from the last one back
        rows += [
            (label, str(epoch), *(own.get(metric, {}).get(epoch, "-") for metric in shown))
            for epoch in reversed(kept)
        ]
    every = f", every {step} epochs" if step > 1 else ""
    return table("curves-table", f"Learning curves: mean [lowest, highest seed]{every}", columns, rows)


def _points(curve: Curve) -> dict[int, str]:
    columns = ([words.bare(y, curve.metric) for y in some] for some in (curve.mean, curve.low, curve.high))
    rows = zip(curve.epochs, *columns, strict=True)
    return {epoch: f"{mean} [{low}, {high}]" for epoch, mean, low, high in rows}


def _data(curve: Curve) -> Json:
    values = asdict(curve)
    return {"cell": values.pop("label"), **values}
