"""Calls of the functions of jobs.py, handed to an executor, and the events that it answers with."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import stands_still

from ablate.execution.executors.base import ENDS, Event, Executor, Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.executors.process import Process

DEADLINE = 300.0  # seconds: generous, since the machine may be busy with other things
TERMINAL = ENDS


def cpus(count: int) -> tuple[Slot, ...]:
    return tuple(Slot(f"cpu:{i}", "cpu") for i in range(count))


@dataclass(frozen=True)
class Call:
    """A task of these tests: `jobs.run` does what its values say."""

    id: str
    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.values


def task(name: str, do: str, **values: Any) -> Call:
    return Call(name, {"do": do} | values)


def hear(executor: Executor, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Collect events until there are enough."""
    heard: list[Event] = []
    end = time.monotonic() + DEADLINE
    while not enough(heard):
        assert time.monotonic() < end, f"heard only {heard}"
        heard += executor.events(0.1)
    return heard


def run_all(executor: Executor, tasks: list[Call]) -> list[Event]:
    """Run tasks to their ends, each as soon as a slot is free."""
    waiting, heard = list(tasks), []
    end = time.monotonic() + DEADLINE
    while waiting or sum(event.kind in TERMINAL for event in heard) < len(tasks):
        assert time.monotonic() < end, f"{waiting} never ran, heard only {heard}"
        while waiting and executor.free():
            executor.submit(waiting.pop(0))
        heard += executor.events(0.1)
    return heard


def ended(count: int) -> Callable[[list[Event]], bool]:
    return lambda heard: sum(event.kind in TERMINAL for event in heard) >= count


def running(count: int) -> Callable[[list[Event]], bool]:
    """Wait until so many tasks have said their process id."""
    return lambda heard: sum(event.kind == "progress" for event in heard) >= count


def kinds(heard: list[Event], name: str) -> list[str]:
    return [event.kind for event in heard if event.task == name]


def the(heard: list[Event], kind: str) -> Event:
    found = [event for event in heard if event.kind == kind]
    assert len(found) == 1, heard
    return found[0]


def pids(heard: list[Event]) -> set[int]:
    return {event.detail["pid"] for event in heard if "pid" in event.detail}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return (
            not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
        )  # a zombie runs no more
    except (ProcessLookupError, FileNotFoundError):
        return False


class Undying(Process):
    """A process that no signal ends while it stands still, as one that hangs in a driver.

    Nothing else can be done to a process of a test that is like it.
    """

    def kill(self) -> None:
        assert self.pid is not None
        if not stands_still(self.pid):
            super().kill()


class Hanging(LocalExecutor):
    """An executor whose processes hang for good once they stand still."""

    process = Undying


def wait_until_gone(processes: set[int]) -> None:
    assert processes
    end = time.monotonic() + DEADLINE
    while left := {pid for pid in processes if is_alive(pid)}:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.02)
