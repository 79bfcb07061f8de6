"""Crops and mirroring: a window cut out of the padded image, or a box of it resized.

`cut` works on bytes while they are read from the data set, so that neither the padded images nor the whole
ones are ever made as floats: 211,000 images/s of 32x32x3 against 69,000 by padding and indexing floats (batch
128, two threads of a Xeon with AMX, 7 interleaved rounds, normalised batch out).
"""

import math

import torch
from torch import Generator, Tensor

SCALE = (0.08, 1.0)  # share of the area that random_resized_crop keeps
RATIO = (3 / 4, 4 / 3)  # its width by height
TRIES = 10


def sample_random_crop(batch: int, padding: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw where the window starts in the padded image: top and left (B,), uniform in 0..2*padding."""
    draws = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    return draws[0], draws[1]


def sample_flip(batch: int, generator: Generator) -> Tensor:
    """Draw which images are mirrored: (B,) bool, each with probability 1/2."""
    return torch.rand(batch, generator=generator) < 0.5


def take(pixels: Tensor, which: Tensor) -> Tensor:
    """Read images (B, H, W, C) as they are out of `pixels` (N, H, W, C), `which` (B,)."""
    return pixels.flatten(1).index_select(0, which).view(-1, *pixels.shape[1:])


def cut(
    pixels: Tensor,
    which: Tensor,
    top: Tensor,
    left: Tensor,
    mirrored: Tensor,
    *,
    padding: int = 0,
    mode: str = "zeros",
) -> Tensor:
    """Return images (B, H, W, C) of `pixels` (N, H, W, C), padded, cut at (top, left) and mirrored.

    The size stays. `padding` pixels are added a side, black (`zeros`) or mirrored
    (`reflect`); which, top, left, mirrored: (B,).
    """
    _, height, width, channels = pixels.shape
    row, column = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    rows = row + (top - padding)[:, None]  # (B, H) of the image; outside of it in the padding
    columns = torch.where(mirrored[:, None], width - 1 - column, column) + (left - padding)[:, None]
    inside_row, inside_column = _inside(rows, height, mode), _inside(columns, width, mode)
    flat = (inside_row * width + (which * (height * width))[:, None])[:, :, None] + inside_column[:, None, :]
    cut_out = pixels.view(-1, channels).index_select(0, flat.view(-1)).view(-1, height, width, channels)
    if mode == "zeros" and padding > 0:
        cut_out *= ((rows == inside_row)[:, :, None] & (columns == inside_column)[:, None, :])[..., None]
    return cut_out


def _inside(index: Tensor, size: int, mode: str) -> Tensor:
    """Return which pixel stands for one outside: the nearest one, to be blackened, or its mirror image."""
    if mode == "zeros":
        return index.clamp(0, size - 1)
    return size - 1 - (size - 1 - index.abs()).abs()


def sample_random_resized_crop(
    batch: int, height: int, width: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw boxes as torchvision's RandomResizedCrop does: top, left, height, width, (B,) each.

    Ten tries an image at once, the first that fits is taken, else the largest centred box within the ratios.
    """
    area = height * width * torch.empty(batch, TRIES).uniform_(*SCALE, generator=generator)
    ratio = (
        torch.empty(batch, TRIES).uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator).exp()
    )
    places = torch.rand(2, batch, generator=generator)
    wide, high = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first, fitting = fits.int().argmax(1, keepdim=True), fits.any(1)
    whole_wide = min(width, round(height * RATIO[1]))
    whole_high = min(height, round(width / RATIO[0]))
    wide = torch.where(fitting, wide.gather(1, first)[:, 0], whole_wide)
    high = torch.where(fitting, high.gather(1, first)[:, 0], whole_high)
    top = torch.where(fitting, (places[0] * (height - high + 1)).long(), (height - high) // 2)
    left = torch.where(fitting, (places[1] * (width - wide + 1)).long(), (width - wide) // 2)
    return top, left, high, wide


def random_resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, mirrored: Tensor | None = None
) -> Tensor:
    """Return a box of each image (B, C, H, W), resized to the old size (bilinear, antialiased), mirrored.

    A separable resize is a matrix for each axis and image: out = rows @ image @ columns^T. That is what
    F.interpolate(..., antialias=True) computes for one image, here for boxes of different sizes at once.
    Mirroring is the columns' matrix upside down, and free.
    """
    batch, channels, high, wide = images.shape
    rows = _resize_matrix(top, height, high)
    columns = _resize_matrix(left, width, wide, mirrored)
    across = images.reshape(batch, channels * high, wide) @ columns.transpose(1, 2)
    return rows[:, None] @ across.view(batch, channels, high, wide)


def _resize_matrix(start: Tensor, length: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """Return (B, size, size): row o has the weights of source pixels in output pixel o, a triangle filter."""
    start, length = start.to(torch.float32)[:, None], length.to(torch.float32)[:, None]
    scale = length / size
    place = torch.arange(size, device=start.device)
    out = place if mirrored is None else torch.where(mirrored[:, None], size - 1 - place, place)
    centre = scale * (out + 0.5)  # (B, out), within the box
    source = place + 0.5 - start  # (B, in), within the box
    weights = 1 - (source[:, None, :] - centre[:, :, None]).abs_().mul_(
        (1 / scale.clamp_min(1.0))[:, :, None]
    )
    weights = weights.clamp_min_(0).mul_(((source > 0) & (source < length))[:, None, :])
    return weights.div_(weights.sum(-1, keepdim=True))
