"""Rotation about the centre."""

from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own habit)

from ablate.recipe.augmentations import Augment
from ablate.training.augment.streams import Drawn


def sample_rotation(batch: int, degrees: float, generator: Generator) -> Tensor:
    """Draw angles: (B,), uniform in [-degrees, degrees]."""
    return torch.empty(batch).uniform_(-degrees, degrees, generator=generator)


def rotate(images: Tensor, angle: Tensor, *, interpolation: str = "bilinear") -> Tensor:
    """Turn each image (B, C, H, W) counter-clockwise by its angle in degrees about its centre.

    Corners become black.
    """
    _, _, height, width = images.shape
    radians = torch.deg2rad(-angle.to(torch.float32))
    cos, sin, zero = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    theta = torch.stack(
        [
            torch.stack([cos, sin * height / width, zero], -1),
            torch.stack([-sin * width / height, cos, zero], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode=interpolation, padding_mode="zeros", align_corners=False)


def step(augment: Augment, streams: dict[str, Generator]) -> Drawn | None:
    """Return what a recipe's rotation does to a batch; none where it is off."""
    if augment.rotation == 0:
        return None
    return Drawn(
        lambda form: (sample_rotation(form.images, augment.rotation, streams["rotation"]),),
        partial(rotate, interpolation=augment.interpolation),
    )
