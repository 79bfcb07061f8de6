"""Findings to one HTML page: readable in ten years without a network, because everything stands in it.

The page forbids itself every request by its Content-Security-Policy. plotly.js (4.8 MB) stands in it once, below the
answer, so that the answer is on the screen before a browser has read it; a page without pictures goes without.
"""

from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ablate.analysis.findings import Findings
from ablate.analysis.outcomes import NAMES, Status
from ablate.messages import count
from ablate.recipe import metrics
from ablate.report import canvas, figures, insides, pictures, reasons, tables, tuning, words
from ablate.report.tables import Table
from ablate.study.grid import short_names

MOST_NETWORKS = 3  # named at the top of the page; the table of cells has all


def render(findings: Findings, *, created: str = "", version: str, study_text: str, store: str) -> str:
    """Write the page; `created` is a time in words, `study_text` the study file, `store` the folder that the runs are in."""
    drawn = {name: "".join(canvas.div(one) for one in some) for name, some in pictures.every(findings).items()}
    return _template().render(
        f=findings,
        study=findings.study,
        answer=words.headline(findings),
        better=f"{'higher' if findings.direction == 'max' else 'lower'} is better",
        least=_least(findings),
        setting=_setting(findings),
        tiles=_tiles(findings),
        mixed=tables.mixed(findings),
        pictures={name: Markup(div) for name, div in drawn.items()},  # noqa: S704 (plotly escapes its JSON, figures.py its labels)
        plotly=Markup(_plotly()) if any(drawn.values()) else "",  # noqa: S704
        tables=_tables(findings),
        confidence=f"{100 * (1 - findings.study.alpha):g} %",
        alpha=f"{findings.study.alpha:g}",
        method=words.method(findings),
        partly=any(effect.scope is not None for effect in findings.interactions),
        wide=tables.WIDE if any(one.effect.says_nothing for one in findings.class_effects) else "",
        chosen=(insides.strongest(findings) or ("", ()))[0],
        galleries=[(one, Markup(source)) for one in findings.details if (source := insides.gallery(one))],  # noqa: S704 (base64)
        trainings=len({curve.label for curve in findings.curves}),
        most=len(figures.TRAININGS),
        searched=findings.tuning.histories[0] if findings.tuning and findings.tuning.histories else None,
        turned=[turn for turn in findings.tuning.turns if turn.is_turned] if findings.tuning else [],
        created=created,
        version=version,
        store=store,
        study_text=study_text,
    )


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["zip"] = partial(zip, strict=True)
    return environment.get_template("template.html.j2")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _least(findings: Findings) -> str:
    """Write the smallest effect worth having; empty where the study names none for this metric."""
    least = findings.study.min_effect
    return metrics.size(least, findings.metric) if least is not None and findings.metric == findings.study.metric else ""


def _tiles(findings: Findings) -> list[tuple[str, str]]:
    """Name the few numbers that say how far the study is."""
    counts = {status: sum(cell.counts.get(status, 0) for cell in findings.cells) for status in reasons.ORDER}
    chance = reasons.at_chance(findings.cells, findings)
    named: dict[Status, str] = {**NAMES, "at_chance": f"at chance level ({chance})" if chance else "at chance level"}
    return [
        ("runs finished", f"{findings.finished:,} of {findings.total:,}"),
        *((named[status], f"{count:,}") for status, count in counts.items() if count),
        ("cells", f"{len(findings.cells):,}"),
        ("seeds", f"{len(findings.study.seeds):,}"),
    ]


def _setting(findings: Findings) -> list[str]:
    """Return what the runs were about: the test images and what one of them is worth, the networks, the levels of the baseline."""
    said = []
    if findings.images is not None:
        images, classes = findings.images.count, count(findings.images.classes, "class", "classes")
        worth = f"one is worth {words.significant(100 / images, 2)} points of accuracy"
        said.append(f"{count(images, 'test image')} of {classes}: {worth}.")
    networks = []
    for network in findings.networks[:MOST_NETWORKS]:
        parameters = " to ".join(f"{number:,}" for number in network.parameters)
        networks.append(f"{network.name} ({parameters} parameters)" if parameters else network.name)
    said.append(f"{'Network' if len(networks) == 1 else 'Networks'}: {', '.join(networks)}.")
    short, levels = short_names([factor.name for factor in findings.study.factors]), findings.cells[0].cell.levels
    return [*said, f"Baseline: {', '.join(f'{short[name]} = {level}' for name, level in levels.items())}."] if levels else said


def _tables(findings: Findings) -> dict[str, Table | None]:
    """Lay out every table; none where it has no row."""
    every = {
        "effects": tables.effects("effects-table", f"Main effects on {findings.metric}, the best first", findings.effects, findings),
        "simple": tables.effects(
            "simple-table", "Effects that another factor turns round, at each of its levels", findings.simple_effects, findings
        ),
        "claims": tables.claims(findings),
        "cells": tables.cells(findings),
        "interactions": tables.effects(
            "interactions-table", "Two changes together, beyond the sum of both", findings.interactions, findings
        ),
        "baseline": tables.effects("baseline-table", "Each cell against the baseline, paired by seed", findings.cell_effects, findings),
        "curves": tables.curves(findings, figures.drawn_trainings(findings)),
        "interplay": tables.interplay(findings),
        "classes": tables.class_effects(findings),
        "confusion": tables.confusions(findings),
        "calibration": tables.calibrations(findings),
        **tuning.tables(findings),
        "failures": tables.failures(findings),
        "provenance": tables.provenance(findings),
    }
    return {name: table if table.rows else None for name, table in every.items()}
