"""Jobs that fail as CUDA does, in real processes: what they leave, and what becomes of those after them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from houses import House, left, run_here
from working import attempts, run_all, run_one

from ablate.execution.crew import PRELOAD
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def one() -> Iterator[LocalExecutor]:
    """Start a single slot: what follows a job must use what it has left."""
    slot = Slot("cpu:0", "cpu", {"CUDA_VISIBLE_DEVICES": ""})
    with closing(LocalExecutor("trainings:run", (slot,), ("ablate.execution.worker", *PRELOAD))) as executor:
        yield executor


def test_a_job_that_loses_its_device_fails_no_job_and_is_whole_after_its_retry(
    house: House, one: LocalExecutor, tmp_path: Path
) -> None:
    quiet, broken = house.folder("quiet"), house.folder("broken")
    after = [house.folder(f"after {i}") for i in range(2)]
    how = {"how": "loses_its_device", "broken": str(tmp_path / "broken by")}
    first = run_one(one, house.payload(broken, **how))
    assert (first.kind, first.error) == (
        "crashed",
        "torch.AcceleratorError: CUDA error: device-side assert triggered",
    )
    assert not broken.failure.exists(), "whether it has failed is not for the worker to say"
    assert "device-side assert" in broken.log.read_text()
    ends = run_all(one, {folder.path.name: house.payload(folder, **how) for folder in (*after, broken)})
    assert {end.kind for end in ends.values()} == {"finished"}
    assert len({end.detail["pid"] for end in ends.values()}) == 1, "one new process, and a warm one"
    assert attempts(broken) == [1, 2]
    run_here(house.payload(quiet))
    assert left(broken) == left(after[0]) == left(quiet)


def test_a_want_of_memory_in_the_words_of_cublas_is_no_failure_yet(house: House, one: LocalExecutor) -> None:
    folder = house.folder("a")
    text = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    end = run_one(one, house.payload(folder, how="raises", text=text))
    assert end.kind == "out_of_memory"
    assert end.error.startswith(f"RuntimeError: {text} (the job had 0.")
    assert not folder.failure.exists()
    assert run_one(one, house.payload(folder)).kind == "finished"


def test_a_job_on_a_cpu_has_its_images_on_the_host_whether_it_is_asked_to_or_not(house: House) -> None:
    folder, quiet = house.folder("a"), house.folder("quiet")
    run_here(house.task(folder, streamed=True).to_json())
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)
    assert '"streamed": false' in left(folder)["result"]
