"""Whether torch can compute on a GPU at all: one small product, before anything is trained there.

A GPU without kernels in this torch, an old driver or a full memory would else fail job after job.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from ablate import gpus
from ablate.errors import AblateError
from ablate.messages import printable

LIMIT = 120.0  # seconds: torch is imported, from a slow disk perhaps, and a context made
SIZE = 8  # of the matrices
OLD = "its driver is too old for torch {torch}, which is built for CUDA {cuda}: update the driver"
REMEDIES = {
    "no kernel image": "torch {torch} has no kernels for it (it has {kernels}): install a torch that has",
    "driver on your system is too old": OLD,
    "driver version is insufficient": OLD,
    "not compiled with CUDA": "torch {torch} is built without CUDA: install one that is built with it",
    "busy or unavailable": "another process has it, and its compute mode lets in no other (nvidia-smi -q)",
    "out of memory": "its memory is full: nvidia-smi shows of whom",
    "ALLOC_FAILED": "its memory is full: nvidia-smi shows of whom",
    "system not yet initialized": "the service nvidia-fabricmanager is not running: start it",
    "driver combination": "its driver was updated under a running system: restart this machine, or container",
}
"""What to do, by a part of what CUDA and torch say."""


def check(device: str) -> None:
    """Multiply two small matrices on a device. Raises an AblateError that says why that cannot be done."""
    if device == "cpu":
        return
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of an old GPU is said in a sentence
            square = torch.ones(SIZE, SIZE, device=device)
            total = float((square @ square).sum())
    except Exception as error:  # RuntimeError, its relatives, and AssertionError where CUDA is not built in
        raise AblateError(describe(error)) from error
    if total != SIZE**3:
        raise AblateError(f"it computes wrongly: a sum that is {SIZE**3} came out as {total}")


def describe(error: BaseException) -> str:
    """Return in one sentence what an error of CUDA means, and what to do."""
    import torch

    said = printable(str(error).strip()) or type(error).__name__
    remedy = next((text for part, text in REMEDIES.items() if part in said), "torch cannot compute on it")
    kernels = ", ".join(torch.cuda.get_arch_list()) or "none"
    facts = {"torch": torch.__version__, "cuda": torch.version.cuda or "none", "kernels": kernels}
    return f"{remedy.format(**facts)} ({said.splitlines()[0]})"


def examine(names: Sequence[str], limit: float = LIMIT) -> dict[str, str]:
    """Check each GPU in a process of its own, all at once; return what is wrong, by name."""
    processes = {name: _start(name) for name in names}
    wrong = {}
    for name, process in processes.items():
        try:
            said, complaint = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=gpus.DYING)
            wrong[name] = f"it has not answered within {limit:.0f} s"
            continue
        try:
            sentence = json.loads(said)
        except ValueError:
            last = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            sentence = f"the process that tried it has failed ({printable(last)})"
        if sentence:
            wrong[name] = sentence
    return wrong


def _start(name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ablate.execution.preflight"],
        env=os.environ | {gpus.MASK: name}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def main() -> None:
    """Print as JSON what is wrong with the GPU that this process sees; an empty text where nothing is."""
    try:
        check("cuda")
    except AblateError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps(""))


if __name__ == "__main__":
    main()
