"""The study file itself."""

from ablate.analysis.findings import Findings
from ablate.report.section import Section, Source


def section(findings: Findings) -> Section:
    """Return the text of the study file."""
    text = findings.study.text
    return Section("study", "Study file", (Source(text),) if text else (), {"study_file": text})
