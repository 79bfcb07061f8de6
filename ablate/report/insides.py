"""Pictures of what lies behind the effects: interactions, classes, confusions, calibration, mistakes."""

import base64
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ablate.analysis.diagnostics import ClassEffect, Detail, Interplay
from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import COLOURS, GREY, SYMBOLS, Figure, Picture, axis, in_unit, lines, note, picture, safe
from ablate.report.tables import WRITTEN
from ablate.study.grid import short_names

LINES = (GREY, "#0174f4", "#eb5e00", "#0da361", "#a837ad", "#c9a227", "#4fb6e8", "#e0607e")
DIVERGING = [[0.0, "rgba(235,94,0,0.6)"], [0.5, "rgba(128,136,145,0.10)"], [1.0, "rgba(1,116,244,0.6)"]]  # numbers stay readable on it
SEQUENTIAL = [[0.0, "rgba(1,116,244,0.03)"], [1.0, "rgba(1,116,244,0.6)"]]
BELOW = "height"
"""Room for the labels of an x axis: below it alone. At some widths plotly else turns them, makes room at the side, and turns them back."""
MOST_CLASSES = 100  # of a confusion matrix
LARGEST = 500_000  # bytes of one gallery that the page takes in
DIGITS = 22  # px of one row


def heat(findings: Findings) -> Picture:
    """Draw every interaction as a square: two changes together, beyond the sum of both; blue is a benefit."""
    known = [effect for effect in findings.interactions if effect.estimate.effect is not None]
    across, down = (list(dict.fromkeys(effect.changes[i] for effect in known)) for i in (0, 1))  # two may have one name
    place = {effect.changes: effect for effect in known}
    sign = 1 if findings.direction == "max" else -1
    by = metrics.scale(findings.metric)
    squares: list[list[Effect | None]] = [[place.get((one, other)) for one in across] for other in down]
    z = [[None if e is None or e.estimate.effect is None else sign * by * e.estimate.effect for e in row] for row in squares]
    reach = max((abs(value) for row in z for value in row if value is not None), default=1.0) or 1.0
    star = {effect.changes: "*" if effect.scope is not None else "" for effect in known}  # it is known in some settings only
    text = [["" if e is None else words.effect_words(e.estimate, findings.metric) + star[e.changes] for e in row] for row in squares]
    told = [["" if e is None else "<br>".join(lines(words.sentence(e, findings))) for e in row] for row in squares]
    columns, rows = (["<br>".join(lines(_change(findings, change), 16)) for change in changes] for changes in (across, down))
    data: list[Figure] = [{
        "type": "heatmap", "z": z, "x": list(range(len(across))), "y": list(range(len(down))),
        "text": text if len(across) <= WRITTEN else None, "texttemplate": "%{text}",
        "hovertext": told, "hoverinfo": "text", "colorscale": DIVERGING, "zmin": -reach, "zmax": reach, "showscale": False,
        "xgap": 3, "ygap": 3,
    }]  # fmt: skip
    layout = {
        "height": 90 + 52 * len(down), "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": axis(
            showgrid=False, side="bottom", tickmode="array", tickvals=list(range(len(across))), ticktext=columns, automargin=BELOW
        ),
        "yaxis": axis(showgrid=False, autorange="reversed", tickmode="array", tickvals=list(range(len(down))), ticktext=rows),
    }  # fmt: skip
    return picture("heat", data, layout)


def _change(findings: Findings, change: tuple[str, str, str]) -> str:
    factor, _, end = change
    return names.choice(short_names([f.name for f in findings.study.factors])[factor], end)


