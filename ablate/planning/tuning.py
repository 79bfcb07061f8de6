"""What comes before the cells can be trained: range tests of their learning rates, searches of their fields.

Results lie in the store, where every study that needs the same test or search finds them. A cell whose fields
are still to be found is `pending`: its jobs are not known yet.

    ranges/<id>/range.json        what is tested: recipe, sweep, seeds
    ranges/<id>/curve-<seed>.json the curve of one seed
    ranges/<id>/suggestion.json   what the curves suggest, written last
    searches/<id>/search.json     what is searched
    searches/<id>/trials.json     every trial with its fields, its jobs, its value; written anew after each
    searches/<id>/optuna.jsonl    Optuna's memory, where it is not in a database
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from filelock import Timeout

from ablate.errors import AblateError
from ablate.planning.work import CellSearch, RangeTest, RangeWork
from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity as identities
from ablate.recipe import range_test as range_tests
from ablate.recipe.fields import Recipe
from ablate.recipe.range_test import Suggestion, Sweep
from ablate.store import files, range_folder, records, search_folder
from ablate.store.files import Json
from ablate.store.job_state import state
from ablate.store.layout import Store
from ablate.store.range_folder import read_curves, read_suggestion
from ablate.store.search_folder import ended, read_trials, repeats, winner
from ablate.study import grid as grids
from ablate.study import search_space
from ablate.study.conditions import Expression
from ablate.study.file import Study
from ablate.study.grid import Cell, Fingerprints, Grid
from ablate.study.search_space import TUNING_SEED, Search

RANGE_SEEDS = 3
"""Seeds of a range test: one may be wrong by a factor of ten (resnet_small on digits), three were not."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning has found for one cell."""

    range_test: str = ""  # its identity
    suggestion: Suggestion | None = None
    search: str = ""  # its identity
    trials: int = 0  # that have ended
    of: int = 0
    repeats: int = 0  # trials that tried what an earlier one had tried
    misfit: bool = False  # what was found for the baseline does not go together with this cell


@dataclass(frozen=True, slots=True)
class Tuning:
    """The cells as far as they are tuned, and what is still to be found."""

    grid: Grid
    ranges: tuple[RangeTest, ...] = ()
    searches: tuple[CellSearch, ...] = ()  # but for those that wait for the range test of their cell
    waiting: tuple[Recipe, ...] = ()  # of the searches that wait
    open_ranges: tuple[RangeTest, ...] = ()
    open_searches: tuple[CellSearch, ...] = ()
    cells: Mapping[str, Tuned] = field(default_factory=dict)  # by label
    wanted: frozenset[str] | None = None  # labels of the cells that are asked for now; none: all of them


def resolve(study: Study, expanded: Grid, store: Store, fingerprints: Fingerprints) -> Tuning:
    """Put the results that range tests and searches have left in the store into the cells."""
    tuned: dict[str, Tuned] = {}
    ranges: dict[str, RangeTest] = {}
    cells = list(expanded.cells)
    for i, cell in enumerate(cells):
        if cell.finds:
            test = range_test(cell.label, cell.recipe, *fingerprints.of(cell.recipe))
            ranges.setdefault(test.id, test)
            suggestion = read_suggestion(store.range(test.id))
            tuned[cell.label] = Tuned(range_test=test.id, suggestion=suggestion)
            if suggestion is not None and suggestion.status == "ok":
                cells[i] = grids.tune(cell, {"optimizer.lr": suggestion.rate})
    tests = tuple(ranges.values())
    tuning = Tuning(
        replace(expanded, cells=tuple(cells)),
        tests,
        open_ranges=tuple(test for test in tests if read_suggestion(store.range(test.id)) is None),
        cells=tuned,
    )
    return _searched(study.search, tuning, store, fingerprints) if study.search else tuning


def _searched(search: Search, tuning: Tuning, store: Store, fingerprints: Fingerprints) -> Tuning:
    """Put the winners of the searches into the cells."""
    searches: dict[str, CellSearch] = {}
    tuned, cells = dict(tuning.cells), []
    waiting: dict[str, Recipe] = {}
    baseline = tuning.grid.cells[0]
    for cell in tuning.grid.cells:
        asked = baseline if search.per == "study" else cell
        if asked.pending:
            waiting.setdefault(_digest(asked.recipe), asked.recipe)
            cells.append(replace(cell, pending=True))
            continue
        own = cell_search(search, asked, *fingerprints.of(asked.recipe))
        if own is None:
            cells.append(cell)
            continue
        searches.setdefault(own.id, own)
        trials = read_trials(store.search(own.id), own.search)
        tuned[cell.label] = replace(
            tuned.get(cell.label, Tuned()),
            search=own.id,
            trials=len(ended(trials, own.search)),
            of=own.search.trials,
            repeats=repeats(trials, own.search),
        )
        best = winner(trials, own.search)
        fits = {
            path: value for path, value in (best or {}).items() if recipe_fields.is_active(cell.recipe, path)
        }
        is_open = best is None or cell.pending
        try:
            cells.append(replace(cell, pending=True) if is_open else grids.tune(cell, fits))
        except ValueError:  # of the baseline's winner, which need not go together with another cell
            cells.append(replace(cell, pending=True))
            tuned[cell.label] = replace(tuned[cell.label], misfit=True)
    return replace(
        tuning,
        grid=replace(tuning.grid, cells=tuple(cells)),
        searches=tuple(searches.values()),
        waiting=tuple(waiting.values()),
        open_searches=tuple(each for each in searches.values() if _over(each, store) < each.search.trials),
        cells=tuned,
    )


