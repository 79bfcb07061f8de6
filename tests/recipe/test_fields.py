"""What identifies a training, what does not, and which random numbers it draws."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from recipes import legal

from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity as identities
from ablate.recipe.fields import Recipe, is_active, value
from ablate.recipe.identity import canonical, digest, evaluation_id, job_id, stream_seed
from ablate.recipe.networks import Options

DATA = "f" * 64

DEFAULTS = {
    "data.name": "cifar10",
    "data.root": None,
    "data.image_size": 32,
    "data.train_size": None,
    "data.validation": 0.1,
    "data.normalize": "dataset",
    "augment.crop": "random_crop",
    "augment.padding": 4,
    "augment.padding_mode": "zeros",
    "augment.flip": True,
    "augment.rotation": 0.0,
    "augment.interpolation": "bilinear",
    "augment.color_jitter": None,
    "augment.erasing": 0.0,
    "augment.cutout": 0,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "model.name": "resnet18",
    "model.pretrained": False,
    "model.trainable": "all",
    "model.stem": "cifar",
    "model.width": 1.0,
    "model.batch_norm": True,
    "model.conv_dropout": 0.0,
    "model.head_dropout": 0.0,
    "model.options": Options(),
    "optimizer.name": "sgd",
    "optimizer.lr": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.nesterov": True,
    "schedule.name": "one_cycle",
    "schedule.warmup": 0.2,
    "schedule.flanks": "cosine",
    "schedule.start": 1 / 25,
    "schedule.end": 1 / 250_000,
    "schedule.step_epochs": 10,
    "schedule.gamma": 0.1,
    "training.epochs": 30,
    "training.batch_size": 128,
    "training.label_smoothing": 0.0,
    "training.early_stopping": None,
    "training.monitor": "accuracy",
    "training.gradient_clip": None,
    "training.precision": "auto",
    "training.threads": 1,
    "training.compile": False,
    "evaluation.select": "last",
    "evaluation.mc_dropout": 0,
    "evaluation.tta": "none",
    "evaluation.train": False,
}

# Field by field: a recipe in which it cannot matter.
INACTIVE: dict[str, dict[str, Any]] = {
    "augment.padding": {"augment.crop": "none"},
    "augment.padding_mode": {"augment.padding": 0},
    "augment.interpolation": {},
    "model.stem": {"model.name": "cnn4"},
    "model.width": {},
    "optimizer.momentum": {"optimizer.name": "adamw"},
    "optimizer.nesterov": {"optimizer.momentum": 0.0},
    "schedule.warmup": {"schedule.name": "cosine"},
    "schedule.flanks": {"schedule.name": "step"},
    "schedule.start": {"schedule.name": "step"},
    "schedule.end": {"schedule.name": "step"},
    "schedule.step_epochs": {},
    "schedule.gamma": {},
    "training.monitor": {"data.validation": 0},
    "evaluation.mc_dropout": {},
}
BASES: list[dict[str, Any]] = [
    {},
    *INACTIVE.values(),
    {"schedule.name": "step"},
    {"augment.rotation": 10.0},
    {"model.name": "resnet9"},
    {"model.name": "resnet_small"},
    {"model.stem": "imagenet"},
    {"model.head_dropout": 0.5},
    {"optimizer.name": "adam", "augment.crop": "random_resized_crop"},
]


def make(fields: dict[str, Any]) -> Recipe:
    """Build a recipe from dotted paths."""
    return Recipe.model_validate(recipe_fields.nested({"training.precision": "fp32"} | fields))


def id_of(fields: dict[str, Any]) -> str:
    return job_id(make(fields), 0, DATA)


def test_defaults_are_the_ones_that_earlier_results_were_trained_with():
    now = {path: value(Recipe(), path) for path in recipe_fields.fields()}
    changed = {
        path: now.get(path, "gone") for path, default in DEFAULTS.items() if now.get(path, "gone") != default
    }
    assert not changed, (
        "a default changed, so the same identity would train to other numbers: raise recipe.NUMERICS, then "
        "change it here"
    )
    assert not now.keys() - DEFAULTS.keys(), (
        "a new field: add it here, with the default that does what earlier versions did"
    )


def test_the_canonical_form_leaves_defaults_out():
    assert canonical(make({})) == {"optimizer": {"lr": 0.1}, "training": {"precision": "fp32"}}
    written = {
        path: default for path, default in DEFAULTS.items() if path not in ("training.precision", "data.root")
    }
    assert canonical(make(written)) == canonical(make({}))


@pytest.mark.parametrize("path", INACTIVE)
def test_a_field_that_cannot_matter_is_no_part_of_the_identity(path):
    others = [given for given in legal(path) if given != DEFAULTS[path]]
    assert others
    for given in others:
        assert id_of(INACTIVE[path] | {path: given}) == id_of(INACTIVE[path])
        assert evaluation_id(make(INACTIVE[path] | {path: given})) == evaluation_id(make(INACTIVE[path]))
        section, name = path.split(".")
        assert name not in canonical(make(INACTIVE[path] | {path: given})).get(section, {})


def test_every_field_that_can_be_inactive_is_in_the_table_of_this_test():
    assert set(INACTIVE) == set(recipe_fields.ACTIVE)
    assert set(recipe_fields.ACTIVE) <= set(recipe_fields.fields())


@pytest.mark.parametrize("path", recipe_fields.fields())
def test_another_value_changes_the_job_exactly_where_the_field_is_active_and_not_about_judging_or_paths(path):
    assert len(legal(path)) >= 2, f"give CANDIDATES two values of {path}"
    tried = set()
    for base in BASES:
        before = make(base)
        for given in legal(path):
            try:
                after = make(base | {path: given})
            except ValidationError:
                continue  # the rules between fields, tested below
            if value(after, path) == value(before, path):
                continue
            matters = is_active(before, path) and not path.startswith("evaluation.") and path != "data.root"
            assert (job_id(after, 0, DATA) != job_id(before, 0, DATA)) is matters, (base, given)
            tried.add(is_active(before, path))
    assert tried == ({True, False} if path in recipe_fields.ACTIVE else {True})


@pytest.mark.parametrize("path", [path for path in recipe_fields.fields() if path.startswith("evaluation.")])
def test_judging_differently_is_another_evaluation_of_the_same_job(path):
    base = {"model.head_dropout": 0.5}  # something for mc_dropout to sample
    ids = {evaluation_id(make(base | {path: given})) for given in legal(path)}
    assert len(ids) == len(legal(path))
    assert len({id_of(base | {path: given}) for given in legal(path)}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data.validation": 0.10}, {"data.validation": 0.1}),
        ({"augment.rotation": 15}, {"augment.rotation": 15.0}),
        ({"data.validation": 0}, {"data.validation": 0.0}),
        ({"optimizer.momentum": 0.0}, {"optimizer.momentum": -0.0}),
        ({"optimizer.lr": 1}, {"optimizer.lr": 1.0}),
        ({"optimizer.lr": 0.1}, {}),
        (
            {"data.normalize": {"mean": [0, 1], "std": [1, 1]}},
            {"data.normalize": {"std": [1.0, 1.0], "mean": [0.0, 1.0]}},
        ),
        ({"training.epochs": 3, "augment.flip": False}, {"augment.flip": False, "training.epochs": 3}),
        ({"model.trainable": ["layer4"]}, {"model.trainable": "layer4"}),
        ({"model.trainable": ["layer4", "layer3", "layer4"]}, {"model.trainable": ["layer3", "layer4"]}),
        (
            {"augment.color_jitter": {"hue": 0.0, "brightness": 0.5}},
            {"augment.color_jitter": {"brightness": 0.5}},
        ),
        ({"augment.color_jitter": "none"}, {}),
        ({"model.name": "cnn4", "model.options.norm": "before"}, {"model.name": "cnn4"}),
        (
            {"model.name": "resnet_small", "model.options": {"depth": 3, "shortcut": True}},
            {"model.name": "resnet_small", "model.options.depth": 3},
        ),
        (
            {"model.name": "cnn4", "model.batch_norm": False, "model.options.norm": "after"},
            {"model.name": "cnn4", "model.batch_norm": False},
        ),
        (
            {"data.name": "imagefolder", "data.root": "/here"},
            {"data.name": "imagefolder", "data.root": "/there"},
        ),
    ],
    ids=str,
)
def test_the_way_a_value_is_written_never_changes_the_job(one, other):
    assert id_of(one) == id_of(other)


def test_the_job_changes_with_the_seed_the_images_and_the_numerics(monkeypatch):
    made = make({})
    ids = [
        job_id(made, 0, DATA),
        job_id(made, 1, DATA),
        job_id(made, 0, "e" * 64),
        job_id(made, 0, DATA, "c" * 64),
    ]
    monkeypatch.setattr(identities, "NUMERICS", identities.NUMERICS + 1)
    ids.append(job_id(made, 0, DATA))
    assert len(set(ids)) == 5
    assert all(len(identity) == 64 and set(identity) <= set("0123456789abcdef") for identity in ids)


def test_a_job_has_no_identity_before_its_precision_is_settled():
    with pytest.raises(AssertionError, match="settled"):
        job_id(Recipe(), 0, DATA)


def test_a_recipe_survives_json():
    made = make(
        {
            "data.normalize": {"mean": [0.5], "std": [0.25]},
            "data.validation": 0,
            "training.early_stopping": None,
        }
    )
    again = Recipe.model_validate_json(made.model_dump_json())
    assert again == made
    assert Recipe.model_validate(json.loads(made.model_dump_json())) == made


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.1), ("adam", 1e-3), ("adamw", 1e-3)])
def test_the_learning_rate_has_a_default_of_its_own_for_each_optimizer(name, lr):
    assert make({"optimizer.name": name}).optimizer.lr == lr
    assert make({"optimizer.name": name, "optimizer.lr": 0.5}).optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"evaluation.select": "best_validation", "data.validation": 0},
            'evaluation.select = "best_validation" needs validation images',
        ),
        (
            {"evaluation.select": "best_validation", "data.validation": 0.0},
            'evaluation.select = "best_validation" needs validation images',
        ),
        (
            {"training.early_stopping": 3, "data.validation": 0},
            "training.early_stopping needs validation images",
        ),
        ({"data.name": "imagefolder"}, "root must name the folder with train/<class>/* and test/<class>/*"),
        ({"data.validation": 1.5}, "must be a share below 1, or a whole count of images, got 1.5"),
        ({"data.normalize": {"mean": [0.5], "std": [0.5, 0.5]}}, "one number a channel"),
        ({"data.normalize": {"mean": [0.5], "std": [0]}}, "each std must be above 0"),
        ({"model.pretrained": True}, 'model.pretrained needs model.stem = "imagenet"'),
        ({"model.pretrained": True, "model.name": "cnn4"}, "there are no weights of cnn4"),
        ({"model.pretrained": True, "model.name": "nets:mine"}, "there are no weights of nets:mine"),
        ({"model.batch_norm": False, "model.name": "baseline_cnn"}, "baseline_cnn has no BatchNorm"),
        ({"model.name": "resnet81"}, '"resnet81" is not a network (did you mean resnet18?)'),
        (
            {"model.name": "resnet_small", "model.options.depht": 3},
            "model.options.depht: resnet_small takes depth, shortcut (did you mean depth?)",
        ),
        ({"model.name": "baseline_cnn", "model.options.depth": 3}, "baseline_cnn takes none"),
        (
            {"model.name": "resnet_small", "model.options.depth": 0},
            "model.options.depth of resnet_small must be a whole number from 1 to 32, got 0",
        ),
        (
            {"model.name": "resnet_small", "model.options.depth": True},
            "model.options.depth of resnet_small must be a whole number from 1 to 32, got true",
        ),
        (
            {"model.name": "cnn4", "model.options.norm": "aftr"},
            'model.options.norm of cnn4 must be before or after, got "aftr"',
        ),
        ({"model.name": "nets:mine", "model.options": {"a b": 1}}, '"a b" cannot be the name of an argument'),
        ({"model.trainable": ["all", "layer4"]}, "must be all, head, or names of parts, got all, layer4"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, sentence):
    with pytest.raises(ValidationError) as caught:
        make(fields)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"evaluation.select": "best_validation"}, {"training.early_stopping": 3, "data.validation": 500}],
)
def test_choosing_by_validation_is_allowed_where_there_are_validation_images(fields):
    assert make(fields)


@pytest.mark.parametrize(
    "fields", [{"training.epochs": "3"}, {"training.epochs": 3.0}, {"augment.flip": 1}, {"model.nme": "cnn4"}]
)
def test_types_and_keys_are_strict(fields):
    with pytest.raises(ValidationError):
        make(fields)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make({}).training.epochs = 3  # type: ignore[misc]


def test_each_role_and_each_seed_has_random_numbers_of_its_own():
    roles = [
        "init",
        "split",
        "order",
        "crop",
        "flip",
        "rotation",
        "erasing",
        "mixup",
        "conv_dropout",
        "head_dropout",
        "mc_dropout",
    ]
    drawn = [stream_seed(seed, role) for seed in range(200) for role in roles]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= number < 2**63 for number in drawn)


def test_random_streams_are_the_ones_that_earlier_results_were_trained_with():
    drawn = (stream_seed(0, "init"), stream_seed(4, "crop"))
    assert drawn == (1519069808562059438, 3091336426597679105), "other draws: raise recipe.NUMERICS"


def test_one_number_has_one_digest_however_deep_it_lies_and_no_number_has_none():
    assert digest({"a": [15.0, {"b": (2.0, 0.5)}]}) == digest({"a": [15, {"b": [2, 0.5]}]})
    assert digest([0.5]) != digest([0])
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest([float("nan")])  # equal to nothing: two trainings of it would share a folder
