"""What each change does to the metric; and how an effect is drawn and laid out, wherever it stands."""

from collections.abc import Iterable, Sequence

from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.recipe import metrics
from ablate.report import names, words
from ablate.report.canvas import (
    COLOURS,
    GREY,
    HEIGHT,
    SYMBOLS,
    Figure,
    Picture,
    axis,
    lines,
    note,
    picture,
    safe,
)
from ablate.report.section import Note, Section, Sheet, plots, shown
from ablate.report.tables import Cell, Column, Mark, Table, in_unit, table
from ablate.store.files import Json

LINE = 17  # px of one line of text
ROW = 40  # px of one interval with its dots


def section(findings: Findings) -> Section:
    """Return the main effects, and what another factor reverses at each of its levels."""
    main = effects_table(
        "effects-table", f"Main effects on {findings.metric}, the best first", findings.effects, findings
    )
    turned = "Effects that another factor reverses, at each of its levels"
    known = any(effect.estimate.effect is not None for effect in findings.effects)
    least = words.least(findings)
    band = (
        f"Inside the shaded band ({least} to either side of 0) an effect is too small to be worth having."
        if least
        else ""
    )
    caption = (
        "Each change, the best first: the point is its effect, the thick line its interval, the grey dots "
        f"the differences in single seeds. {band}"
    )
    data = [effect_data(effect, findings) for effect in (*findings.effects, *findings.simple_effects)]
    return Section(
        "effects",
        "Effects",
        (
            *plots(caption, [forest(findings.effects, findings)] if known else []),
            *(shown(main) or (Note("No factor is varied."),)),
            *shown(effects_table("simple-table", turned, findings.simple_effects, findings)),
        ),
        {"effects": data},
        (effects_sheet(data, findings),),
    )


def forest(effects: Sequence[Effect], findings: Findings) -> Picture:
    """Draw a row for each effect, the best first: words, thick interval, point, a dot for each seed.

    The words stand above the interval, because beside it there is no room on a phone.
    """
    rows = [effect for effect in words.ranked(effects, findings) if effect.estimate.effect is not None]
    by = metrics.scale(findings.metric)
    data: list[Figure] = []
    labels: list[Figure] = []
    depth = 0
    for effect in rows:
        bold = [f"<b>{line}</b>" for line in lines(names.change(effect, findings))]
        text = [*bold, *lines(words.verdict_words(effect, findings))]
        labels.append(note("<br>".join(text), depth))
        depth += LINE * len(text) + ROW
        data += _row(effect, findings, at=depth - ROW / 2 - 4, by=by)
    better = "right is better" if findings.direction == "max" else "left is better"
    zero = {"type": "line", "x0": 0, "x1": 0, **HEIGHT, "line": {"color": GREY, "width": 1.5}}
    change = safe(f"change of {findings.metric}{in_unit(findings.metric)} ({better})")
    layout = {
        "annotations": labels,
        "height": depth + 70,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 56},
        "shapes": [*_band(findings, by), zero],
        "showlegend": False,
        "xaxis": axis(title={"text": change, "standoff": 12}),
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
    drawn: list[Figure] = []
    if estimate.low is not None and estimate.high is not None:
        ends = {"x": [by * estimate.low, by * estimate.high], "y": [at, at], "hoverinfo": "skip"}
        # Markers, because plotly leaves no room beside the end of a mere line.
        line = {
            "mode": "lines+markers",
            "marker": {"size": 1},
            "line": {"color": colour, "width": 7},
            "opacity": 0.55,
        }
        drawn.append({"type": "scatter", **ends, **line})
    unit = metrics.unit(findings.metric)
    drawn.append({
        "type": "scatter", "x": [by * d for d in effect.per_seed.values()],
        "y": [at + 13] * len(effect.per_seed),
        "mode": "markers", "marker": {"color": GREY, "size": 7, "opacity": 0.75}, "hoverinfo": "text",
        "hovertext": [f"seed {seed}: {by * d:+.4g}{unit}" for seed, d in effect.per_seed.items()],
    })  # fmt: skip
    drawn.append({
        "type": "scatter", "x": [by * estimate.effect], "y": [at], "mode": "markers", "hoverinfo": "text",
        "hovertext": "<br>".join(lines(words.sentence(effect, findings))),
        "marker": {
            "color": colour, "size": 13, "symbol": SYMBOLS[estimate.verdict],
            "line": {"color": colour, "width": 2},
        },
    })  # fmt: skip
    return drawn


