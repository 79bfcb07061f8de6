"""The server that workers are forked from, and the environment that it starts in, which they inherit."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import Any, Protocol

from ablate.execution.executors import devices

ENVIRONMENT = {
    # The server and Python's resource tracker are `python -c`, which has the current directory first on its
    # path: in a shared folder a file that is named like a module of Python would be run.
    "PYTHONSAFEPATH": "1",
    # One thread a job, unless the recipe asks for more: two jobs side by side with torch's default threads
    # are 2.4-3.4x slower than one after the other.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc gives the memory of activations back to the kernel, and faults it in again at every step: training
    # steps are 1.1-1.2x faster without that.
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_threshold=1073741824:"
        "glibc.malloc.trim_threshold=8589934592:"
        "glibc.malloc.top_pad=67108864"
    ),
    # What CUDA needs to repeat its sums (torch's note on reproducibility).
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
CUDA_ENVIRONMENT = {
    # Activations are on the GPU: what the host frees is for the jobs beside this one, but for some batches of
    # streamed images, which would be faulted in again at every step.
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_threshold=134217728:"
        "glibc.malloc.trim_threshold=268435456:"
        "glibc.malloc.top_pad=67108864"
    ),
    # Kernels are loaded when they are used first: they take some 0.3 GiB less of the GPU.
    "CUDA_MODULE_LOADING": "LAZY",
    # Else each worker compiles in as many processes as there are cores, up to 32.
    "TORCHINDUCTOR_COMPILE_THREADS": "2",
}
SEGMENTS = {
    # Blocks that grow, instead of many of fixed sizes with gaps that no other job can have.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True"
}
OLDER_SEGMENTS = "PYTORCH_CUDA_ALLOC_CONF"  # the former name: a user who has set it means it
IMPORTING = "ablate.execution.executors.importing"  # imported by the server alone, as is the other
FROZEN = "ablate.execution.executors.frozen"
BAD_STARTS = 3  # deaths before a start is over, after which starting more is hopeless
REFUSED_START = 0.05
"""The share that a refusal by the server counts for: it is dead, and may take a while to go."""
ANSWER = 600.0  # seconds in which it must have forked; it imports torch first, maybe over a network


class Startable(Protocol):
    """A process that has not been started."""

    def start(self) -> None:
        """Start it: an EOFError or an OSError means that the server has died."""


def environment(device: str) -> dict[str, str]:
    """Return the variables of workers on a device; what the user has set wins over them."""
    if device != "cuda":
        return ENVIRONMENT
    grows = not devices.is_wsl() and OLDER_SEGMENTS not in os.environ
    return ENVIRONMENT | CUDA_ENVIRONMENT | (SEGMENTS if grows else {})


def preload(function: str, modules: tuple[str, ...]) -> None:
    """Name what the server imports before it forks a worker: a function's module, and others."""
    forkserver.set_forkserver_preload([IMPORTING, function.split(":", maxsplit=1)[0], *modules, FROZEN])


def warm(variables: Mapping[str, str]) -> bool:
    """Start the server that workers are forked from, where it does not run; it imports in the background.

    Returns whether it was started now.
    """
    before = _pid()
    with _set(variables), _deaf():  # it takes over both
        forkserver.ensure_running()
    return _pid() != before


def cool() -> None:
    """End the server, from which no worker was forked: it would import to the end, holding its pipes open."""
    if (pid := _pid()) is None:
        return
    with suppress(ChildProcessError):  # dead, and waited for: by the kernel, where SIGCHLD is ignored
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, signal.SIGKILL)  # it is deaf to others
    with suppress(ChildProcessError, FileNotFoundError):
        _server()._stop()  # noqa: SLF001
    _server()._forkserver_pid = None  # noqa: SLF001


def _pid() -> int | None:
    pid: int | None = _server()._forkserver_pid  # noqa: SLF001
    return pid


def _server() -> Any:
    """Return what Python knows of its server, of which nothing that is needed here is public."""
    return forkserver._forkserver  # noqa: SLF001


def start(process: Startable, variables: Mapping[str, str]) -> None:
    """Start a worker, and first the server that it is forked from, where that does not run."""
    deaths = 0.0
    while True:
        warm(variables)
        try:
            _within(ANSWER, process.start)
            return
        except (EOFError, OSError) as error:
            deaths += REFUSED_START if isinstance(error, ConnectionRefusedError) else 1
            if deaths >= BAD_STARTS:
                raise RuntimeError(
                    "no worker process can start: "
                    "the server they are forked from dies; its error stands above"
                ) from error
            time.sleep(0.1)  # a server that is just dying answers no more, and is not yet known to be dead


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call a function that may never return; raise what it raises, and a RuntimeError when the time is up."""
    raised: list[BaseException] = []

    def calls() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            raised.append(error)

    thread = threading.Thread(target=calls, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RuntimeError(
            "no worker process can start: "
            f"the server they are forked from has not answered for {seconds:.0f} s"
        )
    for error in raised:
        raise error


@contextmanager
def _set(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that starts now; what the user has set wins."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a process that starts now ignore Ctrl-C and SIGTERM at once: both go to whole process groups.

    Only the main thread can do so; in another one, a terminal's or a cluster's signals reach its like anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
