"""One task of a file, run in this process: what job arrays of Slurm and Kubernetes call on every node."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import AblateError
from ablate.execution.executors import devices, server
from ablate.execution.executors.base import Json, Kind, run_here
from ablate.recipe import identity
from ablate.store import files, tasks
from ablate.store.job_folder import Folder
from ablate.store.tasks import ProbeTask, RangeTask, TrainTask


@dataclass(frozen=True, slots=True)
class Ended:
    """How one task ended."""

    task: str
    name: str  # in words
    kind: Kind
    status: str  # of its result: finished or diverged; empty where there is none
    error: str


def run(
    path: Path, index: int, device: str, notice: Callable[[str], None], should_stop: Callable[[], bool]
) -> Ended:
    """Run one task of a file to its end, or to the next epoch after `should_stop`.

    `notice` hears that another process has the task, which is waited for. Raises an AblateError where the
    file has no such task, or the task's folder is not there.
    """
    task = tasks.read(path, index)
    if isinstance(task, ProbeTask):
        raise AblateError(f"{path}: task {index} is a probe, which has no end of its own: choose another")
    if isinstance(task, TrainTask) and not files.is_there(Folder(task.folder).recipe):
        raise AblateError(
            f"{task.folder}: has no recipe.json: is the store mounted under the same path here?"
        )
    slot = devices.slots(device, 1)[0]
    for name, value in (server.environment(slot.device) | dict(slot.environment)).items():
        os.environ.setdefault(name, value)
    from ablate.execution import preflight, worker  # torch, which reads its environment once

    preflight.check(slot.device)

    def report(detail: Json) -> None:
        if "elsewhere" in detail:
            notice(f"{_name(task)}: {detail['elsewhere']}")

    kind, result, error = run_here(worker.work, task.to_json() | {"device": slot.device}, report, should_stop)
    return Ended(task.id, _name(task), kind, str(result.get("status", "")), error)


def _name(task: TrainTask | RangeTask) -> str:
    if isinstance(task, TrainTask):
        return f"job {task.job[: identity.ID_SHOWN]}"
    return f"range test {task.test[: identity.ID_SHOWN]}, seed {task.seed}"
