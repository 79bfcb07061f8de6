"""What was searched: the trials of each search, and whether an effect turns when its cells are tuned."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict

from markupsafe import Markup

from ablate.analysis.findings import Findings
from ablate.analysis.tuning import History, Trial, TuningFinding
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import (
    CLEAR,
    COLOURS,
    GREY,
    LINES,
    Figure,
    Picture,
    axis,
    lines,
    picture,
    safe,
    title,
    whole,
)
from ablate.report.section import Block, Note, Section, folded, plots
from ablate.report.tables import Column, Table, in_unit, table
from ablate.store.files import Json
from ablate.study.grid import short_names

LEGEND = {"x": 0, "y": -0.22, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0, "bgcolor": CLEAR}
NAME = 38  # characters of 13 px that fit on a phone beside the line of a legend
LOG: Figure = {"type": "log", "showgrid": False, "exponentformat": "power", "dtick": 1}
WORST = "rgba(128,136,145,0.35)"  # a line of a trial that is not among the better half
HISTORY = "Trials: a dot is the value of one trial, the line the best so far{}."
EXPECTED = ", the dotted line the average best of as many random trials"
FIELDS = "The trials of {}: a line a trial, the better half in blue, the best one thick."
MAP = (
    "The same trials over two fields; between the dots the colour is only interpolated. The orange dot "
    "is the best."
)
TURNS = (
    "At the shared fields: the first trial of each search, the recipe as it stands. At the tuned ones: its "
    "best trial. Both by few validation images and without an interval: the verdicts are those of the runs "
    "above."
)


def section(findings: Findings) -> Section:
    """Return what tuning did; without blocks for a study that has none."""
    tuned = findings.tuning
    blocks = _blocks(tuned, findings) if tuned else ()
    missing = (Note("No search and no range test has an answer yet."),) if tuned and not tuned.ranges else ()
    return Section(
        "tuning-title", "Tuning", blocks or missing, {"tuning": _data(tuned, findings) if tuned else None}
    )


def _blocks(tuned: TuningFinding, findings: Findings) -> tuple[Block, ...]:
    """Return the blocks of trials; of their fields, those of the first search."""
    histories = tuned.histories
    first = histories[0] if histories else None
    drawn = (
        first if first and len(first.fields) > 1 and any(t.value is not None for t in first.trials) else None
    )
    turns = turns_table(findings, tuned)
    return (
        *((_searched(first, tuned),) if first else ()),
        *(plots(HISTORY.format(EXPECTED if first.expected else ""), [values(histories)]) if first else ()),
        *((turns, Note(TURNS, soft=True)) if turns.rows else ()),
        *(plots(FIELDS.format(drawn.label), [fields(drawn)]) if drawn else ()),
        *(plots(MAP, [value_map(first)]) if first and first.map else ()),
        *folded("All trials", trials_table(histories)),
    )


def _searched(first: History, tuned: TuningFinding) -> Note:
    """Return how many trials there were, what they are compared by, and how many effects turn."""
    search, turned = first.search, sum(turn.is_turned for turn in tuned.turns)
    whose = {
        "cell": f"Every cell is tuned by {search.trials} trials",
        "study": f"The baseline is tuned by {search.trials} trials, and every cell takes its values",
    }[search.per]
    text = (
        f"{whose} (sampler {search.sampler}). They are compared by {search.metric} under seeds that no run "
        "of this study has; the test images were not looked at."
    )
    change = "changes its" if turned == 1 else "change their"
    strong = Markup(" <strong>{} of the effects {} sign with tuning</strong>: see the table.").format(
        turned, change
    )
    return Note(Markup("{}").format(text) + strong if turned else text)


def values(histories: Sequence[History]) -> Picture:
    """Draw the value of each trial and the best so far; of random searches, the average best as well."""
    metric, most = histories[0].search.metric, max(len(history.trials) for history in histories)
    by = metrics.scale(metric)
    data = [
        trace
        for history, colour in zip(histories, LINES, strict=False)
        for trace in _value(history, colour, by)
    ]
    layout = {
        "height": 360 + 20 * min(len(histories), len(LINES)), "margin": {"l": 8, "r": 8, "t": 30, "b": 70},
        "legend": LEGEND, "annotations": [title(f"<b>{metric}</b>{in_unit(metric, share='%')}")],
        "xaxis": axis(showgrid=False, title={"text": "trials", "standoff": 8}, **whole(most)),
        "yaxis": axis(),
    }  # fmt: skip
    return picture("history", data, layout)


def _value(history: History, colour: str, by: float) -> list[Figure]:
    shared: Figure = {"type": "scatter", "legendgroup": history.label, "showlegend": False}
    trials = [trial for trial in history.trials if trial.value is not None]
    drawn: list[Figure] = [
        shared | {
            "mode": "markers", "x": [t.number + 1 for t in trials],
            "y": [by * (t.value or 0.0) for t in trials],
            "marker": {"color": colour, "size": 7, "opacity": 0.6}, "hoverinfo": "text",
            "hovertext": [f"{safe(history.label)}, {_hover(history, trial)}" for trial in trials],
        },
        shared | {
            "mode": "lines", "x": [n for n, _ in history.best_so_far],
            "y": [by * value for _, value in history.best_so_far],
            "line": {"color": colour, "width": 2.5, "shape": "hv"},
            "name": "<br>".join(lines(history.label, NAME)),
            "showlegend": True, "hoverinfo": "skip",
        },
    ]  # fmt: skip
    if history.expected:
        drawn.append(shared | {
            "mode": "lines", "x": [n for n, _ in history.expected],
            "y": [by * value for _, value in history.expected],
            "line": {"color": colour, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip",
        })  # fmt: skip
    return drawn


def fields(history: History) -> Picture:
    """Draw each trial as a line over its fields and its value: the better half in blue, the best thick."""
    metric, short = history.search.metric, short_names(list(history.fields))
    axes = [_positions(history, path) for path in history.fields]
    trials = [trial for trial in history.trials if trial.value is not None]
    sign = 1 if history.search.direction == "max" else -1
    ranked = sorted(trials, key=lambda trial: sign * (trial.value or 0.0))
    middle = sign * (ranked[len(ranked) // 2].value or 0.0)
    low, high = sorted(trial.value or 0.0 for trial in (ranked[0], ranked[-1]))
    data: list[Figure] = []
    for trial in ranked:
        value = trial.value or 0.0
        good, best = sign * value >= middle, trial.number == history.best
        heights = [
            places[_key(trial.fields[path])] for path, places in zip(history.fields, axes, strict=True)
        ]
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": list(range(len(heights) + 1)),
            "y": [*heights, (value - low) / ((high - low) or 1)], "hoverinfo": "text",
            "hovertext": _hover(history, trial),
            "line": {"color": COLOURS["helps"] if good else WORST, "width": 4 if best else 1.5},
            "marker": {"size": 5}, "opacity": 1 if best else 0.7,
        })  # fmt: skip
    ends = [
        *(_ends(history, path) for path in history.fields),
        (words.value(low, metric), words.value(high, metric)),
    ]
    heads = [*(short[path] for path in history.fields), metric.rsplit("/", 1)[-1]]
    places = {
        "tickvals": list(range(len(heads))),
        "ticktext": ["<br>".join(lines(head, 12)) for head in heads],
    }
    layout = {
        "height": 360, "margin": {"l": 30, "r": 40, "t": 34, "b": 60}, "showlegend": False,
        "annotations": [_end(i, y, texts[y]) for i, texts in enumerate(ends) for y in (0, 1)],
        "xaxis": axis(tickmode="array", **places, ticklen=16),
        "yaxis": {"visible": False, "range": [-0.06, 1.06]},
    }  # fmt: skip
    return picture("fields", data, layout)


def _end(x: int, y: int, text: str) -> Figure:
    side, shift = ("bottom", 6) if y else ("top", -6)
    return {"x": x, "y": y, "text": safe(text), "showarrow": False, "yanchor": side, "yshift": shift}


def value_map(history: History) -> Picture:
    """Draw the value over two fields, interpolated, with the trials as dots on it."""
    assert history.map is not None
    x, y = history.map.fields
    by = metrics.scale(history.search.metric)
    trials = [trial for trial in history.trials if trial.value is not None]
    pale, strong = ("#b9bec6", "#0174f4") if history.search.direction == "max" else ("#0174f4", "#b9bec6")
    is_best = [trial.number == history.best for trial in trials]
    data: list[Figure] = [
        {
            "type": "contour", "x": list(history.map.x), "y": list(history.map.y),
            "z": [[round(by * value, 3) for value in row] for row in history.map.z],
            "colorscale": [[0.0, pale], [1.0, strong]], "showscale": False,
            "line": {"width": 0.5, "color": GREY},
            "hoverinfo": "skip", "ncontours": 12, "opacity": 0.55,
        },
        {
            "type": "scatter", "mode": "markers", "x": [t.fields[x] for t in trials],
            "y": [t.fields[y] for t in trials], "hoverinfo": "text",
            "hovertext": [_hover(history, trial) for trial in trials],
            "marker": {
                "color": [COLOURS["hurts"] if best else GREY for best in is_best],
                "size": [13 if best else 7 for best in is_best], "line": {"color": "#ffffff", "width": 1},
            },
        },
    ]  # fmt: skip
    short = short_names(list(history.fields))
    across, up = (LOG if path in history.logs else {"showgrid": False} for path in (x, y))
    layout = {
        "height": 400, "margin": {"l": 8, "r": 8, "t": 30, "b": 60}, "showlegend": False,
        "annotations": [title(f"<b>{safe(short[y])}</b>")],
        "xaxis": axis(title={"text": safe(short[x]), "standoff": 8}, **across), "yaxis": axis(**up),
    }  # fmt: skip
    return picture("map", data, layout)


def _key(value: object) -> str:
    return repr(value)


def _positions(history: History, path: str) -> dict[str, float]:
    """Place every value of a field that was tried between 0 and 1."""
    space = history.search.space[path]
    if space.choices is not None:
        return {_key(choice): i / max(1, len(space.choices) - 1) for i, choice in enumerate(space.choices)}
    scale = math.log if space.log else float
    low, high = scale(float(space.low or 0)), scale(float(space.high or 0))
    return {
        _key(trial.fields[path]): (scale(trial.fields[path]) - low) / (high - low) for trial in history.trials
    }


def _ends(history: History, path: str) -> tuple[str, str]:
    space = history.search.space[path]
    low, high = (
        (space.choices[0], space.choices[-1]) if space.choices is not None else (space.low, space.high)
    )
    return words.field(low), words.field(high)


def _hover(history: History, trial: Trial) -> str:
    short = short_names(list(history.fields))
    values = safe(", ".join(f"{short[path]} {words.field(trial.fields[path])}" for path in history.fields))
    return f"trial {trial.number}<br>{values}<br>{words.value(trial.value, history.search.metric)}"


def trials_table(histories: Sequence[History]) -> Table:
    """Return a table of every trial of every search."""
    paths = list(dict.fromkeys(itertools.chain.from_iterable(history.fields for history in histories)))
    short = short_names(paths)
    metric = histories[0].search.metric if histories else ""
    columns: list[Column] = [
        ("search", "head"), ("trial", "number"), *((short[path], "number") for path in paths),
        (f"{metric}{in_unit(metric, share='%')}", "number"), ("outcome", "text"),
    ]  # fmt: skip
    rows = []
    for history in histories:
        for trial in history.trials:
            outcome = "the best" if trial.number == history.best else trial.state
            own = "" if trial.proposed or history.search.sampler == "grid" else ", as the recipe stands"
            values = [words.field(trial.fields[path]) if path in trial.fields else "-" for path in paths]
            rows.append(
                (history.label, str(trial.number), *values, words.bare(trial.value, metric), outcome + own)
            )
    return table("trials-table", "Every trial of every search", columns, rows)


def turns_table(findings: Findings, tuned: TuningFinding) -> Table:
    """Return a table of each change before and after tuning."""
    metric = tuned.histories[0].search.metric if tuned.histories else ""
    unit = in_unit(metric)
    columns: list[Column] = [
        ("change", "head"), (f"at the shared fields{unit}", "number"),
        (f"at the tuned fields{unit}", "number"),
        ("sign", "text"),
    ]  # fmt: skip
    short = short_names([factor.name for factor in findings.study.factors])
    rows = []
    for turn in tuned.turns:
        factor, start, end = turn.change
        sizes = [
            f"{metrics.scale(metric) * size:+.2f}" if unit else f"{size:+.3g}"
            for size in (turn.shared, turn.tuned)
        ]
        change = f"{names.choice(short[factor], end)} instead of {start}{names.where(turn.scope, findings)}"
        rows.append((change, *sizes, "changes" if turn.is_turned else "stays"))
    return table(
        "turns-table", f"Each change before and after tuning, by {metric} of the trials", columns, rows
    )


def _data(tuned: TuningFinding, findings: Findings) -> Json:
    """Return range tests, trials and turned effects."""
    searches = [
        {
            "cell": h.label, "sampler": h.search.sampler, "metric": h.search.metric, "best": h.best,
            "trials": [asdict(t) for t in h.trials], "expected_best": h.expected,
        }
        for h in tuned.histories
    ]  # fmt: skip
    ranges = [
        {
            "cell": c.label, "rates": c.rates, "losses": c.losses,
            "chosen": asdict(c.chosen) if c.chosen else None,
            "suggestions": {rule: asdict(suggestion) for rule, suggestion in c.suggestions.items()},
        }
        for c in tuned.ranges
    ]  # fmt: skip
    turns = [
        {
            "factor": t.change[0], "from": t.change[1], "to": t.change[2], "shared": t.shared,
            "tuned": t.tuned,
            "condition": names.condition(t.scope, findings),
        }
        for t in tuned.turns
    ]  # fmt: skip
    return {"searches": searches, "range_tests": ranges, "turns": turns}
