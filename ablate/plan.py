"""What is left to do: jobs less what the store has, how long it may take, and what is known already."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate import grid, journal
from ablate import recipe as recipes
from ablate import tuning as tunings
from ablate.grid import Grid, Job, Run
from ablate.journal import Folder
from ablate.recipe import Data, Evaluation, Model, Recipe
from ablate.store import Store
from ablate.study import Study
from ablate.tuning import Tuning

IMAGES_A_SECOND = {
    "baseline_cnn": 3500.0, "cnn4": 2100.0, "resnet_small": 1000.0, "resnet9": 180.0, "depthwise_dilated": 400.0, "resnet18": 100.0,
    "fusion": 100.0,
}  # fmt: skip
"""Trained on one CPU thread at 32x32 in bf16, with crop and flip (2 cores of a Xeon with AMX): a first guess, no more."""


@dataclass(frozen=True, slots=True)
class Work:
    """One task: train the job if it is not trained, then judge it in the ways that are missing."""

    job: Job
    evaluations: tuple[Evaluation, ...]
    trained: bool

    @property
    def id(self) -> str:
        """Name its task after the job."""
        return self.job.id

    def folder(self, store: Store) -> Folder:
        """Name the folder of the job."""
        return store.job(self.job.id)

    def payload(self, store: Store) -> dict[str, Any]:
        """Give what a worker needs, once the job's folder says what is trained."""
        folder = self.folder(store)
        journal.create(folder, self.job)
        evaluations = [evaluation.model_dump() for evaluation in self.evaluations]
        return {"folder": str(folder.path), "job": self.job.id, "data": str(store.data / self.job.data), "evaluations": evaluations}


@dataclass(frozen=True, slots=True)
class Cost:
    """A guess at the time of the work, in seconds of one slot, and what it goes by."""

    seconds: float
    basis: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A study against a store."""

    study: Study
    grid: Grid
    runs: tuple[Run, ...]
    jobs: tuple[Job, ...]
    work: tuple[Work, ...]
    failed: tuple[Job, ...]  # failed before, left alone unless asked for
    cost: Cost | None  # none: nothing to go by
    tuning: Tuning
    trials: int  # trainings that searches still need
    renumbered: Mapping[int, int] = field(default_factory=dict)  # jobs to train that an older version has trained, by its NUMERICS

    @property
    def ready(self) -> tuple[Work, ...]:
        """List the work that can be done now: not that of cells whose fields are still to be found."""
        return tuple(work for work in self.work if not work.job.pending)

    @property
    def trainings(self) -> int:
        """Count the jobs that will be trained."""
        return sum(not work.trained for work in self.work)

    @property
    def done(self) -> int:
        """Count the jobs for which nothing is left to do."""
        return len(self.jobs) - len(self.work) - len(self.failed)

    @property
    def evaluation_only(self) -> int:
        """Count the cells that need no training of their own: they share another cell's."""
        known = [cell for cell in self.grid.cells if not cell.pending]
        return len(known) - len({recipes.job_id(cell.recipe, 0, "") for cell in known})

    @property
    def trained_again(self) -> tuple[str, ...]:
        """Say in a sentence for each older numerics version that its jobs are trained again, and why."""
        return tuple(
            f"{count} of the {self.trainings} jobs to train {'was' if count == 1 else 'were'} trained under numerics {version} and "
            f"{'is' if count == 1 else 'are'} trained again: numbers of this version ({recipes.NUMERICS}) differ"
            for version, count in sorted(self.renumbered.items())
        )


