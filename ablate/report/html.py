"""Findings to one HTML page: readable in ten years without a network, because everything stands in it.

The page forbids itself every request by its Content-Security-Policy. plotly.js (4.8 MB) stands in it once, below the
answer, so that the answer is on the screen before a browser has read it; a page without pictures goes without.
"""

from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ablate import metrics
from ablate.findings import Findings
from ablate.report import canvas, figures, insides, pictures, tables, tuning, words
from ablate.report.tables import Table


def render(findings: Findings, *, created: str = "", version: str, study_text: str, store: str) -> str:
    """Write the page; `created` is a time in words, `study_text` the study file, `store` the folder that the runs are in."""
    drawn = {name: "".join(canvas.div(one) for one in some) for name, some in pictures.every(findings).items()}
    return _template().render(
        f=findings,
        study=findings.study,
        answer=words.headline(findings),
        better=f"{'higher' if findings.direction == 'max' else 'lower'} is better",
        least=_least(findings),
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
    failed, missing = (sum(getattr(cell, name) for cell in findings.cells) for name in ("failed", "missing"))
    return [
        ("runs finished", f"{findings.finished:,} of {findings.total:,}"),
        ("of them failed", f"{failed:,}"),
        ("missing or crashed", f"{missing:,}"),
        ("cells", f"{len(findings.cells):,}"),
        ("seeds", f"{len(findings.study.seeds):,}"),
    ]


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
