"""Cells that the study excludes, and why."""

from ablate.analysis.findings import Findings
from ablate.report.section import Items, Section


def section(findings: Findings) -> Section:
    """Return the exclusions of a study."""
    rows = tuple((exclusion.why, "; ".join(exclusion.labels)) for exclusion in findings.excluded)
    data = [{"why": exclusion.why, "cells": list(exclusion.labels)} for exclusion in findings.excluded]
    return Section("excluded", "Excluded cells", (Items(rows),) if rows else (), {"excluded": data})
