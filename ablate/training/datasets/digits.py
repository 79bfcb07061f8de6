"""The handwritten digits inside scikit-learn: 1,797 images of 8 x 8 pixels with 17 grey levels."""

from pathlib import Path

import numpy as np

from ablate.recipe.fields import Data
from ablate.training.datasets.decoding import fit
from ablate.training.datasets.source import Loaded


def load(data: Data, _draft: Path, *, download: bool) -> Loaded:  # noqa: ARG001
    """Return the digits; every fifth one of a class is a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.stack([fit(image, data.image_size) for image in grey])
    labels = bunch.target.astype(np.int64)
    rank = np.zeros(len(labels), np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    test = rank % 5 == 4
    return [str(name) for name in range(10)], (images[~test], labels[~test]), (images[test], labels[test]), []
