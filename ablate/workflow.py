"""The story of each command as a few named steps. All wiring is here: which part is given to which."""

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import argument, grid, inputs, stages, tuning
from ablate import plan as planning
from ablate import store as stores
from ablate.errors import AblateError, StoreError
from ablate.executors import devices
from ablate.grid import Grid
from ablate.inputs import Inputs
from ablate.interruption import Interruption
from ablate.plan import Plan
from ablate.rates import Suggestion, Sweep
from ablate.scheduler import Ledger
from ablate.stages import How, Screen, Where
from ablate.store import Store
from ablate.study import Study

if TYPE_CHECKING:
    from ablate.doctor import Finding
    from ablate.findings import Findings  # brings pandas, which `plan` and `status` can do without
    from ablate.garbage import Item, Removed
    from ablate.outlook import Outlook
    from ablate.report.comparison import Comparison
    from ablate.tracking import Report as Sent
    from ablate.tracking import Source
    from ablate.training.models.summary import Summary  # brings torch


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


load, condition = argument.load, argument.condition


def plan(study: Study, where: Where, how: How = How(), *, check: bool = False) -> Plan:  # noqa: B008 (it is frozen)
    """Say what is left to do. Only the store is read: images that were never decoded count as without finished jobs.

    `check`: build the networks of which only that shows whether the recipe can be had, which takes torch and seconds.
    """
    known = inputs.read(study, where.store, where.device)
    expanded = grid.expand(study, precision=known.precision)
    if not check:
        return _plan(study, expanded, known, where, how)
    notes = (*inputs.check_images(known, expanded), *inputs.check(study, expanded, where.store))
    made = _plan(study, expanded, known, where, how)
    return replace(made, notes=(*notes, *inputs.changed(known, [work.job for work in made.work if not work.trained])))


def _plan(study: Study, expanded: Grid, known: Inputs, where: Where, how: How) -> Plan:
    """Put what the store has found into the cells, and see what is left to train."""
    tuned = tuning.resolve(study, expanded, where.store, known.fingerprint, known.code)
    if how.only is not None:
        tuned = tuning.restrict(tuned, study.search.per if study.search else "cell", how.only)
    return planning.make(study, tuned, where.store, known.fingerprint, known.code, retry_failed=how.retry_failed, only=how.only)


def outlook(todo: Plan, where: Where) -> "Outlook | None":
    """Say what a study can see, by the noise of its own finished runs, else of another study's on the same images and metric."""
    from ablate import outlook as looking
    from ablate import runs

    study, found, basis = todo.study, looking.Noise(), ""
    if todo.done:
        found, basis = looking.noise(study, todo.grid, runs.read(todo.runs, where.store)), "from the runs that are there"
    for name in () if found.sds else stores.names(where.store):
        try:
            other = stores.recall(where.store, name)
            theirs = plan(other, where) if name != study.name and looking.alike(other, study) else None
        except (AblateError, ValueError, PermissionError):  # of another version, spoilt or another user's: no matter here
            continue
        known = looking.Noise() if theirs is None else looking.noise(other, theirs.grid, runs.read(theirs.runs, where.store))
        if known.seeds >= max(looking.FEWEST, found.seeds + 1):  # of several the one with the most seeds
            found, basis = known, f"from the noise of the study {name}, {known.seeds} seeds"
    return looking.look(study, found, basis, inputs.test_images(study, todo.grid, where.store))


def networks(todo: Plan, where: Where) -> "dict[str, Summary]":
    """Describe each different network of a plan."""
    return inputs.summaries(todo.study, todo.grid, where.store)


