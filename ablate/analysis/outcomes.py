"""What the journals say about every run of a study. The report reads this, never MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ablate.recipe import chance
from ablate.recipe import identity as identities
from ablate.store import files, job_folder
from ablate.store.layout import Store
from ablate.study.grid import Run

Status = Literal["finished", "diverged", "at_chance", "crashed", "stopped", "running", "not_run"]
FAILED_RESULT: tuple[Status, ...] = ("diverged", "at_chance")
"""Ends that count as failed in a failure rate. A run that has crashed is missing: it says nothing of its cell."""
NAMES: Mapping[Status, str] = {
    "finished": "done", "diverged": "diverged", "at_chance": "at chance", "crashed": "crashed", "stopped": "stopped", "running": "running",
    "not_run": "not run",
}  # fmt: skip
"""The one word for each, wherever people read it; `stopped` was killed or interrupted, and goes on where it was."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run."""

    run: Run
    status: Status
    reason: str
    log: str  # path; empty where the job was never started
    metrics: dict[str, float]  # empty unless finished or at chance
    lines: tuple[files.Line, ...]  # of the epochs
    confusion: tuple[tuple[int, ...], ...]  # [true class][answer]; empty unless judged
    classes: tuple[str, ...]
    environment: dict[str, Any]
    calibration: tuple[tuple[int, float, float], ...] = ()  # a bin each: images, mean confidence, share that was right
    picture: str = ""  # path of the PNG of its most confident mistakes
    trained: bool = False  # to the end; it may still have to be judged


def read(runs: tuple[Run, ...], store: Store) -> tuple[Outcome, ...]:
    """Read what the store knows of every run; each job's folder is read once."""
    jobs: dict[str, dict[str, Any]] = {}
    environments: dict[str, dict[str, Any]] = {}  # jobs of one commit share one: each may have a diff of 200 KB
    found = []
    for run in runs:
        if run.job_id not in jobs:
            known = jobs[run.job_id] = _read_job(store, run.job_id)
            known["environment"] = environments.setdefault(str(known["environment"]), known["environment"])
        found.append(_outcome(run, store, jobs[run.job_id]))
    return tuple(found)


def _read_job(store: Store, identity: str) -> dict[str, Any]:
    folder = store.job(identity)
    running = job_folder.is_running(folder)  # first: what ends while it is read counts as running, not as never started
    result = files.read_json(folder.result)
    failure = files.read_json(folder.failure) if result is None or result["status"] == "finished" else None
    return {
        "result": result,
        "failure": failure,
        "lines": tuple(files.lines(folder.journal)),
        "environment": files.read_json(folder.path / "environment.json") or {},
        "log": str(folder.log) if folder.log.exists() else "",
        "running": failure is None and running,
        "begun": folder.attempts.exists() or folder.journal.exists(),
    }


def _outcome(run: Run, store: Store, job: dict[str, Any]) -> Outcome:
    folder = store.job(run.job_id).outcome(identities.evaluation_id(run.cell.recipe))
    judged = files.read_json(folder / "outcome.json") or {}
    result = job["result"] or {}
    status, reason, metrics = "not_run", "", {}
    if result.get("status") == "diverged":
        status, reason = "diverged", result["reason"]
    elif result and judged:
        (status, reason), metrics = chance.status(judged), result["metrics"] | judged["metrics"]
    elif job["failure"]:
        status, reason = "crashed", job["failure"]["error"]
    elif job["running"]:
        status = "running"
    elif result:
        reason = "trained, and not judged yet"
    elif job["begun"]:
        status, reason = "stopped", _stopped(run, job["lines"])
    confusion = tuple(tuple(row) for row in judged.get("confusion", ()))
    calibration = tuple((count, confidence, right) for count, confidence, right in judged.get("calibration", ()))
    picture = folder / "misclassified.png"
    return Outcome(
        run=run, status=cast("Status", status), reason=reason, log=job["log"], metrics=metrics, lines=job["lines"], confusion=confusion,
        classes=tuple(judged.get("classes", ())), calibration=calibration, picture=str(picture) if judged and picture.exists() else "",
        environment=job["environment"], trained=bool(result),
    )  # fmt: skip


def _stopped(run: Run, lines: tuple[files.Line, ...]) -> str:
    """Return where a job was when its process ended, and that nothing is lost."""
    where = f"in epoch {lines[-1]['epoch']} of {run.cell.recipe.training.epochs}" if lines else "before the end of its first epoch"
    return f"stopped {where}; ablate run goes on from there"
