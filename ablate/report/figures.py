"""The main pictures: effects, learning curves, cost. They draw numbers that a table of the page has too."""

from collections.abc import Iterable, Mapping, Sequence

from ablate.analysis.effects import Effect
from ablate.analysis.findings import Curve, Findings
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import CLEAR, COLOURS, GREY, HEIGHT, SYMBOLS, Figure, Picture, axis, in_unit, lines, note, picture, safe, whole

TRAININGS = (GREY, "#0174f4", "#eb5e00", "#0da361", "#a837ad", "#c9a227", "#4fb6e8", "#e0607e", "#7d8f2f", "#8a6fd8", "#b07a4b", "#2b8a8a")
"""One for each training that is drawn; the first is that of the baseline."""
LEGEND = 38  # characters of 13 px that fit on a phone beside the line of a legend
LINE = 17  # px of one line of text
ROW = 40  # px of one interval with its dots
WIDE = 10  # times the median loss: then its axis is logarithmic
LOG: Figure = {"type": "log", "dtick": 1, "exponentformat": "power"}
PANEL, GAP, TOP, FOOT = 290, 60, 30, 60  # px: a panel of curves, the gap below one, the space above and below all


def forest(effects: Sequence[Effect], findings: Findings) -> Picture:
    """Draw a row for each effect, the best first: words, thick simultaneous interval, point, per-seed differences as dots.

    The words stand above the interval, because beside it there is no room on a phone.
    """
    rows = [effect for effect in words.ranked(effects, findings) if effect.estimate.effect is not None]
    by = metrics.scale(findings.metric)
    data: list[Figure] = []
    labels: list[Figure] = []
    depth = 0
    for effect in rows:
        said = [*(f"<b>{line}</b>" for line in lines(names.change(effect, findings))), *lines(words.verdict_words(effect, findings))]
        labels.append(note("<br>".join(said), depth))
        depth += LINE * len(said) + ROW
        data += _row(effect, findings, at=depth - ROW / 2 - 4, by=by)
    better = "right is better" if findings.direction == "max" else "left is better"
    layout = {
        "annotations": labels,
        "height": depth + 70,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 56},
        "shapes": [*_band(findings, by), {"type": "line", "x0": 0, "x1": 0, **HEIGHT, "line": {"color": GREY, "width": 1.5}}],
        "showlegend": False,
        "xaxis": axis(title={"text": safe(f"change of {findings.metric}{in_unit(findings.metric)} ({better})"), "standoff": 12}),
        "yaxis": {"visible": False, "range": [depth + 6, -4], "fixedrange": True},
    }
    return picture("forest", data, layout)


def _band(findings: Findings, by: float) -> list[Figure]:
    """Shade what is too small to be worth having."""
    least = findings.study.min_effect
    if least is None or findings.metric != findings.study.metric:
        return []
    band = {"type": "rect", "x0": -by * least, "x1": by * least, **HEIGHT}
    return [band | {"fillcolor": GREY, "opacity": 0.18, "line": {"width": 0}, "layer": "below"}]


def _row(effect: Effect, findings: Findings, *, at: float, by: float) -> list[Figure]:
    estimate, colour = effect.estimate, COLOURS[effect.estimate.verdict]
    assert estimate.effect is not None
    said = "<br>".join(lines(words.sentence(effect, findings)))
    drawn: list[Figure] = []
    if estimate.low is not None and estimate.high is not None:
        ends = {"x": [by * estimate.low, by * estimate.high], "y": [at, at], "hoverinfo": "skip"}
        seen = {"mode": "lines+markers", "marker": {"size": 1}, "line": {"color": colour, "width": 7}, "opacity": 0.55}
        drawn.append({"type": "scatter", **ends, **seen})  # markers, because plotly leaves no room beside the end of a mere line
    drawn.append({
        "type": "scatter", "x": [by * d for d in effect.per_seed.values()], "y": [at + 13] * len(effect.per_seed), "mode": "markers",
        "marker": {"color": GREY, "size": 7, "opacity": 0.75}, "hoverinfo": "text",
        "hovertext": [f"seed {seed}: {by * d:+.4g}{metrics.unit(findings.metric)}" for seed, d in effect.per_seed.items()],
    })  # fmt: skip
    drawn.append({
        "type": "scatter", "x": [by * estimate.effect], "y": [at], "mode": "markers", "hoverinfo": "text", "hovertext": said,
        "marker": {"color": colour, "size": 13, "symbol": SYMBOLS[estimate.verdict], "line": {"color": colour, "width": 2}},
    })  # fmt: skip
    return drawn


