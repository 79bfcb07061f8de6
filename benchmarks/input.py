"""(a) The input pipeline: normalised batches of 128 from 10,000 images of 32x32x3 in memory, on two threads.

Theirs: a DataLoader with torchvision's transforms of PIL images (0 and 2 workers, started before the clock),
and with its per-image v2 transforms of tensors.
"""

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from ablate.execution.executors.local import LocalExecutor
from ablate.recipe.fields import Augment
from ablate.training import images
from ablate.training.augment import compose
from ablate.training.augment.streams import generators
from benchmarks import jobs
from benchmarks.measure import Comparison, faster, rates

BATCH, ROUNDS = jobs.BATCH, 5
MEAN, STD = jobs.NORMALIZE.mean, jobs.NORMALIZE.std
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
PLAIN: dict[str, Any] = {"crop": "none", "flip": False}

ALL: dict[str, Any] = {
    "crop": "random_resized_crop",
    "rotation": 15.0,
    "interpolation": "nearest",
    "color_jitter": JITTER,
    "erasing": 0.5,
}

Transforms = Callable[[Any], list[Any]]
CASES: dict[str, tuple[dict[str, Any], Transforms, Transforms, float]] = {
    # our recipe; torchvision's transforms of the image, and of its tensor; what is required
    "crop and flip": ({}, lambda t: [t.RandomCrop(32, 4), t.RandomHorizontalFlip()], lambda _: [], 10),
    "random_resized_crop and flip": (
        {"crop": "random_resized_crop"},
        lambda t: [t.RandomResizedCrop(32), t.RandomHorizontalFlip()],
        lambda _: [],
        7,
    ),
    "rotation, nearest": (
        PLAIN | {"rotation": 15.0, "interpolation": "nearest"},
        lambda t: [t.RandomRotation(15)],
        lambda _: [],
        8,
    ),
    "erasing": (PLAIN | {"erasing": 0.5}, lambda _: [], lambda t: [t.RandomErasing(0.5)], 9),
    "color_jitter": (PLAIN | {"color_jitter": JITTER}, lambda t: [t.ColorJitter(**JITTER)], lambda _: [], 3),
    "all of them": (
        ALL,
        lambda t: [
            t.RandomResizedCrop(32),
            t.RandomHorizontalFlip(),
            t.RandomRotation(15),
            t.ColorJitter(**JITTER),
        ],
        lambda t: [t.RandomErasing(0.5)],
        3.5,
    ),
}


class Pictures(Dataset[Any]):
    """Images in memory, as CIFAR10 of torchvision keeps them, with a transform of each."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Any, *, tensors: bool) -> None:
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() if tensors else pixels
        self.labels, self.transform, self.tensors = labels.tolist(), transform, tensors

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        """Transform one image."""
        one = self.pixels[i]
        return self.transform(one if self.tensors else Image.fromarray(one)), self.labels[i]


def loader(
    pixels: np.ndarray, labels: np.ndarray, case: str, workers: int, *, tensors: bool
) -> DataLoader[Any]:
    """Make what people use today."""
    _, of_image, of_tensor, _ = CASES[case]
    kind: Any = v2 if tensors else v1
    to_float = [v2.ToDtype(torch.float32, scale=True)] if tensors else [v1.ToTensor()]
    chain = [*of_image(kind), *to_float, kind.Normalize(MEAN, STD), *of_tensor(kind)]
    data = Pictures(pixels, labels, kind.Compose(chain), tensors=tensors)
    return DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=True
    )


def speed_of_loader(made: DataLoader[Any]) -> float:
    """Return images a second of an epoch after its first batch, when all workers are at work."""
    batches = iter(made)
    next(batches)
    began, count = time.perf_counter(), sum(len(labels) for _, labels in batches)
    return count / (time.perf_counter() - began)


def run() -> list[Comparison]:
    """Compare every augmentation, and all together, ours in a worker as it trains.

    Then resident with streamed images.
    """
    pixels, labels = jobs.noise()
    found = []
    with closing(jobs.start("read", 1)) as worker:
        for case, (fields, _, _, required) in CASES.items():
            kinds = itertools.product((("PIL", False), ("v2", True)), (0, 2))
            loaders = {
                f"{kind}, {n} workers": loader(pixels, labels, case, n, tensors=tensors)
                for (kind, tensors), n in kinds
            }
            variants: dict[str, Callable[[], float]] = {
                name: partial(speed_of_loader, made) for name, made in loaders.items()
            }
            variants["ablate"] = partial(speed_of_ours, worker, fields)
            speeds = rates(variants, ROUNDS, "images/s")
            found.append(faster(f"input, {case}", speeds.pop("ablate"), *speeds.values(), required=required))
            del loaders, variants
        streaming = {
            "streamed": partial(speed_of_ours, worker, {}, 0),
            "resident": partial(speed_of_ours, worker, {}),
        }
        speeds = rates(streaming, ROUNDS, "images/s")
    note = f"with a limit of 0 bytes; the same numbers: {'yes' if streamed_is_the_same() else 'NO'}"
    return [*found, faster("input, streamed", speeds["streamed"], speeds["resident"], note=note)]


def speed_of_ours(worker: LocalExecutor, augment: dict[str, Any], memory: int | None = None) -> float:
    """Return images a second of five epochs in a worker."""
    return float(jobs.ask(worker, {"augment": augment, "threads": 2, "epochs": 5, "memory": memory})["speed"])


def streamed_is_the_same() -> bool:
    """Whether images that are brought batch by batch are, bit for bit, those that lie where they are used."""
    pixels, labels = jobs.noise(1000)
    both = []
    for memory in (None, 0):
        some = images.place(jobs.NORMALIZE, pixels, labels, np.arange(1000), torch.device("cpu"), memory)
        both.append(some.batches(BATCH, None, compose(Augment.model_validate(ALL), generators(0))))
    return all(torch.equal(one.images, other.images) for one, other in zip(*both, strict=True))