def run(
    study: Study,
    where: Where,
    screen: Screen,
    interruption: Interruption,
    how: How,
) -> Ran:
    """Find rates, search, train what is missing, keep MLflow up to date, and report. Running it again is resuming it."""
    from ablate import publishing, tracking

    began = time.monotonic()
    _check_search(study)
    devices.slots(where.device, 1)  # is there one?
    waits = screen.notice if how.wait else None
    with ExitStack() as stack:
        stack.enter_context(stores.creating(where.store))
        stack.enter_context(stores.hold(where.store, study.name, waits=waits, stopped=lambda: interruption.asked(screen.notice)))
        if notice := stores.take_over(where.store, study, replace=how.replace):
            screen.notice(notice)
        with interruption.at_once():
            known = inputs.read(study, where.store, where.device)
            expanded = grid.expand(study, precision=known.precision)
            inputs.check_images(known, expanded)
            for note in inputs.check(study, expanded, where.store):
                screen.notice(f"note: {note}")
            weights = inputs.fetch_weights(stages.every_recipe(_plan(study, expanded, known, where, how)))  # before what takes longer
            for notice in inputs.decode(known, expanded):
                screen.notice(notice)

        def replan() -> Plan:
            return _plan(study, expanded, known, where, how)

        before = replan()
        inputs.fetch_weights(stages.every_recipe(before), weights)
        stores.keep(where.store, study, inputs.settle(known, expanded))
        for notice in () if how.tune_only else before.trained_again:
            screen.notice(notice)
        is_sent = before.is_done and tracking.marks.is_current(where.tracking_uri, study, _state(before, where), where.store)
        todo, ledger, sent = _work(before, replan, where, screen, interruption, how, began, is_sent=is_sent)
        left = _left(replan(), how) if ledger.late else 0
        found = find(todo, where)
        path, reason = publishing.write_page(found, where.store), sent.error
        if not sent.late and not is_sent:
            reason = publishing.log(found, where.store, tracking.uri(where.store, where.tracking_uri), path)
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
    expanded = grid.expand(study, precision=known.precision)
    _check_cells(expanded, cells)
    chosen = [cell for cell in expanded.cells if cell.label in cells or (not cells and cell.is_baseline)]
    inputs.check_images(known, replace(expanded, cells=tuple(chosen)))
    inputs.check_networks(study, replace(expanded, cells=tuple(chosen)), where.store)
    devices.slots(where.device, 1)  # is there one?
    with stores.creating(where.store):
        inputs.fetch_weights(cell.recipe for cell in chosen)
        for notice in inputs.decode(known, replace(expanded, cells=tuple(chosen))):
            screen.notice(notice)
    tests = {
        cell.label: tuning.range_test(
            cell.label, cell.recipe, known.fingerprint(cell.recipe.data), known.code(cell.recipe.model), asked, seeds
        )
        for cell in chosen
    }
    different = tuple({test.id: test for test in tests.values()}.values())
    made = tuning.Tuning(Grid(tuple(chosen)), different, open_ranges=different)
    todo = planning.Plan(study, made.grid, (), (), (), (), None, made, 0)
    with stages.begin(todo, where, screen, interruption, How(retry_failed=True), time.monotonic()) as crew:
        _shown(todo, where, screen, interruption, partial(stages.find_rates, crew, made), whole=False)
    return {label: tuning.suggestions(where.store, test) for label, test in tests.items()}, crew.ledger


def _left(todo: Plan, how: How) -> int:
    """Count what is still to be done: work that was under way when the time was up may have ended all the same."""
    return todo.trials + len(todo.tuning.open_ranges) + (0 if how.tune_only else len(todo.work))


def _check_search(study: Study) -> None:
    if study.search is not None:
        from ablate import search

        search.check(study.search)


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

    sources = _sources(todo, where.store, whole=whole)
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


def report(study: Study, where: Where, metric: str | None = None, cells: tuple[str, ...] = ()) -> "Findings":
    """Compute the findings of a study from what its store has; `cells`: labels of those that are shown from inside."""
    from ablate import metrics
    from ablate.mistakes import unknown

    if metric is not None and metric != study.metric and metrics.direction(metric) is None:
        raise AblateError(f"--metric: {unknown(metric, 'a known metric', metrics.METRICS)}")
    todo = plan(study, where)
    _check_cells(todo.grid, cells)
    return find(todo, where, metric, cells)


def _check_cells(expanded: Grid, labels: tuple[str, ...]) -> None:
    from ablate.mistakes import unknown

    known = [cell.label for cell in expanded.cells]
    for label in labels:
        if label not in known:
            raise AblateError(f"--cell: {unknown(label, 'a cell of this study', known)}")


def compare(studies: tuple[Study, ...], cells: tuple[str, ...], where: Where, metric: str | None = None) -> "Comparison":
    """Put two studies, or two cells of one, side by side. Raises an AblateError where there are not two of either."""
    from ablate.report import comparison

    found = [report(study, where, metric) for study in studies]
    if len(found) == 2 and not cells:
        return comparison.of_studies(*found)
    if len(found) != 1 or len(cells) != 2 or cells[0] == cells[1]:
        raise AblateError("compare needs two studies, or one study and two different cells: --cell LABEL --cell LABEL")
    return _compare_cells(studies[0], found[0], cells, where)


