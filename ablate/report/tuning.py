"""Pictures and tables of what was tuned: range tests of the learning rate, the trials of searches, and whether an effect turns."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ablate.analysis.findings import Findings
from ablate.analysis.tuning import History, RangeCurve, Trial, TuningFinding
from ablate.recipe import metrics
from ablate.report import names as labels
from ablate.report import words
from ablate.report.canvas import COLOURS, GREY, Figure, Picture, axis, lines, note, picture, safe, whole
from ablate.report.tables import Kind, Table, table
from ablate.study.grid import short_names

COLOUR = (GREY, "#0174f4", "#eb5e00", "#0da361", "#a837ad", "#c9a227", "#4fb6e8", "#e0607e", "#7d8f2f", "#8a6fd8", "#b07a4b", "#2b8a8a")
"""One for each range test or search that is drawn; the others stand in the tables."""
LEGEND = {"x": 0, "y": -0.22, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0, "bgcolor": "rgba(0,0,0,0)"}
WORST = "rgba(128,136,145,0.35)"  # a line of a trial that is not among the better half
RANGES = "What the range tests suggest: the first rule that has an answer is taken"


def pictures(found: TuningFinding | None) -> dict[str, list[Picture]]:
    """Draw every picture of tuning; of the trials' fields, those of the first search."""
    histories = found.histories if found else ()
    first = histories[0] if histories else None
    return {
        "rates": [_rates(found.ranges)] if found and found.ranges else [],
        "history": [_history(histories)] if histories else [],
        "fields": [_fields(first)] if first and len(first.fields) > 1 and any(t.value is not None for t in first.trials) else [],
        "map": [_map(first)] if first and first.map else [],
    }