def drawn_trainings(findings: Findings) -> list[str]:
    """List the trainings whose curves are drawn: those nearest to the baseline, which is the first."""
    distance = {found.cell.label: _distance(found.cell.levels, findings) for found in findings.cells}
    labels = dict.fromkeys(curve.label for curve in findings.curves)
    return sorted(labels, key=lambda label: distance.get(label, 0))[: len(TRAININGS)]


def _distance(levels: Mapping[str, str], findings: Findings) -> int:
    return sum(levels.get(factor.name, factor.levels[0].name) != factor.levels[0].name for factor in findings.study.factors)


def curves(findings: Findings) -> Picture:
    """Draw accuracy over loss: a colour a training, validation solid and train dotted, a band from the lowest to the highest seed."""
    labels = drawn_trainings(findings)
    panels = [name for name in ("accuracy", "loss") if any(curve.metric.endswith(f"/{name}") for curve in findings.curves)]
    data: list[Figure] = []
    for label, colour in zip(labels, TRAININGS, strict=False):
        own = sorted((curve for curve in findings.curves if curve.label == label), key=lambda curve: curve.metric)
        data += [trace for curve in own for trace in _curve(curve, colour, panels.index(curve.metric.rsplit("/", 1)[-1]))]
        data[-1]["showlegend"] = True
    inside, key = PANEL * len(panels), 20 * sum(len(lines(label, LEGEND)) for label in labels)
    layout: Figure = {
        "height": TOP + inside + FOOT + key,
        "margin": {"l": 8, "r": 8, "t": TOP, "b": FOOT + key},
        "legend": {"x": 0, "y": -FOOT / inside, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0, "bgcolor": CLEAR},
        "annotations": [],
    }
    for i, name in enumerate(panels):
        number = "" if i == 0 else str(i + 1)
        top = 1 - i / len(panels)
        bottom = top - (PANEL - GAP if i + 1 < len(panels) else PANEL) / inside
        epoch = {"text": "epoch" if i + 1 == len(panels) else "", "standoff": 6}
        log = name == "loss" and _is_wide([curve for curve in findings.curves if curve.label in labels])
        layout[f"xaxis{number}"] = axis(anchor=f"y{number}", showgrid=False, title=epoch, **whole(_epochs(findings)))
        layout[f"yaxis{number}"] = axis(anchor=f"x{number}", domain=[bottom, top], **(LOG if log else {}))
        title = f"<b>{name}</b>{', %' if metrics.is_fraction(f'test/{name}') else ''}{', log scale' if log else ''}"
        layout["annotations"].append(note(title, top) | {"yref": "paper", "yanchor": "bottom"})
    return picture("curves", data, layout, tools=True)


def _epochs(findings: Findings) -> int:
    return max((curve.epochs[-1] for curve in findings.curves if curve.epochs), default=1)


