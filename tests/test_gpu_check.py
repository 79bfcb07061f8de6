"""The check of a GPU: it says where there is none, ends in time, and its steps work on a CPU."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from commands import start
from drivers import TWO

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.part import Setup
from benchmarks.gpu_check.steps import STEPS

ROOT = Path(__file__).parents[1]


def check(*words, **variables):
    command = [sys.executable, "-m", "benchmarks.gpu_check", *map(str, words)]
    every = os.environ | variables
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=every)


def test_without_a_gpu_it_says_so_and_exits_with_3(machine, tmp_path):
    machine.driver(*TWO, mask="-1")
    done = check("--out", tmp_path / "out.json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "there is no GPU to check (CUDA shows none): --device cpu tries the steps themselves\n"
    )
    assert not (tmp_path / "out.json").exists()


def test_a_step_that_is_none_is_a_mistake():
    done = check("--steps", "1,99,x")
    assert done.returncode == 2
    assert "--steps: 99, x: must be of 1, 2, 3" in done.stderr


@pytest.mark.slow  # seconds
def test_a_step_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path):
    words = ("--device", "cpu", "--steps", "5,1", "--total", 6, "--out", tmp_path / "out.json")
    done = check(*words, TMPDIR=str(tmp_path))  # which all that is started inherits
    assert done.returncode == 1
    rows = json.loads((tmp_path / "out.json").read_text())["steps"]
    assert [(row["step"], row["verdict"]) for row in rows] == [(5, "broken"), (1, "broken")]
    assert [row["why"].split(" after")[0] for row in rows] == ["not over", "no time was left"]
    ours = [path for path in Path("/proc").glob("[0-9]*/environ") if str(tmp_path) in read(path)]
    assert ours == []


def read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_the_page_on_gpus_names_every_step():
    table = (ROOT / "docs/gpu.md").read_text()
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \| ", table, re.MULTILINE)]
    steps = (ROOT / "benchmarks/gpu_check/steps.py").read_text()
    assert numbers == [int(number) for number in re.findall(r"^    (\d+): Step\(", steps, re.MULTILINE)]


@pytest.mark.slow  # seconds
def test_a_step_that_holds_is_told_on_a_line_and_in_the_figures(tmp_path):
    done = check("--device", "cpu", "--steps", 1, "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(" 1 held    the machine: ")
    (row,) = json.loads((tmp_path / "out.json").read_text())["steps"]
    assert (row["verdict"], row["parts"][-1]["held"]) == ("held", True)


@pytest.mark.slow  # minutes: in this very process, which imports torch once
@pytest.mark.filterwarnings("default")  # torch's own
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="where there is a GPU the check itself is run")
@pytest.mark.parametrize("step", STEPS)
def test_every_step_holds_with_less_on_a_cpu(step, tmp_path, monkeypatch):
    def warm(*words, environment=None):
        return start(*words, **(environment or {}))

    monkeypatch.setattr(processes, "ablate", warm)
    monkeypatch.chdir(ROOT)
    module, _, name = STEPS[step].function.partition(":")
    parts = list(getattr(import_module(module), name)(Setup(torch.device("cpu"), tmp_path)))
    assert parts
    assert [part for part in parts if part.held is False] == []
