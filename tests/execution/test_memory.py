"""What a task takes from a GPU and gives back, and faults that only a GPU has: skipped where none is."""

import subprocess
import sys

import pytest
import torch
from gpus import NEEDS_GPU
from houses import EVERY_DRAW, House, run_here

from ablate.execution import faults, memory
from ablate.store import files
from ablate.training import images

CUDA = torch.device("cuda")
LOST = """
import torch
from ablate.execution import faults
device = torch.device("cuda")
rows = torch.zeros(4, device=device)
try:
    rows[torch.tensor([7], device=device)].tolist()  # no such row: an assert in the kernel
except RuntimeError as error:
    print(faults.kind(error, device), faults.kind(ValueError("what happens to be raised next"), device))
"""


@NEEDS_GPU
def test_a_task_has_its_share_of_a_gpu_and_leaves_nothing_behind():
    total = torch.cuda.get_device_properties(CUDA).total_memory
    with pytest.raises(torch.OutOfMemoryError) as caught, memory.shared(CUDA, 4):
        torch.empty(total // 3, dtype=torch.uint8, device=CUDA)
    assert faults.kind(caught.value, CUDA) == "memory"
    with memory.shared(CUDA, 1):
        kept = torch.empty(total // 3, dtype=torch.uint8, device=CUDA)
        assert memory.taken(CUDA) >= memory.peak(CUDA) >= total // 3
        del kept
    assert torch.cuda.memory_reserved(CUDA) < total // 100
    with memory.shared(CUDA, 1):
        assert memory.taken(CUDA) < total // 100, "the peak is that of this task"


@NEEDS_GPU
def test_a_context_that_is_lost_is_seen_whatever_is_raised():
    child = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert child.stdout.split() == ["device", "device"], child.stderr


@NEEDS_GPU
def test_a_job_that_did_not_fit_beside_its_images_has_them_on_the_host_and_the_same_numbers(
    house: House,
) -> None:
    assert images.room(CUDA, 1)
    ends = {}
    for streamed in (False, True):
        folder = house.folder(f"{streamed}", EVERY_DRAW)
        run_here(house.task(folder, streamed=streamed).to_json() | {"device": "cuda"})
        result = files.read_json(folder.result)
        assert result["streamed"] == streamed
        ends[streamed] = [line["metrics"] for line in files.lines(folder.journal)]
    assert ends[True] == ends[False]
