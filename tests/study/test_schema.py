"""The schema for editors says of a study what the check of its file says."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from ablate.cli import main
from ablate.errors import StudyError
from ablate.recipe.fields import fields
from ablate.study import file as study_file
from ablate.study.schema import schema

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
HEAD = 'name = "a"\nfactors.training.batch_size = [32, 64]\n'
RIGHT = (
    'recipe.optimizer.lr = "find"', "recipe.data.normalize = { mean = [0.5], std = [0.2] }",
    'recipe.training.early_stopping = "none"', 'recipe.training.compile = "graph"',
    "seeds = [1, 5]", "min_effect = 0.01", 'recipe.model.name = "nets:mine"',
    "search = { trials = 3, space.optimizer.weight_decay = { low = 1e-6, high = 1e-2, log = true } }",
    '[[factor]]\nname = "s"\nlevels = [{ name = "x", set = { training.epochs = 3 } }, { name = "y", set = '
    "{} }]",
    '[[claim]]\nexpect = "training.batch_size: 32 > 64"',
)  # fmt: skip
WRONG = (
    "name = 3", "seeds = 0", "colour = 1", 'recipe.augment.crop = "radnom_crop"',
    "recipe.training.epochs = 0", "recipe.training.epochs = 2.5", "recipe.training.speed = 1", "factors.training.epochs = [1]",
    "factors.training.epochs = 3", 'factors.augment.flip = ["yes", "no"]', "recipe.augment.erasing = 1.5",
    "search = { trials = 0, space.optimizer.weight_decay = { low = 1e-6, high = 1e-2 } }",
    "search.space.data.image_size = { choices = [16, 32] }", 'analysis.variance = "mine"',
    '[[exclude]]\nwhy = "so"', '[[claim]]\ntext = "no expectation"', '[[factor]]\nname = "no levels"',
)  # fmt: skip


def mistakes(text):
    return [error.message for error in jsonschema.Draft7Validator(schema()).iter_errors(tomllib.loads(text))]


def is_right(text, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(text)
    (tmp_path / "nets.py").write_text("def mine(classes, channels, image_size): ...")
    try:
        study_file.load(path)
    except StudyError:
        return False
    return True


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_our_studies_are_of_the_schema(path):
    assert mistakes(path.read_text()) == []


@pytest.mark.parametrize("line", RIGHT)
def test_what_a_study_may_hold_the_schema_allows(line, tmp_path):
    assert is_right(HEAD + line, tmp_path)
    assert mistakes(HEAD + line) == []


@pytest.mark.parametrize("line", WRONG)
def test_what_one_field_shows_to_be_wrong_the_schema_refuses(line, tmp_path):
    text = line if line.startswith("name") else HEAD + line
    assert not is_right(text, tmp_path)
    assert mistakes(text)


def test_every_field_is_there_in_the_recipe_and_as_a_factor():
    made = schema()
    for path in fields():
        section, name = path.split(".")
        levels = made["properties"]["factors"]["properties"][section]["properties"][name]
        part = made
        for step in levels["items"]["$ref"].removeprefix("#/").split("/"):
            part = part[step]
        assert part


def test_the_command_prints_it():
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    jsonschema.Draft7Validator.check_schema(schema())
    assert json.loads(result.output) == schema()
