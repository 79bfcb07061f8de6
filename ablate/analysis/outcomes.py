"""What the journals say about every run of a study. The report reads this, never MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ablate import descriptors
from ablate.errors import RefusedError
from ablate.recipe import metrics as scales
from ablate.store import files, job_folder, records
from ablate.store.job_folder import Folder
from ablate.store.job_state import JobState, state
from ablate.store.layout import Store
from ablate.store.records import Environment, Epoch, Evaluation
from ablate.study.grid import Run, evaluation_ids

Status = Literal["finished", "diverged", "at_chance", "crashed", "stopped", "running", "not_run"]
FAILED_RESULT: tuple[Status, ...] = ("diverged", "at_chance")
"""Ends that count as failed in a failure rate.

A run that has crashed is missing: it says nothing of its cell.
"""
NAMES: Mapping[Status, str] = {
    "finished": "done", "diverged": "diverged", "at_chance": "at chance", "crashed": "crashed",
    "stopped": "stopped", "running": "running", "not_run": "not run",
}  # fmt: skip
"""The one word for each, wherever people read it.

A stopped run was killed or interrupted, and resumes where it was.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of one run, and its metrics."""

    run: Run
    status: Status
    reason: str
    log: str  # path; empty where the job was never started
    metrics: dict[str, float]  # empty unless finished or at chance
    lines: tuple[Epoch, ...]  # of the epochs
    confusion: tuple[tuple[int, ...], ...]  # [true class][answer]; empty unless evaluated
    classes: tuple[str, ...]
    environment: dict[str, Any]
    calibration: tuple[tuple[int, float, float], ...] = ()
    """For each bin: images, mean confidence, share of right answers."""
    picture: str = ""  # path of the PNG of its most confident mistakes
    trained: bool = False  # to the end; the evaluation may be missing


@dataclass(frozen=True, slots=True)
class _Job:
    """What the folder of a job holds for all of its runs."""

    state: JobState
    lines: tuple[Epoch, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    log: str = ""


def read(runs: tuple[Run, ...], store: Store, *, whole: bool = True) -> tuple[Outcome, ...]:
    """Return the outcome of every run from the store; each job's folder is read once.

    Unless `whole`, without what only curves and tables of origins need: epochs, environments, logs, pictures.
    """
    of_job: dict[str, list[Run]] = {}
    for run in runs:
        of_job.setdefault(run.job_id, []).append(run)
    evaluations = evaluation_ids(runs)
    # Jobs of one commit share an environment: each may have a diff of 200 KB.
    environments: dict[bytes, dict[str, Any]] = {}
    outcomes: dict[tuple[str, int], Outcome] = {}
    for job_id, each in of_job.items():
        folder = store.job(job_id)
        ways = {evaluations[run.cell.id] for run in each}
        with descriptors.holding(folder.path):
            there = {way: job_folder.read_evaluation(folder, way) for way in ways}
            # Before what else is read: what ends meanwhile counts as running, not as never started.
            standing = state(folder, is_evaluated=None not in there.values())
            job = _read_job(folder, standing, environments) if whole else _Job(standing)
            for run in each:
                way = evaluations[run.cell.id]
                evaluation = there[way] or job_folder.read_evaluation(folder, way)
                outcomes[run.cell.id, run.seed] = _outcome(run, folder, job, way, evaluation, whole=whole)
    ordered = tuple(outcomes[run.cell.id, run.seed] for run in runs)
    return _without_start(ordered) if any(run.start for run in runs) else ordered


def _without_start(outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """Add why runs were not run: there are no weights to start from, and will be none."""
    ends = {outcome.run.job_id: outcome for outcome in outcomes}

    def reason(outcome: Outcome) -> str:
        before = ends.get(outcome.run.start)
        if outcome.status != "not_run" or before is None or before.trained:
            return ""
        if before.status in ("crashed", "diverged"):
            return f"it starts from the weights of {before.run.name}, which has {before.status}"
        return f"it starts from {before.run.name}, which was not run" if reason(before) else ""

    return tuple(replace(o, reason=words) if (words := reason(o)) else o for o in outcomes)


def _read_job(folder: Folder, standing: JobState, environments: dict[bytes, dict[str, Any]]) -> _Job:
    return _Job(
        state=standing,
        lines=tuple(job_folder.read_epochs(folder)),
        environment=_environment(folder, environments),
        log=str(folder.log) if folder.log.exists() else "",
    )


def _environment(folder: Folder, environments: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
    try:
        content = files.read(folder.environment)
    except (FileNotFoundError, RefusedError):
        content = b""
    if content not in environments:
        environments[content] = records.plain(records.parse_or_empty(content, Environment))
    return environments[content]


def _outcome(
    run: Run, folder: Folder, job: _Job, identity: str, evaluation: Evaluation | None, *, whole: bool
) -> Outcome:
    result, failure = job.state.result, job.state.failure
    status: Status = "not_run"
    reason, metrics = "", {}
    match job.state.stage(is_evaluated=evaluation is not None):
        case "diverged":
            status, reason = "diverged", result.reason if result else ""
        case "evaluated" if evaluation and result:
            status, reason = evaluation.end()
            metrics = result.metrics | scales.with_derived(evaluation.metrics, evaluation.confusion)
        case "crashed":
            status, reason = "crashed", failure.error if failure else ""
        case "running":
            status = "running"
        case "trained":
            reason = "trained, and not evaluated yet"
        case "stopped":
            status, reason = "stopped", _stopped(run, job.lines)
    picture = folder.outcome(identity) / "misclassified.png"
    return Outcome(
        run=run, status=status, reason=reason, log=job.log, metrics=metrics, lines=job.lines,
        confusion=evaluation.confusion if evaluation else (),
        classes=evaluation.classes if evaluation else (),
        calibration=evaluation.calibration if evaluation else (),
        picture=str(picture) if whole and evaluation and picture.exists() else "",
        environment=job.environment, trained=result is not None,
    )  # fmt: skip


def _stopped(run: Run, lines: tuple[Epoch, ...]) -> str:
    """Return where a job was when its process ended, and how it is resumed."""
    if not lines:
        return "stopped before the end of its first epoch; ablate run goes on from there"
    epochs = run.cell.recipe.training.epochs
    return f"stopped in epoch {lines[-1].epoch} of {epochs}; ablate run goes on from there"