def _compare_cells(study: Study, found: "Findings", labels: tuple[str, ...], where: Where) -> "Comparison":
    from ablate import effects, runs
    from ablate.report import comparison

    todo = plan(study, where)
    _check_cells(todo.grid, labels)
    known = {cell.cell.label: cell for cell in found.cells}
    table = effects.tabulate(study, todo.grid, runs.read(todo.runs, where.store), found.metric, found.direction)
    one, other = (known[label] for label in labels)
    return comparison.of_cells(found, one, other, effects.between(table, one.cell, other.cell))


def ui(where: Where, host: str, port: int) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the command that serves MLflow's page on the store, its environment, and the address of each study on it, by name."""
    from ablate import tracking

    return tracking.serve(tracking.uri(where.store, where.tracking_uri), where.store, host, port)


def _sources(todo: Plan, store: Store, *, whole: bool) -> "tuple[Source, ...]":
    """List what MLflow shows of a study: range tests, searches, and the runs, once they are known."""
    from ablate import tracking

    made = todo.tuning
    tuned: tuple[Source, ...] = (
        *tracking.ranged([test.id for test in made.ranges], store),
        *tracking.searched([one.id for one in made.searches], store),
    )
    return (*tuned, *tracking.tracked(todo.study, todo.runs, store)) if whole else tuned


def find(todo: Plan, where: Where, metric: str | None = None, cells: tuple[str, ...] = ()) -> "Findings":
    """Read the runs of a plan, and compute what they say."""
    from ablate import findings, runs, tuned

    outcomes, history = runs.read(todo.runs, where.store), tuned.read(todo.study, todo.tuning, where.store)
    return findings.find(todo.study, todo.grid, outcomes, metric=metric, looked_into=cells, tuning=history)


def sync(study: Study, where: Where) -> int:
    """Bring MLflow up to date with the journals of a study; give the number of its runs.

    Raises an AblateError with the reason when MLflow cannot take them.
    """
    from ablate import publishing, tracking

    todo, address = plan(study, where), tracking.uri(where.store, where.tracking_uri)
    if others := stores.taken(where.store, study):
        raise StoreError(others)
    stores.create(where.store)
    with stores.hold(where.store, study.name):
        try:
            tracking.sync(address, study, _sources(todo, where.store, whole=True), where.store)
        except Exception as error:  # whatever a server does: one sentence says it
            reason = tracking.first_line(error)
            raise AblateError(f"MLflow at {tracking.public(address)} does not take the runs: {reason}") from error
        found = find(todo, where)
        reason = publishing.log(found, where.store, address, publishing.write_page(found, where.store))
    if reason:
        raise AblateError(f"MLflow has the runs, and did not take the report: {reason}")
    return len(todo.runs)


def examine(where: Where, *, deep: bool = False) -> "tuple[Finding, ...]":
    """Check a store and its machine; nothing is changed. `deep`: read all weights for their checksums."""
    from ablate import doctor, tracking

    address = tracking.uri(where.store, where.tracking_uri)

    def compare(todo: Plan) -> list[str]:
        return tracking.compare(address, todo.study, _sources(todo, where.store, whole=True), where.store)

    return doctor.examine(doctor.Patient(where.store, compare, tracking.public(address), deep, tracking.public(where.tracking_uri or "")))


def garbage(where: Where) -> "tuple[Item, ...]":
    """List what nothing in the store refers to. Raises an AblateError where that cannot be said, or somebody works there."""
    from ablate import garbage as garbages
    from ablate import needs

    needed = needs.read(where.store, quick=False)
    garbages.check(where.store, needed)
    garbages.check_idle(where.store)
    return garbages.find(where.store, needed)


def collect(where: Where, shown: "tuple[Item, ...]") -> "Removed":
    """Remove what was shown, as far as it is still garbage, while no study can begin."""
    from ablate import garbage as garbages
    from ablate import needs

    with garbages.alone(where.store, needs.read(where.store, quick=False).studies) as studies:
        now = needs.read(where.store, quick=False)
        garbages.check(where.store, now)
        known = {item.path for item in shown}
        return garbages.remove([item for item in garbages.find(where.store, now) if item.path in known], where.store, studies)
