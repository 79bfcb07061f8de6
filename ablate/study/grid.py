"""A Study to its cells, runs and jobs: expanded, duplicates removed, identities assigned. Nothing is run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from math import prod
from typing import Any

from pydantic import ValidationError

from ablate.errors import StudyError
from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity as identities
from ablate.recipe import networks
from ablate.recipe.fields import Data, Model, Recipe
from ablate.study.conditions import Expression
from ablate.study.factors import FIND, Factor, Level, in_order
from ablate.study.file import Study

MOST_CELLS = 10_000
MOST_SHOWN = 10**15  # in digits


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of levels. `levels` holds a level's name for each factor that is active here."""

    id: str  # 64 hex: of the whole recipe, evaluation included
    label: str  # the levels that differ from the baseline: "rotation=15, batch_norm=false"
    levels: Mapping[str, str]
    recipe: Recipe
    is_baseline: bool
    finds: bool = False
    """Its learning rate is left to a range test; until that has ended, the recipe has the default rate."""
    pending: bool = False  # some of its fields are still to be found: it cannot be trained yet
    tuned: Mapping[str, Any] = field(default_factory=dict)  # fields that a range test or a search has set
    lineage: tuple[Recipe, ...] = ()
    """The cells whose weights it starts from: the last one's, which starts from the one before."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Cells that are not run, under one reason."""

    why: str
    labels: tuple[str, ...]
    levels: tuple[Mapping[str, str], ...]  # of each, as a cell has them


@dataclass(frozen=True, slots=True)
class Grid:
    """All cells of a study, the baseline first, and what was left out."""

    cells: tuple[Cell, ...]
    excluded: tuple[Exclusion, ...] = ()
    merged: int = 0  # combinations that became equal to another
    unused: tuple[str, ...] = ()  # factors that are active with more than one level nowhere


@dataclass(frozen=True, slots=True)
class Job:
    """Train one recipe under one seed: the unit of work."""

    id: str
    recipe: Recipe  # of one of the cells that share it: evaluation is no part of the job
    seed: int
    data: str  # fingerprint of the images
    code: str = ""  # fingerprint of a user's own network
    pending: bool = False  # of a pending cell: it stands for a job that is not known yet
    start: str = ""  # the job whose weights it starts from, under the same seed


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Fingerprints of what a recipe only names: the images, and the code or weights of a network."""

    data: Mapping[Data, str] = field(default_factory=dict)
    code: Mapping[tuple[str, bool], str] = field(default_factory=dict)  # by name and `pretrained`

    def of(self, recipe: Recipe) -> tuple[str, str]:
        """Return the fingerprints of a recipe's images and of its network; the latter is mostly empty."""
        return self.data[recipe.data], self.code.get((recipe.model.name, recipe.model.pretrained), "")


@dataclass(frozen=True, slots=True)
class Run:
    """One cell under one seed, as the tables and MLflow show it."""

    cell: Cell
    seed: int
    job_id: str
    start: str = ""  # the job whose weights that one starts from

    @property
    def name(self) -> str:
        """The name that tables show: `cell-label/seed`."""
        return f"{self.cell.label}/{self.seed}"


@dataclass(slots=True)
class _Draft:
    """A grid during expansion."""

    order: tuple[Factor, ...]  # in which each `when` can be answered
    cells: dict[str, Cell] = field(default_factory=dict)
    excluded: dict[str, dict[str, Mapping[str, str]]] = field(default_factory=dict)  # levels by why and label
    merged: int = 0
    wrong: list[str] = field(default_factory=list)


def expand(study: Study, *, precision: str) -> Grid:
    """Return all cells of a study; `precision` is what `training.precision = "auto"` means on this machine.

    Raises a StudyError with every cell whose fields do not go together.
    """
    combinations = _combinations(study)
    names = short_names([factor.name for factor in study.factors])
    draft = _Draft(tuple(in_order(study.factors)))
    for combination in combinations:
        _add(draft, study, combination, names, precision)
    labels = Counter(cell.label for cell in draft.cells.values())
    twice = [label for label, count in labels.items() if count > 1]
    draft.wrong += [
        f"cell {label}: two different cells would have this name: give their levels other names"
        for label in twice
    ]
    if not draft.wrong and not any(cell.is_baseline for cell in draft.cells.values()):
        draft.wrong.append(
            "exclude: leaves out the baseline, which every cell is compared with: "
            "change the first levels or the condition"
        )
    draft.wrong += _orphans(draft)
    if draft.wrong:
        raise StudyError([f"{study.source}: {sentence}" for sentence in dict.fromkeys(draft.wrong)])
    cells = tuple(sorted(draft.cells.values(), key=lambda cell: not cell.is_baseline))
    seen = {name: {cell.levels[name] for cell in cells if name in cell.levels} for name in names}
    excluded = draft.excluded.items()
    return Grid(
        cells=cells,
        excluded=tuple(Exclusion(why, tuple(levels), tuple(levels.values())) for why, levels in excluded),
        merged=draft.merged,
        unused=tuple(name for name, levels in seen.items() if len(levels) < 2),
    )


