"""What must be found before the cells can be trained: range tests of their learning rates, searches of their fields.

What was found lies in the store, where every study that needs the same finds it. A cell whose fields are still to be found
is `pending`: its jobs are not known yet.

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
from ablate.store import range_folder, records, search_folder
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
"""Seeds of a range test: one alone may be wrong by a factor of ten (resnet_small on digits), the median of three was not."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning says of one cell."""

    range_test: str = ""  # its identity
    suggestion: Suggestion | None = None
    search: str = ""
    trials: int = 0  # that have ended
    of: int = 0
    repeats: int = 0  # trials that tried what an earlier one had tried
    misfit: bool = False  # what was found for the baseline does not go together with this cell


@dataclass(frozen=True, slots=True)
class Tuning:
    """The cells as far as they are tuned, and what is still to be found."""

    grid: Grid
    ranges: tuple[RangeTest, ...] = ()
    searches: tuple[
        CellSearch, ...
    ] = ()  # as far as they can be named: a search waits for the range test of its cell
    waiting: tuple[Recipe, ...] = ()  # of the searches that cannot
    open_ranges: tuple[RangeTest, ...] = ()
    open_searches: tuple[CellSearch, ...] = ()
    cells: Mapping[str, Tuned] = field(default_factory=dict)  # by label
    wanted: frozenset[str] | None = None  # labels of the cells that are asked for now; none: all of them


def resolve(study: Study, expanded: Grid, store: Store, fingerprints: Fingerprints) -> Tuning:
    """Put what range tests and searches have left in the store into the cells."""
    found: dict[str, Tuned] = {}
    ranges: dict[str, RangeTest] = {}
    cells = list(expanded.cells)
    for i, cell in enumerate(cells):
        if cell.finds:
            test = range_test(cell.label, cell.recipe, *fingerprints.of(cell.recipe))
            ranges.setdefault(test.id, test)
            suggestion = read_suggestion(store.range(test.id))
            found[cell.label] = Tuned(range_test=test.id, suggestion=suggestion)
            if suggestion is not None and suggestion.status == "ok":
                cells[i] = grids.tune(cell, {"optimizer.lr": suggestion.rate})
    made = Tuning(replace(expanded, cells=tuple(cells)), tuple(ranges.values()), cells=found)
    made = replace(
        made, open_ranges=tuple(test for test in made.ranges if read_suggestion(store.range(test.id)) is None)
    )
    return _searched(study.search, made, store, fingerprints) if study.search else made


def _searched(search: Search, made: Tuning, store: Store, fingerprints: Fingerprints) -> Tuning:
    """Put the winners of the searches into the cells."""
    searches: dict[str, CellSearch] = {}
    found, cells = dict(made.cells), []
    waiting: dict[str, Recipe] = {}
    baseline = made.grid.cells[0]
    for cell in made.grid.cells:
        asked = baseline if search.per == "study" else cell
        if asked.pending:
            waiting.setdefault(
                identities.digest(identities.canonical(asked.recipe, evaluation=False)), asked.recipe
            )
            cells.append(replace(cell, pending=True))
            continue
        one = cell_search(search, asked, *fingerprints.of(asked.recipe))
        if one is None:
            cells.append(cell)
            continue
        searches.setdefault(one.id, one)
        trials = read_trials(store.search(one.id), one.search)
        best = winner(trials, one.search)
        known = replace(
            found.get(cell.label, Tuned()), search=one.id, trials=len(ended(trials, one.search)), of=one.search.trials,
            repeats=repeats(trials, one.search),
        )  # fmt: skip
        fits = {
            path: given for path, given in (best or {}).items() if recipe_fields.is_active(cell.recipe, path)
        }
        try:
            cells.append(
                replace(cell, pending=True) if best is None or cell.pending else grids.tune(cell, fits)
            )
        except ValueError:  # of the baseline's winner, which need not go together with another cell
            cells.append(replace(cell, pending=True))
            known = replace(known, misfit=True)
        found[cell.label] = known
    still = tuple(
        one
        for one in searches.values()
        if len(ended(read_trials(store.search(one.id), one.search), one.search)) < one.search.trials
    )
    return replace(
        made, grid=replace(made.grid, cells=tuple(cells)), searches=tuple(searches.values()), waiting=tuple(waiting.values()),
        open_searches=still, cells=found,
    )  # fmt: skip


