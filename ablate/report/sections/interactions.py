"""What two changes do together, beyond the sum of both."""

import itertools

from ablate.analysis.diagnostics import Interplay
from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import (
    BELOW,
    LINES,
    WRITTEN,
    Figure,
    Picture,
    axis,
    lines,
    picture,
    safe,
    title,
)
from ablate.report.section import Block, Section, folded, plots, shown
from ablate.report.sections.effects import effect_data, effects_sheet, effects_table
from ablate.report.tables import Column, Table, in_unit, table
from ablate.store.files import Json
from ablate.study.grid import short_names

COLOURS = LINES[:8]
UNEVEN = " Runs are missing, so that the means are not over the same seeds and settings."
# Numbers stay readable on these.
DIVERGING = [[0.0, "rgba(235,94,0,0.6)"], [0.5, "rgba(128,136,145,0.10)"], [1.0, "rgba(1,116,244,0.6)"]]


def section(findings: Findings) -> Section:
    """Return the interactions of a factorial study, and the lines of the strongest."""
    caption = "Two changes together, beyond the sum of both"
    squares = effects_table("interactions-table", caption, findings.interactions, findings)
    data = [effect_data(effect, findings) for effect in findings.interactions]
    return Section(
        "interactions",
        "Interactions",
        (*_plots(findings), *shown(squares), *folded("The means of these lines", interplay_table(findings)))
        if squares.rows
        else (),
        {
            "effects": data,
            "interplay": _data(findings.interplay) if findings.interplay else None,
        },
        (effects_sheet(data, findings),),
    )


def _plots(findings: Findings) -> tuple[Block, ...]:
    known = any(effect.estimate.effect is not None for effect in findings.interactions)
    partly = any(effect.scope is not None for effect in findings.interactions)
    squares = (
        f"What two changes do together, beyond the sum of both ({words.higher(findings)}): blue is more than "
        "the sum, orange is "
        f"less.{' A star: known in some settings only; the table says in which.' if partly else ''}"
    )
    uneven = findings.interplay is not None and findings.interplay.uneven
    means = (
        "The strongest of them: the mean at each pair of levels. Parallel lines would be no "
        f"interaction.{UNEVEN if uneven else ''}"
    )
    return (
        *plots(squares, [heat(findings)] if known else []),
        *plots(means, [interplay(findings.interplay, findings)] if findings.interplay else []),
    )


def heat(findings: Findings) -> Picture:
    """Draw every interaction as a square: two changes together, beyond the sum of both; blue is a benefit."""
    known = [effect for effect in findings.interactions if effect.estimate.effect is not None]
    # By the whole change, because two may have one name.
    across, down = (list(dict.fromkeys(effect.changes[i] for effect in known)) for i in (0, 1))
    place = {effect.changes: effect for effect in known}
    by = metrics.scale(findings.metric) * (1 if findings.direction == "max" else -1)
    squares: list[list[Effect | None]] = [[place.get((one, other)) for one in across] for other in down]
    sizes = [[e.estimate.effect if e else None for e in row] for row in squares]
    z = [[None if size is None else by * size for size in row] for row in sizes]
    reach = max((abs(value) for row in z for value in row if value is not None), default=1.0) or 1.0
    text = [["" if e is None else _number(e, findings) for e in row] for row in squares]
    hover = [
        ["" if e is None else "<br>".join(lines(words.sentence(e, findings))) for e in row] for row in squares
    ]
    columns, rows = (
        ["<br>".join(lines(_change(findings, change), 16)) for change in changes]
        for changes in (across, down)
    )
    data: list[Figure] = [{
        "type": "heatmap", "z": z, "x": list(range(len(across))), "y": list(range(len(down))),
        "text": text if len(across) <= WRITTEN else None, "texttemplate": "%{text}",
        "hovertext": hover, "hoverinfo": "text", "colorscale": DIVERGING, "zmin": -reach, "zmax": reach,
        "showscale": False, "xgap": 3, "ygap": 3,
    }]  # fmt: skip
    layout = {
        "height": 90 + 52 * len(down), "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": axis(
            showgrid=False, side="bottom", tickmode="array", tickvals=list(range(len(across))),
            ticktext=columns,
            automargin=BELOW,
        ),
        "yaxis": axis(
            showgrid=False, autorange="reversed", tickmode="array", tickvals=list(range(len(down))),
            ticktext=rows,
        ),
    }  # fmt: skip
    return picture("heat", data, layout)


def _number(effect: Effect, findings: Findings) -> str:
    """Return the size of an effect, with a star where it is known in some settings only."""
    return words.effect_words(effect.estimate, findings.metric) + ("*" if effect.scope is not None else "")


def _change(findings: Findings, change: tuple[str, str, str]) -> str:
    factor, _, end = change
    return names.choice(short_names([f.name for f in findings.study.factors])[factor], end)


def interplay(strongest: Interplay, findings: Findings) -> Picture:
    """Draw the strongest interaction: the mean at each level of one factor, a line a level of the other."""
    by = metrics.scale(findings.metric)
    short = short_names([factor.name for factor in findings.study.factors])
    first, second = (short[name] for name in strongest.factors)
    levels, means = strongest.levels, strongest.means
    data: list[Figure] = []
    for level, colour in zip(levels[1], itertools.cycle(COLOURS), strict=False):
        points = [(a, by * means[a, level]) for a in levels[0] if (a, level) in means]
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [safe(a) for a, _ in points],
            "y": [y for _, y in points],
            "name": safe(f"{second} {level}"), "line": {"color": colour, "width": 2.5},
            "marker": {"size": 9, "color": colour},
        })  # fmt: skip
    layout = {
        "height": 340, "margin": {"l": 8, "r": 8, "t": 30, "b": 60},
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "xanchor": "left", "yanchor": "top"},
        "annotations": [title(f"<b>{safe(findings.metric)}</b>{in_unit(findings.metric, share='%')}")],
        "xaxis": axis(showgrid=False, type="category", title={"text": safe(first), "standoff": 8}),
        "yaxis": axis(),
    }  # fmt: skip
    return picture("interplay", data, layout)


def interplay_table(findings: Findings) -> Table:
    """Return a table of the means that the lines of the strongest interaction go through."""
    strongest, metric = findings.interplay, findings.metric
    if strongest is None:
        return table("interplay-table", "", [("", "head")], ())
    (down, across), (rows, columns) = strongest.factors, strongest.levels
    head: list[Column] = [(down, "head"), *((f"{across} {level}", "number") for level in columns)]
    cells = ((a, *(words.bare(strongest.means.get((a, b)), metric) for b in columns)) for a in rows)
    uneven = (
        "; runs are missing, so that the means are not over the same seeds and settings"
        if strongest.uneven
        else ""
    )
    caption = f"Mean {metric}{in_unit(metric, share='%')} at the levels of the strongest interaction{uneven}"
    return table("interplay-table", caption, head, cells)


def _data(strongest: Interplay) -> Json:
    means = [{"levels": list(pair), "mean": mean} for pair, mean in strongest.means.items()]
    return {
        "factors": list(strongest.factors), "levels": [list(levels) for levels in strongest.levels],
        "means": means,
        "uneven": strongest.uneven,
    }  # fmt: skip
