"""The random streams of augmentation, one a role, and how what they draw reaches the device."""

import torch
from torch import Generator, Tensor

from ablate.recipe import identity
from ablate.recipe.augmentations import AUGMENTATIONS

ROLES = tuple(dict.fromkeys(role for facts in AUGMENTATIONS.values() for role in facts.streams))


def generators(seed: int) -> dict[str, Generator]:
    """Return one generator a role, used or not, so that no draws depend on those of another role."""
    return {role: torch.Generator().manual_seed(identity.stream_seed(seed, role)) for role in ROLES}


def move(device: torch.device, *draws: Tensor) -> tuple[Tensor, ...]:
    """Move draws from the CPU to the device without waiting: a copy from pinned memory is queued."""
    if device.type == "cpu":
        return draws
    return tuple(
        (draw.pin_memory() if draw.device.type == "cpu" else draw).to(device, non_blocking=True)
        for draw in draws
    )
