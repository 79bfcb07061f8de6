"""Checks of a store and its machine: functions in a table. None of them writes, and none imports torch."""

from collections.abc import Callable, Iterator

from ablate.planning.references import first_line
from ablate.store.files import SPOILT
from ablate.upkeep.doctor import files, identities, machine, orphans, views
from ablate.upkeep.doctor.finding import Finding, Patient, Severity

__all__ = ["CHECKS", "Finding", "Patient", "Severity", "examine"]

Check = Callable[[Patient], Iterator[Finding]]

ALWAYS: dict[str, tuple[Check, str]] = {
    "versions": (machine.versions, ""),
    "device": (machine.device, ""),
}
"""Checks that need no store, each with what is shown where it finds nothing."""

CHECKS: dict[str, tuple[Check, str]] = {
    "locks": (machine.writable, "the store can be written to, and locks work there"),
    "room": (machine.room, ""),
    "readable": (files.readable, "you may read all that is there"),
    "regular": (files.regular, "there are regular files and folders only"),
    "json": (files.json_files, "every JSON file is what ablate writes"),
    "lines": (files.line_files, "every line of journals and lists can be read"),
    "weights": (files.weights, "checkpoints and weights are whole"),
    "images": (files.images, "decoded images are whole"),
    "results": (files.results, "every result has its weights and its epochs"),
    "identity": (identities.jobs, "every job is what its folder is named after"),
    "outcomes": (identities.outcomes, "every outcome is what its folder is named after"),
    "studies": (identities.studies, "every study can be planned"),
    "trials": (identities.trials, "the jobs of all trials are there"),
    "drafts": (orphans.drafts, "no killed process has left anything"),
    "unneeded": (orphans.unneeded, "every job is needed by a study"),
    "interrupted": (orphans.interrupted, "no job was interrupted"),
    "held": (orphans.held, "no process works in the store"),
    "database": (views.database, "MLflow's own database is whole, where there is one"),
    "mlflow": (views.runs, "MLflow shows what the store has"),
}
"""Checks of a store."""


def examine(patient: Patient) -> tuple[Finding, ...]:
    """Return the findings of all checks, at least one each."""
    findings = [finding for name in ALWAYS for finding in _run(name, *ALWAYS[name], patient)]
    if not patient.is_there:
        says = f"there is no store at {patient.store.path}: the first ablate run makes it"
        do = "where there should be one, name its folder with --store DIR"
        return (*findings, Finding("store", "note", says, do))
    return (*findings, *(finding for name in CHECKS for finding in _run(name, *CHECKS[name], patient)))


def _run(name: str, check: Check, fine: str, patient: Patient) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check(patient))
    except SPOILT as error:  # what no check has foreseen must not stop the others
        says = f"this check could not be ended: {type(error).__name__}: {first_line(error)}"
        do = "mend first what else is found here, and what that file may not be read for"
        findings.append(Finding(name, "problem", says, do))
    return findings or [Finding(name, "ok", fine)]
