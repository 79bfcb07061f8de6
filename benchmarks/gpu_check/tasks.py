"""What the worker processes of these checks do: compute, fail as GPUs fail, hold memory."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablate.execution import attempt, memory, worker
from ablate.execution.executors.base import ENDS, Event, Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.store import tasks
from ablate.store.job_folder import Folder

Json = dict[str, Any]
Report = Callable[[Json], None]
Asked = Callable[[], bool]
PATIENCE = 120.0  # seconds for one task
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Call:
    """A task: one of the functions below, by the name `do`, or a job."""

    id: str
    payload: Json

    def to_json(self) -> Json:
        """Return the payload."""
        return self.payload


def slots(device: str, count: int) -> tuple[Slot, ...]:
    """Return so many slots of the first GPU, or of CPU cores."""
    if device == "cuda":
        return tuple(Slot("cuda:0", "cuda") for _ in range(count))
    return tuple(Slot(f"cpu:{i}", "cpu") for i in range(count))


def start(device: str, count: int) -> LocalExecutor:
    """Start workers as `ablate run` does."""
    from ablate.execution.crew import PRELOAD

    return LocalExecutor("benchmarks.gpu_check.tasks:run", slots(device, count), PRELOAD)


def hear(executor: LocalExecutor, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Collect events until there are enough, or for PATIENCE seconds."""
    heard: list[Event] = []
    end = time.monotonic() + PATIENCE
    while not enough(heard) and time.monotonic() < end:
        heard += executor.events(0.1)
    return heard


def ask(executor: LocalExecutor, *calls: Call, exclusive: bool = False) -> list[Event]:
    """Let workers do some tasks; return how each ended."""
    for call in calls:
        executor.submit(call, exclusive=exclusive)
    heard = hear(executor, lambda heard: sum(event.kind in ENDS for event in heard) >= len(calls))
    return [event for event in heard if event.kind in ENDS]


def run(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Do what a payload says: a function of this module, or a task of the store."""
    if "do" not in payload:
        task = tasks.from_json(payload)
        assert isinstance(task, tasks.TrainTask)
        return worker.run_job(task, report, should_stop)
    device = torch.device(payload["device"])
    with attempt.accounted(Folder(Path(payload["folder"])), payload["device"]), memory.shared(device, 1):
        return {"pid": os.getpid()} | DO[payload["do"]](payload, device, report)


def _multiply(_payload: Json, device: torch.device, _report: Report) -> Json:
    square = torch.ones(64, 64, device=device)
    return {"sum": float((square @ square).sum())}


def _break(_payload: Json, device: torch.device, _report: Report) -> Json:
    """Lose the context: an index that is out of bounds is an assertion on the device."""
    if device.type == "cpu":
        os.abort()
    torch.zeros(4, device=device)[torch.tensor([99], device=device)].sum().item()
    return {}


def _spin(_payload: Json, device: torch.device, report: Report) -> Json:
    held = torch.ones(4096, 1024, device=device)
    report({"pid": os.getpid()})
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        held = held * 1.0001
        if device.type == "cuda":
            torch.cuda.synchronize()
        report({})
    return {}


def _take(payload: Json, device: torch.device, _report: Report) -> Json:
    """Take so many MiB, of which torch keeps the blocks as its cache."""
    held = torch.ones(payload["mib"] * MIB // 4, device=device)
    return {"sum": float(held[:10].sum())}


DO: dict[str, Callable[[Json, torch.device, Report], Json]] = {
    "multiply": _multiply,
    "break": _break,
    "spin": _spin,
    "take": _take,
}
