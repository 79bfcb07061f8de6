"""What somebody says, and what the runs say of it."""

from ablate.analysis.answers import ClaimFinding
from ablate.analysis.findings import Findings
from ablate.report import claims, names
from ablate.report.section import Section, shown
from ablate.report.tables import Column, Mark, Table, table
from ablate.store.files import Json


def section(findings: Findings) -> Section:
    """Return the claims of a study with their answers."""
    data = {"claims": [_data(answer, findings) for answer in findings.claims]}
    return Section("claims", "Claims", shown(claims_table(findings)), data)


def claims_table(findings: Findings) -> Table:
    """Return a table of what was claimed and what the data say of it."""
    columns: list[Column] = [
        ("claim", "head"), ("verdict", "verdict"), ("expected", "text"),
        ("effect of the first level against the second", "value"), ("source", "text"),
    ]  # fmt: skip
    rows = (
        (
            answer.claim.text,
            Mark(answer.verdict.replace(" ", "-"), answer.verdict),
            answer.claim.expect,
            _effect(answer, findings),
            answer.claim.source,
        )
        for answer in findings.claims
    )
    return table("claims-table", "What somebody says, and what these runs say of it", columns, rows)


def _effect(answer: ClaimFinding, findings: Findings) -> str:
    """Return the effect of a claim, with its notes in brackets."""
    notes = "; ".join(claims.notes(answer, findings))
    return (claims.numbers(answer, findings) or "-") + (f" ({notes})" if notes else "")


def _data(answer: ClaimFinding, findings: Findings) -> Json:
    claim, estimate = answer.claim, answer.estimate
    return {
        "text": claim.text,
        "source": claim.source,
        "expect": claim.expect,
        "metric": answer.metric,
        "verdict": answer.verdict,
        "effect": estimate.effect if estimate else None,  # of going from the second level to the first
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "p": estimate.p if estimate else None,
        "n": estimate.n if estimate else 0,
        "direction": answer.direction,
        "condition": names.condition(answer.effect.scope, findings),
        "notes": claims.notes(answer, findings),
    }
