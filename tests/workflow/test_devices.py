"""What commands say of the GPUs of this machine, by a driver that stands in."""

import json
from dataclasses import replace
from pathlib import Path

import plans
import pytest
from click.testing import CliRunner
from drivers import FIRST, SECOND, T4, TWO
from projects import run
from resolving import resolved

from ablate.cli import main
from ablate.execution.crew import Crew
from ablate.execution.executors import devices
from ablate.execution.interruption import Interruption
from ablate.execution.options import How, Where
from ablate.planning import plan
from ablate.workflow import run as workflow


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", ["plan", "run", "lr-find"])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_cannot_be_used_ends_a_command_before_anything_is_settled(proj, machine, command, device):
    machine.driver(*TWO, init="802")
    done = call(command, "pets.toml", "--device", device)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "there is a GPU that cannot be used: cuInit answers CUDA_ERROR_SYSTEM_NOT_READY (802): "
        "mend that, or use --device cpu\n"
    )
    assert [path.name for path in proj.iterdir()] == ["pets.toml"]


def test_the_cpu_is_the_way_out_and_readers_need_no_gpu(proj, machine):
    machine.driver(*TWO, init="802")
    assert call("plan", "pets.toml", "--device", "cpu").exit_code == 0
    run("pets.toml")
    assert call("status", "pets.toml").exit_code == 0


@pytest.mark.parametrize(
    ("given", "slots"), [((), 2), (("--jobs-per-gpu", "3"), 6), (("--jobs-per-gpu", "auto"), 2)]
)
def test_a_plan_reckons_with_the_jobs_of_a_gpu(proj, machine, monkeypatch, given, slots):
    monkeypatch.setattr(devices, "cores", lambda: 16)
    machine.driver(*TWO)
    assert f" on {slots} slots (" in call("plan", "pets.toml", *given).stdout


@pytest.mark.parametrize("command", ["plan", "run", "lr-find"])
def test_more_jobs_than_a_gpu_lets_in_are_a_sentence(proj, machine, command):
    machine.driver((FIRST, T4.replace("15|0", "15|3")))
    done = call(command, "pets.toml", "--jobs-per-gpu", "2")
    assert done.exit_code == 2
    assert "EXCLUSIVE_PROCESS, lets one process use each: use --jobs-per-gpu 1" in done.stderr
    assert not Path("mlruns").exists()


def test_a_plan_notes_what_the_gpus_are_bad_at(proj, machine):
    machine.driver((FIRST, T4), (SECOND, "Tesla V100|7|0|16|0"))

    def notes(*given):
        answer = call("plan", "pets.toml", "--json", "--set", "seeds=1", *given).stdout
        return [note.split(":")[0] for note in json.loads(answer)["notes"]]

    old, slow = (
        "compute capability below 7.5",
        "bf16 is emulated, and slower than fp32, on Tesla T4 (7.5), Tesla V100 (7.0)",
    )
    assert notes("--set", "training.precision=bf16") == [old, slow]
    assert notes() == [old]
    assert notes("--device", "cpu", "--set", "training.precision=bf16") == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_graph_on_a_cpu_is_a_sentence_before_anything_is_trained(proj, machine, command):
    machine.driver(*TWO)
    graphs = "--set", "training.compile=graph"
    done = call(command, "pets.toml", "--device", "cpu", *graphs)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        'training.compile must be false or true where jobs run on a CPU, got "graph": a step is one graph '
        "on a GPU of CUDA alone: give --set training.compile=false, or train there"
    )
    assert list(proj.glob("mlruns/jobs/*")) == []
    if command == "plan":
        assert call("plan", "pets.toml", *graphs).exit_code == 0
    wrong = call("plan", "pets.toml", "--set", "training.compile=graf").stderr
    assert 'training.compile: must be true or false or "graph", got "graf"' in wrong


@pytest.mark.parametrize(("trained", "said"), [(False, ["note: bf16 is emulated"]), (True, [])])
def test_a_run_notes_it_too_where_something_is_left_to_train(here, machine, trained, said):
    machine.driver((FIRST, T4))
    study = plans.read()
    todo = plan.make(resolved(study, here))
    if trained:
        for job in todo.jobs:
            plans.put(here, job, "trained")
        todo = plan.make(resolved(study, here))
    notices = []
    with Interruption() as interruption:
        crew = Crew(Where(here), How(), interruption, (notices.append,))
        workflow._note_devices(crew, in_bf16(todo))
    assert [notice.text[:22] for notice in notices] == said


def in_bf16(todo):
    """Return a plan of jobs in bf16."""
    work = []
    for each in todo.work:
        training = each.job.recipe.training.model_copy(update={"precision": "bf16"})
        recipe = each.job.recipe.model_copy(update={"training": training})
        work.append(replace(each, job=replace(each.job, recipe=recipe)))
    return replace(todo, work=tuple(work))


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="the GPU here can compute")
@pytest.mark.slow
def test_a_gpu_on_which_torch_cannot_compute_ends_a_run_in_one_sentence(proj, machine):
    machine.driver(*TWO)
    done = call("run", "pets.toml")
    assert done.exit_code == 2
    assert done.stderr.startswith("cuda:")
    assert done.stderr.endswith(", or use --device cpu\n")
    assert len(done.stderr.splitlines()) == 1
    assert list(Path("mlruns/jobs").glob("*/failure.json")) == []
