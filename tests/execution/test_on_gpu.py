"""Jobs on a GPU through real workers; what needs none is tried on the CPU as well, in the slow part."""

import signal
from collections.abc import Iterator
from contextlib import closing

import pytest
from gpus import ON_GPU
from houses import BEST, MC, PLAIN, House, left
from working import run_all, run_one

from ablate.execution.crew import PRELOAD
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor

pytestmark = pytest.mark.usefixtures("server")
PREFLIGHT = "ablate.execution.preflight:check"


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=ON_GPU)])
def workers(request: pytest.FixtureRequest) -> Iterator[LocalExecutor]:
    """Start two workers that share a device."""
    slot = Slot(f"{request.param}:0", request.param)
    preload = ("ablate.execution.worker", *PRELOAD)
    with closing(LocalExecutor("trainings:run", (slot, slot), preload, PREFLIGHT)) as executor:
        yield executor


def test_jobs_that_share_a_device_are_trained_and_judged_to_the_same_bits(
    house: House, workers: LocalExecutor
) -> None:
    folders = [house.folder(name) for name in ("one", "other")]
    payloads = {
        folder.path.name: house.task(folder, PLAIN, MC, BEST, jobs_a_device=2).to_json() for folder in folders
    }
    assert {event.kind for event in run_all(workers, payloads).values()} == {"finished"}
    assert left(folders[0]) == left(folders[1])


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ({"how": "dies_after", "epoch": 1, "signal": signal.SIGKILL}, "killed"),
        ({"how": "stops_after", "epoch": 2}, "stopped"),
    ],
)
def test_a_job_that_ends_early_is_taken_up_to_the_same_bits(
    house: House, workers: LocalExecutor, how: dict[str, object], end: str
) -> None:
    quiet, other = house.folder("quiet"), house.folder("other")
    assert run_one(workers, house.payload(quiet, MC)).kind == "finished"
    assert run_one(workers, house.payload(other, MC, **how)).kind == end
    assert run_one(workers, house.payload(other, MC)).kind == "finished"
    assert left(other) == left(quiet)


@pytest.mark.parametrize("workers", [pytest.param("cuda", marks=ON_GPU)], indirect=True)
@pytest.mark.parametrize(
    ("how", "end"), [("fills_the_device", "out_of_memory"), ("breaks_the_device", "crashed")]
)
def test_a_job_without_memory_or_device_is_no_failure_and_finishes_in_another_process(
    house: House, workers: LocalExecutor, how: str, end: str
) -> None:
    folder = house.folder("job")
    event = run_one(workers, house.payload(folder, how=how))
    assert (event.kind, folder.failure.exists()) == (end, False), event.error
    assert run_one(workers, house.payload(folder)).kind == "finished"
