"""The table of commands: each is imported when it is called, and ends as a shell expects."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from commands import TINY, ablate, start_anew

from ablate.cli import group, main
from ablate.cli.group import COMMANDS

QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.toml"
FRESH = """
import json, sys
from click.testing import CliRunner
from ablate.cli import main
def modules():
    return sorted(sys.modules)
shown = CliRunner().invoke(main, ["--help"]).stdout
after_help = modules()
planned = CliRunner().invoke(main, ["plan", sys.argv[1], "--store", sys.argv[2], "--json"])
print(json.dumps({"help": shown, "after_help": after_help, "plan": planned.stdout, "after_plan": modules()}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Ask for the help and for a plan in a new process: what they print, and the modules that come in."""
    command = [sys.executable, "-c", FRESH, str(QUICKSTART), str(tmp_path_factory.mktemp("store"))]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_help_lists_every_command_and_imports_none(fresh):
    listed = {line.split()[0]: line for line in fresh["help"].partition("Commands:\n")[2].splitlines()}
    assert list(listed) == [name for name, row in COMMANDS.items() if not row.is_hidden]
    assert all(COMMANDS[name].help in line for name, line in listed.items())
    assert not {f"ablate.cli.{row.module}" for row in COMMANDS.values()} & set(fresh["after_help"])
    assert not {"rich", "pydantic", "numpy", "ablate.workflow"} & set(fresh["after_help"])


def test_a_plan_imports_its_own_command_and_no_torch(fresh):
    assert json.loads(fresh["plan"])["study"] == "quickstart"
    assert "ablate.cli.plan" in fresh["after_plan"]
    others = {f"ablate.cli.{row.module}" for row in COMMANDS.values()} - {"ablate.cli.plan"}
    assert not ({"torch", "torchvision", "mlflow", "plotly", "optuna", "sklearn"} | others) & set(
        fresh["after_plan"]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_row_names_a_command_and_its_help(name):
    row = COMMANDS[name]
    command = getattr(import_module(f"ablate.cli.{row.module}"), row.module)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help.splitlines()[0] == f"{row.help}."
    assert len(f"  lr-find  {row.help}") <= 80  # a line of the help


def test_a_misspelt_command_is_answered_with_the_nearest():
    result = CliRunner().invoke(main, ["reprot"])
    assert result.exit_code == 2
    assert "No such command 'reprot' (did you mean report?)." in result.stderr


@pytest.mark.parametrize(
    "arguments", [("status", "tiny"), ("status", "tiny", "--json")], ids=["rich", "click"]
)
def test_a_command_that_nobody_reads_ends_quietly(done, arguments):
    folder, _ = done
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ablate", *arguments, "--store", str(folder / "store")]
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.slow  # a study is trained, in two parts
def test_a_run_that_nobody_reads_any_more_keeps_what_is_finished(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    with start_anew("run", tmp_path / "tiny.toml", "--store", tmp_path / "store", "--jobs", 1) as run:
        next(line for line in run.stdout if line.startswith("[1/4]"))
        run.stdout.close()
        assert (run.wait(), run.stderr.read()) == (141, "")
    finished = list((tmp_path / "store").glob("jobs/*/result.json"))
    assert 1 <= len(finished) < 4
    before = {path: path.read_bytes() for path in finished}
    code, out, err = ablate("run", tmp_path / "tiny.toml", "--store", tmp_path / "store")
    assert (code, err) == (0, "")
    assert f"{len(finished)} known already" in out
    assert {path: path.read_bytes() for path in finished} == before


def test_a_pipe_that_is_still_read_has_its_reader():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        assert not group.lost_reader(stream)
        os.close(reader)
        assert group.lost_reader(stream)
    with Path(os.devnull).open("w") as stream:
        assert not group.lost_reader(stream)


def test_another_pipe_that_breaks_is_no_silent_end(monkeypatch):
    @click.command()
    def broken():
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b"lost")

    monkeypatch.setattr(group.Group, "get_command", lambda *_: broken)
    result = CliRunner().invoke(main, ["run"])
    assert isinstance(result.exception, RuntimeError)
    assert isinstance(result.exception.__cause__, BrokenPipeError)


class Alone(group.Group):
    """A group of the commands that it is given."""

    get_command = click.Group.get_command
    resolve_command = click.Group.resolve_command


def test_the_safe_path_is_that_of_the_children_of_a_command_alone(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    seen = []
    look = click.Command("look", callback=lambda: seen.append(os.environ["PYTHONSAFEPATH"]))
    assert CliRunner().invoke(Alone(commands={"look": look}), ["look"]).exit_code == 0
    assert seen == ["1"]
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_file_that_ends_too_early_is_no_silent_end_either(monkeypatch):
    @click.command()
    def broken():
        raise EOFError

    monkeypatch.setattr(group.Group, "get_command", lambda *_: broken)
    result = CliRunner().invoke(main, ["run"])
    assert isinstance(result.exception, RuntimeError)
    assert "Aborted" not in result.output
