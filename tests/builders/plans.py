"""Studies of the digits, plans for them, and jobs in each state that a store may hold."""

from typing import Any

import record_files
from resolving import resolved

from ablate.planning import plan
from ablate.planning.plan import Plan
from ablate.recipe import identity
from ablate.recipe.fields import Evaluation
from ablate.store import files, job_folder
from ablate.store.layout import Store
from ablate.study import file as study_file
from ablate.study.file import Study
from ablate.study.grid import Job

IMAGES = 1000  # to train and validate on
STATES = (
    "missing",
    "begun",
    "trained",
    "judged",
    "half judged",
    "failed",
    "failed judging",
    "mended",
    "diverged",
)


def read(name: str = "x", **raw: Any) -> Study:
    """Two trainings a seed, each judged in two ways."""
    small = {
        "data": {"name": "digits", "train_size": IMAGES, "validation": 100},
        "model": {"name": "cnn4", "head_dropout": 0.5},
    }
    table: dict[str, Any] = {
        "name": name,
        "seeds": 2,
        "recipe": small | {"training": {"epochs": 10}},
        "factors": {"augment": {"rotation": [0, 15]}, "evaluation": {"mc_dropout": [0, 20]}},
    }
    return study_file.check(table | raw, "x.toml")


def make(loaded: Study, here: Store, **options: Any) -> Plan:
    return plan.make(resolved(loaded, here), **options)


def finish(here: Store, job: Job, *, status: str = "finished", epoch_seconds: float = 3.0) -> None:
    """Leave what a training leaves."""
    folder = here.job(job.id)
    job_folder.create(folder, job)
    metrics = {"train/loss": 0.1, "time/epoch_seconds": epoch_seconds}
    files.write_json(folder.result, record_files.result(status, train_images=900, metrics=metrics))


def judge(here: Store, job: Job, *evaluations: Evaluation) -> None:
    for evaluation in evaluations:
        judged = job.recipe.model_copy(update={"evaluation": evaluation})
        files.write_json(
            here.job(job.id).outcome(identity.evaluation_id(judged)) / "outcome.json",
            record_files.evaluation(
                evaluation=evaluation.model_dump(), seconds=0.5 * max(evaluation.mc_dropout, 1)
            ),
        )


def put(here: Store, job: Job, state: str) -> None:
    """Bring a job to a state."""
    folder = here.job(job.id)
    if state != "missing":
        job_folder.create(folder, job)
    if state == "begun":
        files.append(folder.attempts, record_files.attempt())
        files.append(folder.journal, record_files.epoch(1))
        files.write(folder.checkpoint, b"")
    if state in ("trained", "judged", "half judged", "failed judging", "mended"):
        finish(here, job)
    if state in ("judged", "mended"):
        judge(here, job, Evaluation(), Evaluation(mc_dropout=20))
    if state == "half judged":
        judge(here, job, Evaluation())
    if state in ("failed", "failed judging", "mended"):
        job_folder.fail(folder, kind="error", error="x")
    if state == "diverged":
        finish(here, job, status="diverged")
