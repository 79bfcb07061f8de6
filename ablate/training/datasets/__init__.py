"""The data sets by name. Each is a function that decodes train and test to arrays."""

from collections.abc import Callable

from ablate.training.datasets import digits, image_folder, torchvision_sets
from ablate.training.datasets.source import Loaded

LOADERS: dict[str, Callable[..., Loaded]] = {
    "digits": digits.load,
    "imagefolder": image_folder.load,
    **dict.fromkeys(torchvision_sets.TORCHVISION, torchvision_sets.load),
}
"""By name. Each decodes train and test to uint8 (N, H, W, C) and int64 labels.

What may not fit into memory goes to files in the folder `draft`.
"""
