"""Properties of the grid of any study: what is drawn is expanded to the cells that it should have."""

import json
import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recipes import legal
from resolving import fingerprints

from ablate.errors import StudyError
from ablate.recipe import fields, identity
from ablate.recipe.fields import Data, Recipe, is_active
from ablate.recipe.identity import canonical, digest
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.file import Study
from ablate.study.grid import Cell, Fingerprints, Grid, Job, Run

VARIED = [path for path in fields.fields() if path not in ("data.root", fields.OPTIONS)]
ENTANGLED = [
    *fields.ACTIVE,
    "augment.crop",
    "model.name",
    "optimizer.name",
    "schedule.name",
]  # drawn more often
ASKED = {"evaluation.tta"}  # by conditions, factor or not


def expand(loaded: Study) -> Grid:
    return grid.expand(loaded, precision="fp32")


def runs_and_jobs(loaded: Study) -> tuple[tuple[Run, ...], tuple[Job, ...]]:
    cells = expand(loaded)
    return grid.runs_and_jobs(cells, loaded.seeds, fingerprints(cells))


def own(cells: Grid, identify: Callable[[Data], str]) -> Fingerprints:
    """Return fingerprints that differ where the images do."""
    return Fingerprints({cell.recipe.data: identify(cell.recipe.data) for cell in cells.cells})


def spelled(given_value: Any) -> Any:
    return "none" if given_value is None else given_value


def factors_draw(draw: st.DrawFn, path: str) -> list[Any]:
    return [
        spelled(v)
        for v in draw(st.lists(st.sampled_from(legal(path)), min_size=2, max_size=3, unique_by=repr))
    ]


@st.composite
def conditions(draw: st.DrawFn, paths: list[str]) -> str:
    """Draw a condition on fields of which most are factors."""
    path = draw(st.sampled_from(paths))
    given_value = draw(st.sampled_from([v for v in legal(path) if not isinstance(v, dict)]))
    part = f"{path} {draw(st.sampled_from(['==', '!=']))} {json.dumps(spelled(given_value))}"
    more = draw(st.sampled_from(["", "", "not", "and", "or"]))
    return {"": part, "not": f"not {part}"}.get(more) or f"{part} {more} {draw(conditions(paths))}"


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the data of a study file: factors of all forms, conditions on earlier factors, excludes."""
    paths = draw(st.lists(st.sampled_from(VARIED + 2 * ENTANGLED), max_size=4, unique=True))
    raw: dict[str, Any] = {
        "name": "x",
        "design": draw(st.sampled_from(["factorial", "factorial", "one_at_a_time"])),
        "seeds": draw(st.integers(1, 3)),
    }
    raw |= {"recipe": {"data": {"root": "/images"}}, "factors": {}, "factor": [], "exclude": []}
    for i, path in enumerate(paths):
        section, name = path.split(".")
        levels = factors_draw(draw, path)
        form = draw(st.sampled_from(["short", "short", "long", "named"]))
        asked = [*paths[:i], *ASKED.difference(paths)]
        when = {"when": draw(conditions(asked))} if asked and draw(st.booleans()) else {}
        if form == "short" and not when:
            raw["factors"].setdefault(section, {})[name] = levels
        elif form == "named":
            other = draw(
                st.sampled_from(
                    [
                        path
                        for path in VARIED
                        if path not in (*paths, *ASKED) and path not in str(raw["factor"])
                    ]
                )
            )
            sets = [
                {path: given_value}
                | ({other: spelled(draw(st.sampled_from(legal(other))))} if draw(st.booleans()) else {})
                for given_value in levels
            ]
            raw["factor"].append(
                {
                    "name": f"named {i}",
                    "levels": [{"name": f"level {k}", "set": part} for k, part in enumerate(sets)],
                }
                | when
            )
        else:
            raw["factor"].append({"name": path, "levels": levels} | when)
    if paths:
        raw["exclude"] = [
            {"if": draw(conditions([*paths, *ASKED])), "why": why}
            for why in draw(st.sampled_from(["", "", "a", "ab"]))
        ]
    return raw


def shuffled(raw: Any, order: random.Random) -> Any:
    """Sort all tables in another way; lists of levels and seeds have a meaning and stay."""
    if isinstance(raw, dict):
        keys = order.sample(list(raw), len(raw))
        return {
            key: order.sample(raw[key], len(raw[key]))
            if key in ("factor", "exclude")
            else shuffled(raw[key], order)
            for key in keys
        }
    return raw


def expanded(raw: dict[str, Any]) -> tuple[Study, Grid]:
    """Read and expand a study; skip those that are refused: an impossible cell, an excluded baseline."""
    loaded = study_file.check(raw, "x.toml")
    try:
        return loaded, expand(loaded)
    except StudyError:
        assume(False)
        raise


drawn = settings(max_examples=60, deadline=None, derandomize=True)


@drawn
@given(raw=studies(), order=st.randoms(use_true_random=False))
def test_the_order_of_keys_and_tables_changes_no_identity(raw, order):
    def identities(raw: dict[str, Any]) -> Any:
        loaded = study_file.check(raw, "x.toml")
        try:
            cells = expand(loaded)
        except StudyError:
            return "refused"
        return (
            {cell.id for cell in cells.cells},
            {job.id for job in grid.runs_and_jobs(cells, loaded.seeds, own(cells, str))[1]},
            cells.merged,
        )

    assert identities(shuffled(raw, order)) == identities(raw)


@drawn
@given(raw=studies())
def test_every_cell_has_every_seed_and_every_different_training_one_job(raw):
    loaded, cells = expanded(raw)
    runs, jobs = grid.runs_and_jobs(cells, loaded.seeds, own(cells, lambda data: data.name))
    assert [(run.seed, run.cell) for run in runs] == [
        (seed, cell) for seed in loaded.seeds for cell in cells.cells
    ]
    trainings = {
        (json.dumps(canonical(run.cell.recipe, evaluation=False), sort_keys=True), run.seed) for run in runs
    }
    assert len({job.id for job in jobs}) == len(jobs) == len(trainings)
    assert {job.id for job in jobs} == {run.job_id for run in runs}
    for _, same in groupby(sorted(runs, key=lambda run: run.job_id), key=lambda run: run.job_id):
        assert len({(digest(canonical(run.cell.recipe, evaluation=False)), run.seed) for run in same}) == 1
    assert all(job.id == identity.job_id(job.recipe, job.seed, job.data) for job in jobs)


@drawn
@given(raw=studies())
def test_cells_are_different_have_different_names_and_the_baseline_is_first(raw):
    loaded, cells = expanded(raw)
    assert len({cell.id for cell in cells.cells}) == len(cells.cells)
    assert all(cell.id == digest(canonical(cell.recipe)) for cell in cells.cells)
    names = [cell.label for cell in cells.cells]
    assert len(set(names)) == len(names)
    assert [cell.is_baseline for cell in cells.cells] == [True] + [False] * (len(names) - 1)
    assert names[0] == "baseline"
    first = {factor.name: factor.levels[0].name for factor in loaded.factors}
    assert cells.cells[0].levels.items() <= first.items()
    assert not set(names) & {label for exclusion in cells.excluded for label in exclusion.labels}


def rebuilt(loaded: Study, cell: Cell) -> Recipe:
    """Build a cell's recipe from nothing but the levels that it shows."""
    flat = dict(loaded.base) | {"training.precision": "fp32"}
    for factor in loaded.factors:
        flat |= next((level.set for level in factor.levels if level.name == cell.levels.get(factor.name)), {})
    nested: dict[str, Any] = {}
    for path, given_value in flat.items():
        section, name = path.split(".")
        nested.setdefault(section, {})[name] = given_value
    return Recipe.model_validate(nested)


