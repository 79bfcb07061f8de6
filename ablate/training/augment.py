"""Augmentation of whole batches with random parameters for each image.

Each is a `sample_*`, which draws the parameters from a generator of its own, and a pure function of the batch and these
parameters, which agrees with `torchvision.transforms.v2.functional` on float images. Batches are (B, C, H, W) floats in
[0, 1]; parameters are drawn on the CPU, so that a GPU trains on the same draws.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own habit)

from ablate import recipe
from ablate.recipe import Augment

SCALE = (0.08, 1.0)  # share of the area that random_resized_crop keeps
RATIO = (3 / 4, 4 / 3)  # its width by height
TRIES = 10


def sample_random_crop(batch: int, padding: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw where the window starts in the padded image: top and left (B,), uniform in 0..2*padding."""
    draws = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    return draws[0], draws[1]


def random_crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int, mode: str = "zeros") -> Tensor:
    """Pad each side by `padding` pixels, black or mirrored, and cut the old size out at (top, left)."""
    batch, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4, mode="constant" if mode == "zeros" else "reflect")
    rows = (top.to(images.device)[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left.to(images.device)[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    which = torch.arange(batch, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[which, channels, rows, columns]


def sample_random_resized_crop(batch: int, height: int, width: int, generator: Generator) -> tuple[Tensor, ...]:
    """Draw boxes as torchvision's RandomResizedCrop does: top, left, height, width, (B,) each.

    Ten tries an image at once, the first that fits is taken, else the largest centred box within the ratios.
    """
    area = height * width * torch.empty(batch, TRIES).uniform_(*SCALE, generator=generator)
    ratio = torch.empty(batch, TRIES).uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator).exp()
    places = torch.rand(2, batch, generator=generator)
    wide, high = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first, found = fits.int().argmax(1, keepdim=True), fits.any(1)
    whole_wide = min(width, round(height * RATIO[1]))
    whole_high = min(height, round(width / RATIO[0]))
    wide = torch.where(found, wide.gather(1, first)[:, 0], whole_wide)
    high = torch.where(found, high.gather(1, first)[:, 0], whole_high)
    top = torch.where(found, (places[0] * (height - high + 1)).long(), (height - high) // 2)
    left = torch.where(found, (places[1] * (width - wide + 1)).long(), (width - wide) // 2)
    return top, left, high, wide


def random_resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Cut a box out of each image and resize it to the old size, bilinear and antialiased.

    A separable resize is a matrix for each axis and image: out = rows @ image @ columns^T. That is what
    F.interpolate(..., antialias=True) computes for one image, here for boxes of different sizes at once.
    """
    rows = _resize_matrix(top, height, images.shape[2], images.device)
    columns = _resize_matrix(left, width, images.shape[3], images.device)
    return rows[:, None] @ (images @ columns[:, None].transpose(2, 3))


def _resize_matrix(start: Tensor, length: Tensor, size: int, device: torch.device) -> Tensor:
    """Give (B, size, size): row o holds the weights of the source pixels in output pixel o, a triangle filter."""
    start, length = start.to(device, torch.float32)[:, None], length.to(device, torch.float32)[:, None]
    scale = length / size
    centre = scale * (torch.arange(size, device=device) + 0.5)  # (B, out), within the box
    source = torch.arange(size, device=device) + 0.5 - start  # (B, in), within the box
    reach = scale.clamp_min(1.0)[:, :, None]
    weights = (1 - (source[:, None, :] - centre[:, :, None]).abs() / reach).clamp_min(0)
    weights = weights * ((source > 0) & (source < length))[:, None, :]
    return weights / weights.sum(-1, keepdim=True)


def sample_flip(batch: int, generator: Generator) -> Tensor:
    """Draw which images are mirrored: (B,) bool, each with probability 1/2."""
    return torch.rand(batch, generator=generator) < 0.5


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror some images left to right."""
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def sample_rotation(batch: int, degrees: float, generator: Generator) -> Tensor:
    """Draw angles: (B,), uniform in [-degrees, degrees]."""
    return torch.empty(batch).uniform_(-degrees, degrees, generator=generator)


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Turn each image counter-clockwise by its angle in degrees about its centre, bilinear, black corners."""
    batch, channels, height, width = images.shape
    radians = torch.deg2rad(-angle.to(images.device, torch.float32))
    cos, sin, zero = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    theta = torch.stack([torch.stack([cos, sin * height / width, zero], -1), torch.stack([-sin * width / height, cos, zero], -1)], 1)
    grid = F.affine_grid(theta, [batch, channels, height, width], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


Step = Callable[[Tensor], Tensor]


def _crop_step(augment: Augment, generator: Generator) -> Step | None:
    if augment.crop == "random_crop":
        return lambda x: random_crop(
            x, *sample_random_crop(len(x), augment.padding, generator), padding=augment.padding, mode=augment.padding_mode
        )
    if augment.crop == "random_resized_crop":
        return lambda x: random_resized_crop(x, *sample_random_resized_crop(len(x), x.shape[2], x.shape[3], generator))
    return None


def _flip_step(augment: Augment, generator: Generator) -> Step | None:
    return (lambda x: flip(x, sample_flip(len(x), generator))) if augment.flip else None


def _rotation_step(augment: Augment, generator: Generator) -> Step | None:
    return (lambda x: rotate(x, sample_rotation(len(x), augment.rotation, generator))) if augment.rotation > 0 else None


STEPS: dict[str, Callable[[Augment, Generator], Step | None]] = {"crop": _crop_step, "flip": _flip_step, "rotation": _rotation_step}
"""Every augmentation in the order in which they are applied, by the role of its random stream."""


def generators(seed: int) -> dict[str, Generator]:
    """Make one generator a role, whether it is used or not: what one draws never depends on the others."""
    return {role: torch.Generator().manual_seed(recipe.stream_seed(seed, role)) for role in STEPS}


def compose(augment: Augment, streams: dict[str, Generator]) -> tuple[Step, ...]:
    """Give the steps that a recipe asks for, once, before the loop."""
    steps = (make(augment, streams[role]) for role, make in STEPS.items())
    return tuple(step for step in steps if step is not None)
