"""--jobs-per-gpu auto: what is probed, and when nothing has to be."""

import plans
import pytest
from drivers import FIRST, H100, TWO
from resolving import resolved

from ablate.execution import crew as crews
from ablate.execution import probe
from ablate.execution.interruption import Interruption
from ablate.execution.options import How, Where
from ablate.planning import plan
from ablate.store.tasks import Context

FACTORS = {"training": {"batch_size": [64, 512]}}


@pytest.fixture
def decide(here, monkeypatch):
    """Return a function that gives the jobs a GPU, the notices and the tasks that were probed."""
    probed = []
    monkeypatch.setattr(probe, "probe", lambda start, device, task, asked: probed.append(task) or (4, "four"))

    def ask(study=None, **options):
        said = []
        todo = plan.make(resolved(study or plans.read(factors=FACTORS), here))
        with Interruption() as interruption:
            crew = crews.Crew(
                Where(here, **{"jobs_per_gpu": None} | options), How(), interruption, (said.append,)
            )
            jobs = crews._jobs_per_gpu(crew, todo, Context(study="x"))
        return jobs, [notice.text for notice in said], [task.recipe.training.batch_size for task in probed]

    return ask


def test_the_heaviest_training_is_probed(machine, decide):
    machine.driver(*TWO)
    assert decide() == (4, ["four"], [512])


def test_a_gpu_that_takes_one_process_is_not_probed(machine, decide):
    machine.driver((FIRST, H100.replace("80|0", "80|3")))
    notice = "--jobs-per-gpu auto: the GPU's compute mode lets in one process: one job a GPU"
    assert decide() == (1, [notice], [])


def test_without_a_gpu_there_is_nothing_to_probe(machine, decide):
    jobs, (notice,), probed = decide()
    assert (jobs, probed) == (1, [])
    assert "there is no GPU to probe" in notice


@pytest.mark.parametrize(("options", "jobs"), [({"jobs_per_gpu": 3}, 3), ({"jobs": 2}, 1)])
def test_what_is_said_is_not_probed(machine, decide, options, jobs):
    machine.driver(*TWO)
    assert decide(**options) == (jobs, [], [])


def test_what_is_trained_is_not_probed(machine, decide, here):
    machine.driver(*TWO)
    study = plans.read()
    for job in plan.make(resolved(study, here)).jobs:
        plans.put(here, job, "trained")
    assert decide(study) == (1, [], [])
