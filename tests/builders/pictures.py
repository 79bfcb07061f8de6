"""Folders of images, and what identifies them."""

import numpy as np

from ablate.training import data


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def whole(cache):
    """Return the folders that look finished, and check that each is."""
    found = [path.parent for path in cache.glob("*/meta.json") if not path.parent.name.startswith("draft-")]
    for folder in found:
        arrays, prepared = data.open_arrays(folder), data.read(folder)
        assert (len(arrays.train_labels), len(arrays.test_images)) == (prepared.train, prepared.test)
    return found
