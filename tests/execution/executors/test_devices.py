"""Finding processors without torch, by an `nvidia-smi` that stands in: this machine may have no GPU."""

import os

import pytest

from ablate import hardware
from ablate.errors import AblateError
from ablate.execution.executors import devices


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that puts GPUs, as nvidia-smi would list them, into the machine."""

    def put(listing, visible=None, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{listing}\nEOF\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        hardware.list_gpus.cache_clear()

    yield put
    hardware.list_gpus.cache_clear()


TWO = "0, GPU-aaaa-1, 9.0\n1, GPU-bbbb-2, 8.6"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["cuda:0", "cuda:1"]),
        ("1", ["cuda:1"]),
        ("0, 1", ["cuda:0", "cuda:1"]),
        ("GPU-bbbb", ["cuda:1"]),
    ],
)
def test_a_gpu_that_may_be_used_is_a_slot(machine, visible, names):
    machine(TWO, visible)
    slots = devices.slots("auto", None)
    assert [slot.name for slot in slots] == names
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == [
        name.removeprefix("cuda:") for name in names
    ]


def test_more_jobs_than_gpus_go_round(machine):
    machine(TWO)
    assert [slot.name for slot in devices.slots("cuda", 3)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_jobs_may_share_a_gpu(machine):
    machine(TWO)
    assert [slot.name for slot in devices.slots("cuda", None, per_gpu=2)] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
        "cuda:1",
    ]
    assert [slot.name for slot in devices.slots("cuda", 3, per_gpu=2)] == ["cuda:0", "cuda:1", "cuda:0"], (
        "--jobs is the limit"
    )


@pytest.mark.parametrize(
    ("listing", "visible", "code"), [(TWO, "", 0), ("no devices were found", None, 6), ("", None, 0)]
)
def test_without_a_gpu_every_core_is_a_slot_and_cuda_is_refused_with_a_sentence(
    machine, listing, visible, code
):
    machine(listing, visible, code)
    slots = devices.slots("auto", None)
    assert [slot.name for slot in slots] == [f"cpu:{i}" for i in range(hardware.cores())]
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}
    with pytest.raises(AblateError, match="use --device cpu"):
        devices.slots("cuda", None)


def test_jobs_of_several_threads_get_fewer_slots_and_at_least_one(machine):
    machine("", "")
    assert len(devices.slots("cpu", None, threads=hardware.cores())) == 1
    assert len(devices.slots("cpu", None, threads=1000)) == 1
    assert len(devices.slots("cpu", 5, threads=1000)) == 5


@pytest.mark.parametrize(
    ("listing", "precision"),
    [
        (TWO, "bf16"),
        ("0, GPU-a, 7.5", "fp32"),
        ("0, GPU-a, 9.0\n1, GPU-b, 7.5", "fp32"),
        ("0, GPU-a, [N/A]", "fp32"),
    ],
)
def test_precision_is_bf16_where_every_gpu_has_it(machine, listing, precision):
    machine(listing)
    assert hardware.precision("cuda") == precision
