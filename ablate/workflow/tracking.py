"""`ablate ui` and `sync`: MLflow's view of a store."""

from collections.abc import Callable

from ablate.errors import AblateError, StoreError
from ablate.execution.options import Where
from ablate.planning.resolve import Resolved, resolve
from ablate.store import layout, study_folder
from ablate.study.file import Study
from ablate.tracking import Source
from ablate.workflow.report import find


def ui(where: Where, host: str, port: int) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the command that serves MLflow's page, its environment, and each study's address by name."""
    from ablate import tracking

    return tracking.serve(tracking.uri(where.store, where.tracking_uri), where.store, host, port)


def sources_of(resolved: Resolved, *, whole: bool) -> "tuple[Source, ...]":
    """Return what MLflow shows of a study: range tests, searches and, where `whole`, the runs."""
    from ablate import tracking

    tuning, store = resolved.tuning, resolved.store
    tuned: tuple[Source, ...] = (
        *tracking.ranged([test.id for test in tuning.ranges], store),
        *tracking.searched([search.id for search in tuning.searches], store),
    )
    return (*tuned, *tracking.tracked(resolved.study, resolved.runs, store)) if whole else tuned


def sync(study: Study, where: Where, notice: Callable[[str], None] | None = None) -> int:
    """Bring MLflow up to date with the journals of a study; return the number of its runs.

    Raises an AblateError with the reason when MLflow cannot take them.
    """
    from ablate import tracking
    from ablate.report import publish

    resolved = resolve(study, where.store, where.device)
    address = tracking.uri(where.store, where.tracking_uri)
    if others := study_folder.taken(where.store, study):
        raise StoreError(others)
    layout.create(where.store)
    with study_folder.hold(where.store, study.name):
        try:
            name = tracking.sync(address, study, sources_of(resolved, whole=True), where.store)
        except Exception as error:  # whatever a server does: one sentence says it
            reason = tracking.first_line(error)
            raise AblateError(
                f"MLflow at {tracking.public(address)} does not take the runs: {reason}"
            ) from error
        if name and notice:
            notice(tracking.renamed(study.name, name))
        findings = find(resolved)
        reason = publish.log(findings, where.store, address, publish.write_page(findings, where.store))
    if reason:
        raise AblateError(f"MLflow has the runs, and did not take the report: {reason}")
    return len(resolved.runs)
