"""`ablate worker`: one task of a file in a process of its own, as a cluster starts it.

It ends as the local executor's does.
"""

import json
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import ablate, start
from houses import EVERY_DRAW, House, left

from ablate.cli import main
from ablate.execution import executors
from ablate.execution.crew import PROGRAM
from ablate.execution.executors.base import ENDS, Options
from ablate.recipe.fields import Evaluation, Training
from ablate.recipe.range_test import Sweep
from ablate.store import files, job_folder, tasks
from ablate.store.tasks import RangeTask
from ablate.training import data

LONG = EVERY_DRAW.model_copy(update={"training": Training(epochs=60, batch_size=16, precision="fp32")})
PATIENCE = 300.0


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.prepare(EVERY_DRAW.data, tmp_path_factory.mktemp("data")).folder


@pytest.fixture
def house(tmp_path, digits):
    return House(tmp_path, digits)


def by_local_executor(*batch):
    """Run tasks by the executor of `ablate run`."""
    with closing(executors.start("local", PROGRAM, Options("cpu", 2))) as executor:
        for task in batch:
            executor.submit(task)
        ends = {}
        while len(ends) < len(batch):
            ends |= {event.task: event.kind for event in executor.events(0.1) if event.kind in ENDS}
    assert set(ends.values()) == {"finished"}


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow  # a process for each task
def test_each_task_of_a_file_ends_bit_for_bit_as_by_the_local_executor(house, tmp_path):
    ways = (Evaluation(), Evaluation(mc_dropout=2))
    theirs, mine = house.folder("theirs"), house.folder("mine")
    curves = [tmp_path / who / "0.json" for who in ("their range", "my range")]
    sweeps = [
        RangeTask(
            test=f"range {i}",
            seed=0,
            recipe=EVERY_DRAW,
            sweep=Sweep(steps=8),
            folder=curve.parent,
            curve=curve,
            data=house.digits,
        )
        for i, curve in enumerate(curves)
    ]
    for sweep in sweeps:
        sweep.folder.mkdir()
    by_local_executor(house.task(theirs, *ways), sweeps[0])
    file = tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(mine, *ways), sweeps[1]])
    code, out, err = ablate("worker", "--tasks", file, "--index", 0)
    assert (code, err) == (0, "")
    assert out == f"job {house.task(mine).job[:12]}: finished\n"
    assert left(mine) == left(theirs)
    code, out, err = ablate("worker", "--tasks", file, "--json", SLURM_ARRAY_TASK_ID="1")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "task": "range 1/0", "name": "range test range 1, seed 0", "kind": "finished",
        "status": "finished", "error": "",
    }  # fmt: skip
    seen = [
        {key: value for key, value in files.read_json(curve).items() if key != "timestamp"}
        for curve in curves
    ]
    assert seen[0] == seen[1]
    assert not list(tmp_path.rglob("lease-*"))


@pytest.mark.slow  # 19 s: four processes with torch
def test_sigterm_stops_it_after_an_epoch_and_the_same_command_goes_on(house, tmp_path):
    folder, quiet, file = house.folder("a", LONG), house.folder("quiet", LONG), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder)])
    process = start("worker", "--tasks", file, "--index", 0)
    wait_for(lambda: files.lines(folder.journal), process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    done = len(files.lines(folder.journal))
    assert (process.returncode, out) == (
        130,
        f"job {house.task(folder).job[:12]}: stopped; the same command goes on from its last epoch\n",
    )
    assert 0 < done < LONG.training.epochs
    assert folder.checkpoint.exists()
    assert not folder.result.exists()
    assert not job_folder.is_running(folder)
    assert ablate("worker", "--tasks", file, "--index", 0)[0] == 0
    assert f"attempt 2 on cpu: from epoch {done} of" in folder.log.read_text()
    by_local_executor(house.task(quiet))
    assert left(folder) == left(quiet)


@pytest.mark.slow  # 7 s: two processes with torch
def test_a_task_that_another_process_runs_is_waited_for_and_that_is_said(house, tmp_path):
    folder, file = house.folder("a"), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder)])
    with folder.lock():
        process = start("worker", "--tasks", file, "--index", 0)
        said = process.stderr.readline()
        assert said == f"job {house.task(folder).job[:12]}: waits for another process, which trains it\n"
        assert not folder.attempts.exists()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(": finished\n")


def test_a_task_that_raises_is_one_line_and_in_its_log(house, tmp_path):
    folder, file = house.folder("a"), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder).model_copy(update={"data": Path("/nowhere")})])
    code, out, err = ablate("worker", "--tasks", file, "--index", 0)
    assert (code, err) == (1, "")
    assert out.startswith(
        f"job {house.task(folder).job[:12]}: failed: ablate.errors.DataError: /nowhere: must be images"
    )
    assert len(out.splitlines()) == 1
    assert "Traceback" in folder.log.read_text()
    assert files.read_json(folder.failure)["kind"] == "error"


def test_what_a_user_gets_wrong_is_a_sentence(house, tmp_path):
    file, folder = tmp_path / "tasks.jsonl", house.folder("a")
    task = house.task(folder)
    tasks.write(file, [task.model_copy(update={"folder": tmp_path / "elsewhere"}), task])
    for arguments, sentence in (
        ([tmp_path / "none", 0], "none: cannot be used: No such file or directory"),
        ([file, 7], f"{file}: has no task 7: its tasks are 0 to 1"),
        (
            [file, 0],
            f"{tmp_path / 'elsewhere'}: has no recipe.json: is the store mounted under the same path here?",
        ),
        ([Path(__file__), 0], "line 1 is no task of this version of ablate (no JSON)"),
        ([file, -1], "Invalid value for '--index'"),
        ([file, "all"], "Invalid value for '--index'"),
    ):
        path, index = map(str, arguments)
        ran = CliRunner().invoke(main, ["worker", "--tasks", path, "--index", index])
        assert (ran.exit_code, ran.stdout) == (2, "")
        assert sentence in ran.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert not folder.attempts.exists()


def test_it_is_for_programs_and_not_in_the_list_of_commands():
    assert "worker" not in CliRunner().invoke(main, ["--help"]).stdout
    told = CliRunner().invoke(main, ["worker", "--help"])
    assert told.exit_code == 0
    for word in ("--tasks", "--index", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "SIGTERM", "130"):
        assert word in told.stdout
