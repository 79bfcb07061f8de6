"""The processors of this machine, found without importing torch, as `ablate plan` must be quick."""

import os
import platform
from pathlib import Path

from ablate import gpus, hardware, messages
from ablate.errors import AblateError
from ablate.execution.executors.base import Options, Slot
from ablate.gpus import Gpu
from ablate.hardware import Resources, cores


def slots(
    device: str, jobs: int | None, threads: int = 1, per_gpu: int = 1, devices: int | None = None
) -> tuple[Slot, ...]:
    """Lay out the slots: `per_gpu` a GPU, or one for every `threads` CPU cores; `jobs` sets their number.

    A job on a GPU needs a core that launches its kernels: there are no more slots than cores, but one a GPU.
    `device`: auto, cpu, cuda; `devices`: so many GPUs only. Raises an AblateError when a GPU is asked for and
    there is none, or when there is one that cannot be used.
    """
    usable = () if device == "cpu" else _gpus(device)[:devices]
    if not usable:
        count = jobs or max(1, cores() // threads)
        return tuple(Slot(f"cpu:{i}", "cpu", {gpus.MASK: ""}) for i in range(count))
    count = jobs or len(usable) * per_gpu
    if count > len(usable) and any(gpu.is_exclusive for gpu in usable):
        raise AblateError(
            f"{count} jobs at a time are more than {messages.count(len(usable), 'GPU')}, and their compute "
            "mode, EXCLUSIVE_PROCESS, lets one process use each: use --jobs-per-gpu 1, "
            "or nvidia-smi -c DEFAULT"
        )
    if jobs is None:
        count = max(len(usable), min(count, cores()))
    laid_out = [(i % len(usable), usable[i % len(usable)]) for i in range(count)]
    return tuple(Slot(f"cuda:{number}", "cuda", {gpus.MASK: gpu.name}) for number, gpu in laid_out)


def _gpus(device: str) -> tuple[Gpu, ...]:
    """Return the GPUs to train on; none where `auto` may take the CPU."""
    survey = gpus.survey()
    if survey.trouble:
        raise AblateError(f"{gpus.UNUSABLE}: {survey.trouble}: mend that, or use --device cpu")
    if device == "cuda" and not survey.gpus:
        why = f": {gpus.MASK} hides them" if gpus.is_hidden() else ""
        raise AblateError(f"--device cuda needs an NVIDIA GPU, and there is none{why}: use --device cpu")
    return survey.gpus


def slots_of(options: Options) -> tuple[Slot, ...]:
    """Return the slots that a user's options ask for."""
    laid_out = slots(options.device, options.jobs, options.threads, options.jobs_per_gpu, options.devices)
    return laid_out[: options.most]


def notices(options: Options) -> tuple[str, ...]:
    """Return what a user should know of these slots before jobs run there."""
    laid_out = slots_of(options)
    names = [slot.name for slot in laid_out if slot.device == "cuda"]
    if not names:
        return ()
    there, asked = len(gpus.survey().gpus[: options.devices]), options.jobs_per_gpu
    crowded = (
        f"{messages.count(there, 'GPU')} x {asked} jobs are more than {messages.count(cores(), 'CPU core')}, "
        f"and each job needs one: {messages.count(max(there, cores()), 'job')} at a time; "
        "--jobs sets another number"
    )
    in_turn = (
        "several jobs share a GPU, and take turns there: with nvidia-cuda-mps-control -d, run once before, "
        "their kernels overlap (but a fault in one of them ends all of that GPU's, which are tried again)"
    )
    is_crowded = options.jobs is None and there * asked > max(there, cores())
    takes_turns = len(names) > len(set(names)) and not _mps_runs() and not is_wsl()
    return (*((crowded,) if is_crowded else ()), *((in_turn,) if takes_turns else ()))


def _mps_runs() -> bool:
    """Whether the daemon that lets kernels of several processes overlap has its pipe here."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps", "control").exists()  # noqa: S108 (CUDA's own)


def is_wsl() -> bool:
    """Whether this is Linux inside Windows, whose driver knows neither MPS nor segments that grow."""
    return "microsoft" in platform.release().lower()


def resources(laid_out: tuple[Slot, ...]) -> Resources:
    """Return what slots of this machine offer."""
    by_name: dict[str, int] = {}
    by_memory: dict[str, int] = {}
    for slot in laid_out:
        by_name[slot.name] = by_name.get(slot.name, 0) + 1
        by_memory[slot.memory] = by_memory.get(slot.memory, 0) + 1
    device = laid_out[0].device if laid_out else "cpu"
    return Resources(
        slots=len(laid_out),
        device=device,
        precision=hardware.precision(device),
        jobs_a_device=max(by_name.values(), default=1),
        shares_memory=max(by_memory.values(), default=1) > 1,
        is_exclusive=device == "cuda" and any(gpu.is_exclusive for gpu in gpus.survey().gpus),
        shares_store=True,
    )
