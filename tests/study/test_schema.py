"""The schema for editors says of a study what the check of its file says."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from ablate.cli import main
from ablate.errors import StudyError
from ablate.recipe.fields import OPTIONS, fields
from ablate.study import file as study_file
from ablate.study.schema import schema

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
HEAD = 'name = "a"\nfactors.training.batch_size = [32, 64]\n'
SETS = "{ name = 'x', set = { training.epochs = 3 } }"
RIGHT = (
    'recipe.optimizer.lr = "find"', "recipe.data.normalize = { mean = [0.5], std = [0.2] }",
    'recipe.training.early_stopping = "none"', 'recipe.training.compile = "graph"',
    "seeds = [1, 5]", "min_effect = 0.01", 'recipe.model.name = "nets:mine"',
    "search = { trials = 3, space.optimizer.weight_decay = { low = 1e-6, high = 1e-2, log = true } }",
    "recipe.model.options = { depth = 3, norm = 'after' }", "factors.model.options.depth = [2, 3]",
    f"[[factor]]\nname = 's'\nlevels = [{SETS}, {{ name = 'y', set = {{}} }}]",
    '[[claim]]\nexpect = "training.batch_size: 32 > 64"',
)  # fmt: skip
WRONG = (
    "name = 3", "seeds = 0", "colour = 1", 'recipe.augment.crop = "radnom_crop"',
    "recipe.training.epochs = 0", "recipe.training.epochs = 2.5",
    "recipe.model.options = 3", "factors.model.options.depth = 3", "recipe.model.options.depth = [2, 3]",
    "recipe.training.speed = 1", "factors.training.epochs = [1]",
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
    for path in (path for path in fields() if path != OPTIONS):
        section, name = path.split(".")
        levels = made["properties"]["factors"]["properties"][section]["properties"][name]
        part = made
        for step in levels["items"]["$ref"].removeprefix("#/").split("/"):
            part = part[step]
        assert part
    option = made["properties"]["factors"]["properties"]["model"]["properties"]["options"]
    assert option["additionalProperties"]["minItems"] == 2


def test_the_command_prints_it():
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    jsonschema.Draft7Validator.check_schema(schema())
    assert json.loads(result.output) == schema()


def test_an_editor_finds_nothing_in_our_studies_and_a_mistake_in_another(tmp_path):
    (tmp_path / "ablate.schema.json").write_text(json.dumps(schema()))
    for path in STUDIES:
        (tmp_path / path.name).write_text(f"#:schema ./ablate.schema.json\n{path.read_text()}")
    tombi = [Path(sys.executable).with_name("tombi"), "lint", "--offline"]
    names = [path.name for path in STUDIES]
    ended = subprocess.run([*tombi, *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, f"{len(STUDIES)} files linted" in ended.stdout + ended.stderr) == (0, True), (
        ended
    )
    (tmp_path / "bad.toml").write_text(
        "#:schema ./ablate.schema.json\nname = 'a'\nrecipe.training.epochs = 0"
    )
    ended = subprocess.run([*tombi, "bad.toml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "bad.toml:3:" in ended.stdout + ended.stderr
