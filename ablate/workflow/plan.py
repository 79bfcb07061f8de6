"""`ablate plan`: a STUDY argument to what is left to do, how long it takes, and what it can see."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablate import hardware
from ablate.execution import executors
from ablate.execution.executors.base import Options
from ablate.execution.options import How, Where
from ablate.planning import inputs, network_checks
from ablate.planning import plan as planning
from ablate.planning.plan import Plan
from ablate.planning.resolve import resolve, resolve_inputs
from ablate.store import study_folder
from ablate.store.files import SPOILT
from ablate.study.file import Study
from ablate.workflow import argument

if TYPE_CHECKING:  # these bring scipy and torch, which a plan can do without
    from ablate.analysis.power import Outlook
    from ablate.training.models.summary import Summary

load, condition = argument.load, argument.condition


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, the slots that there are for it, the effects that it can show, and its networks on request."""

    plan: Plan
    slots: int
    outlook: "Outlook | None"  # none where nothing can be said
    networks: "Mapping[str, Summary]"  # by label


def preview(study: Study, where: Where, how: How = How(), *, with_networks: bool = False) -> Preview:  # noqa: B008 (it is frozen)
    """Return what a run would do, how long it would take and what it could show."""
    usual = Options(where.device, where.jobs, jobs_per_gpu=where.jobs_per_gpu or 1)
    resources = executors.resources(where.executor, usual)  # first: a GPU that cannot be used is no CPU
    todo = plan(study, where, how, check=True, precision=resources.precision)
    if todo.captures:
        hardware.check_graphs(resources.device)
    slots = max(1, min(resources.slots, len(todo.work)))
    return Preview(todo, slots, outlook(todo, where), networks(todo) if with_networks else {})


def plan(
    study: Study,
    where: Where,
    how: How = How(),  # noqa: B008 (it is frozen)
    *,
    check: bool = False,
    precision: str = "",
) -> Plan:
    """Return what is left to do, by the store alone: images never decoded have no finished jobs.

    `check`: build the networks of which only that shows whether they can be trained, which takes torch and
    seconds. `precision`: what "auto" is where it will be trained.
    """
    study_inputs = inputs.read(study, where.store, where.device, precision)
    notes = (*inputs.check_images(study_inputs), *network_checks.check(study_inputs)) if check else ()
    todo = planning.make(resolve_inputs(study_inputs), retry_failed=how.retry_failed, only=how.only)
    if not check:
        return todo
    changed = inputs.changed(study_inputs, [work.job for work in todo.work if not work.trained])
    return replace(todo, notes=(*notes, *hardware.notes(where.device, todo.precisions), *changed))


def outlook(todo: Plan, where: Where) -> "Outlook | None":
    """Return the effects that a study can show, by the noise of its runs or of a similar study."""
    from ablate.analysis import outcomes as run_outcomes
    from ablate.analysis import power as looking

    study, noise, basis = todo.study, looking.Noise(), ""
    if todo.done:
        noise = looking.noise(study, todo.grid, run_outcomes.read(todo.runs, where.store, whole=False))
        basis = "from the runs that are there"
    for name in () if noise.sds else study_folder.names(where.store):
        try:
            other = study_folder.recall(where.store, name)
            if name == study.name or not looking.alike(other, study):
                continue
            resolved = resolve(other, where.store, where.device)
            outcomes = run_outcomes.read(resolved.runs, where.store, whole=False)
            theirs = looking.noise(other, resolved.grid, outcomes)
        except SPOILT:  # another version's, not ours, or another user's
            continue
        if theirs.seeds >= max(looking.FEWEST, noise.seeds + 1):  # of several the one with the most seeds
            noise, basis = theirs, f"from the noise of the study {name}, {theirs.seeds} seeds"
    return looking.look(study, noise, basis, inputs.test_images(todo.resolved.inputs))


def networks(todo: Plan) -> "dict[str, Summary]":
    """Return a summary of each different network of a plan, by label."""
    return network_checks.summaries(todo.resolved.inputs, todo.grid)
