"""The story of each command as a few named steps. All wiring is here: which part is given to which."""

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.execution import stages
from ablate.execution.executors import devices
from ablate.execution.interruption import Interruption
from ablate.execution.scheduler import Ledger
from ablate.execution.stages import How, Screen, Where
from ablate.planning import inputs, network_checks, resolve, tuning
from ablate.planning import plan as planning
from ablate.planning.plan import Plan
from ablate.recipe.range_test import Suggestion, Sweep
from ablate.store import layout, study_folder
from ablate.study.file import Study
from ablate.study.grid import Fingerprints, Grid
from ablate.workflow.report import check_cells, find
from ablate.workflow.tracking import sources_of

if TYPE_CHECKING:
    from ablate.analysis.findings import Findings  # brings pandas, which `plan` and `status` can do without
    from ablate.tracking import Report as Sent


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


def run(
    study: Study,
    where: Where,
    screen: Screen,
    interruption: Interruption,
    how: How,
) -> Ran:
    """Find rates, search, train what is missing, keep MLflow up to date, and report. Running it again is resuming it."""
    from ablate import tracking
    from ablate.report import publish

    began = time.monotonic()
    _check_search(study)
    devices.slots(where.device, 1)  # is there one?
    waits = screen.notice if how.wait else None
    with ExitStack() as stack:
        stack.enter_context(layout.creating(where.store))
        stack.enter_context(study_folder.hold(where.store, study.name, waits=waits, stopped=lambda: interruption.asked(screen.notice)))
        if notice := study_folder.take_over(where.store, study, replace=how.replace):
            screen.notice(notice)
        with interruption.at_once():
            known = inputs.read(study, where.store, where.device)
            inputs.check_images(known)
            for note in network_checks.check(known):
                screen.notice(f"note: {note}")
            resolved = resolve.resolve_inputs(known)
            todo = planning.make(resolved, retry_failed=how.retry_failed, only=how.only)
            weights = network_checks.fetch_weights(stages.every_recipe(todo))  # before what takes longer
            fingerprints = replace(resolved.fingerprints, data=inputs.decode(known, screen.notice))

        def replan() -> Plan:
            now = resolve.resolve_inputs(known, fingerprints)
            return planning.make(now, retry_failed=how.retry_failed, only=how.only)

        before = replan()
        network_checks.fetch_weights(stages.every_recipe(before), weights)
        study_folder.keep(where.store, study, inputs.settle(known, fingerprints))
        for notice in () if how.tune_only else before.trained_again:
            screen.notice(notice)
        is_sent = before.is_done and tracking.marks.is_current(where.tracking_uri, study, _state(before, where), where.store)
        todo, ledger, sent = _work(before, replan, where, screen, interruption, how, began, is_sent=is_sent)
        left = _left(replan(), how) if ledger.late else 0
        found = find(todo.resolved)
        path, reason = publish.write_page(found, where.store), sent.error
        if not sent.late and not is_sent:
            reason = publish.log(found, where.store, tracking.uri(where.store, where.tracking_uri), path)
            if not reason and (now := replan()).is_done:  # then all that was sent had come to its end
                tracking.marks.keep(where.tracking_uri, study, _state(now, where), where.store)
    return Ran(before, todo, ledger, found, path, sent.late, reason, left)


def _state(todo: Plan, where: Where) -> str:
    from ablate import tracking

    made, store = todo.tuning, where.store
    folders = (*(store.range(test.id) for test in made.ranges), *(store.search(one.id) for one in made.searches))
    return tracking.marks.state(todo.study, tracking.tracked(todo.study, todo.runs, store), folders, store)


