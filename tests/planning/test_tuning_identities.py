"""Which searches and range tests are the same, and which are others."""

import pytest
from searching import BOTH, RATE, read, resolve, searches_of

from ablate.planning import tuning
from ablate.recipe.range_test import Sweep
from ablate.study import grid

LR = {"optimizer": {"lr": RATE}}
FLIP = {"augment": {"flip": [True, False]}}


def search_id(here, search=None, data="f" * 64, code="", **others):
    """Return the identity of the baseline's search."""
    loaded = read({"space": LR, "sampler": "random", "trials": 6} | (search or {}), **others)
    return resolve(loaded, here, data, code).searches[0].id


def range_id(here, data="f" * 64, code="", name="x", factors=None, seeds=2, **recipe):
    rate = {"optimizer": {"lr": "find"}} if "optimizer" not in recipe else {}
    return (
        resolve(read(None, name=name, factors=factors, seeds=seeds, **recipe, **rate), here, data, code)
        .ranges[0]
        .id
    )


@pytest.mark.parametrize(
    "same",
    [
        {"search": {"trials": 60}},
        {"search": {"per": "study"}},
        {"search": {"pruner": "none", "seeds": 1, "metric": "validation/accuracy"}},  # the defaults
        {"search": {"space": {"optimizer": {"lr": {"low": 1e-4, "high": 10, "log": True}}}}},  # 10 is 10.0
        {
            "search": {"space": {"optimizer": {"lr": RATE, "momentum": {"low": 0.1, "high": 0.9}}}},
            "optimizer": {"name": "adam"},
        },
        {"name": "another"},
        {"seeds": 7},
        {"factors": {"augment": {"flip": [True, False], "rotation": [0, 15]}}},
        {"factors": {"evaluation": {"tta": ["none", "flip"]}}},
        {"evaluation": {"tta": "flip", "mc_dropout": 5}},
        {"model": {"name": "cnn4", "width": 1.0}},
    ],
)
def test_a_search_stays_the_same_whatever_does_not_change_its_trials(here, same):
    like = {"optimizer": same["optimizer"]} if "optimizer" in same else {}
    assert search_id(here, **same) == search_id(here, **like)


@pytest.mark.parametrize(
    "other",
    [
        {"search": {"sampler": "tpe"}},
        {"search": {"pruner": "median"}},
        {"search": {"seeds": 2}},
        {"search": {"metric": "validation/loss"}},
        {"search": {"space": {"optimizer": {"lr": RATE | {"high": 9.0}}}}},
        {"search": {"space": {"optimizer": {"lr": {"low": 1e-4, "high": 10.0}}}}},
        {"search": {"space": BOTH}},
        {"search": {"space": {"optimizer": {"lr": RATE, "momentum": {"low": 0.1, "high": 0.9}}}}},
        {"training": {"epochs": 5}},
        {"optimizer": {"lr": 0.2}},
        {"evaluation": {"select": "best_validation"}},
        {"data": "e" * 64},
        {"code": "mine"},
    ],
)
def test_a_search_is_another_one_where_its_trials_may_be_others(here, other):
    data = other.pop("data", "f" * 64)
    assert search_id(here, data=data, **other) != search_id(here)


def test_the_order_of_the_fields_in_the_file_changes_neither_a_search_nor_its_points(here):
    fields = {"optimizer.lr": RATE | {"steps": 3}, "optimizer.weight_decay": {"choices": [0.0, 0.1]}}
    one, other = (
        searches_of(here, {"space": space, "sampler": "grid", "trials": 4})[0]
        for space in (fields, dict(reversed(fields.items())))
    )
    assert one == other
    assert list(one.search.space) == list(other.search.space)


@pytest.mark.parametrize(
    "same",
    [
        {"name": "another"},
        {"seeds": 7},
        {"evaluation": {"tta": "flip"}},
        {"training": {"epochs": 30}},
        {"training": {"epochs": 4, "early_stopping": 2}},
        {"schedule": {"name": "cosine"}},
        {"schedule": {"warmup": 0.5}},
        {"factors": {"augment": {"flip": [True, False], "rotation": [0, 15]}}},
        {"optimizer": {"lr": "find", "momentum": 0.9}},
    ],
)
def test_a_range_test_stays_the_same_whatever_does_not_change_its_curves(here, same):
    assert range_id(here, **same) == range_id(here)


def test_the_rate_that_the_recipe_has_is_no_part_of_a_range_test(here):
    cells = [grid.expand(read(optimizer={"lr": rate}), precision="fp32").cells[0] for rate in (0.1, 0.5)]
    assert len({tuning.range_test(cell.label, cell.recipe, "f", "").id for cell in cells}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"lr": "find", "weight_decay": 0.0}},
        {"training": {"batch_size": 64, "epochs": 4}},
        {"augment": {"rotation": 15}},
        {"data": "e" * 64},
        {"code": "mine"},
    ],
)
def test_a_range_test_is_another_one_where_its_curves_may_be_others(here, other):
    assert range_id(here, **other) != range_id(here)


@pytest.mark.parametrize(
    "change",
    [{"sweep": Sweep(high=1.0)}, {"sweep": Sweep(steps=50)}, {"sweep": Sweep(per="epoch")}, {"seeds": 5}],
)
def test_another_sweep_and_other_seeds_make_another_range_test(change):
    cell = grid.expand(read(), precision="fp32").cells[0]
    plain = tuning.range_test(cell.label, cell.recipe, "f", "")
    assert tuning.range_test(cell.label, cell.recipe, "f", "", sweep=Sweep()).id == plain.id
    assert tuning.range_test(cell.label, cell.recipe, "f", "", **change).id != plain.id
