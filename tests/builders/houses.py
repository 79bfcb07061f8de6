"""Folders of jobs beside decoded digits, and jobs that run in this very process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.recipe import identity
from ablate.recipe.fields import Augment, Data, Evaluation, Model, Optimizer, Recipe, Training
from ablate.store import files as store_files
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.store.tasks import Context, TrainTask
from ablate.study.grid import Job

PLAIN, MC, BEST = Evaluation(), Evaluation(mc_dropout=2), Evaluation(select="best_validation")
DIGITS = Data(name="digits", image_size=16, train_size=100, validation=20)
EVERY_DRAW = Recipe(  # every stream of random numbers is in use
    data=DIGITS,
    augment=Augment(crop="random_crop", padding=2, flip=True, rotation=15),
    model=Model(name="cnn4", width=0.25, conv_dropout=0.1, head_dropout=0.3),
    optimizer=Optimizer(lr=0.02),
    training=Training(epochs=3, batch_size=16, precision="fp32"),
)


@dataclass(frozen=True)
class House:
    """A folder for jobs, beside decoded digits."""

    path: Path
    digits: Path

    def folder(self, name: str, made: Recipe = EVERY_DRAW) -> Folder:
        folder = Folder(self.path / name)
        job_folder.create(folder, Job(identity.job_id(made, 0, self.digits.name), made, 0, self.digits.name))
        return folder

    def task(self, folder: Folder, *evaluations: Evaluation, **context: Any) -> TrainTask:
        """Return the task of a job, evaluated once if nothing else is said."""
        return TrainTask(
            context=Context(git={"commit": "abc"}, **context), folder=folder.path, data=self.digits,
            job=store_files.read_json(folder.recipe)["job"], evaluations=evaluations or (PLAIN,),
        )  # fmt: skip

    def payload(self, folder: Folder, *evaluations: Evaluation, **more: Any) -> dict[str, Any]:
        """Return that task as what a worker gets, with more values for the functions in trainings.py."""
        return self.task(folder, *evaluations).to_json() | more


def run_here(payload: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a job in this very process."""
    import trainings

    heard: list[dict[str, Any]] = []
    result = trainings.run_job(payload, heard.append, lambda: False)
    return result, [detail for detail in heard if detail]  # the others are signs of life


def left(folder: Folder) -> dict[str, Any]:
    """Read all that a job has found out: everything but times."""
    result = store_files.read_json(folder.result)
    result.pop("timestamp")
    assert result.pop("peak_memory") > 1e6
    result["metrics"] = {
        name: value for name, value in result["metrics"].items() if not name.startswith("time/")
    }
    lines = [
        {"epoch": line["epoch"], "metrics": line["metrics"]} for line in store_files.lines(folder.journal)
    ]
    outcomes: dict[str, Any] = {}
    for path in sorted((folder.path / "outcomes").rglob("*")):
        if path.name == "outcome.json":
            outcome = store_files.read_json(path)
            outcomes[path.parent.name] = {
                key: part for key, part in outcome.items() if key not in ("timestamp", "seconds")
            }
        elif path.is_file() and not path.name.startswith("."):
            outcomes[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    weights = {
        select: folder.weights(select).read_bytes()
        for select in ("last", "best_validation")
        if folder.weights(select).exists()
    }
    return {
        "result": json.dumps(result),
        "lines": json.dumps(lines),
        "outcomes": outcomes,
        "weights": weights,
    }
