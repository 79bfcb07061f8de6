"""Numbers and lists that no study means, in a file or in a store that others write to, are a sentence."""

import pytest

from ablate.errors import StudyError
from ablate.planning import costs
from ablate.recipe import fields
from ablate.recipe.fields import Recipe
from ablate.recipe.section import LARGEST
from ablate.store.layout import Store
from ablate.study import file as study_file
from ablate.study import grid

HUGE = 10**400
SEARCH = {"trials": 2, "space": {"optimizer": {"lr": {"low": 1e-3, "high": 1.0}}}}


def mistakes(**content):
    with pytest.raises(StudyError) as caught:
        grid.expand(study_file.check({"name": "x", **content}, "x.toml"), precision="fp32")
    return caught.value.mistakes


@pytest.mark.parametrize("number", [HUGE, -HUGE], ids=["huge", "hugely negative"])
@pytest.mark.parametrize("path", fields.fields())
def test_no_field_may_be_a_number_that_nobody_counts_to(path, number):
    section, name = path.split(".")
    (mistake,) = mistakes(recipe={section: {name: number}})
    assert mistake.startswith(f"x.toml: recipe.{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        {"seeds": HUGE},
        {"seeds": [HUGE]},
        {"seeds": [0, LARGEST + 1]},
        {"min_effect": HUGE},
        {"analysis": {"alpha": HUGE}},
        {"name": HUGE},
        {"recipe": {"data": {"validation": 0.1}}, "search": SEARCH | {"trials": HUGE}},
        {"recipe": {"data": {"validation": 0.1}}, "search": SEARCH | {"seeds": HUGE}},
        {
            "recipe": {"data": {"validation": 0.1}},
            "search": SEARCH | {"space": {"training": {"batch_size": {"low": 2, "high": HUGE}}}},
        },
    ],
    ids=str,
)  # fmt: skip
def test_no_key_may_be_a_number_that_nobody_counts_to(content):
    assert all(mistake.startswith("x.toml: ") for mistake in mistakes(**content))


def test_a_recipe_of_a_store_has_the_same_limits():
    with pytest.raises(ValueError, match="epochs must be at most 9,223"):
        Recipe.model_validate({"training": {"epochs": HUGE}})


def test_the_largest_number_that_is_allowed_can_be_planned(tmp_path):
    recipe = Recipe.model_validate({"training": {"epochs": LARGEST}, "data": {"name": "digits"}})
    time = costs.training(costs.Pace(Store(tmp_path)), recipe, "none")
    assert time is not None
    assert time.seconds > 1e17


def test_a_long_list_of_seeds_is_counted_and_not_printed():
    assert mistakes(seeds=list(range(200_000))) == (
        "x.toml: seeds: must be at most 1,000 seeds, got 200,000",
    )  # fmt: skip


def test_factors_that_set_nothing_are_refused_before_their_cells_are_counted():
    empty = [{"name": name, "set": {}} for name in "ab"]
    every = mistakes(factor=[{"name": f"f{i}", "levels": empty} for i in range(3_000)])
    assert every[0] == "x.toml: factor f0: its levels set no field: it changes nothing"
    assert len(every) == 3_000


def test_a_count_of_cells_with_more_digits_than_python_prints_is_a_sentence():
    paths = "optimizer.lr", "optimizer.weight_decay", "optimizer.momentum", "training.label_smoothing"
    levels = [0.1 + i * 1e-9 for i in range(8_000)]
    (mistake,) = mistakes(factor=[{"name": path, "levels": levels} for path in paths])
    assert mistake.startswith("x.toml: factors: make far too many cells, and at most 10,000 are allowed")


def test_too_many_levels_are_counted_and_not_printed():
    (mistake,) = mistakes(factors={"optimizer": {"lr": [0.1] * 100_000}})
    assert mistake == "x.toml: factors.optimizer.lr: must have at most 20,000 levels, got 100,000"
