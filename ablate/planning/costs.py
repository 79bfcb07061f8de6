"""How long work takes, on one slot: by the finished jobs of the store that are like it, else by a guess."""

import statistics
from dataclasses import dataclass, field

from ablate.recipe import networks
from ablate.recipe.datasets import DATASETS
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import job_folder, records
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.store.records import ImageSet
from ablate.study.file import Study, located
from ablate.training import data

HEAD = 3.0  # times as fast where the head alone is trained: no gradients further down
STEM = 10.0  # times as fast with the first layers that leave a sixteenth of the pixels
EVALUATED = 3.0  # images are evaluated so many times faster than they are trained on: without gradients
Kind = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds, and whether they are no more than a guess."""

    seconds: float
    is_guess: bool


NOTHING = Time(0.0, is_guess=False)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast finished jobs were: images a second in training, and seconds of each evaluation."""

    store: Store
    speeds: dict[Kind, list[float]] = field(default_factory=dict)
    evaluated: dict[tuple[Kind, str, Evaluation], list[float]] = field(
        default_factory=dict
    )  # str: the images
    files: dict[str | None, int] = field(default_factory=dict)  # by folder of images that is not decoded yet
    study: Study | None = None  # relative paths of folders start from its file; none: from the current folder


def read(store: Store, study: Study | None = None) -> Pace:
    """Return the pace of every finished job of a store; `study`: whose work is asked for."""
    pace = Pace(store, study=study)
    for path in (store.path / "jobs").glob("*/result.json"):
        learn(pace, path.parent.name)
    return pace


def learn(pace: Pace, job: str) -> None:
    """Add the figures of a finished job, unless it is of another version, spoilt or removed meanwhile."""
    folder = pace.store.job(job)
    try:
        result, description = job_folder.read_result(folder), job_folder.read_description(folder)
        if result is None or description is None:
            return
        recipe = description.parsed()
        seconds = result.metrics["time/epoch_seconds"]
        if seconds > 0:
            pace.speeds.setdefault(kind(recipe), []).append(result.train_images / seconds)
        for outcome in job_folder.read_evaluations(folder):
            if outcome.seconds is not None:
                key = (kind(recipe), description.data, Evaluation.model_validate(outcome.evaluation))
                pace.evaluated.setdefault(key, []).append(outcome.seconds)
    except SPOILT:
        return


def training(pace: Pace, recipe: Recipe, fingerprint: str, images: float | None = None) -> Time | None:
    """Return how long a training takes, or so many `images` of it.

    None where nothing is known of the network or of the images.
    """
    speed, is_guess = _speed(pace, recipe)
    seen = _train_images(recipe, pace, fingerprint) if images is None else images
    if speed is None or seen is None:
        return None
    return Time((recipe.training.epochs if images is None else 1) * seen / speed, is_guess)


def evaluating(pace: Pace, recipe: Recipe, fingerprint: str, evaluation: Evaluation) -> Time | None:
    """Return how long one evaluation takes; None where nothing is known of the network or of the images."""
    seconds = pace.evaluated.get((kind(recipe), fingerprint, evaluation))
    if seconds:
        return Time(statistics.median(seconds), is_guess=False)
    speed, _ = _speed(pace, recipe)
    images = records.read(pace.store.data / fingerprint / "meta.json", ImageSet)
    if speed is None or images is None:
        return None
    passes = max(evaluation.mc_dropout, 1) * (1 if evaluation.tta == "none" else 2)
    seen = _train_images(recipe, pace, fingerprint) or 0.0 if evaluation.train else 0.0
    return Time(passes * (images.test + seen) / (EVALUATED * speed), is_guess=True)


def kind(recipe: Recipe) -> Kind:
    """Return what decides the speed of a training."""
    model = recipe.model
    network = (model.name, model.stem, model.width, model.trainable, model.batch_norm, model.conv_dropout > 0)
    return (*network, recipe.data.image_size, recipe.training.precision)


def _speed(pace: Pace, recipe: Recipe) -> tuple[float | None, bool]:
    """Return images a second, and whether that is a guess."""
    speeds = pace.speeds.get(kind(recipe))
    if speeds:
        return statistics.median(speeds), False
    model = recipe.model
    guess = networks.facts(model.name).speed
    if guess is None:
        return None, True
    scale = (
        (32 / recipe.data.image_size) ** 2
        * (HEAD if model.trainable == "head" else 1.0)
        * (STEM if model.stem == "imagenet" else 1.0)
    )
    slower = (
        (2.0 if recipe.training.precision == "fp32" else 1.0)
        * (1.5 if model.conv_dropout > 0 else 1.0)
        * model.width**2
    )
    return guess * scale / slower, True


def _train_images(recipe: Recipe, pace: Pace, fingerprint: str) -> float | None:
    """Return the number of images of an epoch; before a folder of images is decoded, by its files."""
    meta, root = records.read(pace.store.data / fingerprint / "meta.json", ImageSet), recipe.data.root
    usual = DATASETS[recipe.data.name].train
    if not meta and usual is None and root not in pace.files:
        section = recipe.data if pace.study is None else located(pace.study, recipe.data)
        pace.files[root] = data.count_files(section)
    total = recipe.data.train_size or (meta.train if meta else usual or pace.files[root])
    if not total:
        return None
    validation = recipe.data.validation
    return float(total - (validation if isinstance(validation, int) else total * validation))
