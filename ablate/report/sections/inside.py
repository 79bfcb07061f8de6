"""Two cells from inside: which classes are taken for which, how far to trust confidence, mistakes."""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from ablate import descriptors
from ablate.analysis.diagnostics import Detail
from ablate.analysis.findings import Findings
from ablate.errors import RefusedError
from ablate.report.canvas import (
    BELOW,
    GREY,
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
from ablate.report.section import Block, Image, Note, Section, folded, plots
from ablate.report.tables import Cell, Column, Table, table
from ablate.store import job_folder

COLOURS = LINES[:8]
SEQUENTIAL = [[0.0, "rgba(1,116,244,0.03)"], [1.0, "rgba(1,116,244,0.6)"]]  # numbers stay readable on it
MOST_CLASSES = 100  # of a confusion matrix that is drawn
MOST_CONFUSIONS = 15  # of a table with more than WRITTEN classes
PNG = b"\x89PNG\r\n\x1a\n"  # what such a file begins with
LARGEST = 500_000  # bytes of one gallery that the page takes in
LEGEND = 38  # characters of 13 px that fit on a phone beside the line of a legend
CONFUSION = (
    "Which class is taken for which, in percent of its images, mean over seeds. Right answers are on the "
    "diagonal, uncoloured."
)
CALIBRATION = (
    "Calibration: how often an answer of some confidence is right. Below the diagonal the network is too "
    "sure of itself; a small point stands for few answers."
)


def section(findings: Findings) -> Section:
    """Return the cells that are shown from inside: baseline and best, or the requested ones."""
    cells = findings.details
    drawn = [cell for cell in cells if len(cell.classes) <= MOST_CLASSES]
    calibrated = [cell for cell in cells if cell.calibration]
    confusions = [confusion(cell, f"confusion-{i}") for i, cell in enumerate(drawn)]
    return Section(
        "inside-title",
        "Two cells from inside",
        (
            *((_named(cells),) if cells else ()),
            *plots(CONFUSION, confusions),
            *folded("The numbers of these pictures", confusion_table(findings)),
            *folded("Precision, recall and F1 of each class", class_table(cells)),
            *plots(CALIBRATION, [calibration(calibrated)] if calibrated else []),
            *folded("The numbers of this picture", calibration_table(findings)),
            *(block for cell in cells for block in _gallery(cell)),
        ),
        {
            "inside": [
                {
                    "cell": c.label,
                    "classes": c.classes,
                    "confusion": c.confusion,
                    "calibration": c.calibration,
                    "scores": [asdict(score) for score in c.scores],
                }
                for c in cells
            ]
        },
    )


def _named(cells: Sequence[Detail]) -> Block:
    numbered = "; ".join(f"{i}: {cell.label}" for i, cell in enumerate(cells, 1))
    return Note(Markup("{}. Choose others with <code>ablate report --cell</code>.").format(numbered))


def _gallery(cell: Detail) -> tuple[Block, ...]:
    """Return what a cell got wrong and, where its version drew them, some images that it got right."""
    if not cell.picture:
        return ()
    wrong = (
        f"Test images that {cell.label} got wrong, each with its class, the answer and its confidence; the "
        "commonest mistakes stand in the table above"
    )
    right = f"Test images that {cell.label} got right, each with its class and the confidence of the answer"
    of = f"{cell.label}, seed {cell.picture_seed}"
    blocks = (
        Image(f"{of}: the most confident mistakes on test images.", gallery(Path(cell.picture)), wrong),
        Image(
            f"{of}: test images that were answered rightly, the first of each class.",
            gallery(Path(cell.picture).with_name(job_folder.CORRECT)),
            right,
        ),
    )
    return tuple(block for block in blocks if block.source)


def gallery(path: Path) -> str:
    """Return a picture as a data address; empty where there is none, or a large one."""
    try:
        picture = descriptors.read(path, LARGEST)
    except (OSError, RefusedError):
        return ""
    if not picture.startswith(PNG):
        return ""
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def confusion(cell: Detail, name: str) -> Picture:
    """Draw which class is taken for which; right answers stay grey, so that mistakes are what one sees."""
    count = len(cell.classes)
    head = [f"<b>{line}</b>" for line in lines(cell.label)]
    top = 12 + 17 * len(head)
    named = [safe(label[:24]) for label in cell.classes]
    ticks: Figure = {"tickmode": "array", "tickvals": list(range(count)), "ticktext": named}
    if count > 30:
        ticks = {"showticklabels": False}
    right = [
        {"x": i, "y": i, "text": f"{100 * cell.confusion[i][i]:.0f}", "showarrow": False}
        for i in range(count)
        if count <= WRITTEN
    ]
    layout = {
        "height": min(620, 120 + 34 * count) + top, "margin": {"l": 8, "r": 8, "t": top, "b": 8},
        "xaxis": axis(showgrid=False, title={"text": "answer", "standoff": 8}, automargin=BELOW, **ticks),
        "yaxis": axis(
            showgrid=False, autorange="reversed", title={"text": "true class", "standoff": 8}, **ticks,
        ),
        "annotations": [title("<br>".join(head)) | {"yshift": 4}, *right],
    }  # fmt: skip
    return picture(name, [_squares(cell)], layout)


def _squares(cell: Detail) -> Figure:
    count, rows = len(cell.classes), cell.confusion
    # Without a text for shares of 0: most of 100 x 100 are, and the page is large enough.
    hover = [
        [
            f"{safe(true)} taken for {safe(answer)}: {100 * share:.2f} %" if share else ""
            for answer, share in zip(cell.classes, row, strict=True)
        ]
        for true, row in zip(cell.classes, rows, strict=True)
    ]
    text = [[f"{100 * share:.0f}" if 100 * share >= 0.5 else "" for share in row] for row in rows]
    z = [
        [None if i == j else round(100 * share, 4) for j, share in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    return {
        "type": "heatmap", "z": z, "x": list(range(count)), "y": list(range(count)), "hovertext": hover,
        "hoverinfo": "text", "text": text if count <= WRITTEN else None, "texttemplate": "%{text}",
        "colorscale": SEQUENTIAL, "zmin": 0, "showscale": False, "xgap": 1, "ygap": 1,
    }  # fmt: skip


def calibration(cells: Sequence[Detail]) -> Picture:
    """Draw how often answers of some confidence are right; on the diagonal it can be taken at its word."""
    data: list[Figure] = [{
        "type": "scatter", "x": [0, 100], "y": [0, 100], "mode": "lines",
        "line": {"color": GREY, "width": 1, "dash": "dot"}, "hoverinfo": "skip", "showlegend": False,
    }]  # fmt: skip
    most = max(n for cell in cells for n, _, _ in cell.calibration)
    for cell, colour in zip(cells, itertools.cycle(COLOURS), strict=False):
        bins = cell.calibration
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [100 * c for _, c, _ in bins],
            "y": [100 * a for _, _, a in bins], "name": "<br>".join(lines(cell.label, LEGEND)),
            "hoverinfo": "text",
            "hovertext": [
                f"{n:,} answers of {100 * c:.0f} % confidence: {100 * a:.1f} % right" for n, c, a in bins
            ],
            "line": {"color": colour, "width": 2},
            "marker": {"size": [4 + 14 * (n / most) ** 0.5 for n, _, _ in bins], "color": colour},
        })  # fmt: skip
    layout = {
        "height": 380, "margin": {"l": 8, "r": 8, "t": 30, "b": 60},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"},
        "annotations": [title("<b>answers that are right</b>, %")],
        "xaxis": axis(range=[0, 102], title={"text": "confidence, %", "standoff": 8}),
        "yaxis": axis(range=[0, 102]),
    }  # fmt: skip
    return picture("calibration", data, layout)


def confusion_table(findings: Findings) -> Table:
    """Return a table of the mistakes of the cells, the commonest first, and then what was right."""
    columns: list[Column] = [
        ("cell", "head"), ("true class", "text"), ("taken for", "text"), ("of its images, %", "number")
    ]  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for cell in findings.details:
        shares = [(share, i, j) for i, row in enumerate(cell.confusion) for j, share in enumerate(row)]
        best = sorted(
            (pair for pair in shares if pair[1] != pair[2] and pair[0] > 0), key=lambda pair: -pair[0]
        )
        if len(cell.classes) > WRITTEN:
            best = best[:MOST_CONFUSIONS]
        else:
            best += [pair for pair in shares if pair[1] == pair[2]]
        rows += [(cell.label, cell.classes[i], cell.classes[j], f"{100 * share:.2f}") for share, i, j in best]
    many = any(len(cell.classes) > WRITTEN for cell in findings.details)
    caption = "The mistakes, the commonest first, and the right answers"
    if many:
        caption = f"The {MOST_CONFUSIONS} commonest mistakes"
    return table("confusion-table", f"{caption}, mean over seeds", columns, rows)


def class_table(cells: Sequence[Detail]) -> Table:
    """Return a table of precision, recall and F1 of each class, in percent."""
    columns: list[Column] = [
        ("cell", "head"), ("class", "text"), ("test images", "number"), ("precision, %", "number"),
        ("recall, %", "number"), ("F1, %", "number"),
    ]  # fmt: skip
    rows = (
        (
            cell.label,
            one.name,
            f"{one.images:,}",
            *(f"{100 * part:.2f}" for part in (one.precision, one.recall, one.f1)),
        )
        for cell in cells
        for one in cell.scores
    )
    caption = (
        "Precision: how many of the answers were right; recall: how many of the images were, their accuracy. "
        "Means over seeds"
    )
    return table("class-table", caption, columns, rows)


def calibration_table(findings: Findings) -> Table:
    """Return a table of confidence against accuracy, bin by bin."""
    columns: list[Column] = [
        ("cell", "head"), ("answers", "number"), ("mean confidence, %", "number"), ("right, %", "number")
    ]  # fmt: skip
    rows = (
        (d.label, f"{n:,}", f"{100 * c:.1f}", f"{100 * a:.1f}")
        for d in findings.details
        for n, c, a in d.calibration
    )
    caption = "Confidence and accuracy of the test answers of all seeds, in 15 equal bins"
    return table("calibration-table", caption, columns, rows)
