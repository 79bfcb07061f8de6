"""Runs without a value that counts."""

from markupsafe import Markup

from ablate.analysis.findings import Findings
from ablate.analysis.outcomes import NAMES
from ablate.report.section import Note, Section, shown
from ablate.report.tables import Column, Table, table

NOTE = Markup(
    "Runs that diverged, or stayed at chance level (their answers do not depend on the class), enter no mean "
    "and are always counted. Runs that crashed say nothing about their cell, and <code>ablate run "
    "--retry-failed</code> tries them again."
)


def section(findings: Findings) -> Section:
    """Return the runs that failed, why, and where their log is."""
    data = [{"run": f.run, "status": f.status, "reason": f.reason, "log": f.log} for f in findings.failures]
    blocks = (*shown(failures_table(findings)), Note(NOTE, soft=True)) if findings.failures else ()
    return Section("failures", "Failures", blocks, {"failures": data})


def failures_table(findings: Findings) -> Table:
    """Return a table of the runs without a value that counts, why, and where their log is."""
    columns: list[Column] = [("run", "head"), ("status", "text"), ("reason", "text"), ("log", "text")]
    rows = ((f.run, NAMES[f.status], f.reason or "-", f.log or "-") for f in findings.failures)
    return table("failures-table", "Runs without a value that counts", columns, rows)
