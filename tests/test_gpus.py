"""Finding GPUs, by a driver and an nvidia-smi that stand in: this machine may have none."""

import sys

import pytest
from drivers import A6000, FIRST, H100, INSTANCES, SECOND, SLICE, TWO

from ablate import gpus, hardware

CARDS = (
    f"{FIRST}, NVIDIA H100 80GB HBM3, 9.0, 81559, Default\n{SECOND}, NVIDIA RTX A6000, 8.6, 49140, Default"
)
MASKS = [
    (None, [FIRST, SECOND]),
    ("1", [SECOND]),
    ("1, 0", [SECOND, FIRST]),
    ("0,", [FIRST]),
    ("0,-1,1", [FIRST]),
    ("0,7,1", [FIRST]),
    ("GPU-bbbb", [SECOND]),
    (SECOND, [SECOND]),
    ("-1", []),
    ("", []),
    (" ", []),
    ("NoDevFiles", []),
]
ARE_WRONG = ["7", "MIG-99999999-0000-0000-0000-000000000001", "cuda:0", "GPU-"]


def names():
    return [gpu.name for gpu in gpus.survey().gpus]


@pytest.mark.parametrize(("mask", "expected"), MASKS)
def test_a_mask_means_what_it_means_to_cuda(machine, mask, expected):
    machine.driver(*TWO, mask=mask)
    assert names() == expected
    assert gpus.survey().trouble == ""


@pytest.mark.parametrize(("mask", "expected"), MASKS)
def test_without_cuda_s_library_nvidia_smi_is_asked_and_a_mask_means_the_same(machine, mask, expected):
    machine.trace.touch()
    machine.tool(CARDS)
    machine.mask(mask)
    assert names() == expected
    assert gpus.survey().trouble == ""


@pytest.mark.parametrize("mask", ARE_WRONG)
@pytest.mark.parametrize("has_driver", [True, False])
def test_a_mask_that_names_nothing_is_told_of(machine, mask, has_driver):
    machine.tool(CARDS)
    if has_driver:
        machine.driver(*TWO)
    machine.mask(mask)
    assert gpus.survey() == gpus.Survey(trouble=f'CUDA_VISIBLE_DEVICES = "{mask}" names none of them')


def test_the_driver_says_what_a_gpu_is(machine):
    machine.driver((SECOND, A6000.replace("|0", "|3")), (FIRST, H100))
    assert gpus.survey().gpus == (
        gpus.Gpu(SECOND, "NVIDIA RTX A6000", (8, 6), 48 * 2**30, is_exclusive=True),
        gpus.Gpu(FIRST, "NVIDIA H100 80GB HBM3", (9, 0), 80 * 2**30),
    )


def test_nvidia_smi_says_what_a_gpu_is(machine):
    machine.tool(
        f"{FIRST}, NVIDIA H100 80GB HBM3, 9.0, 81559, Exclusive_Process\n{SECOND}, X, [N/A], [N/A], -"
    )
    assert gpus.survey().gpus == (
        gpus.Gpu(FIRST, "NVIDIA H100 80GB HBM3", (9, 0), 81559 * 2**20, is_exclusive=True),
        gpus.Gpu(SECOND, "X", (0, 0), 0),
    )


def test_where_there_is_no_trace_of_a_driver_no_process_is_started(machine, monkeypatch):
    monkeypatch.setattr(gpus, "WINDOWS", "/nowhere")
    started = []
    monkeypatch.setattr(gpus, "_run", lambda command, *_: started.append(command) or ("", "failed"))
    machine.no_tool()
    assert gpus.survey() == gpus.Survey()
    assert started == []
    machine.trace.touch()
    gpus.clear()
    assert gpus.survey().trouble
    assert started


# MIG

