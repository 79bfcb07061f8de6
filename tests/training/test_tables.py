"""Each table of facts agrees with the functions registered by its names, and its facts with what they do."""

import typing

import pytest
import torch
from torchvision import models as torchvision_models

from ablate.recipe import augmentations, datasets, fields, networks, optimizers, rates, schedules
from ablate.recipe.augmentations import AUGMENTATIONS, Augment
from ablate.recipe.datasets import DATASETS, Data
from ablate.recipe.networks import NETWORKS, Model
from ablate.recipe.optimizers import OPTIMIZERS, Optimizer
from ablate.recipe.schedules import SCHEDULES, Schedule
from ablate.training import augment, data, models, optim
from ablate.training.augment.streams import ROLES, Form, generators
from ablate.training.datasets import LOADERS
from ablate.training.models.torchvision_net import torchvision_net

TABLES = [
    (OPTIMIZERS, optim.MAKE, Optimizer),
    (SCHEDULES, rates.SCHEDULES, Schedule),
    (DATASETS, LOADERS, Data),
]


@pytest.mark.parametrize(
    ("table", "functions", "section"), TABLES, ids=["optimizers", "schedules", "datasets"]
)
def test_every_name_of_a_table_has_a_function_and_is_a_value_of_its_field(table, functions, section):
    assert set(functions) == set(table)
    assert typing.get_args(section.model_fields["name"].annotation) == tuple(table)


def test_every_network_has_a_function():
    assert set(models.MODELS) == set(NETWORKS)


def test_every_augmentation_has_a_function_where_the_table_says_and_is_a_field():
    by_place = {
        place: {n for n, facts in AUGMENTATIONS.items() if facts.place == place}
        for place in ("image", "normalized", "mix")
    }
    assert set(augment.STEPS) == by_place["image"] | by_place["normalized"]
    assert set(augment.MIXES) == by_place["mix"]
    assert set(AUGMENTATIONS) <= set(Augment.model_fields)
    switched_on = {name for name in Augment.model_fields if f"augment.{name}" not in fields.NEEDS}
    assert switched_on == set(AUGMENTATIONS), "every other field needs an augmentation to matter"


ON = {
    "flip": {"flip": True}, "crop": {"crop": "random_resized_crop"}, "rotation": {"rotation": 10},
    "cutout": {"cutout": 4},
    "color_jitter": {"color_jitter": {"brightness": 0.2}}, "erasing": {"erasing": 0.5},
    "mixup": {"mixup": 1.0}, "cutmix": {"cutmix": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_draws_from_the_streams_of_its_facts_alone(name):
    streams, fresh = generators(0), generators(0)
    made = augment.compose(Augment.model_validate({"crop": "none", "flip": False} | ON[name]), streams)
    pixels = torch.zeros(8, 16, 16, 3, dtype=torch.uint8)
    made = made.drawn(Form(8, 3, 16, 16, pixels.device))
    x = made.read(pixels, torch.arange(8)).float()
    for step in (*made.steps, *made.erasures):
        x = step(x)
    if made.mix is not None:
        made.mix(x)
    drawn = {role for role in ROLES if not torch.equal(streams[role].get_state(), fresh[role].get_state())}
    assert drawn
    assert drawn <= set(AUGMENTATIONS[name].streams)
    assert set(AUGMENTATIONS[name].streams) - drawn <= {"coin"}, (
        "which is tossed where both ways of mixing are on"
    )


def test_needs_name_fields_and_every_field_that_facts_name_has_one():
    tables = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
    for section, table in tables.items():
        used = {f"{section}.{field}" for facts in table.values() for field in facts.fields}
        assert used == {path for path in fields.NEEDS if path.startswith(f"{section}.")}
    assert set(fields.NEEDS) <= set(fields.fields())
    parts = (augmentations, networks, optimizers, schedules)
    others = {path for path in fields.NEEDS if path.startswith("training.")}
    assert sum(len(part.NEEDS) for part in parts) == len(fields.NEEDS) - len(others), "no field has two needs"


def test_digits_are_as_many_as_their_facts_say(tmp_path):
    facts, prepared = DATASETS["digits"], data.prepare(Data(name="digits", image_size=16), tmp_path)
    assert (facts.train, facts.test) == (prepared.train, prepared.test)
    assert (facts.channels, facts.classes) == (prepared.channels, len(prepared.classes))


def test_a_set_of_a_later_version_is_no_folder():
    assert [name for name in (*DATASETS, "not_yet") if datasets.is_folder(name)] == ["imagefolder"]


def test_torchvision_networks_with_side_heads_and_sizes_are_those_of_their_facts():
    with_heads = {name for name, facts in NETWORKS.items() if facts.side_heads}
    assert with_heads == {"googlenet", "inception_v3"}
    sized = {name: facts.sized for name, facts in NETWORKS.items() if facts.sized}
    assert set(sized) == {
        n
        for n in torchvision_models.list_models(module=torchvision_models)
        if n.startswith(("vit", "maxvit"))
    }
    network = torchvision_net(Model(name="vit_b_32"), 3, 64, 10)
    assert network.image_size == 64
