"""The processors of this machine, found without importing torch: `ablate plan` must be quick."""

import os
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ablate import gpus
from ablate.errors import AblateError

BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # without them bf16 on a CPU is emulated and slower than fp32
KERNELS = (7, 5)  # the least compute capability that torch's wheels for CUDA 13 have kernels for
BF16_CAPABILITY = (8, 0)  # Ampere and later; before it, bf16 is emulated and slower than fp32


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is to run jobs on, as an executor answers it."""

    slots: int  # jobs at a time
    device: str  # cpu, cuda
    precision: str  # what `training.precision = "auto"` is there
    jobs_a_device: int = 1  # that share one device
    shares_memory: bool = False  # slots use one memory: what ran out of it is tried again alone
    is_exclusive: bool = False  # a device takes one process at a time
    shares_store: bool = True  # its workers see the folder of the store under the same path
    keeps_queue: bool = False  # what is queued there outlives this process: all work that is known goes there


def precision(device: str) -> str:
    """Return what `training.precision = "auto"` is here: bf16 where every device has it, else fp32."""
    usable = () if device == "cpu" else gpus.survey().gpus
    if not usable:
        return "bf16" if BF16_FLAGS & _cpu_flags() else "fp32"
    return "bf16" if all(gpu.capability >= BF16_CAPABILITY for gpu in usable) else "fp32"


def notes(device: str, precisions: Container[str] = ()) -> tuple[str, ...]:
    """Return what users should know of the GPUs here before they train on them in such precisions."""
    if device == "cpu":
        return ()
    usable = {gpu.model: gpu.capability for gpu in gpus.survey().gpus}
    other = "" if usable else gpus.passed_over()
    kernels, emulated = (
        ", ".join(
            f"{model} ({major}.{minor})"
            for model, (major, minor) in usable.items()
            if (0, 0) < (major, minor) < least
        )
        for least in (KERNELS, BF16_CAPABILITY)
    )
    old = (
        f"compute capability below {KERNELS[0]}.{KERNELS[1]}: {kernels}: torch's wheels have no kernels "
        "for it since CUDA 13; an older one may have, and ablate doctor tries that"
    )
    slow = (
        f'bf16 is emulated, and slower than fp32, on {emulated}: training.precision = "fp32" is better there'
    )
    is_slow = emulated and "bf16" in precisions
    return (*filter(None, (other,)), *((old,) if kernels else ()), *((slow,) if is_slow else ()))


def check_graphs(device: str) -> None:
    """Raise an AblateError where steps are to be CUDA graphs, and jobs do not run on a CUDA device."""
    if device != "cuda":
        raise AblateError(
            f'training.compile must be false or true where jobs run on a {device.upper()}, got "graph": '
            "a step is one graph on a GPU of CUDA alone: give --set training.compile=false, or train there"
        )


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _cpu_flags() -> frozenset[str]:
    """Read the instruction sets of the CPU; none where the system does not list them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return frozenset(
        word for line in lines if line.startswith("flags") for word in line.split(":", 1)[1].split()
    )
