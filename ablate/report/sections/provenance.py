"""What the results came from: versions, devices, commits, data."""

from typing import Any

from ablate.analysis.findings import Findings
from ablate.report.section import Note, Section, shown
from ablate.report.tables import Column, Table, table
from ablate.store.files import Json


def section(findings: Findings) -> Section:
    """Return the environments of the runs and the fingerprints of their data."""
    data = {
        "data": list(findings.data),
        "environments": [_without_diff(environment) for environment in findings.environments],
    }
    blocks = shown(provenance_table(findings)) or (Note("No run has said yet where it ran."),)
    return Section("provenance", "Provenance", blocks, data)


def _without_diff(environment: Json) -> Json:
    """Leave out the text of uncommitted changes: up to 200 kB that stand in the run's artifacts."""
    git = {name: value for name, value in environment.get("git", {}).items() if name != "diff"}
    return environment | {"git": git}


def provenance_table(findings: Findings) -> Table:
    """Return a table of the different values that every fact about the runs' environments has."""
    columns: list[Column] = [("what", "head"), ("value", "text")]
    rows = [(name, ", ".join(values)) for name, values in _facts(findings).items()]
    rows += [("data fingerprint", fingerprint) for fingerprint in findings.data]
    return table("provenance-table", "What these results came from", columns, rows)


def mixed(findings: Findings) -> list[str]:
    """Return versions, devices and commits that differ between runs: part of an effect may be theirs."""
    facts, single = _facts(findings), ("machine device", "machine processor", "git commit")
    telling = [name for name in facts if name.startswith("versions ") or name in single]
    return [f"{name}: {', '.join(facts[name])}" for name in telling if len(facts[name]) > 1]


def _facts(findings: Findings) -> dict[str, list[str]]:
    """Collect `section name` to the different values, without the diff and the data's fingerprint."""
    facts: dict[str, dict[str, None]] = {}
    for environment in findings.environments:
        for section_name, content in environment.items():
            inner: dict[str, Any] = content if isinstance(content, dict) else {"": content}
            for key, value in inner.items():
                if key != "diff" and section_name != "data":
                    facts.setdefault(f"{section_name} {key}".strip(), {}).setdefault(_fact(key, value))
    return {name: list(values) for name, values in facts.items()}


def _fact(key: str, value: object) -> str:
    if key == "dirty":
        return "yes: there were uncommitted changes" if value else "no"
    return str(value)