@drawn
@given(raw=studies())
def test_a_cell_shows_exactly_the_levels_that_matter_in_it(raw):
    loaded, cells = expanded(raw)
    for cell in cells.cells:
        assert rebuilt(loaded, cell) == cell.recipe
        for factor in loaded.factors:
            asked = factor.when is None or factor.when.holds(
                lambda path, cell=cell: fields.value(cell.recipe, path)
            )
            matters = any(is_active(cell.recipe, path) for level in factor.levels for path in level.set)
            assert (factor.name in cell.levels) is (asked and matters)


@drawn
@given(raw=studies())
def test_every_combination_is_a_cell_or_equal_to_one_or_excluded(raw):
    loaded, cells = expanded(raw | {"exclude": []})
    sizes = [len(factor.levels) for factor in loaded.factors]
    count = 1
    for size in sizes:
        count = count * size if loaded.design == "factorial" else count + size - 1
    assert len(cells.cells) + cells.merged == count
    assert not cells.excluded
    assert set(cells.unused) == {
        f.name for f in loaded.factors if len({cell.levels.get(f.name) for cell in cells.cells} - {None}) < 2
    }
    loaded, fewer = expanded(raw)
    for cell in cells.cells:
        reasons = [
            e.why
            for e in loaded.excludes
            if e.condition.holds(lambda path, cell=cell: fields.value(cell.recipe, path))
        ]
        assert (cell.id in {kept.id for kept in fewer.cells}) is not bool(reasons)
        assert all(cell.label not in e.labels or e.why == reasons[0] for e in fewer.excluded)
    assert {cell.id for cell in fewer.cells} <= {cell.id for cell in cells.cells}
