"""torch.compile takes its time before the first step and changes nothing else.

Streaming changes nothing at all.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from sessions import CPU, EVERYTHING, fingerprint, make, outcome, start, train, without_times

from ablate.training import data, loop

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs g++ or clang++ on a CPU",
)


# Streaming


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["crop, flip", "everything"])
def test_a_training_whose_images_are_streamed_ends_with_the_same_bits(changes, digits):
    recipe = make(**changes)
    session = loop.start(recipe, 0, digits, data.open_arrays(digits.folder), CPU, memory=0)
    for _ in loop.epochs(session):
        pass
    resident = train(recipe, digits)
    assert (session.train.streamed, session.validation.streamed, resident.train.streamed) == (
        True,
        True,
        False,
    )
    assert without_times(session.history) == without_times(resident.history)
    assert outcome(session) == outcome(resident)


# torch.compile

SMALL = {"model": {"width": 0.125}, "training": {"compile": True, "epochs": 2}}
WITH_DROPOUT = SMALL | {"model": {"width": 0.125, "conv_dropout": 0.1, "head_dropout": 0.2}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Keep what is compiled in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


def close(ours, theirs):
    for one, other in zip(ours.history, theirs.history, strict=True):
        told = {name: value for name, value in one["metrics"].items() if name != "time/compile_seconds"}
        assert told == pytest.approx(other["metrics"], rel=1e-2)


@needs_compiler
@pytest.mark.slow  # 25 s
@pytest.mark.filterwarnings("default")  # torch's own
@pytest.mark.usefixtures("cache")
def test_the_compiling_step_leaves_no_trace_and_a_compiled_training_can_be_taken_up(digits):
    recipe = make(**WITH_DROPOUT)
    session = start(recipe, digits)
    before, drawn = outcome(session), fingerprint(torch.get_rng_state())
    assert loop.compile_step(session) > 0
    assert (outcome(session), fingerprint(torch.get_rng_state())) == (before, drawn)
    assert all(parameter.grad is None for parameter in session.network.parameters())

    lines = loop.epochs(session)
    first = next(lines)
    assert first["metrics"]["time/compile_seconds"] >= 0
    put_away = loop.snapshot(session)
    assert loop.compile_step(session) >= 0  # with an optimizer that has a state
    assert fingerprint(loop.snapshot(session)) == fingerprint(put_away)
    (last,) = lines
    assert "time/compile_seconds" not in last["metrics"]

    again = start(recipe, digits)
    loop.restore(again, put_away)
    for _ in loop.epochs(again):
        pass
    bits = [
        fingerprint({key: part for key, part in loop.snapshot(one).items() if key != "history"})
        for one in (session, again)
    ]
    assert bits[0] == bits[1]
    plain = train(make(**WITH_DROPOUT | {"training": {"epochs": 2}}), digits)
    assert [set(line["metrics"]) - {"time/compile_seconds"} for line in session.history] == [
        set(one["metrics"]) for one in plain.history
    ]  # inductor may draw dropout in its own way


@needs_compiler
@pytest.mark.slow  # 25 s: it compiles three times
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("cache")
def test_a_warm_worker_compiles_each_network_anew_and_mistakes_none_for_another(digits):
    """By default torch looks at no hook, so it takes a network with dropout for the same one without.

    What is compiled trains as what is not.
    """
    alone = train(make(**WITH_DROPOUT), digits)
    plain = train(make(**SMALL), digits)
    after = train(make(**WITH_DROPOUT), digits)
    losses = [[line["metrics"]["train/loss"] for line in one.history] for one in (alone, after, plain)]
    assert losses[0] == losses[1]
    assert abs(losses[1][0] - losses[2][0]) > 0.001
    close(plain, train(make(**SMALL | {"training": {"epochs": 2}}), digits))


JOB = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from sessions import make
from ablate.execution import worker
from ablate.recipe import identity
from ablate.recipe.fields import Evaluation
from ablate.store import job_folder
from ablate.store.tasks import Context, TrainTask
from ablate.study.grid import Job
from torch._dynamo.utils import counters
folder, digits, changes = job_folder.Folder(Path(sys.argv[2])), Path(sys.argv[3]), json.loads(sys.argv[4])
made = make(**changes)
job = Job(identity.job_id(made, 0, digits.name), made, 0, digits.name)
job_folder.create(folder, job)
context = Context(compile_cache=sys.argv[5])
task = TrainTask(folder=folder.path, job=job.id, data=digits, evaluations=(Evaluation(),), context=context)
worker.run_job(task, lambda _: None, lambda: False)
print(json.dumps({**counters["inductor"]}))
"""


@needs_compiler
@pytest.mark.slow  # 40 s: two processes that compile
def test_a_worker_keeps_what_it_compiled_in_the_store_and_finds_it_again(tmp_path, digits):
    from ablate.recipe import metrics
    from ablate.store import files, job_folder

    paths = json.dumps(sys.path)
    environment = {name: text for name, text in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    told = []
    for name in ("first", "second"):
        arguments = [
            paths,
            str(tmp_path / name),
            str(digits.folder),
            json.dumps(SMALL),
            str(tmp_path / "cache"),
        ]
        process = subprocess.run(
            [sys.executable, "-c", JOB, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr + (tmp_path / name / "log.txt").read_text()
        told.append(json.loads(process.stdout.splitlines()[-1]))
        first, last = (line["metrics"] for line in files.lines(job_folder.Folder(tmp_path / name).journal))
        result = files.read_json(tmp_path / name / "result.json")["metrics"]
        assert first["time/compile_seconds"] == result["time/compile_seconds"] > 0
        assert "time/compile_seconds" not in last
        assert metrics.direction("time/compile_seconds") == "min"
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert told[0].get("fxgraph_cache_miss", 0) > 0 or told[0].get("async_compile_cache_miss", 0) > 0, told
    assert told[1].get("fxgraph_cache_miss", 0) == 0, told