def lr_find(
    study: Study, where: Where, screen: Screen, interruption: Interruption, cells: tuple[str, ...], seeds: int, sweep: dict[str, Any]
) -> "tuple[dict[str, dict[str, Suggestion]], Ledger]":
    """Test ranges of the learning rate on some cells, by default the baseline; give what each rule suggests, by cell."""
    asked = Sweep(**sweep)
    known = inputs.read(study, where.store, where.device)
    check_cells(known.grid, cells)
    chosen = [cell for cell in known.grid.cells if cell.label in cells or (not cells and cell.is_baseline)]
    known = replace(known, grid=replace(known.grid, cells=tuple(chosen)))
    inputs.check_images(known)
    network_checks.check_networks(known)
    devices.slots(where.device, 1)  # is there one?
    with layout.creating(where.store):
        network_checks.fetch_weights(cell.recipe for cell in chosen)
        decoded = Fingerprints(inputs.decode(known, screen.notice))
    fingerprints = inputs.fingerprints(known, chosen, decoded)
    tests = {cell.label: tuning.range_test(cell.label, cell.recipe, *fingerprints.of(cell.recipe), asked, seeds) for cell in chosen}
    different = tuple({test.id: test for test in tests.values()}.values())
    made = tuning.Tuning(Grid(tuple(chosen)), different, open_ranges=different)
    todo = planning.Plan(resolve.Resolved(known, fingerprints, made, (), ()), (), (), None, 0)
    with stages.begin(todo, where, screen, interruption, How(retry_failed=True), time.monotonic()) as crew:
        _shown(todo, where, screen, interruption, partial(stages.find_rates, crew, made), whole=False)
    return {label: tuning.suggestions(where.store, test) for label, test in tests.items()}, crew.ledger


def _left(todo: Plan, how: How) -> int:
    """Count what is still to be done: work that was under way when the time was up may have ended all the same."""
    return todo.trials + len(todo.tuning.open_ranges) + (0 if how.tune_only else len(todo.work))


def _check_search(study: Study) -> None:
    if study.search is not None:
        from ablate.execution import optuna_memory

        optuna_memory.check(study.search)


def _work(
    todo: Plan, replan: Callable[[], Plan], where: Where, screen: Screen, interruption: Interruption, how: How, began: float,
    *, is_sent: bool,
) -> tuple[Plan, Ledger, "Sent"]:  # fmt: skip
    """Go through the stages that have something to do; return the plan as it then stands, and what became of it.

    `is_sent`: nothing is to be done, and MLflow has it all.
    """
    from ablate import tracking

    ledger, has_work = Ledger(), bool(todo.trials or todo.tuning.open_ranges or (todo.ready and not how.tune_only))
    with stages.begin(todo, where, screen, interruption, how, began) if has_work else nullcontext() as crew:
        if crew is not None:
            ledger = crew.ledger
            if todo.tuning.open_ranges:
                _shown(todo, where, screen, interruption, partial(stages.find_rates, crew, todo.tuning), whole=False)
                todo = replan()
            if todo.tuning.open_searches and not ledger.is_over:
                _shown(todo, where, screen, interruption, partial(stages.search, crew, todo.tuning), whole=False)
                todo = replan()
        if not ledger.is_over:
            ledger.failures += stages.unanswered(todo.tuning, where.store)
        goes_on = crew is not None and bool(todo.ready) and not ledger.is_over and not how.tune_only
        stage = partial(stages.train, crew, todo) if crew is not None and goes_on else _nothing
        sent = tracking.Report(0, "") if is_sent else _shown(todo, where, screen, interruption, stage, whole=True)
    return todo, ledger, sent


def _nothing(_touch: Callable[[str], None]) -> None:
    """Let MLflow get what an earlier command has left to send."""


def _shown(
    todo: Plan, where: Where, screen: Screen, interruption: Interruption, stage: Callable[[Callable[[str], None]], None], *, whole: bool
) -> "Sent":
    """Run a stage while a thread keeps MLflow up to date; `whole`: the plan's runs are all that the study has."""
    from ablate import tracking

    sources = sources_of(todo.resolved, whole=whole)
    writer = tracking.Writer(tracking.uri(where.store, where.tracking_uri), todo.study, sources, where.store, screen.notice, whole=whole)
    try:
        stage(writer.touch)
    except KeyboardInterrupt:  # the second one: whoever wants to stop at once waits for no server
        writer.abandon()
        raise
    finally:
        screen.stop()
        asked = interruption.asked()  # then what was put away is still sent, and only once more stops that
        sent = writer.close(lambda: interruption.asked() and not asked)
    return sent
