"""Nothing that stands in a store commands the terminal of whoever looks at it."""

import json
import os
import shutil
import sys
import traceback
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from screens import EVIL, commands_of, look, screens

from ablate.cli import main, streams, terminal
from ablate.cli.progress import Terminal
from ablate.execution import events
from ablate.execution.executors.base import Event
from ablate.store import layout, study_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # MLflow leaves its connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GOLDEN = Path(__file__).parents[1] / "golden/finished"
NAME = "ti\x1b]0;owned\x07\x9b2J\u202e\r[/x]ny"  # of at most 100 characters
FACTORS = [
    {
        "name": f"fac{EVIL}tor",
        "levels": [
            {"name": f"on{EVIL}", "set": {"model": {"batch_norm": True}}},
            {"name": f"off{EVIL}", "set": {"model": {"batch_norm": False}}},
        ],
    },
    {"name": "evaluation.mc_dropout", "levels": [0, 3]},
]


def planted(content):
    """Return content of a store with something to obey in every text of it."""
    match content:
        case str():
            return content + EVIL
        case dict():
            return {key: planted(part) for key, part in content.items()}
        case list():
            return [planted(part) for part in content]
    return content


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Return a finished store that can be read, with something to obey wherever a text is free."""
    monkeypatch.setenv("TERM", "dumb")  # so that rich draws by letters alone
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN, tmp_path / "store")
    store = layout.open_store(tmp_path / "store")
    kept = json.loads((store.study("tiny") / "study.json").read_text())
    del kept["study"]["factors"]
    kept["study"] |= {"name": NAME, "question": f"Does{EVIL} it?", "factor": FACTORS}
    kept["study"]["claim"] = [{"text": f"It{EVIL} helps", "expect": "evaluation.mc_dropout: 0 > 3"}]
    kept["study"]["exclude"] = [{"if": "model.width == 7", "why": f"because{EVIL}"}]
    kept |= {"source": f"x{EVIL}.toml", "text": f"x{EVIL}"}
    store.study("tiny").rename(store.study(NAME))
    (store.study(NAME) / "study.json").write_text(json.dumps(kept))
    jobs = sorted((store.path / "jobs").iterdir())
    for job in jobs:
        attempt = {"timestamp": 1, "number": 1, "pid": 7, "device": f"cpu{EVIL}", "study": NAME}
        (job / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
        (job / "log.txt").write_text(f"a{EVIL}b\n")
        change(job / "environment.json", user=f"me{EVIL}", machine={"host": f"h{EVIL}"})
        for outcome in job.glob("outcomes/*/outcome.json"):
            classes = json.loads(outcome.read_text())["classes"]
            change(outcome, classes=[f"{name}{EVIL}" for name in classes])
    last = jobs[-1]
    (last / "result.json").unlink()
    shutil.rmtree(last / "outcomes")
    failure = {"kind": "error", "error": f"Value{EVIL}Error", "attempts": 1, "timestamp": 1}
    (last / "failure.json").write_text(json.dumps(failure))
    (store.study(NAME) / "holder.json").write_text(json.dumps({"pid": EVIL, "host": EVIL}))
    shutil.copytree(jobs[0], store.path / "jobs" / f"x{EVIL.replace('/', '')}")
    shutil.copytree(store.study(NAME), store.path / "studies" / f"x{EVIL.replace('/', '')}")
    return store.path, jobs


COMMANDS = [
    ("status",),
    ("status", NAME),
    ("status", NAME, "--json"),
    ("plan", NAME, "--cells"),
    ("check", NAME),
    ("report", NAME, "--format", "csv"),
    ("report", NAME, "--format", "md"),
    ("report", NAME, "--format", "tex"),
    ("report", NAME, "--json"),
    ("report", NAME, "--out", f"page{EVIL.replace('/', '')}.html"),
    ("compare", NAME, NAME),
    ("explain", "JOB"),
    ("explain", "JOB", "OTHER"),
    ("logs", "JOB"),
    ("doctor",),
    ("gc", "--dry-run"),
    ("status", f"nobody{EVIL}"),
    ("report", NAME, "--metric", f"test/{EVIL}"),
    ("plan", NAME, "--only", EVIL),
    ("run", NAME),
    ("search", NAME),
    ("lr-find", NAME),
    ("worker", "--tasks", "tasks.jsonl", "--index", "0"),
]
HERE = ("worker",)  # commands that no store is named to


def run(command, store, jobs):
    """Run a command at a terminal; return what was shown."""
    named = {"JOB": jobs[-1].name, "OTHER": jobs[0].name}
    where = () if command[0] in HERE else ("--store", store)
    code, shown = look(*(named.get(word, word) for word in command), *where)
    assert code in (0, 1, 2, 3)
    assert shown
    return shown


def name(command):
    return " ".join(command).replace(EVIL.replace("/", ""), "!").replace(EVIL, "!").replace(NAME, "tiny")


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_no_text_of_a_store_commands_a_terminal(hostile, command):
    (hostile[0].parent / "tasks.jsonl").write_text(json.dumps({"kind": EVIL, "log": EVIL}) + "\n")
    assert commands_of(run(command, *hostile)) == []


@pytest.mark.parametrize("command", COMMANDS[:15], ids=name)
def test_no_text_of_a_damaged_store_commands_a_terminal(hostile, command):
    store, jobs = hostile
    for path in (*store.rglob("*.json"), *store.rglob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
        path.write_text("".join(json.dumps(planted(line)) + "\n" for line in lines))
    assert commands_of(run(command, store, jobs)) == []


def test_a_study_that_is_held_names_its_holder_without_commanding_a_terminal(hostile):
    store, jobs = hostile
    with study_folder.hold(layout.open_store(store), NAME):
        holder = layout.open_store(store).study(NAME) / "holder.json"
        holder.write_text(json.dumps({"pid": 1, "host": EVIL}))
        shown = run(("sync", NAME), store, jobs)
    assert "is being run by process 1 on" in shown
    assert commands_of(shown) == []


def test_what_mlflow_gets_and_its_page_are_announced_without_commanding_a_terminal(hostile, monkeypatch):
    store, jobs = hostile
    shown = run(("sync", NAME), store, jobs)
    assert "MLflow has the 16 runs" in shown
    assert commands_of(shown) == []
    monkeypatch.setattr(os, "execve", lambda *_: None)  # the server would take the place of this process
    shown = run(("ui",), store, jobs)
    assert "owned" in shown
    assert commands_of(shown) == []


def test_a_table_that_is_drawn_anew_has_no_sequences_but_its_own(hostile, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = run(("status", NAME, "--watch"), *hostile)
    assert "\x1b[?25h" in shown
    assert commands_of(shown, drawn=True) == []
    assert "\x1b[66;1H" not in shown


def test_live_progress_has_no_sequences_but_its_own(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    with screens() as (out, _):
        streams.guard()
        shown = Terminal(terminal.console())
        shown.observe(events.StageStarted(f"training{EVIL} 1 job", 1))
        slot = f"cpu:0{EVIL}"
        for event in (
            Event("started", "a", slot),
            Event("progress", "a", slot, detail={"elsewhere": f"trained by {EVIL}"}),
            Event("failed", "a", slot, error=f"Value{EVIL}Error"),
        ):
            shown.observe(events.of_task(event, f"baseline{EVIL}/0"))
            print(f"a library says {EVIL}")
        shown.observe(events.Notice(f"note{EVIL}"))
        shown.observe(events.StageEnded())
    assert "Error" in out.getvalue()
    assert commands_of(out.getvalue(), drawn=True) == []
    assert "\x1b[66;1H" not in out.getvalue()


def test_a_traceback_and_a_warning_are_guarded_and_a_bar_of_a_download_is_drawn():
    with screens() as (_, err):
        streams.guard()
        traceback.print_exception(ValueError(EVIL))
        click.echo(EVIL, err=True, color=True)
        sys.stderr.write("\r 10 %\r 20 %")
    assert commands_of(err.getvalue().replace("\r", "")) == []
    assert err.getvalue().endswith("\r 10 %\r 20 %")


def test_what_goes_to_a_file_is_as_it_stands_in_the_store(hostile):
    store, _ = hostile
    answer = CliRunner().invoke(main, ["report", NAME, "--format", "md", "--store", str(store)])
    assert "\u202e" in answer.stdout