def restrict(made: Tuning, per: str, only: Expression) -> Tuning:
    """Leave open only what cells need of which a condition holds.

    The baseline's, too, where it is tuned for all.
    """
    chosen = [
        cell for cell in made.grid.cells if grids.holds(cell, only) or (per == "study" and cell.is_baseline)
    ]
    needed = [made.cells.get(cell.label, Tuned()) for cell in chosen]
    trained = {identities.digest(identities.canonical(cell.recipe, evaluation=False)) for cell in chosen}
    return replace(
        made, open_ranges=tuple(test for test in made.open_ranges if test.id in {one.range_test for one in needed}),
        open_searches=tuple(one for one in made.open_searches if one.id in {known.search for known in needed}),
        waiting=tuple(one for one in made.waiting if identities.digest(identities.canonical(one, evaluation=False)) in trained),
        wanted=frozenset(cell.label for cell in made.grid.cells if grids.holds(cell, only)),
    )  # fmt: skip


def range_test(
    label: str, recipe: Recipe, data: str, code: str, sweep: Sweep | None = None, seeds: int = RANGE_SEEDS
) -> RangeTest:
    """Name the range test of a recipe: whatever its rate, its schedule and its length are, it is the same."""
    sweep = sweep or Sweep()
    plain = grids.with_fields(
        recipe,
        {
            "optimizer.lr": 1.0,
            "schedule.name": "constant",
            "training.epochs": 1,
            "training.early_stopping": None,
        },
    )
    own: Json = {"code": code} if code else {}
    given: Json = dataclasses.asdict(sweep)
    tested = tuple(range(TUNING_SEED, TUNING_SEED + seeds))
    kept = identities.canonical(plain, evaluation=False)
    content = {"recipe": kept, "sweep": given, "seeds": tested, "data": data, "numerics": identities.NUMERICS}
    return RangeTest(identities.digest({"range": content | own}), label, plain, sweep, tested, data, code)


def cell_search(search: Search, cell: Cell, data: str, code: str) -> CellSearch | None:
    """Name the search of a cell; none where no field of it matters there.

    The number of trials is no part of it: more trials go on where fewer have ended.
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
            "search: needs validation images to compare trials by, and data.validation is 0: set it, such "
            "as 0.1"
        )
    content: Json = {
        "recipe": identities.canonical(recipe, evaluation=False), "select": recipe.evaluation.select, "sampler": search.sampler,
        "pruner": search.pruner, "seeds": search.seeds, "metric": search.metric, "data": data, "numerics": identities.NUMERICS,
        "space": {path: tried.model_dump() for path, tried in active.items()},
    }  # fmt: skip
    own: Json = {"code": code} if code else {}
    if "optimizer.name" in active and "lr" not in recipe.optimizer.model_fields_set:
        own["lr"] = (
            # an earlier version kept the rate of the recipe's own one: those trials are others
            "by optimizer"
        )
    return CellSearch(identities.digest({"search": content | own}), cell.label, recipe, search, data, code)


def range_work(
    tests: Sequence[RangeTest], store: Store, *, retry_failed: bool = False
) -> tuple[RangeWork, ...]:
    """List the seeds whose curves are missing; those that have failed only with `retry_failed`."""
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
    """Write down what the curves of each test suggest, where all of them are there.

    The rate with two digits, as it knows no more.
    """
    for test in tests:
        every = suggestions(store, test)
        if every and read_suggestion(store.range(test.id)) is None:
            best = range_tests.best(every) or every[range_tests.RULES[0]]
            rate = None if best.rate is None else float(f"{best.rate:.2g}")
            range_folder.write_suggestion(store.range(test.id), replace(best, rate=rate))


def suggestions(store: Store, test: RangeTest) -> dict[str, Suggestion]:
    """Return what each rule makes of a test's curves; nothing before all of them are there."""
    curves = read_curves(store.range(test.id))
    return (
        range_tests.suggest([curves[seed] for seed in test.seeds]) if set(curves) >= set(test.seeds) else {}
    )


