"""The memory of a task's device: its share of a GPU that several jobs use, its peak, what is given back."""

import gc
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ablate.execution import faults

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes
SHARED = 0.95  # of a GPU, for all of its jobs
CONTEXT = 512 << 20  # bytes a process that torch does not count: CUDA's context and kernels take 0.4-0.6 GiB
LEAST = 0.02  # of a GPU, for each of however many jobs


@contextmanager
def shared(device: torch.device, jobs: int) -> Iterator[None]:
    """Keep a task to its share of a GPU that so many jobs use, and give back at its end all that it had.

    A process that waits for its next task would keep blocks from its neighbours that nobody uses.
    """
    if device.type == "cuda":
        # Of the device that is visible: torch wants no device without an index here.
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(share(jobs, total))
    forget_peak(device)
    try:
        yield
    except Exception as error:
        for cause in faults.chain(error):  # or its frames keep the tensors until it is handled, far from here
            traceback.clear_frames(cause.__traceback__)
        raise
    finally:
        if device.type == "cuda":
            gc.collect()
            with suppress(RuntimeError):  # of a context that is lost: the task's own error says so
                torch.cuda.empty_cache()


def share(jobs: int, total: int) -> float:
    """Return the part of `total` bytes that torch may take in the process of each of so many jobs."""
    return 1.0 if jobs == 1 else max(LEAST, SHARED / jobs - CONTEXT / total)


def forget_peak(device: torch.device) -> None:
    """Reset the peak of memory: a warm worker has had other jobs before, perhaps larger ones."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # no Linux, or not allowed: then the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(device: torch.device) -> int:
    """Return the most bytes of the device's memory that this process used at once, since `forget_peak`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident()


def taken(device: torch.device) -> int:
    """Return the most bytes that this process took from the device at once, used or kept."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _resident()


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