def _digest(recipe: Recipe) -> str:
    """Return what identifies the trainings of a recipe."""
    return identities.digest(identities.canonical(recipe, evaluation=False))


def _over(search: CellSearch, store: Store) -> int:
    """Return how many trials of a search have ended."""
    return len(ended(read_trials(store.search(search.id), search.search), search.search))


def restrict(tuning: Tuning, per: str, only: Expression) -> Tuning:
    """Leave open only what the cells that meet a condition need, and the baseline if it is tuned for all."""
    is_shared = per == "study"
    chosen = [
        cell for cell in tuning.grid.cells if grids.holds(cell, only) or (is_shared and cell.is_baseline)
    ]
    needed = [tuning.cells.get(cell.label, Tuned()) for cell in chosen]
    ranges, searches = {tuned.range_test for tuned in needed}, {tuned.search for tuned in needed}
    trained = {_digest(cell.recipe) for cell in chosen}
    return replace(
        tuning,
        open_ranges=tuple(test for test in tuning.open_ranges if test.id in ranges),
        open_searches=tuple(search for search in tuning.open_searches if search.id in searches),
        waiting=tuple(recipe for recipe in tuning.waiting if _digest(recipe) in trained),
        wanted=frozenset(cell.label for cell in tuning.grid.cells if grids.holds(cell, only)),
    )


def range_test(
    label: str, recipe: Recipe, data: str, code: str, sweep: Sweep | None = None, seeds: int = RANGE_SEEDS
) -> RangeTest:
    """Return the range test of a recipe: the same one whatever its rate, its schedule and its length are."""
    sweep = sweep or Sweep()
    fixed = {"optimizer.lr": 1.0, "schedule.name": "constant"}
    plain = grids.with_fields(recipe, fixed | {"training.epochs": 1, "training.early_stopping": None})
    tested = tuple(range(TUNING_SEED, TUNING_SEED + seeds))
    content: Json = {
        "recipe": identities.canonical(plain, evaluation=False),
        "sweep": dataclasses.asdict(sweep),
        "seeds": tested,
        "data": data,
        "numerics": identities.NUMERICS,
    }
    own: Json = {"code": code} if code else {}
    return RangeTest(identities.digest({"range": content | own}), label, plain, sweep, tested, data, code)


def cell_search(search: Search, cell: Cell, data: str, code: str) -> CellSearch | None:
    """Return the search of a cell; None where no field of it matters there.

    The number of trials is no part of its identity: more trials go on where fewer have ended.
    """
    recipe = cell.recipe
    active = {
        path: search.space[path] for path in sorted(search.space) if recipe_fields.is_active(recipe, path)
    }
    if not active:
        return None
    most = search_space.size(active) if search.sampler == "grid" else search.trials
    search = replace(search, space=active, trials=min(search.trials, most))
    if recipe.data.validation == 0:
        raise AblateError(
            "search: needs validation images to compare trials by, and data.validation is 0: "
            "set it, such as 0.1"
        )
    content: Json = {
        "recipe": identities.canonical(recipe, evaluation=False),
        "select": recipe.evaluation.select,
        "sampler": search.sampler,
        "pruner": search.pruner,
        "seeds": search.seeds,
        "metric": search.metric,
        "data": data,
        "numerics": identities.NUMERICS,
        "space": {path: tried.model_dump() for path, tried in active.items()},
    }
    own: Json = {"code": code} if code else {}
    if "optimizer.name" in active and "lr" not in recipe.optimizer.model_fields_set:
        # An earlier version kept the rate of the recipe's own optimizer: its trials are others.
        own["lr"] = "by optimizer"
    return CellSearch(identities.digest({"search": content | own}), cell.label, recipe, search, data, code)


def range_work(
    tests: Sequence[RangeTest], store: Store, *, retry_failed: bool = False
) -> tuple[RangeWork, ...]:
    """Return the seeds whose curves are missing; failed ones only with `retry_failed`."""
    missing = [
        RangeWork(test, seed)
        for test in tests
        for seed in test.seeds
        if not store.range(test.id).curve(seed).exists()
    ]
    return tuple(work for work in missing if retry_failed or state(work.folder(store)).stage() != "crashed")


