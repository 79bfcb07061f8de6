"""The random streams of augmentation, one a role, and how what they draw reaches the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from ablate.recipe import identity
from ablate.recipe.augmentations import AUGMENTATIONS

ROLES = tuple(dict.fromkeys(role for facts in AUGMENTATIONS.values() for role in facts.streams))


def generators(seed: int) -> dict[str, Generator]:
    """Return one generator a role, used or not, so that no draws depend on those of another role."""
    return {role: torch.Generator().manual_seed(identity.stream_seed(seed, role)) for role in ROLES}


def move(device: torch.device, *draws: Any) -> tuple[Any, ...]:
    """Move draws from the CPU to the device, all in one copy; what is no tensor of the CPU stays as it is.

    Nobody waits: a copy from pinned memory is queued.
    """
    if device.type == "cpu":
        return draws
    tensors = [draw for draw in draws if isinstance(draw, Tensor) and draw.device.type == "cpu"]
    if not tensors:
        return draws
    there = unpacked(packed(tensors, pinned=device.type == "cuda").to(device, non_blocking=True), tensors)
    moved = {id(draw): copy for draw, copy in zip(tensors, there, strict=True)}
    return tuple(moved.get(id(draw), draw) for draw in draws)


def packed(draws: Sequence[Tensor], *, pinned: bool) -> Tensor:
    """Return the bytes of some draws in one tensor, the largest numbers first: so all are aligned."""
    parts = [draw.reshape(-1).view(torch.uint8) for draw in sorted(draws, key=_size)]
    whole = torch.empty(sum(map(len, parts)), dtype=torch.uint8, pin_memory=pinned)
    return torch.cat(parts, out=whole)


def unpacked(bytes_: Tensor, draws: Sequence[Tensor]) -> list[Tensor]:
    """Return draws again from their bytes, which may have been moved; as `draws`, in their order."""
    order = sorted(range(len(draws)), key=lambda i: _size(draws[i]))
    parts: tuple[Tensor, ...] = torch.split(bytes_, [draws[i].nbytes for i in order])
    there = {i: part.view(draws[i].dtype) for i, part in zip(order, parts, strict=True)}
    return [there[i].view(draw.shape) if draw.dim() != 1 else there[i] for i, draw in enumerate(draws)]


def _size(draw: Tensor) -> int:
    return -draw.itemsize


class Form(NamedTuple):
    """The form of a batch that is drawn for: how many images, of which size, on which device."""

    images: int
    channels: int
    height: int
    width: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class Drawn:
    """Something random that is done to a batch: `draw` its parameters, then `apply` them.

    All that a batch needs is drawn before the first of it is applied, so that one copy moves it to the
    device, and so that the next batch can be drawn while this one is on its way.
    """

    draw: Callable[[Form], tuple[Any, ...]]
    apply: Callable[..., Any]  # what is changed, then what was drawn, on its device
