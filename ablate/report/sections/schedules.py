"""The learning rate over a training, as the recipes of the study set it."""

from dataclasses import dataclass

from ablate.analysis.findings import Findings
from ablate.recipe import fields, rates
from ablate.recipe.fields import Recipe
from ablate.report.canvas import CLEAR, LINES, Figure, Picture, axis, lines, picture, safe, title, whole
from ablate.report.section import Section, plots

POINTS = 100  # of a course, about
DRAWN = 60  # of them at most: the page stays small
NAME = 38  # characters of 13 px that fit on a phone beside the line of a legend
CAPTION = "The learning rate over the training; it is set anew before every step."


@dataclass(frozen=True, slots=True)
class Course:
    """A learning rate over the epochs, and the cells that are trained by it."""

    cells: tuple[str, ...]
    epochs: tuple[float, ...]
    rates: tuple[float, ...]


def section(findings: Findings) -> Section:
    """Return every course of the learning rate, those left out that are not chosen yet.

    Nothing is drawn before anything is trained.
    """
    courses = courses_of(findings)
    data = [{"cells": c.cells, "epochs": c.epochs, "rates": c.rates} for c in courses]
    drawn = plots(CAPTION, [schedules(courses)] if courses and findings.curves else [])
    return Section("schedules-title", "Learning rates", drawn, {"schedules": data})


def courses_of(findings: Findings) -> tuple[Course, ...]:
    """Return each different course once, that of the baseline first."""
    cells: dict[tuple[object, ...], list[str]] = {}
    recipes: dict[tuple[object, ...], Recipe] = {}
    for finding in findings.cells:
        recipe = finding.cell.recipe
        if finding.cell.pending:
            continue
        used = [
            path
            for path in fields.fields()
            if path.startswith("schedule.") and fields.is_active(recipe, path)
        ]
        key = (
            recipe.optimizer.lr,
            recipe.training.epochs,
            *((path, fields.value(recipe, path)) for path in used),
        )
        cells.setdefault(key, []).append(finding.cell.label)
        recipes.setdefault(key, recipe)
    return tuple(_course(tuple(labels), recipes[key]) for key, labels in cells.items())


def _course(cells: tuple[str, ...], recipe: Recipe) -> Course:
    epochs = recipe.training.epochs
    each = max(2, -(-POINTS // epochs))  # steps an epoch: enough to see the shape
    steps = each * epochs
    factors = [rates.lr_factor(recipe.schedule, step, steps, epochs) for step in range(steps)]
    return Course(
        cells,
        tuple(round(step / each, 4) for step in range(steps)),
        tuple(float(f"{recipe.optimizer.lr * factor:.5g}") for factor in factors),
    )


def schedules(courses: tuple[Course, ...]) -> Picture:
    """Draw the rate over the epochs: a line for each course."""
    shown = [_thinned(course) for course in courses[: len(LINES)]]
    data: list[Figure] = [
        {
            "type": "scatter", "mode": "lines", "x": list(course.epochs), "y": list(course.rates),
            "line": {"color": colour, "width": 2.5}, "name": "<br>".join(lines(_named(course), NAME)),
            "hoverinfo": "text", "showlegend": len(shown) > 1, "legendrank": rank,
            "hovertext": [
                f"{safe(_named(course))}<br>epoch {epoch:.3g}: {rate:.3g}"
                for epoch, rate in zip(course.epochs, course.rates, strict=True)
            ],
        }
        for rank, (course, colour) in enumerate(zip(shown, LINES, strict=False), 1)
    ]  # fmt: skip
    data.sort(key=lambda line: -line["x"][-1])  # of lines that coincide, each shows beyond the shorter ones
    key = 20 * sum(len(lines(_named(course), NAME)) for course in shown) if len(shown) > 1 else 0
    most = max(round(course.epochs[-1]) + 1 for course in shown)
    legend = {"x": 0, "y": -0.22, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0, "bgcolor": CLEAR}
    layout = {
        "height": 300 + key, "margin": {"l": 8, "r": 8, "t": 30, "b": 60 + key}, "legend": legend,
        "annotations": [title("<b>learning rate</b>")],
        "xaxis": axis(showgrid=False, title={"text": "epochs", "standoff": 8}, **whole(most)),
        "yaxis": axis(rangemode="tozero"),
    }  # fmt: skip
    return picture("schedules", data, layout)


def _thinned(course: Course) -> Course:
    every = slice(None, None, -(-len(course.epochs) // DRAWN))
    return Course(course.cells, course.epochs[every], course.rates[every])


def _named(course: Course) -> str:
    first, more = course.cells[0], len(course.cells) - 1
    return f"{first} and {more} more" if more else first
