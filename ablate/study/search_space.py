"""What a study lets Optuna search: the table [search], read and checked. Nothing is searched here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ablate.messages import show
from ablate.recipe import fields as recipe_fields
from ablate.recipe.fields import Section
from ablate.study.checks import in_field, in_table, unknown_field
from ablate.study.factors import FIND, Factor, leaves

Sampler = Literal["tpe", "random", "cmaes", "gp", "grid"]
Pruner = Literal["none", "median", "hyperband"]
Metric = Literal["validation/accuracy", "validation/loss"]

MOST_TRIALS = 10_000
TUNING_SEED = 1_000_000
"""The first seed of trials: seeds of studies are below it, so that no trial has seen a study's draws."""


class Range(Section):
    """What a search may try for one field."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Equal ratios instead of equal differences: for rates."""
    steps: int | None = Field(None, ge=2, le=1000)
    """Points from low to high, both included: for `sampler = "grid"` alone."""
    choices: list[str | bool | int | float] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [self.low is None, self.high is None, self.choices is None] not in (
            [False, False, True],
            [True, True, False],
        ):
            raise ValueError("a range must have low and high, or choices")
        if (
            self.low is not None
            and self.high is not None
            and not (self.low < self.high and (self.low > 0 or not self.log))
        ):
            raise ValueError(
                "low must be below high, and above 0 with log = true, "
                f"got low = {self.low}, high = {self.high}"
            )
        return self


class SearchHead(Section):
    """A search, its space not yet read."""

    trials: int = Field(20, ge=1, le=MOST_TRIALS)
    """For each cell, or for the study; of a grid, all its points unless fewer are given."""
    per: Literal["cell", "study"] = "cell"
    """Every cell gets the same number of trials, or the baseline is tuned and all cells take its values."""
    sampler: Sampler = "tpe"
    """Who proposes: Optuna's TPE, random draws, CMA-ES, Gaussian processes, or every point of a grid."""
    pruner: Pruner = "none"
    """Who stops trials that look bad after an epoch."""
    seeds: int = Field(1, ge=1, le=100)
    """Trainings of one trial, each under a seed that no study has; their mean counts."""
    metric: Metric = "validation/accuracy"
    """Never a metric of the test set."""
    space: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Search:
    """Fields to be tuned, for each cell or once for the study."""

    trials: int
    per: Literal["cell", "study"]
    sampler: Sampler
    pruner: Pruner
    seeds: tuple[int, ...]
    metric: Metric
    space: Mapping[str, Range]

    @property
    def direction(self) -> Literal["max", "min"]:
        """The direction of the metric that is better."""
        return "min" if self.metric.endswith("loss") else "max"


def read(table: Any, base: Mapping[str, Any], factors: tuple[Factor, ...], wrong: list[str]) -> Search | None:
    """Return the search of [search], and add what is wrong; `base` and `factors` are the study's."""
    if not isinstance(table, dict):
        wrong.append(f"search: must be a table, got {show(table)}")
        return None
    mistakes = in_table(table, SearchHead, "search")
    space: dict[str, Range] = {}
    named = table.get("space", {})
    for path, content in leaves(named, ranges=True) if isinstance(named, dict) and named else ():
        sentences = _in_range(path, content)
        mistakes += sentences
        if not sentences:
            space[path] = Range.model_validate(content)
    if named == {}:
        example = "space.optimizer.lr = { low = 1e-3, high = 1.0, log = true }"
        mistakes.append(f"search.space: must name at least one field, such as {example}")
    mistakes += _conflicts(space, base, factors)
    if not mistakes and table.get("sampler") == "grid":
        bare = [path for path, tried in space.items() if tried.choices is None and tried.steps is None]
        need = "must have choices, or low, high and steps, for a grid"
        mistakes += [f"search.space.{path}: {need}" for path in bare]
    wrong += mistakes
    if mistakes:
        return None
    head = SearchHead.model_validate(table)
    seeds = tuple(range(TUNING_SEED, TUNING_SEED + head.seeds))
    whole = size(space)
    trials = min(table.get("trials", whole), whole) if head.sampler == "grid" else head.trials
    if trials > MOST_TRIALS:
        allowed = f"at most {MOST_TRIALS:,} are allowed: take fewer steps"
        wrong.append(f"search.space: makes a grid of {trials:,} points, and {allowed}")
    return Search(trials, head.per, head.sampler, head.pruner, seeds, head.metric, space)


def is_searchable(path: str) -> bool:
    """Whether trials may differ in a field: not in the images, the evaluation, or the precision."""
    return not path.startswith(("evaluation.", "data.")) and path != "training.precision"


