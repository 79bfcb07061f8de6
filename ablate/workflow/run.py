"""`ablate run`, `search` and `lr-find`, as a few named steps."""

import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import databases, hardware
from ablate.errors import AblateError
from ablate.execution import executors, stages
from ablate.execution.crew import Crew, context_of
from ablate.execution.events import Event, Updated
from ablate.execution.executors.base import Options
from ablate.execution.options import How
from ablate.execution.scheduler import Ledger
from ablate.hardware import Resources
from ablate.messages import count
from ablate.planning import inputs, network_checks, tuning
from ablate.planning import plan as planning
from ablate.planning.inputs import Inputs
from ablate.planning.plan import Plan
from ablate.planning.resolve import Resolved, resolve_inputs
from ablate.recipe.range_test import Suggestion, Sweep
from ablate.store import layout, study_folder, tasks
from ablate.store.job_state import state
from ablate.study.file import Study
from ablate.study.grid import Cell, Fingerprints, Grid
from ablate.workflow.report import check_cells, find
from ablate.workflow.tracking import sources_of

if TYPE_CHECKING:
    from ablate.analysis.findings import Findings  # brings pandas, which `plan` and `status` can do without
    from ablate.tracking import Report as Sent
    from ablate.tracking import Writer


@dataclass(frozen=True, slots=True)
class Ran:
    """What `ablate run` leaves behind."""

    before: Plan
    plan: Plan  # as it stands at the end
    ledger: Ledger
    findings: "Findings"
    report: Path
    late: int  # runs that MLflow does not have yet
    late_reason: str
    left: int  # pieces of work for which the time of --budget was too short


def run(study: Study, crew: Crew) -> Ran:
    """Find rates, search, train what is missing, keep MLflow up to date, report; running again resumes."""
    from ablate import tracking

    where, how = crew.where, crew.how
    _check_search(study, how)
    resources = _check_devices(crew)
    _check_servers(crew)
    waits = crew.notice if how.wait else None
    with (
        layout.creating(crew.store),
        study_folder.hold(crew.store, study.name, waits=waits, stopped=crew.is_interrupted),
    ):
        if notice := study_folder.take_over(crew.store, study, replace=how.replace):
            crew.notice(notice)
        if study_folder.past(crew.store, study.name) is None:  # there will be work: the plan takes a while
            crew.warm(resources.device)
        before, replan = _prepare(study, crew, resources, warms=True)
        from ablate.report import publish  # brings pandas: by now workers import as well

        for notice in () if how.tune_only else before.trained_again:
            crew.notice(notice)
        is_sent = before.is_done and tracking.marks.is_current(
            where.tracking_uri, study, _state(before), crew.store
        )
        todo, sent = _work(crew, before, replan, is_sent=is_sent)
        left = _left(replan(), how) if crew.ledger.late else 0
        findings = find(todo.resolved)
        path, reason = publish.write_page(findings, crew.store), sent.error
        if not sent.late and not is_sent:
            reason = publish.log(findings, crew.store, tracking.uri(crew.store, where.tracking_uri), path)
            if not reason and (now := replan()).is_done:  # then all that was sent had come to its end
                tracking.marks.keep(where.tracking_uri, study, _state(now), crew.store)
    return Ran(before, todo, crew.ledger, findings, path, sent.late, reason, left)


def hand_out(study: Study, crew: Crew, path: Path) -> int:
    """Prepare what is left to train and evaluate, and write it to a file of tasks; return their number.

    Whoever runs them, in whatever order and wherever the store is seen under the same path, leaves what a
    run of the study would.
    """
    resources = _check_devices(crew)
    waits = crew.notice if crew.how.wait else None
    with (
        layout.creating(crew.store),
        study_folder.hold(crew.store, study.name, waits=waits, stopped=crew.is_interrupted),
    ):
        if notice := study_folder.take_over(crew.store, study, replace=crew.how.replace):
            crew.notice(notice)
        todo, _ = _prepare(study, crew, resources, warms=False)
        if todo.trials or todo.tuning.open_ranges:
            raise AblateError(
                "--tasks needs cells that are tuned: find their rates and fields first, with "
                f"ablate search {study.name}"
            )
        context = context_of(todo, crew.store)
        ready = [
            work for work in todo.ready if not work.start or state(crew.store.job(work.start)).is_trained
        ]
        if len(ready) < len(todo.ready):
            waiting = count(len(todo.ready) - len(ready), "job")
            crew.notice(
                f"{waiting} not among the tasks: they start from the weights of others, which come first; "
                "run these, then ask again"
            )
        for work in ready:
            work.prepare(crew.store)
        tasks.write(path, [work.task(crew.store, context) for work in ready])
    return len(ready)


