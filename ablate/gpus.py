"""The GPUs that this process may use, as CUDA counts them, found without torch: `ablate plan` must be quick.

The driver is asked, in a process with a time limit; where its library cannot be loaded, nvidia-smi is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ablate import driver
from ablate.messages import printable, show

MASK = "CUDA_VISIBLE_DEVICES"
HIDDEN = re.compile(r"\s*(-\d.*|NoDevFiles)?\s*")  # masks by which somebody says: none. The last is Slurm's
TRACES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvhost-gpu", "/dev/nvgpu")  # the last: of a Jetson
WINDOWS = "/dev/dxg"  # in Linux inside Windows: some GPU, of whatever maker
DRIVER_LIMIT = 60.0  # seconds: 1-8 are usual for each GPU without persistence mode
TOOL_LIMIT = 20.0
DYING = 1.0  # seconds for a killed process to go: one that hangs in the driver never does
QUERY = "--query-gpu=uuid,name,compute_cap,memory.total,compute_mode"
AMD = "/dev/kfd"
UNUSABLE = "there is a GPU that cannot be used"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of one."""

    name: str  # GPU-<uuid> or MIG-<uuid>: CUDA_VISIBLE_DEVICES takes it, whatever the order of the others
    model: str
    capability: tuple[int, int]  # (0, 0): not known
    memory: int  # bytes
    is_exclusive: bool = False  # takes one process at a time: compute mode EXCLUSIVE_PROCESS


@dataclass(frozen=True, slots=True)
class Survey:
    """The GPUs that may be used, and why none can be, where there are some all the same."""

    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""


@cache
def survey() -> Survey:
    """Return the GPUs that CUDA gives this process, in CUDA's order."""
    mask = os.environ.get(MASK)
    if is_hidden() or not _may_have_any():
        return Survey()
    names = [name.strip() for name in (mask or "").split(",")]
    if len(names) > 1 and all(name.startswith("MIG-") for name in names):
        return _each(names)  # CUDA gives a process one instance only
    answer = _driver(mask)
    instances = [gpu for gpu in answer.gpus if gpu.name.startswith("MIG-")]
    listed = [gpu.name for card in _listing() for gpu in card[1:]] if instances and mask is None else []
    if len(listed) > 1:
        whole = tuple(gpu for gpu in answer.gpus if gpu not in instances)
        return Survey(whole + _each(listed).gpus)
    return answer


def _may_have_any() -> bool:
    """Whether asking is worth a process: there is a trace of a driver, or its tool."""
    return any(Path(trace).exists() for trace in (*TRACES, WINDOWS)) or shutil.which("nvidia-smi") is not None


def is_hidden() -> bool:
    """Whether the mask says that no GPU shall be used."""
    return HIDDEN.fullmatch(os.environ.get(MASK, "all")) is not None


def _each(names: Iterable[str]) -> Survey:
    """Ask for MIG instances one by one; as in CUDA, what stands after a wrong name does not count."""
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(_driver, names))
    gpus: tuple[Gpu, ...] = ()
    for answer in answers:
        if not answer.gpus:
            return answer if not gpus else Survey(gpus)
        gpus += answer.gpus
    return Survey(gpus)


def _driver(mask: str | None) -> Survey:
    """Ask the driver for what it shows to a process with such a mask; none: without one."""
    environment = {name: value for name, value in os.environ.items() if name != MASK}
    if mask is not None:
        environment[MASK] = mask
    command = [sys.executable, "-I", "-S", driver.__file__]
    said, why = _run(command, DRIVER_LIMIT, environment)
    try:
        answer = json.loads(said)
    except ValueError:
        return _unusable(f"the driver {why or 'has ended the process that asked it'}")
    if answer["state"] == "missing":
        return _tool(mask, answer["error"])
    gpus = tuple(_gpu(row) for row in answer.get("gpus", ()) if row["mode"] != "prohibited")
    if gpus:
        return Survey(gpus)
    if answer.get("gpus"):
        return _unusable('their compute mode is "prohibited" (nvidia-smi -c DEFAULT allows it)')
    if mask is not None and answer["state"] != "broken":
        return _unusable(f"{MASK} = {show(mask)} names none of them")
    return _unusable(answer.get("error", "the driver lists none"))


