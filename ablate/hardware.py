"""The processors of this machine, found without importing torch: `ablate plan` must be quick."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GPU_QUERY = ("--query-gpu=index,uuid,compute_cap", "--format=csv,noheader")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # without them bf16 on a CPU is emulated and slower than fp32
BF16_CAPABILITY = 8.0  # Ampere and later


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is to run jobs on, as an executor answers it."""

    slots: int  # jobs at a time
    device: str  # cpu, cuda
    precision: str  # what `training.precision = "auto"` is there
    jobs_a_device: int = 1  # that share one device
    shares_memory: bool = False  # slots use one memory: what ran out of it is tried again alone
    shares_store: bool = True  # its workers see the folder of the store under the same path


def precision(device: str) -> str:
    """Return what `training.precision = "auto"` is here: bf16 where every device has it, else fp32."""
    gpus = list_gpus()
    if device == "cpu" or not gpus:
        return "bf16" if BF16_FLAGS & _cpu_flags() else "fp32"
    return "bf16" if all(capability >= BF16_CAPABILITY for _, capability in gpus) else "fp32"


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def list_gpus() -> tuple[tuple[str, float], ...]:
    """Return (index, compute capability) of the visible GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or shutil.which("nvidia-smi") is None:
        return ()
    answer = subprocess.run(["nvidia-smi", *GPU_QUERY], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if answer.returncode != 0:
        return ()
    rows = [
        [part.strip() for part in line.split(",")]
        for line in answer.stdout.splitlines()
        if line.count(",") == 2
    ]
    # indices, or (beginnings of) UUIDs
    chosen = [name.strip() for name in visible.split(",")] if visible else None
    listed = [
        row
        for row in rows
        if chosen is None or any(row[0] == name or row[1].startswith(name) for name in chosen)
    ]
    return tuple((index, _capability(text)) for index, _, text in listed)


def _capability(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # "[N/A]": an unknown device gets fp32


@cache
def _cpu_flags() -> frozenset[str]:
    """Read the instruction sets of the CPU; none where the system does not list them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return frozenset(
        word for line in lines if line.startswith("flags") for word in line.split(":", 1)[1].split()
    )