def _combinations(study: Study) -> list[tuple[Level, ...]]:
    """Return the levels of all factors for each combination of the design, the baseline first."""
    sizes = [len(factor.levels) for factor in study.factors]
    count = prod(sizes) if study.design == "factorial" else 1 + sum(sizes) - len(sizes)
    if count > MOST_CELLS:
        allowed = f'at most {MOST_CELLS:,} are allowed: take fewer levels, or design = "one_at_a_time"'
        cells = f"{count:,}" if count < MOST_SHOWN else "far too many"
        raise StudyError([f"{study.source}: factors: make {cells} cells, and {allowed}"])
    first = tuple(factor.levels[0] for factor in study.factors)
    if study.design == "one_at_a_time":
        alone = [
            (*first[:i], level, *first[i + 1 :])
            for i, factor in enumerate(study.factors)
            for level in factor.levels[1:]
        ]
        return [first, *alone]
    return list(product(*(factor.levels for factor in study.factors)))


def _add(
    draft: _Draft, study: Study, combination: tuple[Level, ...], names: Mapping[str, str], precision: str
) -> None:
    """Add the cell of one combination, unless it is excluded, equal to another, or wrong."""
    chosen = dict(zip(study.factors, combination, strict=True))
    try:
        active, recipe = _resolve(study.base, chosen, draft.order, precision)
    except ValidationError as error:
        reasons = [e["msg"].removeprefix("Value error, ") for e in error.errors()]
        draft.wrong += [f"cell {_label(chosen, names)}: {reason}" for reason in reasons]
        return
    except StudyError as error:
        draft.wrong += error.mistakes
        return
    label = _label(active, names)
    lineage = _lineage(draft, study, chosen, active, precision)
    levels = {factor.name: level.name for factor, level in active.items()}
    for exclude in study.excludes:
        if _holds(exclude.condition, recipe):
            draft.excluded.setdefault(exclude.why, {})[label] = levels
            return
    finds = _fields(study.base, active).get("optimizer.lr") == FIND
    more: dict[str, Any] = {"finds": True} if finds else {}
    if lineage:
        more["start"] = [identities.canonical(each, evaluation=False) for each in lineage]
    identity = identities.digest(identities.canonical(recipe) | more)
    if identity in draft.cells:
        draft.merged += 1
        return
    is_baseline = all(level is factor.levels[0] for factor, level in chosen.items())
    draft.cells[identity] = Cell(
        identity, label, levels, recipe, is_baseline, finds, pending=finds, lineage=lineage
    )


def _lineage(
    draft: _Draft,
    study: Study,
    chosen: Mapping[Factor, Level],
    active: Mapping[Factor, Level],
    precision: str,
) -> tuple[Recipe, ...]:
    """Return the recipes whose weights a combination starts from, the first of them first."""
    factor = next((factor for factor, level in active.items() if level.start), None)
    if factor is None:
        return ()
    level = next(level for level in factor.levels if level.name == active[factor].start)
    before = {**chosen, factor: level}
    there, recipe = _resolve(study.base, before, draft.order, precision)
    return (*_lineage(draft, study, before, there, precision), recipe)


def _orphans(draft: _Draft) -> list[str]:
    """Return a sentence for each cell that starts from a cell which is left out."""

    def key(recipe: Recipe, lineage: tuple[Recipe, ...]) -> str:
        return identities.digest(
            [identities.canonical(each, evaluation=False) for each in (*lineage, recipe)]
        )

    there = {key(cell.recipe, cell.lineage) for cell in draft.cells.values()}
    return [
        f"cell {cell.label}: starts from the weights of a cell that is excluded: exclude it as well"
        for cell in draft.cells.values()
        if cell.lineage and key(cell.lineage[-1], cell.lineage[:-1]) not in there
    ]


def _resolve(
    base: Mapping[str, Any], chosen: Mapping[Factor, Level], order: tuple[Factor, ...], precision: str
) -> tuple[dict[Factor, Level], Recipe]:
    """Return the levels that are active in a combination, and its recipe, built from them alone.

    Each `when` is asked of the recipe as set by the factors before it, and they come in the order in which
    that has one answer. A factor none of whose fields matters in the end is inactive too: the recipe is built
    again without it, so that no condition sees a level that the cell does not show.
    """
    idle: set[Factor] = set()
    while True:
        active: dict[Factor, Level] = {}
        for factor in order:
            if factor in idle:
                continue
            if factor.when is not None and not _holds(factor.when, _build(base, active, precision)):
                continue
            active[factor] = chosen[factor]
        recipe = _build(base, active, precision)
        more = {factor for factor in active if not matters(factor, recipe)}
        if not more:
            break
        idle |= more
    torn = [factor.name for factor in order if factor in idle and matters(factor, recipe)]
    if torn:
        raise StudyError(
            [
                f"factor {name}: a when that asks for it decides whether it matters at all: ask for another"
                for name in torn
            ]
        )
    return {factor: level for factor, level in chosen.items() if factor in active}, recipe