def describe(search: CellSearch, store: Store) -> None:
    """Write down what is searched, once."""
    folder, asked = store.search(search.id), search.search
    before = search_folder.read_search(folder)
    space = {path: tried.model_dump(exclude_defaults=True) for path, tried in asked.space.items()}
    description = records.Search(
        label=search.label, metric=asked.metric, direction=asked.direction, sampler=asked.sampler, pruner=asked.pruner,
        trials=max(asked.trials, before.trials if before else 0), seeds=tuple(asked.seeds), space=space,
        started=before.started if before else time.time_ns() // 1_000_000,
    )  # fmt: skip
    records.write(folder.search, description)


def hold(
    searches: Sequence[CellSearch],
    store: Store,
    stack: ExitStack,
    waits: Callable[[str], None],
    stopped: Callable[[], bool],
) -> bool:
    """Hold every search until the stack is closed, waiting for those that another study runs.

    Say whether they are held.

    Always in the same order, so that two studies never wait for each other. A dead holder lets go.

    """
    for one in sorted(searches, key=lambda one: one.id):
        folder = store.search(one.id)
        folder.path.mkdir(parents=True, exist_ok=True)
        lock, said = folder.lock(), False
        while True:
            try:
                stack.enter_context(lock.acquire(timeout=0.5))
                break
            except Timeout:
                if stopped():
                    return False
                if not said:
                    waits(f"the search of {one.label} is run by another study: waiting for it")
                    said = True
    return True


def left(made: Tuning, search: Search | None, store: Store) -> list[tuple[Recipe, str, int]]:
    """List the trainings that the searches still need: recipe, fingerprint of the images (empty: not known yet), how many."""
    over = [
        len(ended(read_trials(store.search(one.id), one.search), one.search)) for one in made.open_searches
    ]
    named = [
        (one.recipe, one.data, (one.search.trials - n) * len(one.search.seeds))
        for one, n in zip(made.open_searches, over, strict=True)
    ]
    return [
        *named,
        *((recipe, "", search.trials * len(search.seeds)) for recipe in made.waiting if search is not None),
    ]


def unanswered(made: Tuning, store: Store) -> list[str]:
    """Return a sentence for which cells tuning has ended without an answer: they cannot be trained."""
    wrong = []
    failed = {
        test.id: [
            work
            for work in range_work((test,), store, retry_failed=True)
            if state(work.folder(store)).stage() == "crashed"
        ]
        for test in made.open_ranges
    }
    asked = [cell for cell in made.grid.cells if made.wanted is None or cell.label in made.wanted]
    for cell in asked:
        known = made.cells.get(cell.label, Tuned())
        if known.suggestion is not None and known.suggestion.status != "ok":
            wrong.append(
                f"cell {cell.label}: its range test found no learning rate ({known.suggestion.status}): "
                "give optimizer.lr a number"
            )
        if known.misfit:
            wrong.append(
                f"cell {cell.label}: what the search found for the baseline does not go together with it: "
                'take per = "cell"'
            )
        logs = [str(work.folder(store).log) for work in failed.get(known.range_test, ())]
        if logs:
            wrong.append(
                f"cell {cell.label}: its range test failed: look at {logs[0]}, and try it again with "
                "--retry-failed"
            )
    for one in made.searches:
        trials = ended(read_trials(store.search(one.id), one.search), one.search)
        if all(made.cells.get(cell.label, Tuned()).search != one.id for cell in asked):
            continue
        if len(trials) == one.search.trials and not any(trial.state == "complete" for trial in trials):
            wrong.append(
                f"cell {one.label}: none of its {len(trials)} trials is complete: look at their logs, or "
                "change search.space"
            )
    return wrong
