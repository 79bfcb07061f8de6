"""The digits that a store has decoded, as files of pictures."""

import numpy as np
from PIL import Image

from ablate.training import data


def write(store, folder, count=None):
    """Write the test images of a store's only data set as PNGs, in their order; return their labels."""
    (place,) = [path.parent for path in (store / "data").glob("*/meta.json")]
    arrays = data.open_arrays(place)
    folder.mkdir()
    for i, pixels in enumerate(arrays.test_images[:count]):
        Image.fromarray(np.asarray(pixels[:, :, 0])).save(folder / f"{i:04}.png")
    return arrays.test_labels[:count]