def make(
    study: Study,
    tuning: Tuning,
    store: Store,
    fingerprint: Callable[[Data], str],
    code: Callable[[Model], str] = lambda _: "",
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare what a study needs with what its store has; `fingerprint` and `code`: see `grid.runs_and_jobs`."""
    expanded = tuning.grid
    runs, jobs = grid.runs_and_jobs(expanded, study.seeds, fingerprint, code)
    wanted: dict[str, dict[str, Evaluation]] = {}
    for run in runs:
        wanted.setdefault(run.job_id, {})[recipes.evaluation_id(run.cell.recipe)] = run.cell.recipe.evaluation
    work, failed = [], []
    for job in jobs:
        folder = store.job(job.id)
        result = journal.read_json(folder.result)
        missing = _missing(store, job, wanted[job.id]) if result is None or result["status"] == "finished" else ()
        if result is not None and not missing:
            continue
        if folder.failure.exists() and not retry_failed:
            failed.append(job)
        else:
            work.append(Work(job, missing, trained=result is not None))
    trials = tunings.left(tuning, study.search, store)
    todo = [*((item.job.recipe, item.job.data, 1) for item in work if not item.trained), *trials]
    cost = _cost(todo, store)
    known = sum(count for _, _, count in trials)
    renumbered = _renumbered({item.job.id for item in work if not item.trained}, store)
    return Plan(study, expanded, runs, jobs, tuple(work), tuple(failed), cost, tuning, known, renumbered)


def _missing(store: Store, job: Job, wanted: dict[str, Evaluation]) -> tuple[Evaluation, ...]:
    folder = store.job(job.id)
    return tuple(e for identity, e in wanted.items() if not (folder.outcome(identity) / "outcome.json").exists())


def _renumbered(wanted: set[str], store: Store) -> dict[int, int]:
    """Count the jobs among these that were trained under another numerics version, for each version."""
    found: dict[str, int] = {}
    for path in (store.path / "jobs").glob("*/recipe.json") if wanted else ():
        try:
            text = path.read_text(encoding="utf-8")
            if f'"numerics": {recipes.NUMERICS},' in text:  # nearly all of them: a glance is enough
                continue
            known = json.loads(text)
            made, seed = journal.read_recipe(path)
            identity = recipes.job_id(made, seed, known["data"], known.get("code", ""))
        except (OSError, KeyError, TypeError, ValueError):  # gone meanwhile, spoilt, or with fields that this version does not have
            continue
        if identity in wanted and known["numerics"] != recipes.NUMERICS and path.with_name("result.json").exists():
            found[identity] = max(known["numerics"], found.get(identity, 0))
    return dict(Counter(found.values()))


def _cost(todo: list[tuple[Recipe, str, int]], store: Store) -> Cost | None:
    """Guess by finished jobs of the same network and image size, else by the speed of the network elsewhere.

    The time to judge is not counted: with MC dropout on a large test set it can be longer than a short training.
    """
    if not todo:
        return None
    seen: dict[tuple[object, ...], list[float]] = {}
    for kind, speed in _speeds(store):
        seen.setdefault(kind, []).append(speed)
    total, guessed = 0.0, False
    for recipe, fingerprint, count in todo:
        speeds = seen.get(like(recipe))
        guessed |= speeds is None
        images = _train_images(recipe, store, fingerprint)
        expected: float | None = statistics.median(speeds) if speeds else _guess(recipe)
        if expected is None or images is None:
            return None  # a network that was never trained here, or images that were never counted
        total += count * recipe.training.epochs * images / expected
    return Cost(total, "a guess from the network's usual speed" if guessed else "from finished jobs like these")


def like(recipe: Recipe) -> tuple[object, ...]:
    """Name what decides the speed of a training, near enough: the network, the size of the images and the precision."""
    model = recipe.model
    network = (model.name, model.stem, model.width, model.trainable, model.batch_norm, model.conv_dropout > 0)
    return (*network, recipe.data.image_size, recipe.training.precision)


def _guess(recipe: Recipe) -> float | None:
    model = recipe.model
    if model.name not in IMAGES_A_SECOND or (model.trainable, model.width, model.stem) != ("all", 1.0, "cifar"):
        return None
    scale = (32 / recipe.data.image_size) ** 2
    slower = (2.0 if recipe.training.precision == "fp32" else 1.0) * (1.5 if recipe.model.conv_dropout > 0 else 1.0)
    return IMAGES_A_SECOND[recipe.model.name] * scale / slower


def _speeds(store: Store) -> Iterator[tuple[tuple[object, ...], float]]:
    """Read images a second from every finished job of the store."""
    for path in (store.path / "jobs").glob("*/result.json"):
        try:
            result = journal.read_json(path)
            seconds = result["metrics"]["time/epoch_seconds"]
            recipe, _ = journal.read_recipe(path.with_name("recipe.json"))
        except (KeyError, TypeError, ValueError):  # gone meanwhile, or of a version with other fields: it only helps to guess
            continue
        if seconds > 0:
            yield like(recipe), result["train_images"] / seconds


def _train_images(recipe: Recipe, store: Store, fingerprint: str) -> float | None:
    """Count the images of an epoch as well as they are known: before the data is decoded, as CIFAR-10 has them; none of a folder."""
    meta = journal.read_json(store.data / fingerprint / "meta.json")
    total = recipe.data.train_size or (meta["train"] if meta else None if recipe.data.name == "imagefolder" else 50_000)
    if total is None:
        return None
    held = recipe.data.validation if isinstance(recipe.data.validation, int) else total * recipe.data.validation
    return float(total - held)