def _rates(ranges: Sequence[RangeCurve]) -> Picture:
    """Draw the loss over the rate: the smoothed median over a band of the seeds, with the rate that was chosen."""
    data: list[Figure] = []
    for curve, colour in zip(ranges, COLOUR, strict=False):
        top = 3 * max((loss for loss in curve.losses[: max(1, len(curve.losses) // 3)] if math.isfinite(loss)), default=1.0)
        points = [(rate, loss) for rate, loss in zip(curve.rates, curve.losses, strict=True) if math.isfinite(loss) and loss <= top]
        band = [(rate, low, min(high, top)) for rate, low, high in zip(curve.tried, curve.low, curve.high, strict=True) if low <= top]
        around = [rate for rate, _, _ in band] + [rate for rate, _, _ in reversed(band)]
        shared = {"type": "scatter", "mode": "lines", "legendgroup": curve.label, "showlegend": False}
        data.append(shared | {
            "x": around, "y": [high for _, _, high in band] + [low for _, low, _ in reversed(band)], "fill": "toself", "fillcolor": colour,
            "opacity": 0.14, "line": {"width": 0}, "hoverinfo": "skip",
        })  # fmt: skip
        data.append(shared | {
            "x": [rate for rate, _ in points], "y": [loss for _, loss in points], "line": {"color": colour, "width": 2.5},
            "name": "<br>".join(lines(curve.label, 38)), "showlegend": True, "hoverinfo": "text",
            "hovertext": [f"{safe(curve.label)}<br>rate {rate:.2g}: loss {loss:.3g}" for rate, loss in points],
        })  # fmt: skip
        chosen = curve.chosen
        if chosen is not None and chosen.rate is not None and points:
            at = min(points, key=lambda point: abs(math.log(point[0] / (chosen.rate or 1))))
            data.append(shared | {
                "mode": "markers", "x": [chosen.rate], "y": [at[1]], "marker": {"color": colour, "size": 13, "symbol": "diamond"},
                "hoverinfo": "text", "hovertext": [f"{safe(curve.label)}<br>{chosen.rule}: {chosen.rate:.2g}"],
            })  # fmt: skip
    layout = {
        "height": 380 + 20 * min(len(ranges), len(COLOUR)), "margin": {"l": 8, "r": 8, "t": 30, "b": 70}, "legend": LEGEND,
        "annotations": [note("<b>training loss</b>", 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(type="log", showgrid=False, exponentformat="power", dtick=1, title={"text": "learning rate", "standoff": 8}),
        "yaxis": axis(),
    }  # fmt: skip
    return picture("rates", data, layout)


def _history(histories: Sequence[History]) -> Picture:
    """Draw the value of each trial, and the best so far; of random searches, what so many draws give on the average."""
    metric = histories[0].search.metric
    by, data = metrics.scale(metric), list[Figure]()
    for history, colour in zip(histories, COLOUR, strict=False):
        shared: Figure = {"type": "scatter", "legendgroup": history.label, "showlegend": False}
        valued = [trial for trial in history.trials if trial.value is not None]
        data.append(shared | {
            "mode": "markers", "x": [t.number + 1 for t in valued], "y": [by * (t.value or 0.0) for t in valued],
            "marker": {"color": colour, "size": 7, "opacity": 0.6}, "hoverinfo": "text",
            "hovertext": [f"{safe(history.label)}, {_told(history, trial)}" for trial in valued],
        })  # fmt: skip
        data.append(shared | {
            "mode": "lines", "x": [n for n, _ in history.best_so_far], "y": [by * value for _, value in history.best_so_far],
            "line": {"color": colour, "width": 2.5, "shape": "hv"}, "name": "<br>".join(lines(history.label, 38)), "showlegend": True,
            "hoverinfo": "skip",
        })  # fmt: skip
        if history.expected:
            data.append(shared | {
                "mode": "lines", "x": [n for n, _ in history.expected], "y": [by * value for _, value in history.expected],
                "line": {"color": colour, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip",
            })  # fmt: skip
    share = ", %" if metrics.is_fraction(metric) else ""
    layout = {
        "height": 360 + 20 * min(len(histories), len(COLOUR)), "margin": {"l": 8, "r": 8, "t": 30, "b": 70}, "legend": LEGEND,
        "annotations": [note(f"<b>{metric}</b>{share}", 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(showgrid=False, title={"text": "trials", "standoff": 8}, **whole(max(len(h.trials) for h in histories))),
        "yaxis": axis(),
    }  # fmt: skip
    return picture("history", data, layout)


def _fields(history: History) -> Picture:
    """Draw each trial as a line over its fields and its value: the better half in blue, the best thick."""
    names = short_names(list(history.fields))
    axes = [_positions(history, path) for path in history.fields]
    known = [trial for trial in history.trials if trial.value is not None]
    values = [trial.value or 0.0 for trial in known]
    low, high = min(values), max(values)
    sign = 1 if history.search.direction == "max" else -1
    middle = sorted(sign * value for value in values)[len(values) // 2]
    data: list[Figure] = []
    for trial in sorted(known, key=lambda t: sign * (t.value or 0.0)):
        value = trial.value or 0.0
        good, best = sign * value >= middle, trial.number == history.best
        heights = [places[_key(trial.fields[path])] for path, places in zip(history.fields, axes, strict=True)]
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": list(range(len(heights) + 1)),
            "y": [*heights, (value - low) / ((high - low) or 1)], "hoverinfo": "text",
            "hovertext": _told(history, trial), "line": {"color": COLOURS["helps"] if good else WORST, "width": 4 if best else 1.5},
            "marker": {"size": 5}, "opacity": 1 if best else 0.7,
        })  # fmt: skip
    ends = [*(_ends(history, path) for path in history.fields), tuple(words.value(end, history.search.metric) for end in (low, high))]
    heads = [*(names[path] for path in history.fields), history.search.metric.rsplit("/", 1)[-1]]
    layout = {
        "height": 360, "margin": {"l": 30, "r": 40, "t": 34, "b": 60}, "showlegend": False,
        "annotations": [
            {"x": i, "y": y, "text": safe(text), "showarrow": False, "yanchor": side, "yshift": 6 if side == "bottom" else -6}
            for i, (bottom, top) in enumerate(ends) for y, text, side in ((0, bottom, "top"), (1, top, "bottom"))
        ],
        "xaxis": axis(tickmode="array", tickvals=list(range(len(heads))), ticktext=["<br>".join(lines(h, 12)) for h in heads], ticklen=16),
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
    }  # fmt: skip
    return picture("fields", data, layout)


def _map(history: History) -> Picture:
    """Draw the value over two fields, interpolated, with the trials as dots on it."""
    assert history.map is not None
    x, y = history.map.fields
    by, known = metrics.scale(history.search.metric), [trial for trial in history.trials if trial.value is not None]
    scale = [[0.0, "#b9bec6"], [1.0, "#0174f4"]]
    data: list[Figure] = [
        {
            "type": "contour", "x": list(history.map.x), "y": list(history.map.y),
            "z": [[round(by * value, 3) for value in row] for row in history.map.z],
            "colorscale": scale if history.search.direction == "max" else [[0.0, scale[1][1]], [1.0, scale[0][1]]], "showscale": False,
            "line": {"width": 0.5, "color": GREY}, "hoverinfo": "skip", "ncontours": 12, "opacity": 0.55,
        },
        {
            "type": "scatter", "mode": "markers", "x": [t.fields[x] for t in known], "y": [t.fields[y] for t in known], "hoverinfo": "text",
            "hovertext": [_told(history, trial) for trial in known],
            "marker": {
                "color": [COLOURS["hurts"] if t.number == history.best else GREY for t in known],
                "size": [13 if t.number == history.best else 7 for t in known], "line": {"color": "#ffffff", "width": 1},
            },
        },
    ]  # fmt: skip
    names = short_names(list(history.fields))
    kinds = {path: {"type": "log", "exponentformat": "power", "dtick": 1} if path in history.logs else {} for path in (x, y)}
    layout = {
        "height": 400, "margin": {"l": 8, "r": 8, "t": 30, "b": 60}, "showlegend": False,
        "annotations": [note(f"<b>{safe(names[y])}</b>", 1) | {"yref": "paper", "yanchor": "bottom"}],
        "xaxis": axis(showgrid=False, title={"text": safe(names[x]), "standoff": 8}, **kinds[x]), "yaxis": axis(showgrid=False, **kinds[y]),
    }  # fmt: skip
    return picture("map", data, layout)


def _key(given: Any) -> str:
    return repr(given)


def _positions(history: History, path: str) -> dict[str, float]:
    """Place every value of a field that was tried between 0 and 1."""
    given = [trial.fields[path] for trial in history.trials]
    tried = history.search.space[path]
    if tried.choices is not None:
        every = tried.choices
        return {_key(one): i / max(1, len(every) - 1) for i, one in enumerate(every)}
    low, high = float(tried.low or 0), float(tried.high or 0)
    scale = math.log if tried.log else float
    return {_key(one): (scale(one) - scale(low)) / (scale(high) - scale(low)) for one in given}


def _ends(history: History, path: str) -> tuple[str, str]:
    tried = history.search.space[path]
    low, high = (tried.choices[0], tried.choices[-1]) if tried.choices is not None else (tried.low, tried.high)
    return words.field(low), words.field(high)


def _said(history: History, fields: Any) -> str:
    names = short_names(list(history.fields))
    return safe(", ".join(f"{names[path]} {words.field(fields[path])}" for path in history.fields))


def _told(history: History, trial: Trial) -> str:
    return f"trial {trial.number}<br>{_said(history, trial.fields)}<br>{words.value(trial.value, history.search.metric)}"


def tables(findings: Findings) -> dict[str, Table]:
    """Lay out everything that the pictures show, and the effects that turn."""
    found = findings.tuning or TuningFinding()
    return {"rates": _rates_table(found.ranges), "trials": _trials_table(found.histories), "turns": _turns_table(findings, found)}


def _rates_table(ranges: Sequence[RangeCurve]) -> Table:
    columns: list[tuple[str, Kind]] = [
        ("cell", "head"), ("rule", "text"), ("rate", "number"), ("about as good", "value"), ("status", "text"), ("taken", "text")
    ]  # fmt: skip
    rows = []
    for curve in ranges:
        for rule, one in curve.suggestions.items():
            rate, low, high = ("-" if number is None else f"{number:.2g}" for number in (one.rate, one.low, one.high))
            is_taken = curve.chosen is not None and curve.chosen.rule == rule and curve.chosen.status == "ok"
            rows.append((curve.label, rule, rate, f"{low} to {high}" if one.rate else "-", one.status, "yes" if is_taken else ""))
    return table("rates-table", RANGES, columns, rows)


def _trials_table(histories: Sequence[History]) -> Table:
    fields = list(dict.fromkeys(itertools.chain.from_iterable(history.fields for history in histories)))
    names = short_names(fields)
    metric = histories[0].search.metric if histories else ""
    share = ", %" if metrics.is_fraction(metric) else ""
    columns: list[tuple[str, Kind]] = [
        ("search", "head"), ("trial", "number"), *((names[path], "number") for path in fields), (f"{metric}{share}", "number"),
        ("what became of it", "text"),
    ]  # fmt: skip
    rows = []
    for history in histories:
        for trial in history.trials:
            what = "the best" if trial.number == history.best else trial.state
            own = "" if trial.proposed or history.search.sampler == "grid" else ", as the recipe stands"
            shown = [words.field(trial.fields[path]) if path in trial.fields else "-" for path in fields]
            rows.append((history.label, str(trial.number), *shown, words.bare(trial.value, metric), what + own))
    return table("trials-table", "Every trial of every search", columns, rows)


def _turns_table(findings: Findings, found: TuningFinding) -> Table:
    metric = found.histories[0].search.metric if found.histories else ""
    unit = ", points" if metrics.is_fraction(metric) else ""
    columns: list[tuple[str, Kind]] = [
        ("change", "head"), (f"at the shared fields{unit}", "number"), (f"at the tuned fields{unit}", "number"), ("sign", "text"),
    ]  # fmt: skip
    short = short_names([factor.name for factor in findings.study.factors])
    rows = []
    for turn in found.turns:
        factor, start, end = turn.change
        sizes = [f"{metrics.scale(metric) * size:+.2f}" if unit else f"{size:+.3g}" for size in (turn.shared, turn.tuned)]
        named = f"{labels.choice(short[factor], end)} instead of {start}{labels.where(turn.scope, findings)}"
        rows.append((named, *sizes, "changes" if turn.is_turned else "stays"))
    return table("turns-table", f"Each change before and after tuning, by {metric} of the trials", columns, rows)
