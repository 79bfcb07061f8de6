"""[search] as it is read: defaults, samplers, the points of a grid.

What is wrong with one is in golden/mistakes.txt.
"""

import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import BOTH, read

from ablate.study import search_space
from ablate.study.search_space import TUNING_SEED, Pruner, Range, Sampler

LR = {"optimizer": {"lr": {"low": 0.001, "high": 1.0, "log": True}}}


def test_a_search_that_says_only_its_space_has_the_defaults():
    found = read({"space": LR}).search
    assert (found.trials, found.per, found.sampler, found.pruner, found.metric) == (
        20,
        "cell",
        "tpe",
        "none",
        "validation/accuracy",
    )
    assert found.seeds == (TUNING_SEED,)
    assert found.space == {"optimizer.lr": Range(low=0.001, high=1.0, log=True)}


def test_a_study_without_the_table_searches_nothing():
    assert read().search is None


def test_each_seed_of_a_trial_is_one_that_no_study_has():
    assert read({"space": LR, "seeds": 3}).search.seeds == (TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2)


@pytest.mark.parametrize(
    ("metric", "direction"), [("validation/accuracy", "max"), ("validation/loss", "min")]
)
def test_the_metric_says_which_direction_is_better(metric, direction):
    assert read({"space": LR, "metric": metric}).search.direction == direction


@pytest.mark.parametrize("sampler", [name for name in get_args(Sampler) if name != "grid"])
@pytest.mark.parametrize("pruner", get_args(Pruner))
def test_every_sampler_goes_with_every_pruner(sampler, pruner):
    found = read({"space": LR, "sampler": sampler, "pruner": pruner, "trials": 7}).search
    assert (found.sampler, found.pruner, found.trials) == (sampler, pruner, 7)


def test_a_space_may_be_written_as_tables_or_as_dotted_keys():
    assert read({"space": {"optimizer.lr": LR["optimizer"]["lr"]}}).search == read({"space": LR}).search


GRID = {
    "optimizer": {"lr": {"low": 0.01, "high": 1.0, "log": True, "steps": 3}},
    "augment": {"crop": {"choices": ["none", "random_crop"]}},
}


@pytest.mark.parametrize(
    ("asked", "trials"), [({}, 6), ({"trials": 4}, 4), ({"trials": 6}, 6), ({"trials": 100}, 6)]
)
def test_a_grid_has_all_its_points_as_trials_unless_fewer_are_asked_for(asked, trials):
    assert read({"space": GRID, "sampler": "grid"} | asked).search.trials == trials


def test_a_grid_has_every_combination_once():
    found = list(search_space.grid(read({"space": GRID, "sampler": "grid"}).search.space))
    assert [(point["optimizer.lr"], point["augment.crop"]) for point in found] == [
        (0.01, "none"), (0.01, "random_crop"), (0.1, "none"), (0.1, "random_crop"), (1.0, "none"),
        (1.0, "random_crop"),
    ]  # fmt: skip


def test_the_points_of_a_grid_are_equal_differences_or_equal_ratios():
    assert search_space.points("model.head_dropout", Range(low=0.0, high=0.4, steps=5)) == [
        0.0,
        0.1,
        0.2,
        0.3,
        0.4,
    ]
    assert search_space.points("optimizer.lr", Range(low=0.001, high=1.0, log=True, steps=4)) == [
        0.001,
        0.01,
        0.1,
        1.0,
    ]


def test_whole_numbers_at_the_ends_make_whole_points_of_a_field_of_whole_numbers_alone():
    assert search_space.points("training.batch_size", Range(low=16, high=256, log=True, steps=5)) == [
        16,
        32,
        64,
        128,
        256,
    ]
    assert search_space.points("augment.padding", Range(low=1, high=3, steps=10)) == [1, 2, 3]
    assert search_space.points("optimizer.weight_decay", Range(low=0, high=1, steps=5)) == [
        0,
        0.25,
        0.5,
        0.75,
        1,
    ]


def test_choices_are_the_points_as_they_are_written():
    assert search_space.points("augment.flip", Range(choices=[True, False])) == [True, False]
    assert search_space.points("training.gradient_clip", Range(choices=["none", 1.0])) == ["none", 1.0]


@given(st.floats(1e-9, 1e3), st.floats(1.001, 1e6), st.integers(2, 50), st.booleans())
def test_points_end_exactly_at_low_and_high(low, ratio, steps, log):
    high = low * ratio
    found = search_space.points("optimizer.lr", Range(low=low, high=high, log=log, steps=steps))
    assert (found[0], found[-1]) == (low, high)
    assert len(found) <= steps
    assert all(low * (1 - 1e-5) <= point <= high * (1 + 1e-5) for point in found)
    if ratio > 2:
        assert len(found) == steps
        apart = [math.log(b / a) if log else b - a for a, b in pairwise(found)]
        assert max(apart) == pytest.approx(min(apart), rel=0.01, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("optimizer.lr", False), ("training.batch_size", True), ("training.early_stopping", True)],
)
def test_a_field_of_whole_numbers_is_told_from_one_of_any_numbers(path, kind):
    assert search_space.is_whole(path) is kind


def test_the_size_of_a_space_is_the_number_of_its_points():
    assert search_space.size(read({"space": GRID, "sampler": "grid"}).search.space) == 6
    assert search_space.size(read({"space": BOTH}).search.space) == 4