def _in_range(path: str, given: Any) -> list[str]:
    """Return what is wrong with the range of one field."""
    at = f"search.space.{path}"
    if path not in recipe_fields.fields():
        return [f"{at}: {unknown_field(path)}"]
    if not is_searchable(path):
        allowed = (
            "must be a field that a training can be better for: not of data, evaluation, or the precision"
        )
        return [f"{at}: {allowed}"]
    if isinstance(given, list):
        is_pair = len(given) == 2 and all(
            isinstance(end, (int, float)) and not isinstance(end, bool) for end in given
        )
        ends = f"{{ low = {show(min(given))}, high = {show(max(given))} }} or " if is_pair else ""
        write = f"write space.{path} = {ends}{{ choices = {show(given)} }}"
        return [f"{at}: must be a range, got {show(given)}: {write}"]
    if not isinstance(given, dict):
        forms = "{ low = ..., high = ... } or { choices = [...] }"
        return [f"{at}: must be a range, got {show(given)}: write {forms}, or set it in [recipe]"]
    mistakes = in_table(given, Range, at)
    if mistakes:
        return mistakes
    tried = Range.model_validate(given)
    values: list[Any] = [*(tried.choices or ()), *(end for end in (tried.low, tried.high) if end is not None)]
    return [f"{at}: {sentence}" for end in values for sentence in in_field(recipe_fields.fields()[path], end)]


def _conflicts(space: Mapping[str, Range], base: Mapping[str, Any], factors: tuple[Factor, ...]) -> list[str]:
    """Return the fields that are both searched and varied, or both searched and found by a range test."""
    varied = {path: factor.name for factor in factors for level in factor.levels for path in level.set}
    wrong = [
        f"search.space.{path}: is varied by the factor {varied[path]}: keep it in one of them"
        for path in space
        if path in varied
    ]
    rates = [
        base.get("optimizer.lr"),
        *(level.set.get("optimizer.lr") for factor in factors for level in factor.levels),
    ]
    if "optimizer.lr" in space and FIND in rates:
        wrong.append(
            "search.space.optimizer.lr: is also to be found by a range test "
            f'(optimizer.lr = "{FIND}"): keep one of them'
        )
    if "optimizer.name" in space and FIND in rates:
        wrong.append(
            f'search.space.optimizer.name: a range test (optimizer.lr = "{FIND}") '
            "finds the rate of one optimizer alone: search optimizer.lr as well"
        )
    return wrong


def contains(path: str, tried: Range, given: Any) -> bool:
    """Whether a value may come out of a search of this field."""
    if tried.choices is not None:
        return any(given == choice and type(given) is type(choice) for choice in tried.choices)
    assert tried.low is not None
    assert tried.high is not None
    kinds = int if is_whole(path) else (int, float)
    return isinstance(given, kinds) and not isinstance(given, bool) and tried.low <= given <= tried.high


def written(fields: Mapping[str, Any]) -> str:
    """Return the fields of a trial as people read them: `lr 0.31, name adam`."""
    tails = {path: path.rpartition(".")[-1] for path in fields}
    names = {path: tail if list(tails.values()).count(tail) == 1 else path for path, tail in tails.items()}
    return ", ".join(
        f"{names[path]} {f'{given:.3g}' if isinstance(given, float) else given}"
        for path, given in fields.items()
    )


def size(space: Mapping[str, Range]) -> int:
    """Return the number of points of a grid."""
    return prod(len(points(path, tried)) for path, tried in space.items())


def is_whole(path: str) -> bool:
    """Whether a field holds whole numbers."""
    kind = recipe_fields.fields()[path].annotation
    return kind is int or kind == (int | None)


def points(path: str, tried: Range) -> list[Any]:
    """Return the points of one field on a grid."""
    if tried.choices is not None:
        return list(tried.choices)
    assert tried.low is not None
    assert tried.high is not None
    last = (tried.steps or 2) - 1
    if tried.log:
        inner = [tried.low * (tried.high / tried.low) ** (i / last) for i in range(1, last)]
    else:
        inner = [tried.low + (tried.high - tried.low) * i / last for i in range(1, last)]
    between = [round(point) if is_whole(path) else float(f"{point:.6g}") for point in inner]
    return list(dict.fromkeys([tried.low, *between, tried.high]))


def grid(space: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """Return the combinations of a grid, one after another: there may be very many."""
    for combination in product(*(points(path, tried) for path, tried in space.items())):
        yield dict(zip(space, combination, strict=True))