def effects_table(name: str, caption: str, effects: Iterable[Effect], findings: Findings) -> Table:
    """Return a table of effects, the best first: effect and interval first, p last."""
    unit = in_unit(findings.metric)
    columns: list[Column] = [
        ("change", "head"), (f"effect{unit}", "number"), (f"interval{unit}", "number"),
        ("verdict", "verdict"),
        ("seeds", "number"), ("wins / ties / losses", "number"), ("p (adjusted)", "number"),
        ("flags", "text"),
    ]  # fmt: skip
    return table(
        name, caption, columns, (_cells(effect, findings) for effect in words.ranked(effects, findings))
    )


def _cells(effect: Effect, findings: Findings) -> tuple[Cell, ...]:
    estimate = effect.estimate
    return (
        names.change(effect, findings),
        words.effect_words(estimate, findings.metric) or "-",
        words.interval_words(estimate, findings.metric) or "-",
        Mark(estimate.verdict, words.verdict_alone(effect, findings)),
        str(estimate.n),
        f"{estimate.wins} / {estimate.ties} / {estimate.losses}",
        words.p_words(estimate).removeprefix("= ") or "-",
        ", ".join(names.flags(effect)),
    )


def effect_data(effect: Effect, findings: Findings) -> Json:
    """Return everything that is known of an effect."""
    estimate = effect.estimate
    return {
        "kind": effect.kind,
        "change": names.change(
            effect, findings
        ),  # in words, with the settings where it is known in some only
        "factor": effect.factor,
        "where": list(effect.where) if effect.where else None,  # simple effect: the factor held, its level
        "from": effect.start,
        "to": effect.end,
        "effect": estimate.effect,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
        "n": estimate.n,
        "sd": estimate.sd,
        "verdict": estimate.verdict,
        "survivors": effect.survivors,
        "words": words.verdict_words(effect, findings),
        "reason": estimate.reason,
        "flags": list(effect.flags),
        "condition": names.condition(effect.scope, findings),  # the settings, where it is not known in all
        "seeds_left_out": list(effect.left_out),
        "failures": _failures(effect, findings),
        "more_seeds": estimate.more_seeds,  # if the effect is as large as seen; 1001: more than 1000
        "more_seeds_high": estimate.more_seeds_high,
        "more_seeds_min_effect": estimate.more_seeds_min_effect,  # to see an effect of min_effect
        "more_seeds_min_effect_high": estimate.more_seeds_min_effect_high,
        "wins": estimate.wins,
        "ties": estimate.ties,
        "losses": estimate.losses,
        "per_seed": effect.per_seed,
    }


def _failures(effect: Effect, findings: Findings) -> Json | None:
    """Return the failed runs on both sides of a change; null where none failed after it."""
    failures = effect.failures
    if failures is None or not failures.after[0]:
        return None
    (before, all_before), (after, all_after) = failures.before, failures.after
    return {
        "before": before, "of_before": all_before, "after": after, "of_after": all_after,
        "at_chance": failures.at_chance, "chance_values": failures.chance_values,
        "condition": names.condition(failures.scope, findings),
    }  # fmt: skip


COLUMNS = (
    "kind", "factor", "from", "to", "where", "effect", "low", "high", "p", "n", "sd", "verdict", "flags",
    "more_seeds",
    "wins", "ties", "losses", "condition", "seeds_left_out",
)  # fmt: skip


def effects_sheet(effects: Iterable[Json], findings: Findings) -> Sheet:
    """Return a row for the data of every effect, in the metric's own unit; the JSON has the rest."""
    head = tuple("p (adjusted)" if column == "p" else column for column in COLUMNS)
    metric = findings.metric, metrics.plain_unit(findings.metric)
    rows = tuple((*(effect[column] for column in COLUMNS), *metric) for effect in effects)
    return Sheet("effects", (*head, "metric", "unit"), rows)
