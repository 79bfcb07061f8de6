"""A store that one may read and not write.

What only reads has the same answer for everybody, and what cannot be read is never taken for missing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a new Python, and what it imports

LOOKING = (
    ("status", "tiny"), ("status", "tiny", "--json"), ("plan", "tiny"), ("check", "tiny"),
    ("report", "tiny", "--format", "json"),
    ("compare", "tiny", "--cell", "baseline", "--cell", "batch_norm=false"),
    ("explain", "tiny:baseline/0"), ("logs", "tiny:baseline/0"),
    ("doctor", "--json"), ("gc", "--dry-run"),
)  # fmt: skip
HIDDEN: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "a job": ("jobs/*", 0o700, ("status", "plan", "check", "report", "compare", "explain", "logs", "gc")),
    "what a study is": (
        "studies/tiny/study.json",
        0o600,
        ("status", "plan", "check", "report", "compare", "explain", "logs", "gc"),
    ),
    "a study": (
        "studies/tiny",
        0o700,
        ("status", "plan", "check", "report", "compare", "explain", "logs", "gc"),
    ),
    "the index of images": (
        "data/index",
        0o700,
        ("status", "plan", "check", "report", "compare", "explain", "logs", "gc"),
    ),
    "all jobs": ("jobs", 0o700, ("status", "plan", "check", "report", "compare", "explain", "logs", "gc")),
    "MLflow's database": ("mlflow.db", 0o600, ()),
}
"""What a user may not read, its mode, and the commands that need it."""

CHILD = """
import json, os, sys
from pathlib import Path
from click.testing import CliRunner
from ablate.cli import main
def say(commands):
    found = []
    for command in commands:
        result = CliRunner().invoke(main, command)
        error = result.stderr or repr(result.exception) * (result.exit_code == 1)
        found.append([result.exit_code, result.stdout, error])
    return found
def times():
    return {str(path): path.lstat().st_mtime_ns for path in Path(folder).rglob("*")}
folder, warm, commands = json.load(sys.stdin)
say([["sync", "tiny", "--store", folder + "/open"]])
mine = say(warm)  # first: Python itself may lie where only this user can read
before = times()
os.setgroups([]), os.setgid(65534), os.setresuid(65534, 65534, 0)
os.environ["HOME"] = "/nonexistent"
theirs = say(commands)
os.seteuid(0)
json.dump([mine, theirs, [path for path, time in times().items() if before.get(path) != time]], sys.stdout)
"""


@pytest.fixture(scope="module")
def told(done: tuple[Path, str]) -> Iterator[dict[str, Any]]:
    """Ask about a finished store as its owner and as another user.

    And that one about stores in which something is not his to read.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for store in ("open", *HIDDEN):
            shutil.copytree(done[0] / "store", folder / store)
            shutil.rmtree(folder / store / "artifacts")
            (folder / store / "mlflow.db").unlink()
        shutil.copy(done[0] / "tiny.toml", folder)
        (folder / "MLflow's database/mlflow.db").touch()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for store, (pattern, mode, _) in HIDDEN.items():
            min((folder / store).glob(pattern)).chmod(mode)
        out = Path(tempfile.mkdtemp())
        out.chmod(0o777)
        asked = [
            *LOOKING,
            ("report", "tiny"),
            ("report", "tiny", "--out", str(out / "page.html")),
            ("status", str(folder / "tiny.toml")),
        ]
        every = [
            (*command, "--store", str(folder / store)) for store in ("open", *HIDDEN) for command in asked
        ]
        warm = [
            command
            for command in every
            if command[-1] == str(folder / "open") and command[:3] != ("report", "tiny", "--store")
        ]
        process = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps([name, warm, every]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        mine, theirs, changed = json.loads(process.stdout)
        found = {
            (Path(command[-1]).name, command[:-2]): answer
            for command, answer in zip(every, theirs, strict=True)
        }
        answers = {command[:-2]: answer for command, answer in zip(warm, mine, strict=True)}
        yield {"mine": answers, "theirs": found, "out": out, "changed": changed, "asked": asked}
        shutil.rmtree(out)


def without_rights(answer: list[Any]) -> Any:
    """Leave out what the doctor says of the right to write, and of free disk space, which changes."""
    code, out, err = answer
    return code, [one for one in json.loads(out) if one["check"] not in ("locks", "room")], err


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_who_may_only_read_is_told_the_same(told: dict[str, Any], command: tuple[str, ...]) -> None:
    mine, theirs = told["mine"][command], told["theirs"]["open", command]
    assert mine[0] == 0, mine
    same: Callable[[list[Any]], Any] = without_rights if command[0] == "doctor" else tuple
    assert same(theirs) == same(mine)
    assert told["changed"] == []


def test_the_doctor_notes_that_one_may_not_write(told: dict[str, Any]) -> None:
    (found,) = [
        one for one in json.loads(told["theirs"]["open", ("doctor", "--json")][1]) if one["check"] == "locks"
    ]
    assert (found["severity"], found["says"].partition(" (")[0]) == (
        "note",
        "you may read this store and not write to it",
    )


def test_a_page_goes_elsewhere_and_the_refusal_says_how(told: dict[str, Any]) -> None:
    code, out, err = told["theirs"]["open", ("report", "tiny")]
    assert (code, out) == (2, "")
    assert (
        "studies/tiny/report.html: cannot be written (Permission denied); ablate report --out FILE puts "
        "the page elsewhere" in err
    )
    code, out, err = told["theirs"]["open", ("report", "tiny", "--out", str(told["out"] / "page.html"))]
    assert (code, out, err) == (0, f"{told['out']}/page.html\n", "")
    assert "BatchNorm helps" in (told["out"] / "page.html").read_text()


@pytest.mark.parametrize("what", HIDDEN)
def test_what_cannot_be_read_is_said_and_never_taken_for_missing(told: dict[str, Any], what: str) -> None:
    for command in LOOKING:
        code, out, err = told["theirs"][what, command]
        if command[0] == "doctor":
            hidden = [one["where"] for one in json.loads(out) if one["check"] == "readable"]
            pattern, _, _ = HIDDEN[what]
            assert (code, len(hidden)) == (1, 1)
            assert Path(hidden[0]).match(pattern)
            assert not any("remove" in one["do"] for one in json.loads(out)), (
                "what another user has made is not to be removed"
            )
        elif what == "a job" and command[0] in (
            "explain",
            "logs",
        ):  # the job that is asked for may be another one
            assert (code, "Permission denied" in err) in ((0, False), (2, True))
        else:
            needs = command[0] in HIDDEN[what][2]
            assert (code, "Permission denied" in err) == ((2, True) if needs else (0, False)), (
                command,
                out,
                err,
            )
            assert out == "" or not needs