def _prepare(
    study: Study, crew: Crew, resources: Resources, *, warms: bool
) -> tuple[Plan, Callable[[], Plan]]:
    """Check a study, fetch weights, decode images, record it; return its plan and a function to replan it.

    `warms`: what workers import is imported meanwhile.
    """
    how = crew.how
    with crew.interruption.at_once():
        study_inputs = inputs.read(study, crew.store, crew.where.device, resources.precision)
        inputs.check_images(study_inputs)
        for note in network_checks.check(study_inputs):
            crew.notice(f"note: {note}")
        resolved = resolve_inputs(study_inputs)
        todo = planning.make(resolved, retry_failed=how.retry_failed, only=how.only)
        if todo.captures:
            hardware.check_graphs(resources.device)
        if warms and _has_work(todo, how):
            crew.warm(resources.device)
        _note_devices(crew, todo)
        weights = network_checks.fetch_weights(todo.recipes)  # before what takes longer
        fingerprints = replace(resolved.fingerprints, data=inputs.decode(study_inputs, crew.notice))

    def replan() -> Plan:
        return planning.make(
            resolve_inputs(study_inputs, fingerprints), retry_failed=how.retry_failed, only=how.only
        )

    # Of a study that was run before, nothing is decoded anew: the plan stands.
    before = todo if fingerprints == resolved.fingerprints else replan()
    network_checks.fetch_weights(before.recipes, weights)
    study_folder.keep(crew.store, study, inputs.settle(study_inputs, fingerprints))
    return before, replan


def _check_devices(crew: Crew) -> Resources:
    """Return what there is to run on; raise an AblateError where that cannot be had.

    Before anything is written.
    """
    where, how = crew.where, crew.how
    asked = Options(
        where.device, where.jobs, jobs_per_gpu=where.jobs_per_gpu or 1, slurm=where.slurm, detach=how.detach
    )
    return executors.resources(where.executor, asked)


def _check_servers(crew: Crew) -> None:
    """Raise an AblateError where the driver of a database is missing: no waiting would mend that."""
    from ablate import tracking

    tracking.uri(crew.store, crew.where.tracking_uri)
    databases.with_driver(crew.where.optuna_storage or "")


def _note_devices(crew: Crew, todo: Plan) -> None:
    """Send what users should know of the GPUs here, where something is left to train."""
    is_here = crew.where.executor == "local"
    for note in hardware.notes(crew.where.device, todo.precisions) if is_here and todo.precisions else ():
        crew.notice(f"note: {note}")


def _state(todo: Plan) -> str:
    from ablate import tracking

    tuned, store = todo.tuning, todo.resolved.store
    folders = (
        *(store.range(test.id).path for test in tuned.ranges),
        *(store.search(search.id).path for search in tuned.searches),
    )  # fmt: skip
    return tracking.marks.state(todo.study, tracking.tracked(todo.study, todo.runs, store), folders, store)


def lr_find(
    study: Study, crew: Crew, cells: tuple[str, ...], seeds: int, sweep: dict[str, Any]
) -> "tuple[dict[str, dict[str, Suggestion]], Ledger]":
    """Run range tests of the learning rate on cells, by default the baseline.

    Returns each rule's suggestion, by cell and rule.
    """
    asked = Sweep(**sweep)
    resources = _check_devices(crew)
    _check_servers(crew)
    study_inputs = inputs.read(study, crew.store, crew.where.device, resources.precision)
    check_cells(study_inputs.grid, cells)
    chosen = tuple(
        cell for cell in study_inputs.grid.cells if cell.label in cells or (not cells and cell.is_baseline)
    )
    study_inputs = replace(study_inputs, grid=replace(study_inputs.grid, cells=chosen))
    inputs.check_images(study_inputs)
    network_checks.check_networks(study_inputs)
    with layout.creating(crew.store), study_folder.hold_free(crew.store, "lr-find"):
        return _find_rates(crew, study_inputs, chosen, seeds, asked)


