"""The slots of a machine, by a driver that stands in: this machine may have no GPU."""

import platform
import re

import pytest
from drivers import FIRST, H100, SECOND, T4, TWO

from ablate import hardware
from ablate.errors import AblateError
from ablate.execution.executors import devices
from ablate.execution.executors.base import Options

NO_MINORS = "NVIDIA X|0|0|8|0"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_is_a_slot_whose_process_sees_it_alone_by_its_own_name(machine, device):
    machine.driver(*TWO)
    slots = devices.slots(device, None)
    assert [(slot.name, slot.device) for slot in slots] == [("cuda:0", "cuda"), ("cuda:1", "cuda")]
    assert [dict(slot.environment) for slot in slots] == [
        {"CUDA_VISIBLE_DEVICES": name} for name in (FIRST, SECOND)
    ]
    assert len(devices.slots(device, None, devices=1)) == 1


def test_a_mask_chooses_and_orders_the_slots(machine):
    machine.driver(*TWO, mask="1,0")
    slots = devices.slots("auto", None)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == [SECOND, FIRST]


def test_more_jobs_than_gpus_go_round_and_jobs_is_the_limit(machine, monkeypatch):
    machine.driver(*TWO)
    monkeypatch.setattr(devices, "cores", lambda: 8)
    for jobs, per_gpu, expected in ((3, 1, "010"), (None, 2, "0101"), (3, 2, "010")):
        slots = devices.slots("cuda", jobs, per_gpu=per_gpu)
        assert [slot.name for slot in slots] == [f"cuda:{number}" for number in expected]


@pytest.mark.parametrize(
    ("cores", "options", "slots", "says"),
    [
        (8, Options(jobs_per_gpu=4), 8, ()),
        (5, Options(jobs_per_gpu=4), 5, ("2 GPUs x 4 jobs are more than 5 CPU cores, .* 5 jobs at a time",)),
        (1, Options(jobs_per_gpu=2), 2, ("2 GPUs x 2 jobs are more than 1 CPU core, .* 2 jobs at a time",)),
        (1, Options(jobs_per_gpu=2, devices=1), 1, ("1 GPU x 2 jobs .* 1 job at a time",)),
        (1, Options(jobs_per_gpu=1), 2, ()),
        (2, Options(jobs=6), 6, ()),
        (2, Options("cpu"), 2, ()),
    ],
)
def test_each_job_on_a_gpu_has_a_core_unless_the_user_wants_more(
    machine, monkeypatch, tmp_path, cores, options, slots, says
):
    machine.driver(*TWO)
    monkeypatch.setattr(devices, "cores", lambda: cores)
    (tmp_path / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert len(devices.slots_of(options)) == slots
    said = devices.notices(options)
    assert len(said) == len(says)
    assert all(re.search(pattern, text) for pattern, text in zip(says, said, strict=True))


def test_who_lets_jobs_share_a_gpu_hears_once_how_they_overlap_unless_they_do(machine, monkeypatch, tmp_path):
    machine.driver(*TWO)
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    (said,) = devices.notices(Options(jobs_per_gpu=2))
    assert "nvidia-cuda-mps-control -d" in said
    assert devices.notices(Options(jobs_per_gpu=1)) == ()
    assert devices.notices(Options(jobs_per_gpu=2, most=2)) == (), "two jobs on two GPUs share none"
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert devices.notices(Options(jobs_per_gpu=2)) == (), "there is no MPS"
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    (tmp_path / "control").touch()
    assert not any("mps" in text for text in devices.notices(Options(jobs=4)))


@pytest.mark.parametrize(
    ("jobs", "per_gpu", "fits"), [(None, 1, True), (2, 1, True), (3, 1, False), (None, 2, False)]
)
def test_a_gpu_for_one_process_takes_one_job(machine, jobs, per_gpu, fits):
    machine.driver((FIRST, H100), (SECOND, H100.replace("80|0", "80|3")))
    if fits:
        assert len(devices.slots("auto", jobs, per_gpu=per_gpu)) == 2
    else:
        with pytest.raises(AblateError, match="EXCLUSIVE_PROCESS, lets one process use each"):
            devices.slots("auto", jobs, per_gpu=per_gpu)
    assert devices.resources(devices.slots("auto", None)).is_exclusive


@pytest.mark.parametrize("mask", [None, "", "-1"])
def test_without_a_gpu_every_core_is_a_slot_and_cuda_is_refused_with_a_sentence(machine, mask):
    if mask is not None:
        machine.driver(*TWO, mask=mask)
    slots = devices.slots("auto", None)
    assert [slot.name for slot in slots] == [f"cpu:{i}" for i in range(hardware.cores())]
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}
    with pytest.raises(AblateError, match=r"there is none.*: use --device cpu"):
        devices.slots("cuda", None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_cannot_be_used_is_a_sentence_and_never_a_cpu(machine, device):
    machine.driver(*TWO, init="802")
    with pytest.raises(AblateError, match=r"cannot be used: cuInit answers .*802.* use --device cpu"):
        devices.slots(device, None)
    assert devices.slots("cpu", 1)[0].device == "cpu"


def test_jobs_of_several_threads_get_fewer_slots_and_at_least_one(machine):
    assert len(devices.slots("cpu", None, threads=hardware.cores())) == 1
    assert len(devices.slots("cpu", None, threads=1000)) == 1
    assert len(devices.slots("cpu", 5, threads=1000)) == 5


@pytest.mark.parametrize(
    ("listed", "precision"),
    [((H100,), "bf16"), ((T4,), "fp32"), ((H100, T4), "fp32"), ((NO_MINORS,), "fp32")],
)
def test_precision_is_bf16_where_every_gpu_has_it(machine, listed, precision):
    machine.driver(*zip((FIRST, SECOND), listed, strict=False))
    assert hardware.precision("cuda") == hardware.precision("auto") == precision
