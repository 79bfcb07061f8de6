"""Images and labels mixed with those of others in the batch: mixup and CutMix."""

import math

import numpy as np
import torch
from torch import Generator, Tensor

from ablate.training.augment.erase import box


def sample_mixup(batch: int, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw each image's partner, (B,), a permutation, and the share of itself that it keeps, (B,) in [0, 1].

    Zhang et al. 2018, section 2: the share is from Beta(alpha, alpha); here for each image, not for the whole
    batch.
    """
    partner = torch.randperm(batch, generator=generator)
    # numpy draws it: torch has no beta distribution that takes a generator
    own = np.random.default_rng(torch.randint(2**32, (4,), generator=generator).numpy())
    return partner, torch.from_numpy(own.beta(alpha, alpha, batch)).to(torch.float32)


def mixup(images: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Blend each image (B, C, H, W) with its partner: share x own + (1 - share) x partner's."""
    own = share[:, None, None, None]
    return images * own + images[partner] * (1 - own)


def sample_cutmix(
    batch: int, alpha: float, height: int, width: int, generator: Generator
) -> tuple[Tensor, ...]:
    """Draw partner and box (top, left, height, width), and the share of the pixels that stay: (B,) each.

    Yun et al. 2019, section 3.1 and equation 2: the box has the share 1 - lambda of the area, lambda from
    Beta(alpha, alpha), centred on any pixel and cut off at the borders; the share is then counted anew.
    """
    partner, kept = sample_mixup(batch, alpha, generator)
    middle_row = torch.randint(0, height, (batch,), generator=generator)
    middle_column = torch.randint(0, width, (batch,), generator=generator)
    half_high, half_wide = ((0.5 * (1 - kept).sqrt() * size).long() for size in (height, width))
    top, left = (middle_row - half_high).clamp_min(0), (middle_column - half_wide).clamp_min(0)
    high = (middle_row + half_high).clamp_max(height) - top
    wide = (middle_column + half_wide).clamp_max(width) - left
    return partner, top, left, high, wide, 1 - (high * wide).to(torch.float32) / math.prod((height, width))


def cutmix(
    images: Tensor, partner: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Put the partner's pixels into a box of each image (B, C, H, W)."""
    return torch.where(box(images, top, left, height, width), images[partner], images)
