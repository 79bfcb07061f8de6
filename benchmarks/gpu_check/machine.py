"""Steps 1 to 3: what is found here, the tests that need a GPU, and who opens it during a run."""

import re
import subprocess
import sys
from collections.abc import Iterator

import torch

from ablate import gpus, hardware
from ablate.execution import preflight
from benchmarks.gpu_check import processes
from benchmarks.gpu_check.part import Part, Setup


def facts(setup: Setup) -> Iterator[Part]:
    """Step 1: the driver, torch and doctor agree."""
    survey = gpus.survey()
    listed = [
        {"name": gpu.name, "model": gpu.model, "capability": gpu.capability, "memory": gpu.memory}
        for gpu in survey.gpus
    ]
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "kernels": torch.cuda.get_arch_list()}
    yield Part("what there is", None, {"gpus": listed, "trouble": survey.trouble} | versions)
    wrong = preflight.examine([gpu.name for gpu in survey.gpus])
    yield Part("torch computes on each GPU", (not wrong) if setup.on_gpu else None, {"wrong": wrong})
    if setup.on_gpu:
        first = str(torch.cuda.get_device_properties(0).uuid)
        yield Part("the driver's first GPU is torch's", first in survey.gpus[0].name, {"torch": first})
        bf16 = all(gpu.capability >= hardware.BF16_CAPABILITY for gpu in survey.gpus)
        expected = "bf16" if bf16 else "fp32"
        yield Part(f'precision "auto" is {expected}', hardware.precision("cuda") == expected)
    code, findings = processes.doctor(setup.folder)
    said = [finding["says"] for finding in findings if finding["check"] == "device"]
    problems = any(f["check"] == "device" and f["severity"] == "problem" for f in findings)
    yield Part("doctor finds no fault with the devices", not problems, {"exit": code, "says": said})


def tests(setup: Setup) -> Iterator[Part]:
    """Step 2: the tests that need a GPU; without one they are skipped, and none is lost."""
    command = ["-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    rooms = ["tests/training", "tests/execution"]
    done = subprocess.run([sys.executable, *command, *rooms], capture_output=True, text=True, check=False)
    ends = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)
    }
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    figures = ends | {"failures": failed}
    if setup.on_gpu:
        passes = done.returncode == 0 and ends.get("passed", 0) > 0 and not ends.get("skipped")
        yield Part("all of them pass, none is skipped", passes, figures)
    else:
        yield Part("without a GPU all of them are skipped", set(ends) == {"skipped"}, figures)


def run(setup: Setup) -> Iterator[Part]:
    """Step 3: `ablate run` with two jobs a GPU: who opens it; masks, as doctor takes them."""
    file, store = processes.study(setup.folder, 2, setup.sized(32, 16)), setup.folder / "store"
    jobs = ("--jobs-per-gpu", 2, "--jobs", 2) if setup.on_gpu else ("--jobs", 2)
    command = ("run", file, "--store", store, "--device", setup.device.type, *jobs)
    together, strangers = set[int](), set[int]()

    def look(pid: int) -> None:
        theirs = processes.workers(pid)
        holders = {child for child in (pid, *processes.descendants(pid)) if processes.has_gpu(child)}
        together.add(len(holders & set(theirs)) if setup.on_gpu else len(theirs))
        strangers.update(holders - set(theirs))

    code, said = processes.watched(processes.ablate(*command), look)
    last = said.splitlines()[-8:]
    yield Part("a study runs", code == 0, {"exit": code, "says": last})
    yield Part("two workers at a time", max(together) == 2, {"seen": sorted(together)})
    yield Part("neither coordinator nor server opens a GPU", not strangers)
    code, said = processes.watched(processes.ablate(*command), look)
    yield Part("again: nothing is trained", code == 0 and "nothing to train" in said, {"exit": code})
    if not setup.on_gpu:
        return
    for mask, expected in (("0,", "1 GPU ("), ("-1", "no GPU"), ("MIG-x", "names none of them")):
        _, findings = processes.doctor(setup.folder, CUDA_VISIBLE_DEVICES=mask)
        said = " | ".join(finding["says"] for finding in findings if finding["check"] == "device")
        yield Part(f'CUDA_VISIBLE_DEVICES="{mask}": {expected}', expected in said, {"says": said})
