"""How many jobs share a device: chosen by what was measured, and measured by real processes."""

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ablate

from ablate.errors import AblateError
from ablate.execution import executors, probe
from ablate.execution.crew import PROGRAM
from ablate.execution.executors.base import Options
from ablate.execution.probe import Load
from ablate.recipe.fields import Recipe
from ablate.store.tasks import Context, ProbeTask
from ablate.training import data

GIB = 2**30


@pytest.mark.parametrize(
    ("speeds", "used", "chosen", "tried"),
    [
        ((100, 190, 300), 1, 4, 3),
        ((100, 190, 192), 1, 2, 3),  # four gain too little over two
        ((100, 103, 300), 1, 1, 2),  # two gain too little: four are not tried
        ((100, 60, 300), 1, 1, 2),
        ((100, 190, 300), 3, 2, 2),  # 4 x 3 GiB are more than 90 % of 10
        ((100, 190, 300), 6, 1, 1),
        ((100, None, 300), 1, 1, 1),  # two ran out of memory after all
        ((100, 190, None), 1, 2, 2),
    ],
)
def test_the_number_that_does_most_is_taken_as_long_as_it_fits_and_gains(speeds, used, chosen, tried):
    answers = dict(zip(probe.TRIED, speeds, strict=True))

    def measure(jobs):
        return None if answers[jobs] is None else Load(jobs, answers[jobs], jobs * used * GIB, 10 * GIB)

    jobs, loads = probe.best(measure)
    assert (jobs, len(loads)) == (chosen, tried)


def test_a_device_on_which_nothing_runs_is_a_sentence():
    with pytest.raises(AblateError, match="not even one job runs"):
        probe.best(lambda _: None)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    fields = {
        "data": {"name": "digits", "image_size": 16, "train_size": 200},
        "model": {"name": "cnn4"},
        "training": {"batch_size": 20, "precision": "fp32"},
    }
    recipe = Recipe.model_validate(fields)
    prepared = data.prepare(recipe.data, tmp_path_factory.mktemp("cache"))
    return ProbeTask(
        context=Context(compile_cache=str(prepared.folder.parent / "compiled")), recipe=recipe, seed=0,
        data=prepared.folder, log=prepared.folder.parent / "log",
    )  # fmt: skip


def executor(jobs):
    return executors.start("local", PROGRAM, Options("cpu", jobs))


@pytest.mark.slow  # trainings
@pytest.mark.parametrize("jobs", [1, 2])
def test_real_jobs_are_measured_at_work_together(jobs, task):
    with closing(executor(jobs)) as workers:
        load = probe.measure(workers, task, jobs, window=0.5)
    assert load.jobs == jobs
    assert load.images_a_second > 0
    assert jobs * 100e6 < load.used < load.total  # a process with torch in it has more than 100 MB


@pytest.mark.slow  # a process that imports torch
def test_a_probe_that_cannot_run_is_no_load(task):
    with closing(executor(1)) as workers:
        assert (
            probe.measure(workers, task.model_copy(update={"data": Path("/nowhere")}), 1, window=0.5) is None
        )


def test_a_count_of_jobs_that_is_none_is_a_sentence():
    code, _, said = ablate("run", "studies/quickstart.toml", "--jobs-per-gpu", "many")
    assert code == 2
    assert "must be a count from 1 to 64, or auto, got many" in said


def test_each_number_of_jobs_is_measured_in_its_share_of_the_memory(task, monkeypatch):
    asked = []

    def measure(_executor, shared, jobs, *, interrupted):
        asked.append((jobs, shared.context.jobs_a_device))
        return Load(jobs, 100.0 * jobs, jobs * GIB, 10 * GIB, "cuda:0")

    monkeypatch.setattr(probe, "measure", measure)
    jobs, why = probe.probe(lambda _: SimpleNamespace(close=list), "cuda", task, lambda: False)
    assert (jobs, asked) == (4, [(1, 1), (2, 2), (4, 4)])
    assert why.startswith("4 jobs a GPU, by a probe on cuda:0 (1: 100 images/s, 1.0 GiB, 2: 200 images/s")