def _find_rates(
    crew: Crew, study_inputs: Inputs, chosen: tuple[Cell, ...], seeds: int, asked: Sweep
) -> "tuple[dict[str, dict[str, Suggestion]], Ledger]":
    """Run the range tests of some cells, and read what they suggest."""
    network_checks.fetch_weights(cell.recipe for cell in chosen)
    decoded = Fingerprints(inputs.decode(study_inputs, crew.notice))
    fingerprints = inputs.fingerprints(study_inputs, chosen, decoded)
    tests = {
        cell.label: tuning.range_test(cell.label, cell.recipe, *fingerprints.of(cell.recipe), asked, seeds)
        for cell in chosen
    }  # fmt: skip
    different = tuple({test.id: test for test in tests.values()}.values())
    open_ranges = tuning.Tuning(Grid(chosen), different, open_ranges=different)
    todo = planning.make(Resolved(study_inputs, fingerprints, open_ranges, runs=(), jobs=()))
    _note_devices(crew, todo)
    with crew.at_work(todo):
        _shown(crew, todo, partial(stages.find_rates, crew, open_ranges), whole=False)
    return {label: tuning.suggestions(crew.store, test) for label, test in tests.items()}, crew.ledger


def _left(todo: Plan, how: How) -> int:
    """Return how much is left: work under way when the time was up may have ended all the same."""
    return todo.trials + len(todo.tuning.open_ranges) + (0 if how.tune_only else len(todo.work))


def _check_search(study: Study, how: How) -> None:
    if study.search is not None and how.detach:
        raise AblateError(
            "--detach cannot be used with [search], whose next trial is chosen when another has ended: "
            "leave it out"
        )
    if study.search is not None:
        from ablate.execution import optuna_memory

        optuna_memory.check(study.search)


def _work(crew: Crew, todo: Plan, replan: Callable[[], Plan], *, is_sent: bool) -> tuple[Plan, "Sent"]:
    """Run the stages that have something to do; return the plan afterwards, and what MLflow has not taken.

    `is_sent`: nothing is to be done, and MLflow has it all.
    """
    from ablate import tracking

    trains = not crew.how.tune_only
    has_work = _has_work(todo, crew.how)
    if has_work:  # then there are seconds in which workers import, and this process waits for them
        address = tracking.uri(crew.store, crew.where.tracking_uri)
        threading.Thread(target=_load, args=(address,), name="imports", daemon=True).start()
    else:
        crew.cool()
    with crew.at_work(todo) if has_work else nullcontext():
        if todo.tuning.open_ranges:
            _shown(crew, todo, partial(stages.find_rates, crew, todo.tuning), whole=False)
            todo = replan()
        if todo.tuning.open_searches and not crew.ledger.is_over:
            _shown(crew, todo, partial(stages.search, crew, todo.tuning), whole=False)
            todo = replan()
        if not crew.ledger.is_over:
            crew.ledger.failures += stages.unanswered(todo.tuning, crew.store)
        goes_on = has_work and bool(todo.ready) and trains and not crew.ledger.is_over
        stage = partial(stages.train, crew, todo) if goes_on else _nothing
        sent = tracking.Report(0, "") if is_sent else _shown(crew, todo, stage, whole=True)
    return todo, sent


def _load(address: str) -> None:
    """Import what a study's runs in MLflow and its report need; nothing is asked or made.

    What fails here fails again where it is needed, and is told there.
    """
    from ablate import tracking
    from ablate.report import publish

    with suppress(Exception):
        tracking.load(address)
        publish.load()


def _has_work(todo: Plan, how: How) -> bool:
    """Whether a plan has something to run."""
    return bool(todo.trials or todo.tuning.open_ranges or (todo.ready and not how.tune_only))


def _nothing() -> None:
    """Train nothing: MLflow only gets what an earlier command has left to send."""


def _shown(crew: Crew, todo: Plan, stage: Callable[[], None], *, whole: bool) -> "Sent":
    """Run a stage while a thread keeps MLflow up to date; `whole`: the runs are all that the study has."""
    from ablate import tracking

    sources = sources_of(todo.resolved, whole=whole)
    address = tracking.uri(crew.store, crew.where.tracking_uri)
    writer = tracking.Writer(address, todo.study, sources, crew.store, crew.notice, whole=whole)
    interruption = crew.interruption
    try:
        with crew.observed(partial(_touch, writer)):
            stage()
    except KeyboardInterrupt:  # the second one: whoever wants to stop at once waits for no server
        writer.abandon()
        raise
    finally:
        asked = interruption.asked()  # then what was saved is still sent, and only a second signal stops that
        is_left = crew.how.detach and bool(crew.ledger.left)  # whoever detaches waits for no server either
        sent = writer.close(lambda: is_left or (interruption.asked() and not asked))
    return sent


def _touch(writer: "Writer", event: Event) -> None:
    """Tell MLflow's writer what is new in the store."""
    if isinstance(event, Updated):
        writer.touch(event.id)
