"""What all pictures share: plain dicts, in colours that read on light and on dark.

Figures are plain dicts, because plotly's classes add a theme to each; the tests check the dicts with those
classes. Text comes from study files, and plotly renders a few tags in every label: `safe` escapes whatever is
not ours. Backgrounds are transparent, and the page's style sheet colours text, axes and grid by `!important`,
so that one figure reads on light and on dark.
"""

import html
import textwrap
from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]

COLOURS = {
    "helps": "#0174f4",
    "hurts": "#eb5e00",
    "equivalent": "#0da361",
    "undecided": "#828891",
    "unstable": "#a837ad",
}
"""By verdict: any two at least 22 apart in CIELAB, also as each of the three colour blindnesses sees them
(matrices of Machado et al. 2009, severity 1), and with contrast 3:1 on both backgrounds. Shapes and words
say the same."""
SYMBOLS = {
    "helps": "triangle-up",
    "hurts": "triangle-down",
    "equivalent": "square",
    "undecided": "circle-open",
    "unstable": "x",
}
GREY = "#828891"
WRAP = 46  # characters of 13 px that fit on a phone
HEIGHT = {"yref": "paper", "y0": 0, "y1": 1}  # of the whole picture
CLEAR = "rgba(0,0,0,0)"
LINES = (
    GREY, "#0174f4", "#eb5e00", "#0da361", "#a837ad", "#c9a227", "#4fb6e8", "#e0607e", "#7d8f2f", "#8a6fd8",
    "#b07a4b", "#2b8a8a",
)  # fmt: skip
"""One for each line of a picture: for trainings, the first is that of the baseline."""
WRITTEN = 12  # rows of a heat map up to which its numbers are written in it; a table has all of them
BELOW = "height"
"""Room for the labels of an x axis: below it alone. At some widths plotly else turns them, makes room at
the side, and turns them back."""


def safe(text: str) -> str:
    """Escape what plotly would take for markup or, between two $, for mathematics; it shows &quot; as is."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def lines(text: str, width: int = WRAP) -> list[str]:
    """Break a text into lines, escaped."""
    return [safe(line) for line in textwrap.wrap(text, width)] or [""]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, not drawn yet: what plotly calls data, layout and config."""

    name: str
    data: list[Figure]
    layout: Figure
    tools: bool = False
    """Whether it shows buttons to zoom."""


def picture(name: str, data: list[Figure], layout: Figure, *, tools: bool = False) -> Picture:
    """Return a picture with the layout that all share below its own. No dragging: a finger scrolls."""
    base: Figure = {
        "autosize": True,
        "dragmode": False,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        "hoverlabel": {
            "bgcolor": "#22262d",
            "bordercolor": "#22262d",
            "font": {"color": "#ffffff", "size": 13},
            "align": "left",
        },
        "hovermode": "closest",
        "modebar": {"bgcolor": CLEAR, "color": GREY, "activecolor": COLOURS["helps"]},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
    }
    return Picture(name, data, base | layout, tools)


def div(picture: Picture, *, alone: bool = False) -> str:
    """Return the div of one picture, without plotly.js; `alone`: a whole page, with it."""
    import plotly.io

    config = {
        "displaylogo": False,
        "displayModeBar": picture.tools,
        "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
        "responsive": True,
    }
    figure = on_white(picture) if alone else {"data": picture.data, "layout": picture.layout}
    return str(
        plotly.io.to_html(
            figure,
            config=config,
            include_plotlyjs=alone,
            full_html=alone,
            div_id=picture.name,
            validate=False,
        )
    )


def on_white(picture: Picture) -> Figure:
    """Return a picture that no page's style sheet colours: dark text and a faint grid on white."""
    layout, ink = picture.layout, "#22262d"
    axes = {
        name: axis | {"gridcolor": "#e3e6ea"}
        for name, axis in layout.items()
        if name.startswith(("xaxis", "yaxis"))
    }
    data = [
        trace | {"textfont": {"color": ink}} if trace["type"] == "heatmap" else trace
        for trace in picture.data
    ]
    return {
        "data": data,
        "layout": layout | axes | {"paper_bgcolor": "#ffffff", "font": layout["font"] | {"color": ink}},
    }


def axis(**more: Any) -> Figure:
    """Return an axis in the colours of the page."""
    if "title" in more:
        more["title"] = {"font": {"size": 13}, **more["title"]}
    return {
        "automargin": True,
        "gridcolor": GREY,
        "gridwidth": 1,
        "zeroline": False,
        "linecolor": GREY,
        **more,
    }


def whole(most: int) -> Figure:
    """Return the ticks of an axis that counts from 1 to `most`: whole numbers, some eight at most."""
    step = max(1, -(-most // 8))
    for nice in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000):
        if nice >= step:
            step = nice
            break
    return {"tickmode": "linear", "tick0": 1 if step == 1 else 0, "dtick": step, "tickformat": "d"}


def note(text: str, depth: float) -> Figure:
    """Return text at the left edge, its top at `depth`."""
    return {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": depth, "yref": "y", "yanchor": "top",
        "align": "left",
        "showarrow": False, "borderpad": 0,
    }  # fmt: skip


def title(text: str, top: float = 1) -> Figure:
    """Return the name of what is drawn, above the axes whose top is at `top` of the picture."""
    return note(text, top) | {"yref": "paper", "yanchor": "bottom"}
