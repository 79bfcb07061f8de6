"""Boxes of one colour: random erasing and cutout.

The colour is the mean one, which is 0 once images are normalised.
"""

import math

import torch
from torch import Generator, Tensor

SCALE = (0.02, 0.33)  # share of the area that erasing takes away
RATIO = (0.3, 3.3)  # its height by width
TRIES = 10


def sample_erasing(
    batch: int, p: float, height: int, width: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw boxes as torchvision's RandomErasing does: top, left, height, width, (B,) each.

    0 x 0 where nothing is erased.

    With probability `p` an image gets the first box of ten tries that is smaller than it; where none is, it
    stays whole.
    """
    area = height * width * torch.empty(batch, TRIES).uniform_(*SCALE, generator=generator)
    ratio = (
        torch.empty(batch, TRIES).uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator).exp()
    )
    draws = torch.rand(3, batch, generator=generator)
    high, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (high < height) & (wide < width)
    first, chosen = fits.int().argmax(1, keepdim=True), fits.any(1) & (draws[0] < p)
    high, wide = (torch.where(chosen, side.gather(1, first)[:, 0], 0) for side in (high, wide))
    return (draws[1] * (height - high + 1)).long(), (draws[2] * (width - wide + 1)).long(), high, wide


def sample_cutout(
    batch: int, side: int, height: int, width: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw squares centred on any pixel, cut off at the borders: top, left, height, width, (B,) each.

    DeVries and Taylor 2017, section 3.2: partly outside on purpose, so that some images stay nearly whole.
    """
    top = torch.randint(0, height, (batch,), generator=generator) - side // 2
    left = torch.randint(0, width, (batch,), generator=generator) - side // 2
    bottom, right = (top + side).clamp_max(height), (left + side).clamp_max(width)
    top, left = top.clamp_min(0), left.clamp_min(0)
    return top, left, bottom - top, right - left


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Fill a box of each image (B, C, H, W) with 0: of normalised images, the mean colour."""
    return images.clone().masked_fill_(
        box(images, top, left, height, width), 0.0
    )  # masked_fill would not keep channels last


def box(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return (B, 1, H, W) bool: the pixels of each image's box."""
    row, column = (torch.arange(size, device=images.device) for size in images.shape[2:])
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
