"""The data sets of torchvision, read from their archives, which are downloaded where they are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training.datasets import source
from ablate.training.datasets.decoding import Split, fit
from ablate.training.datasets.source import Loaded

TORCHVISION: dict[str, tuple[str, Callable[[bool], dict[str, Any]]]] = {
    "cifar10": ("CIFAR10", lambda train: {"train": train}),
    "cifar100": ("CIFAR100", lambda train: {"train": train}),
    "svhn": ("SVHN", lambda train: {"split": "train" if train else "test"}),
    "mnist": ("MNIST", lambda train: {"train": train}),
    "fashion_mnist": ("FashionMNIST", lambda train: {"train": train}),
}


def load(data: Data, _draft: Path, *, download: bool) -> Loaded:
    """Return a data set of torchvision, downloaded first where it is not there. Raises a DataError."""
    from torchvision import datasets

    kind, options = TORCHVISION[data.name]
    root = source.root(data)
    archive = getattr(getattr(datasets, kind), "filename", "the files that torchvision downloads for it")
    parts = []
    for train in (True, False):
        try:
            parts.append(getattr(datasets, kind)(str(root), **options(train), download=download))
        except (RuntimeError, OSError, ValueError, AssertionError) as error:  # the last two: truncated files
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"{data.name} must be in {root} or be downloadable, and it is neither ({reason}): "
                f"put {archive} there, or try the study with --set data.name=digits"
            ) from None
    names = getattr(parts[0], "classes", None) or [str(label) for label in range(10)]  # SVHN names no classes
    return list(names), _to_split(parts[0], data.image_size), _to_split(parts[1], data.image_size), []


def _to_split(dataset: Any, size: int) -> Split:
    images = np.asarray(dataset.data)
    if images.ndim == 4 and images.shape[1] == 3 != images.shape[3]:  # SVHN is (N, C, H, W)
        images = images.transpose(0, 2, 3, 1)
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return np.stack([fit(image, size) for image in images]), np.asarray(labels, np.int64)