def describe_range(test: RangeTest, store: Store) -> None:
    """Write down what is tested, once."""
    path = store.range(test.id).test
    if not path.exists():
        sweep = records.Sweep(**dataclasses.asdict(test.sweep))
        started = time.time_ns() // 1_000_000
        records.write(
            path, records.RangeTest(label=test.label, sweep=sweep, seeds=test.seeds, started=started)
        )


def conclude(tests: Sequence[RangeTest], store: Store) -> None:
    """Write down what the curves of each test suggest, where all of them are there: a rate of two digits."""
    for test in tests:
        every = suggestions(store, test)
        if every and read_suggestion(store.range(test.id)) is None:
            best = range_tests.best(every) or every[range_tests.RULES[0]]
            rate = None if best.rate is None else float(f"{best.rate:.2g}")
            range_folder.write_suggestion(store.range(test.id), replace(best, rate=rate))


def suggestions(store: Store, test: RangeTest) -> dict[str, Suggestion]:
    """Return what each rule suggests by a test's curves; nothing before all of them are there."""
    curves = read_curves(store.range(test.id))
    if not set(curves) >= set(test.seeds):
        return {}
    return range_tests.suggest([curves[seed] for seed in test.seeds])


def describe(search: CellSearch, store: Store) -> None:
    """Write down what is searched, once."""
    folder, asked = store.search(search.id), search.search
    before = search_folder.read_search(folder)
    space = {path: tried.model_dump(exclude_defaults=True) for path, tried in asked.space.items()}
    description = records.Search(
        label=search.label,
        metric=asked.metric,
        direction=asked.direction,
        sampler=asked.sampler,
        pruner=asked.pruner,
        trials=max(asked.trials, before.trials if before else 0),
        seeds=tuple(asked.seeds),
        space=space,
        started=before.started if before else time.time_ns() // 1_000_000,
    )
    records.write(folder.search, description)


def hold(
    searches: Sequence[CellSearch],
    store: Store,
    stack: ExitStack,
    waits: Callable[[str], None],
    stopped: Callable[[], bool],
) -> bool:
    """Hold every search until the stack is closed, waiting for searches that another study runs.

    Returns whether they are held: not where `stopped` ended the wait. Locks are taken in the same order
    everywhere, so that two studies never wait for each other; those of a dead process are free.
    """
    for search in sorted(searches, key=lambda search: search.id):
        folder = store.search(search.id)
        files.make(folder.path, durable=False)
        lock, is_reported = folder.lock(), False
        while True:
            try:
                stack.enter_context(lock.acquire(timeout=0.5))
                break
            except Timeout:
                if stopped():
                    return False
                if not is_reported:
                    waits(f"the search of {search.label} is run by another study: waiting for it")
                    is_reported = True
    return True


def left(tuning: Tuning, search: Search | None, store: Store) -> list[tuple[Recipe, str, int]]:
    """Return the trainings that the searches still need: recipe, fingerprint of the images, how many.

    The fingerprint is empty where a search waits for the range test of its cell.
    """
    named = [
        (own.recipe, own.data, (own.search.trials - _over(own, store)) * len(own.search.seeds))
        for own in tuning.open_searches
    ]
    if search is None:
        return named
    return [*named, *((recipe, "", search.trials * len(search.seeds)) for recipe in tuning.waiting)]


def unanswered(tuning: Tuning, store: Store) -> list[str]:
    """Return a sentence for each cell that cannot be trained, as its tuning has ended without an answer."""
    wrong = []
    cells = [cell for cell in tuning.grid.cells if tuning.wanted is None or cell.label in tuning.wanted]
    own = {cell.label: tuning.cells.get(cell.label, Tuned()) for cell in cells}
    logs = {test.id: _failed_log(test, store) for test in tuning.open_ranges}
    for label, tuned in own.items():
        if tuned.suggestion is not None and tuned.suggestion.status != "ok":
            wrong.append(
                f"cell {label}: its range test found no learning rate ({tuned.suggestion.status}): "
                "give optimizer.lr a number"
            )
        if tuned.misfit:
            wrong.append(
                f"cell {label}: what the search found for the baseline does not go together with it: "
                'take per = "cell"'
            )
        if log := logs.get(tuned.range_test):
            wrong.append(
                f"cell {label}: its range test failed: look at {log}, and try it again with --retry-failed"
            )
    searched = {tuned.search for tuned in own.values()}
    for search in tuning.searches:
        trials = ended(read_trials(store.search(search.id), search.search), search.search)
        is_answered = len(trials) != search.search.trials or any(
            trial.state == "complete" for trial in trials
        )
        if search.id in searched and not is_answered:
            wrong.append(
                f"cell {search.label}: none of its {len(trials)} trials is complete: "
                "look at their logs, or change search.space"
            )
    return wrong


def _failed_log(test: RangeTest, store: Store) -> str:
    """Return the log of the first seed of a range test that has failed; empty where none has."""
    for work in range_work((test,), store, retry_failed=True):
        folder = work.folder(store)
        if state(folder).stage() == "crashed":
            return str(folder.log)
    return ""
