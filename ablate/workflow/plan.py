"""`ablate plan`: a STUDY argument to what is left to do, how long it takes, and what it can see."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablate.errors import AblateError
from ablate.execution import executors
from ablate.execution.executors.base import Options
from ablate.execution.options import How, Where
from ablate.planning import inputs, network_checks
from ablate.planning import plan as planning
from ablate.planning.plan import Plan
from ablate.planning.resolve import resolve, resolve_inputs
from ablate.store import study_folder
from ablate.study.file import Study
from ablate.workflow import argument

if TYPE_CHECKING:  # these bring scipy and torch, which a plan can do without
    from ablate.analysis.power import Outlook
    from ablate.training.models.summary import Summary

load, condition = argument.load, argument.condition


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, the slots that there are for it, which effects it can see, and its networks where they are asked for."""

    plan: Plan
    slots: int
    outlook: "Outlook | None"  # none where nothing can be said
    networks: "Mapping[str, Summary]"  # by label


def preview(study: Study, where: Where, how: How = How(), *, with_networks: bool = False) -> Preview:  # noqa: B008 (it is frozen)
    """Return what a run would do, how long it would take and what it could show."""
    todo = plan(study, where, how, check=True)
    resources = executors.resources(where.executor, Options(where.device, where.jobs))
    slots = max(1, min(resources.slots, len(todo.work)))
    return Preview(todo, slots, outlook(todo, where), networks(todo) if with_networks else {})


def plan(study: Study, where: Where, how: How = How(), *, check: bool = False) -> Plan:  # noqa: B008 (it is frozen)
    """Return what is left to do.

    Only the store is read: images that were never decoded count as without finished jobs.

    `check`: build the networks of which only that shows whether they can be had, which takes torch and
    seconds.
    """
    known = inputs.read(study, where.store, where.device)
    notes = (*inputs.check_images(known), *network_checks.check(known)) if check else ()
    todo = planning.make(resolve_inputs(known), retry_failed=how.retry_failed, only=how.only)
    if not check:
        return todo
    return replace(
        todo, notes=(*notes, *inputs.changed(known, [work.job for work in todo.work if not work.trained]))
    )


def outlook(todo: Plan, where: Where) -> "Outlook | None":
    """Return what a study can see, by the noise of its own runs, else of another study's on the same images."""
    from ablate.analysis import outcomes as run_outcomes
    from ablate.analysis import power as looking

    study, found, basis = todo.study, looking.Noise(), ""
    if todo.done:
        found, basis = (
            looking.noise(study, todo.grid, run_outcomes.read(todo.runs, where.store)),
            "from the runs that are there",
        )
    for name in () if found.sds else study_folder.names(where.store):
        try:
            other = study_folder.recall(where.store, name)
            is_like = name != study.name and looking.alike(other, study)
            theirs = resolve(other, where.store, where.device) if is_like else None
        except (
            AblateError,
            ValueError,
            PermissionError,
        ):  # of another version, spoilt or another user's: no matter here
            continue
        known = (
            looking.Noise()
            if theirs is None
            else looking.noise(other, theirs.grid, run_outcomes.read(theirs.runs, where.store))
        )
        if known.seeds >= max(looking.FEWEST, found.seeds + 1):  # of several the one with the most seeds
            found, basis = known, f"from the noise of the study {name}, {known.seeds} seeds"
    return looking.look(study, found, basis, inputs.test_images(todo.resolved.inputs))


def networks(todo: Plan) -> "dict[str, Summary]":
    """Describe each different network of a plan."""
    return network_checks.summaries(todo.resolved.inputs, todo.grid)
