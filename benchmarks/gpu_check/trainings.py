"""Trainings of noise and of the digits, their speed and the bits that they leave."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.recipe import identity
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder
from ablate.store.tasks import Context, TrainTask
from ablate.study.grid import Job
from ablate.training import data, loop
from ablate.training.data import Arrays, Prepared
from ablate.training.loop import Session

JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
EVERYTHING: dict[str, Any] = {
    "crop": "random_resized_crop", "rotation": 15.0, "color_jitter": JITTER, "erasing": 0.5, "cutout": 4,
    "mixup": 0.5, "cutmix": 1.0,
}  # fmt: skip
JITTERED: dict[str, Any] = {"color_jitter": JITTER}
STUDY = """name  = "small"
seeds = 2
[recipe]
data = { name = "digits", image_size = SIDE, train_size = 300 }
model.name = "cnn4"
training = { epochs = EPOCHS, batch_size = 64 }
[factors]
augment.flip = [false, true]
"""


def recipe(
    name: str = "cnn4", *, batch: int = 128, precision: str = "bf16", augment: Any = None, side: int = 32,
    digits: str = "", **training: Any,
) -> Recipe:  # fmt: skip
    """Return a recipe, of the digits (`all`, or a `few` of them) or of CIFAR's kind of images."""
    kind: dict[str, Any] = {"name": "digits" if digits else "cifar10", "image_size": side}
    kind |= {"validation": 50, "train_size": 300} if digits == "few" else {}
    return Recipe.model_validate(
        {
            "data": {"validation": 200 if digits else 0} | kind,
            "augment": augment or {},
            "model": {"name": name},
            "optimizer": {"lr": 0.01},
            "training": {"batch_size": batch, "precision": precision} | training,
        }
    )


def noise(made: Recipe, device: torch.device, batches: int, memory: int | None = None) -> Session:
    """Begin a training of so many batches of noise."""
    side, count = made.data.image_size, batches * made.training.batch_size
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = random.integers(0, 10, count)
    prepared = Prepared(Path(), "", tuple("0123456789"), count, 1, 3, side, (0.5,) * 3, (0.25,) * 3)
    arrays = Arrays(pixels, labels, pixels[:1], labels[:1])
    return loop.start(made, 0, prepared, arrays, device, memory=memory)


def speed(session: Session, seconds: float) -> float:
    """Return images a second of training steps, after some that warm up."""
    if session.recipe.training.compile:
        loop.compile_step(session)
    size, seen, began = session.recipe.training.batch_size, 0, 0.0
    for i, step in enumerate(_endless(session)):
        if i == 5:
            step.tolist()
            seen, began = 0, time.perf_counter()
        seen += size
        if i > 5 and i % 5 == 0:
            step.tolist()  # waits for the device
            if time.perf_counter() - began > seconds:
                return (seen - size) / (time.perf_counter() - began)
    raise AssertionError


def _endless(session: Session) -> Iterator[torch.Tensor]:
    while True:
        yield from loop.steps(session)


def bits(session: Session) -> str:
    """Return what tells two trained networks apart: a hash of all weights."""
    digest = hashlib.sha256()
    for name, tensor in session.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def trained(
    made: Recipe, prepared: Prepared, device: torch.device, *,
    memory: int | None = None, stop: int = 0, fills: bool | None = None,
) -> Session:  # fmt: skip
    """Train the digits to the end; `stop`: after so many epochs a new session goes on from a copy.

    `fills`: whether torch fills new tensors, instead of what the training sets.
    """
    arrays = data.open_arrays(prepared.folder)
    session = loop.start(made, 0, prepared, arrays, device, memory=memory)
    if fills is not None:
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
    for line in loop.epochs(session):
        if line["epoch"] == stop:
            state = loop.snapshot(session)
            session = loop.start(made, 0, prepared, arrays, device, memory=memory)
            loop.restore(session, state)
            break
    for _ in loop.epochs(session):
        pass
    return session


def digits(folder: Path, made: Recipe) -> Prepared:
    """Decode the digits, which come with scikit-learn."""
    return data.prepare(made.data, folder)


def task(folder: Path, made: Recipe, prepared: Prepared) -> TrainTask:
    """Make the folder of a job, and return its task."""
    job = Job(identity.job_id(made, 0, prepared.folder.name), made, 0, prepared.folder.name)
    job_folder.create(Folder(folder), job)
    named = files.read_json(Folder(folder).recipe)["job"]
    return TrainTask(
        context=Context(), folder=folder, job=named, data=prepared.folder, evaluations=(Evaluation(),)
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the journal of a job."""
    path = Folder(folder).journal
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
