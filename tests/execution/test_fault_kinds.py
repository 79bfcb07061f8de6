"""What errors mean, by the texts that CUDA, its libraries, torch and the system use."""

import errno
import traceback
import weakref

import pytest
import torch

from ablate.execution import faults, memory

CPU = torch.device("cpu")
ASYNCHRONOUS = (
    "\nSearch for `cudaError' in the documentation for more information.\nCUDA kernel errors might be "
    "asynchronously reported at some other API call, so the stacktrace below might be incorrect.\nFor "
    "debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)
WANT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
    torch.OutOfMemoryError("Allocation was preemptively rejected: per_process_memory_fraction limit"),
    torch.AcceleratorError(f"CUDA error: out of memory{ASYNCHRONOUS}"),  # a context, cudaHostAlloc
    RuntimeError("CUDA error: out of memory"),  # as older versions raise it
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB"),  # of torch.compile, in its own words
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload uses many shapes"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    MemoryError(),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("unable to mmap 64 bytes from file </torch_1>: Cannot allocate memory (12)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 1 bytes. Error code 12 (Cannot allocate memory)"
    ),
]
LOST_DEVICE = [
    torch.AcceleratorError(f"CUDA error: device-side assert triggered{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: an illegal memory access was encountered{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: an illegal instruction was encountered{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: misaligned address{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: invalid program counter{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: hardware stack error{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: unspecified launch failure{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: the launch timed out and was terminated{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: uncorrectable ECC error encountered{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: unknown error{ASYNCHRONOUS}"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Unable to determine the device handle: GPU is lost.  Reboot the system"),
    RuntimeError("Triton Error [CUDA]: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_MAPPING_ERROR"),
]
OWN = [
    RuntimeError("could not create a primitive descriptor for the matmul primitive. Run workload with"),
    ValueError("CUDA out of memory"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
    RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(handle)`"),
    torch.AcceleratorError(f"CUDA error: no kernel image is available for execution{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: invalid configuration argument{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: invalid argument{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: invalid device function{ASYNCHRONOUS}"),
    torch.AcceleratorError(f"CUDA error: operation not permitted when stream is capturing{ASYNCHRONOUS}"),
    torch.AcceleratorError(
        f"CUDA error: operation failed due to a previous error during capture{ASYNCHRONOUS}"
    ),
    torch.AcceleratorError(
        "CUDA error: operation would make the legacy stream depend on a capturing blocking stream"
    ),
    OSError(errno.EACCES, "Permission denied"),
    AssertionError("device-side"),
]
ROWS = [
    *((error, "memory") for error in WANT_OF_MEMORY),
    *((error, "device") for error in LOST_DEVICE),
    *((error, "own") for error in OWN),
]


@pytest.mark.parametrize(("error", "kind"), ROWS, ids=[str(error)[:60] for error, _ in ROWS])
def test_an_error_means_what_its_text_says(error: Exception, kind: str) -> None:
    assert faults.kind(error, CPU) == kind


def test_every_text_of_the_tables_has_a_row() -> None:
    for texts, rows in (
        (faults.MEMORY, WANT_OF_MEMORY),
        (faults.HOST_MEMORY, WANT_OF_MEMORY),
        (faults.LOST, LOST_DEVICE),
        (faults.AGAIN, OWN),
    ):
        assert [text for text in texts if not any(text in str(row) for row in rows)] == []


def test_what_an_allocator_of_torch_really_says_is_a_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="allocate") as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert faults.kind(caught.value, CPU) == "memory"


def test_what_had_caused_an_error_counts_and_a_lost_device_above_all() -> None:
    def raised(*errors: Exception) -> Exception:
        """Chain errors, the first the cause of the next, half of them by `from`."""
        before: Exception | None = None
        for i, error in enumerate(errors):
            error.__cause__, error.__context__ = (before, None) if i % 2 else (None, before)
            before = error
        return errors[-1]

    memory_, lost = RuntimeError("CUDA error: out of memory"), RuntimeError("unspecified launch failure")
    assert faults.kind(raised(memory_, ValueError("a"), OSError("checkpoint.pt")), CPU) == "memory"
    assert faults.kind(raised(lost, ValueError("a"), memory_), CPU) == "device"
    assert faults.kind(raised(memory_, KeyError("a"), lost), CPU) == "device"


def test_a_share_of_a_gpu_leaves_room_for_what_torch_does_not_count() -> None:
    small, large = 8 << 30, 80 << 30
    assert memory.share(1, small) == 1.0
    for total in (small, large):
        for jobs in (2, 3, 4, 8):
            assert jobs * (memory.share(jobs, total) * total + memory.CONTEXT) <= 0.951 * total
    assert memory.share(100, small) > 0


def test_what_a_task_had_is_free_while_its_error_is_still_under_way() -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def trains() -> None:
        tensor = torch.ones(3)
        tensors.append(weakref.ref(tensor))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught, memory.shared(CPU, 1):
        trains()
    assert tensors[0]() is None
    assert "in trains" in "".join(traceback.format_exception(caught.value)), "and its log tells where it was"
