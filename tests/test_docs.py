"""What the README and docs/ say is so: commands exist, studies are valid, links lead somewhere.

`python tests/test_docs.py` writes docs/recipe.md anew.
"""

import inspect
import json
import re
import tomllib
from pathlib import Path

import click
import pytest

from ablate import cli
from ablate.cli.group import COMMANDS
from ablate.messages import show
from ablate.recipe import fields, networks
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.checks import allowed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def options_table():
    lines = ["", "| option | network | allowed | default | |", "|---|---|---|---|---|"]
    for network, facts in networks.BUILT_IN.items():
        lines += [
            f"| `model.options.{name}` | `{network}` | {option.words} | `{show(option.default)}` | "
            f"{option.about} |"
            for name, option in facts.options.items()
        ]
    return lines


def recipe_page():
    lines = [
        "# The fields of a recipe", "", ("Any of them can be set in `[recipe]`, varied in `[factors]`, or "
                                        "given by `--set`."),
        "Made from `ablate/recipe/fields.py` by `python tests/test_docs.py`.",
    ]  # fmt: skip
    for section, part in fields.Recipe.model_fields.items():
        kind = fields.section_type(part)
        lines += [
            "",
            f"## {section}",
            "",
            inspect.cleandoc(kind.__doc__),
            "",
            "| field | allowed | default | |",
            "|---|---|---|---|",
        ]
        for name, info in kind.model_fields.items():
            default = (
                "see right" if info.is_required() else show("none" if info.default is None else info.default)
            )
            default = "{}" if info.default == networks.Options() else default
            words = " ".join((info.description or "").split()).replace("|", "\\|")
            lines.append(
                f"| `{section}.{name}` | {allowed(info).replace('|', chr(92) + '|')} | `{default}` | "
                f"{words} |"
            )
        if section == "model":
            lines += options_table()
    return "\n".join(lines) + "\n"


def test_every_field_is_listed_with_its_default():
    assert (ROOT / "docs/recipe.md").read_text() == recipe_page(), "run: python tests/test_docs.py"


def test_every_field_says_what_it_is_or_speaks_for_itself():
    silent = {path for path, info in fields.fields().items() if not info.description}
    assert silent <= {"training.epochs", "training.batch_size", "optimizer.name"}


def test_the_study_in_the_readme_is_valid():
    whole, search = (body for kind, body in BLOCKS if kind == "toml")
    checked = study_file.check(tomllib.loads(whole), "README.md")
    assert len(grid.expand(checked, precision="fp32").cells) == 18
    searched = study_file.check(tomllib.loads(whole.replace("lr = 0.2, ", "") + search), "README.md")
    assert searched.search is not None
    assert set(searched.search.space) == {"optimizer.lr", "optimizer.weight_decay"}


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if not row.is_hidden])
def test_every_command_is_in_the_readme_and_its_help_shows_an_example(name):
    assert f"ablate {name} " in README or f"ablate {name}\n" in README
    command = cli.main.get_command(None, name)
    text = command.get_help(click.Context(command, info_name=f"ablate {name}"))
    (after,) = text.split("Example:\n")[1:]  # a line of its own
    assert after.startswith(f"    ablate {name}")
    assert "\\b" not in text
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_commands_of_the_readme_are_real():
    for kind, body in BLOCKS:
        if kind == "sh":
            for line in body.splitlines():
                words = line.split("#")[0].split()
                if words and words[0].endswith("ablate"):
                    assert words[1] in COMMANDS, line
                if words and words[0] == "make":
                    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


def test_the_two_commands_come_first():
    assert next(body for kind, body in BLOCKS if kind == "sh") == "make quickstart\nmake test\n"


@pytest.mark.slow  # 24 trainings
@pytest.mark.parametrize("precision", ["bf16", "fp32"])  # the machine of a user decides
def test_the_first_study_has_an_answer_of_each_kind(precision, quickstart, tmp_path):
    from commands import ablate  # not known where this file is run as a program

    store = quickstart if precision == "fp32" else tmp_path / "store"
    study = (
        ROOT / "studies/quickstart.toml", "--store", store, "--set", f"training.precision={precision}",
    )  # fmt: skip
    if precision != "fp32":
        code, _, err = ablate("run", *study)
        assert code == 0, err
    code, out, err = ablate("report", *study, "--format", "json")
    assert code == 0, err
    said = json.loads(out)
    verdicts = {effect["factor"]: effect["verdict"] for effect in said["effects"] if effect["kind"] == "main"}
    assert verdicts == {
        "model.batch_norm": "helps",
        "augment.flip": "hurts",
        "evaluation.mc_dropout": "equivalent",
    }
    assert [claim["verdict"] for claim in said["claims"]] == ["confirmed", "refuted"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", ["architecture", "extending"])
def test_files_named_by_the_pages_on_the_code_exist(page):
    text = (ROOT / f"docs/{page}.md").read_text()
    added = set(re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)", text, re.MULTILINE))  # by the diffs of the page
    named = set(re.findall(r"\b(?:ablate|tests)/[\w/]+\.py\b", text))
    assert len(named - added) > 5
    assert not [path for path in named - added if not (ROOT / path).is_file()]
    assert not [path for path in added if not (ROOT / path).parent.is_dir() or (ROOT / path).exists()]
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target


def test_every_room_is_in_the_annotated_tree():
    tree = next(body for kind, body in BLOCKS if kind == "" and body.startswith("ablate/"))
    for path in (ROOT / "ablate").iterdir():
        if not path.name.startswith("__") and (path.suffix == ".py" or path.is_dir()):
            assert path.name in tree, path.name


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines if line)
    assert any(line.startswith("torch==") for line in lines)


if __name__ == "__main__":
    (ROOT / "docs/recipe.md").write_text(recipe_page())