def _is_wide(curves: Sequence[Curve]) -> bool:
    """Whether the first epochs of a loss would flatten all others: it is positive, and its largest mean is far from the middle one."""
    losses = sorted(y for curve in curves if curve.metric.endswith("/loss") for y in curve.mean)
    lowest = min((y for curve in curves if curve.metric.endswith("/loss") for y in curve.low), default=0.0)
    return bool(losses) and lowest > 0 and losses[-1] > WIDE * losses[len(losses) // 2]


def _curve(curve: Curve, colour: str, panel: int) -> list[Figure]:
    """Draw one mean line over its band; the legend shows one entry a training, and clicking it hides all of that training."""
    by, axes = metrics.scale(curve.metric), {"xaxis": f"x{panel + 1}" if panel else "x", "yaxis": f"y{panel + 1}" if panel else "y"}
    trained = curve.metric.startswith("train/")
    shared: Figure = {"type": "scatter", "legendgroup": curve.label, "showlegend": False, **axes}
    shown = [f"{safe(curve.label)}<br>{curve.metric}, epoch {e}: {by * y:.4g}" for e, y in zip(curve.epochs, curve.mean, strict=True)]
    around = [*curve.epochs, *reversed(curve.epochs)]
    edge = [by * y for y in (*curve.high, *reversed(curve.low))]
    band: Figure = {
        "mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": colour, "opacity": 0.08 if trained else 0.16,
        "hoverinfo": "skip",
    }  # fmt: skip
    line: Figure = {
        "mode": "lines+markers" if len(curve.epochs) == 1 else "lines",
        "line": {"color": colour, "width": 1.5 if trained else 2.5, "dash": "dot" if trained else "solid"},
        "hoverinfo": "text", "hovertext": shown, "name": "<br>".join(lines(curve.label, LEGEND)),
    }  # fmt: skip
    return [
        shared | band | {"x": _short(around), "y": _short(edge)},
        shared | line | {"x": list(curve.epochs), "y": _short(by * y for y in curve.mean)},
    ]


def _short(numbers: Iterable[float]) -> list[float]:
    """Keep five digits: a pixel has three, and the page stays small."""
    return [float(f"{number:.5g}") for number in numbers]


def cost(findings: Findings) -> Picture:
    """Draw seconds an epoch against the metric: a point a cell, numbered as in the table of cells."""
    by = metrics.scale(findings.metric)
    points = [(i, c) for i, c in enumerate(findings.cells, 1) if c.epoch_seconds is not None and c.mean is not None]
    seconds = [c.epoch_seconds or 0.0 for _, c in points]
    told = [f"{words.value(c.mean, findings.metric)}, {words.seconds(c.epoch_seconds)} s an epoch" for _, c in points]
    hover = ["<br>".join([*lines(f"{i}: {c.cell.label}"), text]) for (i, c), text in zip(points, told, strict=True)]
    data: list[Figure] = [{
        "type": "scatter", "x": seconds, "y": [by * (c.mean or 0.0) for _, c in points], "mode": "markers+text",
        "error_y": {"type": "data", "array": [by * (c.sd or 0.0) for _, c in points], "color": GREY, "thickness": 1, "width": 0},
        "text": [f"{i}" for i, _ in points], "textposition": [f"middle {('left', 'right')[i % 2]}" for i, _ in points],
        "hoverinfo": "text", "hovertext": hover,
        "marker": {
            "size": 12, "opacity": 0.9, "color": [GREY if c.cell.is_baseline else COLOURS["helps"] for _, c in points],
            "symbol": ["diamond" if c.cell.is_baseline else "circle" for _, c in points],
        },
    }]  # fmt: skip
    wide = bool(seconds) and min(seconds) > 0 and max(seconds) > 10 * min(seconds)
    title = f"<b>{safe(findings.metric)}</b>{', %' if metrics.is_fraction(findings.metric) else ''}"
    layout = {
        "height": 400, "margin": {"l": 8, "r": 24, "t": 30, "b": 50}, "showlegend": False,
        "annotations": [note(title, 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(showgrid=False, type="log" if wide else "linear", title={"text": "seconds per epoch", "standoff": 10}),
        "yaxis": axis(),
    }  # fmt: skip
    return picture("cost", data, layout)