def _gpu(row: dict[str, Any]) -> Gpu:
    major, minor = row["capability"]
    return Gpu(row["name"], row["model"], (major, minor), row["memory"], row["mode"] == "exclusive")


def _unusable(why: str) -> Survey:
    """Return that no GPU can be used, which is nothing to tell of where there is none."""
    is_there = any(Path(trace).exists() for trace in TRACES) or bool(_listing())
    return Survey(trouble=printable(why)) if is_there else Survey()


def _tool(mask: str | None, missing: str) -> Survey:
    """Take what nvidia-smi lists, and the mask as CUDA takes it: up to the first entry that is none."""
    cards = _listing()
    if not cards:
        return _unusable(f"CUDA's library cannot be loaded ({missing}), and nvidia-smi {_refusal()}")
    if mask is None:
        return Survey(tuple(gpu for card in cards for gpu in (card[1:] or card)))
    gpus: dict[Gpu, None] = {}
    for name in mask.split(","):
        gpu = _named(name.strip(), cards)
        if gpu is None or gpu in gpus:
            break
        gpus[gpu] = None
    return Survey(tuple(gpus)) if gpus else _unusable(f"{MASK} = {show(mask)} names none of them")


def _named(name: str, cards: tuple[tuple[Gpu, ...], ...]) -> Gpu | None:
    """Return the GPU of an entry of a mask: an index, the beginning of a UUID, an instance."""
    if name.isdecimal():
        return (cards[int(name)][1:] or cards[int(name)])[0] if int(name) < len(cards) else None
    if not name.startswith(("GPU-", "MIG-")):
        return None
    matching = [gpu for card in cards for gpu in card if gpu.name.startswith(name)]
    return matching[0] if len(matching) == 1 else None


@cache
def _listing() -> tuple[tuple[Gpu, ...], ...]:
    """Return the cards that nvidia-smi lists, each with its MIG instances after it."""
    cards: list[list[Gpu]] = []
    for line in _asked(QUERY, "--format=csv,noheader,nounits")[0].splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 5:
            name, model, capability, memory, mode = parts
            numbers = re.fullmatch(r"(\d+)\.(\d+)", capability)
            pair = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
            size = int(memory) * 2**20 if memory.isdecimal() else 0
            cards.append([Gpu(name, model, pair, size, mode.lower().startswith("exclusive"))])
    card: list[Gpu] = []
    for line in _asked("-L")[0].splitlines() if cards else ():
        name = (re.findall(r"\(UUID: ([^)]+)\)", line) or [""])[0]
        card = next((other for other in cards if other[0].name == name), card)
        if name.startswith("MIG-") and card:
            profile = " ".join(line.split("Device")[0].split())
            card.append(replace(card[0], name=name, model=f"{card[0].model} {profile}", memory=0))
    return tuple(map(tuple, cards))


def _refusal() -> str:
    """Return in words why nvidia-smi lists nothing."""
    return _asked(QUERY, "--format=csv,noheader,nounits")[1] or "lists none"


@cache
def _asked(*arguments: str) -> tuple[str, str]:
    """Return what nvidia-smi says, and else why it says nothing."""
    if shutil.which("nvidia-smi") is None:
        return "", "is not on PATH"
    return _run(["nvidia-smi", *arguments], TOOL_LIMIT)


def _run(command: list[str], limit: float, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """Return what a command prints or, in words, why it prints nothing; wait no longer than `limit`."""
    try:
        process = subprocess.Popen(  # noqa: S603
            command, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        return "", f"cannot be started ({error.strerror})"
    try:
        said, complaint = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(DYING)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        return "", f"has not answered within {limit:.0f} s"
    if process.returncode == 0:
        return said, ""
    first = next(iter((complaint.strip() or said.strip()).splitlines()), f"exit code {process.returncode}")
    return "", f"has failed ({first})"


def clear() -> None:
    """Forget what was found: the environment has changed."""
    for cached in (survey, _listing, _asked):
        cached.cache_clear()


def passed_over() -> str:
    """Return a sentence on a GPU of another maker, which is there and not used; empty where there is none."""
    if sys.platform == "darwin" and os.uname().machine == "arm64":
        return "this Mac's GPU (mps) is not used: jobs train on the CPU"
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
    if "rocm" in version and Path(AMD).exists():
        return f"the AMD GPU is not used, though torch {version} could: jobs train on NVIDIA GPUs or the CPU"
    return ""