LISTED = f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {FIRST})\n" + "\n".join(
    f"  MIG 1g.5gb      Device  {i}: (UUID: {name})" for i, name in enumerate(INSTANCES)
)
SLICED = tuple((name, SLICE) for name in INSTANCES)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [*INSTANCES]),  # CUDA alone shows one
        (INSTANCES[1], [INSTANCES[1]]),
        (f"{INSTANCES[2]},{INSTANCES[0]}", [INSTANCES[2], INSTANCES[0]]),
        (f"{INSTANCES[2]}, MIG-no, {INSTANCES[0]}", [INSTANCES[2]]),
    ],
)
@pytest.mark.parametrize("has_driver", [True, False])
def test_every_mig_instance_is_a_gpu(machine, mask, expected, has_driver):
    machine.tool(f"{FIRST}, NVIDIA A100-SXM4-40GB, 8.0, 40960, Default", LISTED)
    if has_driver:
        machine.driver(*SLICED)
    machine.mask(mask)
    assert names() == expected
    assert {gpu.capability for gpu in gpus.survey().gpus} == {(8, 0)}
    assert "MIG 1g.5gb" in gpus.survey().gpus[0].model


def test_without_nvidia_smi_the_driver_s_one_instance_is_used(machine):
    machine.no_tool()
    machine.driver(*SLICED)
    assert names() == [INSTANCES[0]]


# GPUs that are there and cannot be used


@pytest.mark.parametrize(
    ("faults", "trouble"),
    [
        ({"init": "802"}, "cuInit answers CUDA_ERROR_SYSTEM_NOT_READY (802)"),
        ({"init": "100"}, "cuInit answers CUDA_ERROR_NO_DEVICE (100)"),
        ({"dies": "1"}, "the driver has failed (exit code -6)"),
        ({"hang": "1"}, "the driver has not answered within 1 s"),
    ],
)
def test_a_driver_that_fails_is_told_of_where_there_is_a_gpu(machine, monkeypatch, faults, trouble):
    monkeypatch.setattr(gpus, "DRIVER_LIMIT", 1.0)
    machine.driver(*TWO, **faults)
    assert gpus.survey() == gpus.Survey(trouble=trouble)
    machine.mask("-1")  # whoever wants none is not bothered
    assert gpus.survey() == gpus.Survey()
    machine.mask(None)
    machine.trace.unlink()
    assert gpus.survey() == gpus.Survey()


def test_gpus_that_take_no_process_are_told_of(machine):
    machine.driver((FIRST, H100.replace("80|0", "80|2")))
    assert 'compute mode is "prohibited"' in gpus.survey().trouble


@pytest.mark.parametrize(
    ("tool", "trouble"),
    [
        ({"listing": "no devices were found", "code": 6}, "has failed (no devices were found)"),
        ({"listing": CARDS, "seconds": 30}, "has not answered within 1 s"),
        ({"listing": ""}, "lists none"),
        (None, "is not on PATH"),
    ],
)
def test_an_nvidia_smi_that_fails_is_told_of_where_there_is_a_gpu(machine, monkeypatch, tool, trouble):
    monkeypatch.setattr(gpus, "TOOL_LIMIT", 1.0)
    if tool is None:
        machine.no_tool()
    else:
        machine.tool(**tool)
    assert gpus.survey() == gpus.Survey()  # no trace of one
    machine.trace.touch()
    gpus.clear()
    assert gpus.survey().trouble.startswith("CUDA's library cannot be loaded (libcuda.so.1: ")
    assert gpus.survey().trouble.endswith(f"nvidia-smi {trouble}")


# GPUs of others


def test_an_amd_gpu_and_a_mac_s_are_told_of(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "AMD", str(tmp_path))
    assert gpus.passed_over() == ""
    monkeypatch.setattr(gpus.metadata, "version", lambda _: "2.15.0+rocm7.0")
    assert "the AMD GPU is not used, though torch 2.15.0+rocm7.0 could" in gpus.passed_over()
    monkeypatch.setattr(gpus, "AMD", str(tmp_path / "none"))
    assert gpus.passed_over() == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(gpus.os, "uname", lambda: type("Uname", (), {"machine": "arm64"}))
    assert "mps" in gpus.passed_over()


def test_what_is_passed_over_is_a_note_where_the_cpu_is_taken_instead(machine, monkeypatch):
    monkeypatch.setattr(gpus, "passed_over", lambda: "another maker's")
    assert hardware.notes("auto") == ("another maker's",)
    assert hardware.notes("cpu") == ()
    machine.driver(*TWO)
    assert hardware.notes("auto") == ()
