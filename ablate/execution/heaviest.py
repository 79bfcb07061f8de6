"""The trainings that a study may start, and the one of them that asks most of a device."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from ablate.errors import AblateError
from ablate.planning import inputs
from ablate.planning.plan import Plan
from ablate.planning.work import CellSearch
from ablate.recipe import networks, user_code
from ablate.recipe.fields import Recipe
from ablate.store import study_folder
from ablate.study import grid

MOST = 64  # combinations of one search that are looked at


@dataclass(frozen=True, slots=True)
class Candidate:
    """A training that may be started: its recipe, its seed and its images."""

    recipe: Recipe
    seed: int
    data: str


def choose(todo: Plan, code: tuple[str, ...] | None) -> Candidate | None:
    """Return the candidate with most multiplications in a batch; None where nothing is left to train.

    `code`: the folders that a user's own network may be imported from. What cannot be counted counts for
    nothing: the first one is taken before it.
    """
    from ablate.training.models import Shape, summary  # torch

    candidates = list(dict.fromkeys(_candidates(todo)))
    if len(candidates) < 2:
        return next(iter(candidates), None)
    shapes = inputs.shapes(todo.resolved.inputs, (each.recipe.data for each in candidates))
    counted: dict[object, int] = {}

    def load(candidate: Candidate) -> int:
        recipe = candidate.recipe
        shape = shapes[study_folder.data_key(recipe.data)]
        key = recipe.model, shape
        if key not in counted:
            counted[key] = 0
            try:
                if networks.is_own(recipe.model.name):
                    user_code.allow(recipe.model.name, code or ())
                counted[key] = summary.summarise(recipe.model, Shape(*shape)).macs
            except (AblateError, ValueError):
                pass  # a combination that a search would throw away: its jobs say what is wrong with it
        return counted[key] * recipe.training.batch_size

    return max(candidates, key=load)


def _candidates(todo: Plan) -> Iterator[Candidate]:
    for work in todo.work:
        if not work.trained:
            yield Candidate(work.job.recipe, work.job.seed, work.job.data)
    for test in todo.tuning.open_ranges:
        yield Candidate(test.recipe, test.seeds[0], test.data)
    for search in todo.tuning.open_searches:
        for recipe in _tried(search):
            yield Candidate(recipe, search.search.seeds[0], search.data)


def _tried(search: CellSearch) -> Iterator[Recipe]:
    """Return the recipes that a search may try, as far as they differ in load: at the ends of its ranges."""
    space: dict[str, list[Any]] = {
        path: [tried.high] if tried.choices is None else list(tried.choices)
        for path, tried in search.search.space.items()
        if path.startswith("model.") or path == "training.batch_size"
    }
    for combination in islice(product(*space.values()), MOST):
        try:
            yield grid.with_fields(search.recipe, dict(zip(space, combination, strict=True)))
        except ValueError:
            continue  # values that no recipe has together
    yield search.recipe
