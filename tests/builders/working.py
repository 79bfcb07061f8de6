"""Jobs that are handed to real workers, and how they end."""

import time
from collections.abc import Callable
from typing import Any

from houses import EVERY_DRAW
from trainings import Call

from ablate.execution.executors.base import ENDS, Event
from ablate.execution.executors.local import LocalExecutor
from ablate.store import files as store_files
from ablate.store.job_folder import Folder

DEADLINE = 300.0
EPOCHS = EVERY_DRAW.training.epochs


def hear(executor: LocalExecutor, enough: Callable[[list[Event]], bool]) -> list[Event]:
    heard: list[Event] = []
    end = time.monotonic() + DEADLINE
    while not enough(heard):
        assert time.monotonic() < end, f"heard only {heard}"
        heard += executor.events(0.1)
    return heard


def run_all(executor: LocalExecutor, payloads: dict[str, dict[str, Any]]) -> dict[str, Event]:
    """Run jobs to their ends; return how each ended."""
    waiting, ends = list(payloads.items()), {}
    end = time.monotonic() + DEADLINE
    while len(ends) < len(payloads):
        assert time.monotonic() < end, f"ended only {ends}"
        while waiting and executor.free():
            executor.submit(Call(*waiting.pop(0)))
        ends |= {event.task: event for event in executor.events(0.1) if event.kind in ENDS}
    return ends


def run_one(executor: LocalExecutor, payload: dict[str, Any]) -> Event:
    return run_all(executor, {"job": payload})["job"]


def attempts(folder: Folder) -> list[int]:
    return [line["attempt"] for line in store_files.lines(folder.attempts)]