def interplay(found: Interplay, findings: Findings) -> Picture:
    """Draw the strongest interaction: the mean at each level of one factor, a line for each level of the other."""
    by = metrics.scale(findings.metric)
    short = short_names([factor.name for factor in findings.study.factors])
    first, second = (short[name] for name in found.factors)
    data: list[Figure] = []
    for level, colour in zip(found.levels[1], itertools.cycle(LINES), strict=False):
        points = [(a, by * found.means[a, level]) for a in found.levels[0] if (a, level) in found.means]
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [safe(a) for a, _ in points], "y": [y for _, y in points],
            "name": safe(f"{second} {level}"), "line": {"color": colour, "width": 2.5}, "marker": {"size": 9, "color": colour},
        })  # fmt: skip
    title = f"<b>{safe(findings.metric)}</b>{', %' if metrics.is_fraction(findings.metric) else ''}"
    layout = {
        "height": 340, "margin": {"l": 8, "r": 8, "t": 30, "b": 60},
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "xanchor": "left", "yanchor": "top"},
        "annotations": [note(title, 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(showgrid=False, type="category", title={"text": safe(first), "standoff": 8}), "yaxis": axis(),
    }  # fmt: skip
    return picture("interplay", data, layout)


def classes(found: Sequence[ClassEffect], findings: Findings) -> Picture:
    """Draw what one change does to each class: point and interval, the most helped class first."""
    rows = sorted(found, key=lambda one: -(one.effect.estimate.effect or 0.0))
    data: list[Figure] = []
    for i, one in enumerate(rows):
        estimate, colour = one.effect.estimate, COLOURS[one.effect.estimate.verdict]
        if estimate.low is not None and estimate.high is not None and not one.effect.says_nothing:
            data.append({
                "type": "scatter", "x": [100 * estimate.low, 100 * estimate.high], "y": [i, i], "mode": "lines", "hoverinfo": "skip",
                "line": {"color": colour, "width": 6}, "opacity": 0.55,
            })  # fmt: skip
        numbers = words.difference(estimate if not one.effect.says_nothing else replace(estimate, low=None, high=None), metrics.PER_CLASS)
        said = "<br>".join(lines(f"{one.name}: {numbers}, {words.verdict(one.effect, findings)}"))
        data.append({
            "type": "scatter", "x": [100 * (estimate.effect or 0.0)], "y": [i], "mode": "markers", "hoverinfo": "text", "hovertext": said,
            "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[estimate.verdict]},
        })  # fmt: skip
    layout = {
        "height": 80 + DIGITS * len(rows), "margin": {"l": 8, "r": 8, "t": 8, "b": 48}, "showlegend": False,
        "shapes": [{"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1.5}}],
        "xaxis": axis(title={"text": safe(f"change of the accuracy on a class{in_unit(metrics.PER_CLASS)}"), "standoff": 10}),
        "yaxis": axis(
            showgrid=False, autorange="reversed", tickmode="array", tickvals=list(range(len(rows))),
            ticktext=[safe(one.name[:24]) for one in rows],
        ),
    }  # fmt: skip
    return picture("classes", data, layout)


def confusion(found: Detail, name: str) -> Picture:
    """Draw which class is taken for which; right answers are left grey, so that mistakes are what one sees."""
    count = len(found.classes)
    z = [[None if i == j else round(100 * share, 4) for j, share in enumerate(row)] for i, row in enumerate(found.confusion)]
    text = [[f"{100 * share:.0f}" if 100 * share >= 0.5 else "" for share in row] for row in found.confusion]
    shown = [safe(label[:24]) for label in found.classes]
    told = [
        [
            f"{safe(true)} taken for {safe(answer)}: {100 * share:.2f} %" if share else ""
            for answer, share in zip(found.classes, row, strict=True)
        ]
        for true, row in zip(found.classes, found.confusion, strict=True)
    ]  # most of 100 x 100 are empty, and the page is large enough
    data: list[Figure] = [{
        "type": "heatmap", "z": z, "x": list(range(count)), "y": list(range(count)), "hovertext": told, "hoverinfo": "text",
        "text": text if count <= WRITTEN else None, "texttemplate": "%{text}", "colorscale": SEQUENTIAL, "zmin": 0, "showscale": False,
        "xgap": 1, "ygap": 1,
    }]  # fmt: skip
    ticks = {"tickmode": "array", "tickvals": list(range(count)), "ticktext": shown} if count <= 30 else {"showticklabels": False}
    title = [f"<b>{line}</b>" for line in lines(found.label)]
    head = 12 + 17 * len(title)
    size = min(620, 120 + 34 * count) + head
    layout = {
        "height": size, "margin": {"l": 8, "r": 8, "t": head, "b": 8},
        "xaxis": axis(showgrid=False, title={"text": "answer", "standoff": 8}, automargin=BELOW, **ticks),
        "yaxis": axis(showgrid=False, autorange="reversed", title={"text": "true class", "standoff": 8}, **ticks),
        "annotations": [
            note("<br>".join(title), 1) | {"yref": "paper", "yanchor": "bottom", "yshift": 4},
            *({"x": i, "y": i, "text": f"{100 * found.confusion[i][i]:.0f}", "showarrow": False} for i in range(count) if count <= WRITTEN),
        ],
    }  # fmt: skip
    return picture(name, data, layout)


def calibration(found: Sequence[Detail]) -> Picture:
    """Draw how often answers of some confidence are right; on the diagonal confidence can be taken at its word."""
    data: list[Figure] = [{
        "type": "scatter", "x": [0, 100], "y": [0, 100], "mode": "lines", "line": {"color": GREY, "width": 1, "dash": "dot"},
        "hoverinfo": "skip", "showlegend": False,
    }]  # fmt: skip
    most = max(n for one in found for n, _, _ in one.calibration)
    for one, colour in zip(found, itertools.cycle(LINES), strict=False):
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [100 * c for _, c, _ in one.calibration],
            "y": [100 * a for _, _, a in one.calibration], "name": "<br>".join(lines(one.label, 38)), "hoverinfo": "text",
            "hovertext": [f"{n:,} answers of {100 * c:.0f} % confidence: {100 * a:.1f} % right" for n, c, a in one.calibration],
            "line": {"color": colour, "width": 2},
            "marker": {"size": [4 + 14 * (n / most) ** 0.5 for n, _, _ in one.calibration], "color": colour},
        })  # fmt: skip
    layout = {
        "height": 380, "margin": {"l": 8, "r": 8, "t": 30, "b": 60},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"},
        "annotations": [note("<b>answers that are right</b>, %", 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(range=[0, 102], title={"text": "confidence, %", "standoff": 8}), "yaxis": axis(range=[0, 102]),
    }  # fmt: skip
    return picture("calibration", data, layout)


def gallery(found: Detail) -> str:
    """Return the picture of a cell's most confident mistakes as a data address; empty where there is none, or it is too large."""
    path = Path(found.picture)
    if not found.picture or not path.is_file() or path.stat().st_size > LARGEST:
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def strongest(findings: Findings) -> tuple[str, Sequence[ClassEffect]] | None:
    """Choose the change whose classes are drawn: the one with the largest main effect that has any."""
    by_change: dict[tuple[str, str, str], list[ClassEffect]] = {}
    for one in findings.class_effects:
        by_change.setdefault(one.effect.changes[0], []).append(one)
    sizes: Mapping[tuple[str, str, str], float] = {e.changes[0]: abs(e.estimate.effect or 0.0) for e in findings.effects}
    if not by_change:
        return None
    change = max(by_change, key=lambda key: sizes.get(key, 0.0))
    effect = next(e for e in findings.effects if e.changes[0] == change)
    return names.change(effect, findings), by_change[change]