def matters(factor: Factor, recipe: Recipe) -> bool:
    """Whether a factor can change a recipe's result at all."""
    return any(recipe_fields.is_active(recipe, path) for level in factor.levels for path in level.set)


def _build(base: Mapping[str, Any], active: Mapping[Factor, Level], precision: str) -> Recipe:
    flat = _fields(base, active)
    if flat.get("optimizer.lr") == FIND:
        del flat["optimizer.lr"]
    network = flat.get("model.name", Model().name)
    idle = [path for path in flat.keys() - base.keys() if recipe_fields.is_option(path)]
    for path in idle:  # of a factor: it vanishes where a network has no such argument
        if not networks.takes(network, path.rpartition(".")[2]):
            del flat[path]
    nested = recipe_fields.nested(flat)
    if nested.get("training", {}).get("precision", "auto") == "auto":
        nested.setdefault("training", {})["precision"] = precision
    return Recipe.model_validate(nested)


def _fields(base: Mapping[str, Any], active: Mapping[Factor, Level]) -> dict[str, Any]:
    """Return what the study sets in a cell, by path."""
    flat = dict(base)
    for level in active.values():
        flat |= level.set
    return flat


def holds(cell: Cell, condition: Expression) -> bool:
    """Whether a condition is true of a cell's recipe."""
    return _holds(condition, cell.recipe)


def _holds(condition: Expression, recipe: Recipe) -> bool:
    return condition.holds(partial(recipe_fields.value, recipe))


def tune(cell: Cell, fields: Mapping[str, Any]) -> Cell:
    """Return a cell with the fields that tuning has found for it, and so with another identity."""
    recipe = with_fields(cell.recipe, fields)
    # Two cells may become one training and stay two cells: the identity includes that of the untuned cell.
    identity = identities.digest({"of": cell.id, "recipe": identities.canonical(recipe)})
    tuned = {**cell.tuned, **fields}
    return replace(cell, id=identity, recipe=recipe, finds=False, pending=False, tuned=tuned)


def with_fields(recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values of some fields, by path.

    A learning rate that was not set becomes the default of the new optimizer.
    """
    nested = recipe.model_dump()
    if "lr" not in recipe.optimizer.model_fields_set:
        del nested["optimizer"]["lr"]
    for section, part in recipe_fields.nested(fields).items():
        options = {**nested[section].get("options", {}), **part.get("options", {})}
        nested[section] |= part | ({"options": options} if options else {})
    return Recipe.model_validate(nested)


def short_names(factors: list[str]) -> dict[str, str]:
    """Return the short name of each factor, where no other has it: `batch_norm` for `model.batch_norm`.

    `schedule.name` becomes `schedule`. Only a recipe field has a path to drop.
    """
    fields = recipe_fields.fields()
    short = {
        name: recipe_fields.short(name) if name in fields else name.rsplit(".", 1)[-1] for name in factors
    }
    taken = [*short.values(), *(name for name in factors if name not in fields and name != short[name])]
    return {name: tail if name in fields and taken.count(tail) == 1 else name for name, tail in short.items()}


def _label(chosen: Mapping[Factor, Level], names: Mapping[str, str]) -> str:
    changed = [(factor, level) for factor, level in chosen.items() if level is not factor.levels[0]]
    return ", ".join(f"{names[factor.name]}={level.name}" for factor, level in changed) or "baseline"


def runs_and_jobs(
    grid: Grid, seeds: tuple[int, ...], fingerprints: Fingerprints
) -> tuple[tuple[Run, ...], tuple[Job, ...]]:
    """Return every cell under every seed, and each different training once.

    Seed after seed, so that an interrupted study has whole repetitions to compare.
    """
    runs: list[Run] = []
    jobs: dict[str, Job] = {}
    parts = [fingerprints.of(cell.recipe) for cell in grid.cells]
    trainings = [
        identities.training(cell.recipe, *part) for cell, part in zip(grid.cells, parts, strict=True)
    ]
    before = [
        [identities.training(recipe, *fingerprints.of(recipe)) for recipe in cell.lineage]
        for cell in grid.cells
    ]
    for seed in seeds:
        for cell, (data, code), training, earlier in zip(grid.cells, parts, trainings, before, strict=True):
            start = ""
            for each in earlier:
                start = identities.seeded(each, seed, start)
            identity = identities.seeded(training, seed, start)
            if cell.pending:  # its training is not known yet, and is surely none that is in a store
                identity = identities.digest(
                    {"pending": identity, "finds": cell.finds, "select": cell.recipe.evaluation.select}
                )
            jobs.setdefault(identity, Job(identity, cell.recipe, seed, data, code, cell.pending, start))
            runs.append(Run(cell, seed, identity, start))
    return tuple(runs), tuple(jobs.values())


def evaluation_ids(runs: Iterable[Run]) -> dict[str, str]:
    """Return the identity of the way in which each cell of some runs is evaluated, by the cell's."""
    cells = {run.cell.id: run.cell for run in runs}
    return {identity: identities.evaluation_id(cell.recipe) for identity, cell in cells.items()}
