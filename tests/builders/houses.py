"""Folders of jobs beside decoded digits, and jobs that run in this very process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.recipe import identity
from ablate.recipe.fields import Augment, Data, Evaluation, Model, Optimizer, Recipe, Training
from ablate.store import files as store_files
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.study.grid import Job

PLAIN, MC, BEST = Evaluation(), Evaluation(mc_dropout=2), Evaluation(select="best_validation")
DIGITS = Data(name="digits", image_size=16, train_size=100, validation=20)
EVERY_DRAW = Recipe(  # every stream of random numbers is in use
    data=DIGITS,
    augment=Augment(crop="random_crop", padding=2, flip=True, rotation=15),
    model=Model(name="cnn4", conv_dropout=0.1, head_dropout=0.3),
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

    def payload(self, folder: Folder, *evaluations: Evaluation, **more: Any) -> dict[str, Any]:
        ways = [evaluation.model_dump() for evaluation in evaluations or (PLAIN,)]
        job = store_files.read_json(folder.recipe)["job"]
        return {"folder": str(folder.path), "job": job, "data": str(self.digits), "evaluations": ways, "git": {"commit": "abc"}} | more


def run_here(payload: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a job in this very process."""
    from ablate.execution.worker import run_job

    heard: list[dict[str, Any]] = []
    result = run_job(payload | {"device": "cpu"}, heard.append, lambda: False)
    return result, [detail for detail in heard if detail]  # the others are signs of life
