"""Which training a probe runs: the one that asks most of a device, of all that a study may start."""

import plans
import pytest
from resolving import resolved

from ablate.execution import heaviest
from ablate.planning import plan

FACTORS = {"model": {"name": ["cnn4", "resnet9", "resnet_small"]}}
LARGER = {"training": {"batch_size": [64, 512]}}


def chosen(here, **raw):
    if "factor" in raw or "model" in raw.get("factors", {}):
        raw["recipe"] = {"data": {"name": "digits", "train_size": 1000, "validation": 100}}
    todo = plan.make(resolved(plans.read(**raw), here))
    return heaviest.choose(todo, None)


@pytest.mark.parametrize(
    ("raw", "name", "batch"),
    [
        ({}, "cnn4", 128),
        ({"factors": FACTORS}, "resnet9", 128),
        ({"factors": LARGER}, "cnn4", 512),
        ({"factors": FACTORS | LARGER}, "resnet9", 512),
        # the batch of a small network may weigh more than a large network
        (
            {"factor": [{"name": "size", "levels": [
                {"name": "wide", "set": {"model.name": "resnet9", "training.batch_size": 2}},
                {"name": "many", "set": {"model.name": "cnn4", "training.batch_size": 512}},
            ]}], "factors": {}},
            "cnn4",
            512,
        ),
    ],
)  # fmt: skip
def test_it_is_the_one_with_most_multiplications_in_a_batch(here, raw, name, batch):
    candidate = chosen(here, **raw)
    assert (candidate.recipe.model.name, candidate.recipe.training.batch_size) == (name, batch)


SPACE = {"optimizer": {"lr": {"low": 1e-3, "high": 1.0, "log": True}}}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (SPACE, ("cnn4", 1.0, 128)),
        (SPACE | {"training": {"batch_size": {"low": 32, "high": 256}}}, ("cnn4", 1.0, 256)),
        (SPACE | {"model": {"width": {"choices": [0.5, 2.0, 1.0]}}}, ("cnn4", 2.0, 128)),
        (
            {
                "model": {"name": {"choices": ["cnn4", "resnet9"]}},
                "training": {"batch_size": {"choices": [64, 32]}},
            },
            ("resnet9", 1.0, 64),
        ),
    ],
)
def test_a_study_that_only_searches_yet_has_one_too(here, space, expected):
    candidate = chosen(here, search={"trials": 3, "space": space}, factors={})
    recipe = candidate.recipe
    assert (recipe.model.name, recipe.model.width, recipe.training.batch_size) == expected


def test_what_cannot_be_counted_is_not_taken_before_what_can(here, monkeypatch):
    from ablate.training.models import summary
    from ablate.training.surgery import ModelError

    real = summary.summarise

    def refuses(model, shape):
        if model.name == "resnet9":
            raise ModelError("cannot be built")
        return real(model, shape)

    monkeypatch.setattr(summary, "summarise", refuses)
    assert chosen(here, factors=FACTORS).recipe.model.name == "resnet_small"


def test_nothing_is_chosen_where_nothing_is_left_to_train(here):
    study = plans.read()
    for job in plan.make(resolved(study, here)).jobs:
        plans.put(here, job, "trained")
    todo = plan.make(resolved(study, here))
    assert todo.work  # to be judged
    assert heaviest.choose(todo, None) is None
