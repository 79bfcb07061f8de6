"""What an error of a task means: want of memory, a lost device, or the task's own fault.

CUDA, its libraries and torch have no types for that, so texts decide: each of these was read in torch 2.15,
in its binaries, or in a report of somebody who met it.
"""

import errno
from collections.abc import Iterator
from typing import Literal

import torch

Fault = Literal["memory", "device", "own"]
"""memory: the task may fit with the device to itself. device: nothing more runs in this process, and another
one may do it. own: it would be raised again."""

LOST = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "launch timed out",
    "ECC error",
    "GPU is lost",
    "_STATUS_EXECUTION_FAILED",  # of cuBLAS and cuDNN, after one of the above
    "_STATUS_MAPPING_ERROR",
)
"""After these every further call of CUDA fails in this process."""

MEMORY = (
    "CUDA out of memory",  # where torch's own error was wrapped
    "CUDA error: out of memory",  # the context, a kernel that is loaded late, pinned memory of the host
    "CUDA driver error: out of memory",  # an expandable segment
    "Triton Error [CUDA]: out of memory",
    "_ALLOC_FAILED",  # of cuBLAS, cuDNN, cuSOLVER, cuFFT
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for cublasCreate
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "unable to find an engine to execute this computation",  # no workspace that any of cuDNN's would do with
    "ran out of memory outside PyTorch's allocator",
    "DefaultCPUAllocator: ",  # it says "can't allocate memory", or "not enough memory"
    "Cannot allocate memory",  # ENOMEM in words: torch could not map a file
)

HOST_MEMORY = (
    "could not create a primitive",  # oneDNN has no memory for its code; of other reasons it says more
    "could not create a memory object",
    "std::bad_alloc",
    "can't start new thread",  # no memory for its stack
)
"""Whole first lines of what is said where the host's memory is full."""

AGAIN = (
    "no kernel image is available",
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "stream is capturing",  # what a CUDA graph cannot be of
    "error during capture",
    "depend on a capturing",
)
"""Answers of CUDA that leave the process whole, and that a new one gets as well."""


def kind(error: BaseException, device: torch.device) -> Fault:
    """Return what an error means, or one that caused it; a GPU is asked whether it still answers."""
    kinds = {_kind(each) for each in chain(error)}
    if "device" in kinds or not _answers(device):
        return "device"
    return "memory" if "memory" in kinds else "own"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that caused it: torch.save blames its file for a want of memory."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _kind(error: BaseException) -> Fault:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory"
    if isinstance(error, OSError):
        return "memory" if error.errno == errno.ENOMEM else "own"
    if not isinstance(error, RuntimeError):
        return "own"
    text = str(error)
    if any(part in text for part in LOST):
        return "device"
    if any(part in text for part in MEMORY) or text.partition("\n")[0] in HOST_MEMORY:
        return "memory"
    is_cuda = isinstance(error, torch.AcceleratorError)
    return "device" if is_cuda and not any(part in text for part in AGAIN) else "own"


def _answers(device: torch.device) -> bool:
    """Whether the device still works in this process, or was not used by it yet."""
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
