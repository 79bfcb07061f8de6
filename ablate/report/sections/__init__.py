"""The table of sections: page, pictures, spreadsheets and JSON are made from it, so that none forgets one."""

from collections.abc import Callable, Mapping
from typing import Any

from ablate.analysis.findings import Findings
from ablate.report.section import Section, Sheet
from ablate.report.sections import (
    baseline,
    cells,
    claims,
    classes,
    cost,
    curves,
    effects,
    excluded,
    failures,
    inside,
    interactions,
    model_summary,
    provenance,
    range_tests,
    reading,
    schedules,
    scores,
    study_file,
    tuning,
)

Sections = Mapping[str, Section]
SECTIONS: dict[str, Callable[[Findings], Section]] = {
    "effects": effects.section,
    "claims": claims.section,
    "cells": cells.section,
    "scores": scores.section,
    "interactions": interactions.section,
    "baseline": baseline.section,
    "curves": curves.section,
    "schedules": schedules.section,
    "classes": classes.section,
    "inside": inside.section,
    "range_tests": range_tests.section,
    "tuning": tuning.section,
    "cost": cost.section,
    "model_summary": model_summary.section,
    "failures": failures.section,
    "excluded": excluded.section,
    "reading": reading.section,
    "study_file": study_file.section,
    "provenance": provenance.section,
}
"""By name, in the order of the page."""


def make(findings: Findings) -> Sections:
    """Return every section of a report."""
    return {name: section(findings) for name, section in SECTIONS.items()}


def data(sections: Sections) -> dict[str, Any]:
    """Return the data of all sections by key; a list that several have is joined, in their order."""
    joined: dict[str, Any] = {}
    for section in sections.values():
        for key, value in section.data.items():
            if key in joined:
                assert isinstance(joined[key], list), f"two sections have the key {key}"
                joined[key] = joined[key] + list(value)
            else:
                joined[key] = value
    return joined


def sheets(sections: Sections) -> dict[str, Sheet]:
    """Return the sheets of all sections by name, the rows of one name joined."""
    joined: dict[str, Sheet] = {}
    for sheet in (sheet for section in sections.values() for sheet in section.sheets):
        earlier = joined.get(sheet.name)
        assert earlier is None or earlier.columns == sheet.columns, f"two sheets {sheet.name}"
        joined[sheet.name] = Sheet(
            sheet.name, sheet.columns, (*(earlier.rows if earlier else ()), *sheet.rows)
        )
    return joined
