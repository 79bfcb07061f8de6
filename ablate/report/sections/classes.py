"""What changes do to the accuracy on each class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablate.analysis.diagnostics import ClassEffect
from ablate.analysis.findings import Findings
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import COLOURS, GREY, HEIGHT, SYMBOLS, Figure, Picture, axis, lines, picture, safe
from ablate.report.section import Section, folded, plots
from ablate.report.sections.effects import effect_data
from ablate.report.tables import Cell, Column, Table, in_unit, table

CLASS = 22  # px of one row
WIDE = "so few seeds say nothing about single classes, and only the means are shown"
"""Why the interval of a class is not shown: it covers every change that an accuracy can have."""


def section(findings: Findings) -> Section:
    """Return every change's effect on every class, and a picture of the change that does most."""
    chosen = strongest(findings)
    wide = (
        f" Where a class has no interval, {WIDE}."
        if any(c.effect.says_nothing for c in findings.class_effects)
        else ""
    )
    caption = (
        f"What the largest change ({chosen[0] if chosen else ''}) does to the accuracy on each class. The "
        f"intervals of all changes and classes hold together.{wide}"
    )
    everything = classes_table(findings)
    return Section(
        "classes-title",
        "Classes",
        (
            *plots(caption, [classes(chosen[1], findings)] if chosen else []),
            *folded("All changes and classes", everything),
        ),
        {
            "classes": [
                {"class": c.name} | effect_data(c.effect, _on_class(findings, c.name))
                for c in findings.class_effects
            ]
        },
    )


def _on_class(findings: Findings, name: str) -> Findings:
    """Return the findings for the words of a class: points, whatever the metric of the report."""
    return replace(findings, metric=metrics.PER_CLASS + name)


def strongest(findings: Findings) -> tuple[str, Sequence[ClassEffect]] | None:
    """Return the change whose classes are drawn: the one with the largest main effect that has any."""
    by_change: dict[tuple[str, str, str], list[ClassEffect]] = {}
    for class_effect in findings.class_effects:
        by_change.setdefault(class_effect.effect.changes[0], []).append(class_effect)
    sizes: Mapping[tuple[str, str, str], float] = {
        effect.changes[0]: abs(effect.estimate.effect or 0.0) for effect in findings.effects
    }
    if not by_change:
        return None
    change = max(by_change, key=lambda key: sizes.get(key, 0.0))
    effect = next(e for e in findings.effects if e.changes[0] == change)
    return names.change(effect, findings), by_change[change]


def classes(effects: Sequence[ClassEffect], findings: Findings) -> Picture:
    """Draw what one change does to each class: point and interval, the most helped class first."""
    rows = sorted(effects, key=lambda one: -(one.effect.estimate.effect or 0.0))
    data: list[Figure] = []
    for i, one in enumerate(rows):
        estimate, colour = one.effect.estimate, COLOURS[one.effect.estimate.verdict]
        if estimate.low is not None and estimate.high is not None and not one.effect.says_nothing:
            data.append({
                "type": "scatter", "x": [100 * estimate.low, 100 * estimate.high], "y": [i, i],
                "mode": "lines",
                "hoverinfo": "skip", "line": {"color": colour, "width": 6}, "opacity": 0.55,
            })  # fmt: skip
        shown = estimate if not one.effect.says_nothing else replace(estimate, low=None, high=None)
        numbers = words.difference(shown, metrics.PER_CLASS)
        hover = "<br>".join(lines(f"{one.name}: {numbers}, {words.verdict(one.effect, findings)}"))
        data.append({
            "type": "scatter", "x": [100 * (estimate.effect or 0.0)], "y": [i], "mode": "markers",
            "hoverinfo": "text",
            "hovertext": hover, "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[estimate.verdict]},
        })  # fmt: skip
    change = safe(f"change of the accuracy on a class{in_unit(metrics.PER_CLASS)}")
    layout = {
        "height": 80 + CLASS * len(rows), "margin": {"l": 8, "r": 8, "t": 8, "b": 48}, "showlegend": False,
        "shapes": [{"type": "line", "x0": 0, "x1": 0, **HEIGHT, "line": {"color": GREY, "width": 1.5}}],
        "xaxis": axis(title={"text": change, "standoff": 10}),
        "yaxis": axis(
            showgrid=False, autorange="reversed", tickmode="array", tickvals=list(range(len(rows))),
            ticktext=[safe(one.name[:24]) for one in rows],
        ),
    }  # fmt: skip
    return picture("classes", data, layout)


def classes_table(findings: Findings) -> Table:
    """Return a table of what each change does to the accuracy on each class."""
    columns: list[Column] = [
        ("change", "head"), ("class", "text"), ("effect, points", "number"), ("interval, points", "number"),
        ("verdict", "text"), ("seeds", "number"),
    ]  # fmt: skip
    rows = (_cells(class_effect, findings) for class_effect in findings.class_effects)
    caption = "Accuracy on each class: what each change does to it, the most moved classes first"
    if any(class_effect.effect.says_nothing for class_effect in findings.class_effects):
        caption += f". Where a class has no interval, {WIDE}"
    return table("classes-table", caption, columns, rows)


def _cells(class_effect: ClassEffect, findings: Findings) -> tuple[Cell, ...]:
    effect = class_effect.effect
    interval = "" if effect.says_nothing else words.interval_words(effect.estimate, metrics.PER_CLASS)
    return (
        names.change(effect, findings),
        class_effect.name,
        words.effect_words(effect.estimate, metrics.PER_CLASS) or "-",
        interval or "-",
        words.verdict(effect, findings),
        str(effect.estimate.n),
    )
