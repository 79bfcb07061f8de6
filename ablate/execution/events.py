"""What happens while a command works, as its observers hear it: the terminal, MLflow's writer, any other.

An event is a frozen value of plain fields, so that it can also be written as JSON and sent elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablate.execution.executors import base


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for whoever watches."""

    text: str


@dataclass(frozen=True, slots=True)
class StageStarted:
    """Range tests, searches or the grid begin, with so many tasks."""

    what: str
    tasks: int


@dataclass(frozen=True, slots=True)
class StageEnded:
    """No task of the stage runs any more, whether all of it was done or not."""


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """An attempt of a task has a slot."""

    task: str
    name: str
    slot: str


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """A training has come to the end of an epoch."""

    task: str
    name: str
    epoch: int
    epochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RateTested:
    """A range test has come to the next learning rate."""

    task: str
    name: str
    rate: int
    rates: int


@dataclass(frozen=True, slots=True)
class EvaluationStarted:
    """A network that was trained before is evaluated."""

    task: str
    name: str


@dataclass(frozen=True, slots=True)
class TaskElsewhere:
    """Another process trains a task's job, or has trained it: in words."""

    task: str
    name: str
    who: str


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The process of a task has died, or could not write: the task is tried again, or a TaskEnded follows."""

    task: str
    name: str
    end: str
    error: str


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task has ended: no event of it follows."""

    task: str
    name: str
    end: Literal["finished", "failed", "stopped"]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Updated:
    """The store has something new of a job, a search or a range test, by its identity."""

    id: str


Event = (
    Notice | StageStarted | StageEnded | TaskStarted | EpochEnded | RateTested | EvaluationStarted
    | TaskElsewhere | AttemptLost | TaskEnded | Updated
)  # fmt: skip
Observer = Callable[[Event], None]
"""Hears every event, one at a time, not always from the same thread; what it raises ends the command."""


def of_task(event: base.Event, name: str) -> Event | None:
    """Return an executor's news of a task as an event, with the task's `name` for people; None if none."""
    match event.kind:
        case "started":
            return TaskStarted(event.task, name, event.slot)
        case "progress":
            return _progress(event.task, name, event.detail)
        case "finished" | "failed" | "stopped":
            return TaskEnded(event.task, name, event.kind, event.error)
        case "left":
            return None
        case end if end in base.ENDS:
            return AttemptLost(event.task, name, end, event.error)
    return None


def _progress(task: str, name: str, detail: Mapping[str, Any]) -> Event | None:
    """Return the event for what a worker reports of its task; None where it is only alive."""
    match detail:
        case {"notice": text}:
            return Notice(text)
        case {"elsewhere": who}:
            return TaskElsewhere(task, name, str(who))
        case {"evaluating": _}:
            return EvaluationStarted(task, name)
        case {"rate": rate, "rates": rates}:
            return RateTested(task, name, rate, rates)
        case {"epoch": epoch, "epochs": epochs, "metrics": metrics}:
            return EpochEnded(task, name, epoch, epochs, metrics)
    return None
