"""Images to augment, and how far two results are apart."""

import itertools

import torch
from scipy import stats
from torchvision.transforms.v2 import functional as reference

from ablate.recipe.fields import Augment, ColorJitter
from ablate.training.augment import color
from ablate.training.augment.streams import Form

SHAPES = [(7, 3, 32, 32), (7, 1, 20, 33), (1, 3, 33, 20), (1, 1, 16, 16)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(shape):
    """White noise: the image that forgives a misplaced pixel least."""
    return torch.rand(shape, generator=generator(1))


# Crops and mirroring, read out of a data set


def stored(shape, dtype, images=9):
    """Return a data set (N, H, W, C), and images of it to read, in no order and some of them twice."""
    batch, channels, height, width = shape
    pixels = torch.randint(
        0, 256, (images, height, width, channels), generator=generator(2), dtype=torch.uint8
    )
    which = torch.tensor([3, 8, 3, 0, 0, 5, 1])[:batch]
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 255, which


def form(x):
    """Return the form of images (B, C, H, W)."""
    return Form(*x.shape, x.device)


# Colour jitter

ADJUST = {
    color.BRIGHTNESS: reference.adjust_brightness,
    color.CONTRAST: reference.adjust_contrast,
    color.SATURATION: reference.adjust_saturation,
    color.HUE: reference.adjust_hue,
}
SUBSETS = [kinds for number in (1, 2, 3, 4) for kinds in itertools.combinations(ADJUST, number)]
ALL = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
BOTH = Augment(crop="none", flip=False, mixup=1.0, cutmix=1.0)

# Distributions

DRAWS = 4000
LEVEL = 1e-4  # of each of some 300 comparisons: all pass by chance for 97 % of versions of the generators


def a_share_of(found, number, probability):
    """Whether so many of a number may be a draw with this probability."""
    return stats.binomtest(int(found), number, probability).pvalue > LEVEL
