"""`ablate ui` and `sync`: MLflow's view of a store."""

from ablate.errors import AblateError, StoreError
from ablate.execution.stages import Where
from ablate.planning.plan import Plan
from ablate.store import layout, study_folder
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking import Source
from ablate.workflow.plan import plan
from ablate.workflow.report import find


def ui(where: Where, host: str, port: int) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the command that serves MLflow's page on the store, its environment, and the address of each study on it, by name."""
    from ablate import tracking

    return tracking.serve(tracking.uri(where.store, where.tracking_uri), where.store, host, port)


def sources_of(todo: Plan, store: Store, *, whole: bool) -> "tuple[Source, ...]":
    """List what MLflow shows of a study: range tests, searches, and the runs, once they are known."""
    from ablate import tracking

    made = todo.tuning
    tuned: tuple[Source, ...] = (
        *tracking.ranged([test.id for test in made.ranges], store),
        *tracking.searched([one.id for one in made.searches], store),
    )
    return (*tuned, *tracking.tracked(todo.study, todo.runs, store)) if whole else tuned


def sync(study: Study, where: Where) -> int:
    """Bring MLflow up to date with the journals of a study; give the number of its runs.

    Raises an AblateError with the reason when MLflow cannot take them.
    """
    from ablate import tracking
    from ablate.report import publish

    todo, address = plan(study, where), tracking.uri(where.store, where.tracking_uri)
    if others := study_folder.taken(where.store, study):
        raise StoreError(others)
    layout.create(where.store)
    with study_folder.hold(where.store, study.name):
        try:
            tracking.sync(address, study, sources_of(todo, where.store, whole=True), where.store)
        except Exception as error:  # whatever a server does: one sentence says it
            reason = tracking.first_line(error)
            raise AblateError(f"MLflow at {tracking.public(address)} does not take the runs: {reason}") from error
        found = find(todo, where)
        reason = publish.log(found, where.store, address, publish.write_page(found, where.store))
    if reason:
        raise AblateError(f"MLflow has the runs, and did not take the report: {reason}")
    return len(todo.runs)
