"""Augmentation of whole batches with random parameters for each image.

Each is a `sample_*`, which draws the parameters from a generator of its own, and a pure function of the batch
and these parameters, which agrees with `torchvision.transforms.v2.functional` on float images. Parameters are
drawn on the CPU, so that a GPU trains on the same draws. A new one is a row in recipe/augmentations.py, and a
file here of that name, with a function `step`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Generator, Tensor

from ablate.recipe.augmentations import AUGMENTATIONS, Augment
from ablate.training.augment import color, crop, erase, mix
from ablate.training.augment.streams import move

Streams = dict[str, Generator]
Reading = Callable[[Tensor, Tensor], Tensor]  # pixels (N, H, W, C), which (B,) -> (B, H, W, C)
Step = Callable[[Tensor], Tensor]  # (B, C, H, W) floats, and out


@dataclass(frozen=True, slots=True)
class Mixed:
    """Images that are partly others': the share of each that is its own, and whose the rest is, (B,) each."""

    images: Tensor
    share: Tensor
    partner: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a recipe does to a batch: how it is read, changed before and after normalisation, and mixed."""

    read: Reading = crop.take
    steps: tuple[Step, ...] = ()
    erasures: tuple[Step, ...] = ()
    mix: Callable[[Tensor], Mixed] | None = None


PLAIN = Augmentation()


def _reading(augment: Augment, streams: Streams) -> Reading:
    """Read with `random_crop` and flip; the flip of `random_resized_crop` is its own."""
    padding = augment.padding if augment.crop == "random_crop" else 0
    flips = augment.flip and augment.crop != "random_resized_crop"
    if not padding and not flips:
        return crop.take

    def read(pixels: Tensor, which: Tensor) -> Tensor:
        batch = len(which)
        top, left = (
            crop.sample_random_crop(batch, padding, streams["crop"])
            if padding
            else (torch.zeros(batch, dtype=torch.long),) * 2
        )
        mirrored = crop.sample_flip(batch, streams["flip"]) if flips else torch.zeros(batch, dtype=torch.bool)
        return crop.cut(
            pixels,
            which,
            *move(pixels.device, top, left, mirrored),
            padding=padding,
            mode=augment.padding_mode,
        )

    return read


def _crop(augment: Augment, streams: Streams) -> Step | None:
    if augment.crop != "random_resized_crop":
        return None

    def step(x: Tensor) -> Tensor:
        where = crop.sample_random_resized_crop(len(x), x.shape[2], x.shape[3], streams["crop"])
        flips = (crop.sample_flip(len(x), streams["flip"]),) if augment.flip else ()
        return crop.random_resized_crop(x, *move(x.device, *where, *flips))

    return step


def _color_jitter(augment: Augment, streams: Streams) -> Step | None:
    jitter = augment.color_jitter
    if jitter is None:
        return None
    return lambda x: color.color_jitter(
        x, *color.sample_color_jitter(len(x), jitter, streams["color_jitter"])
    )


def _erasing(augment: Augment, streams: Streams) -> Step | None:
    if augment.erasing == 0:
        return None
    return lambda x: erase.erase(
        x,
        *move(
            x.device,
            *erase.sample_erasing(len(x), augment.erasing, x.shape[2], x.shape[3], streams["erasing"]),
        ),
    )


def _cutout(augment: Augment, streams: Streams) -> Step | None:
    if augment.cutout == 0:
        return None
    return lambda x: erase.erase(
        x,
        *move(
            x.device, *erase.sample_cutout(len(x), augment.cutout, x.shape[2], x.shape[3], streams["cutout"])
        ),
    )


Make = Callable[[Augment, Streams], Step | None]
STEPS: dict[str, Make] = {
    "crop": _crop, "color_jitter": _color_jitter, "erasing": _erasing, "cutout": _cutout,
}  # fmt: skip
STEPS |= {
    name: import_module(f"{__name__}.{name}").step
    for name, facts in AUGMENTATIONS.items()
    if facts.place in ("image", "normalized") and name not in STEPS
}  # each has a file of its own
"""What happens to single images, by name; where and in which order, the table of augmentations says."""


def _mixup(augment: Augment, streams: Streams, x: Tensor) -> Mixed:
    partner, share = move(x.device, *mix.sample_mixup(len(x), augment.mixup, streams["mixup"]))
    return Mixed(mix.mixup(x, partner, share), share, partner)


def _cutmix(augment: Augment, streams: Streams, x: Tensor) -> Mixed:
    partner, *where, share = move(
        x.device, *mix.sample_cutmix(len(x), augment.cutmix, x.shape[2], x.shape[3], streams["cutmix"])
    )
    return Mixed(mix.cutmix(x, partner, *where), share, partner)


def _either(augment: Augment, streams: Streams, x: Tensor) -> Mixed:
    """Mix each image in one of the two ways, by a coin."""
    mixup, cutmix = _mixup(augment, streams, x), _cutmix(augment, streams, x)
    (heads,) = move(x.device, torch.rand(len(x), generator=streams["coin"]) < 0.5)
    images = torch.where(heads[:, None, None, None], mixup.images, cutmix.images)
    share = torch.where(heads, mixup.share, cutmix.share)
    partner = torch.where(heads, mixup.partner, cutmix.partner)
    return Mixed(images, share, partner)


MIXES: dict[str, Callable[[Augment, Streams, Tensor], Mixed]] = {"mixup": _mixup, "cutmix": _cutmix}
"""How images are mixed, by name."""


def compose(augment: Augment, streams: Streams) -> Augmentation:
    """Return the augmentation of a recipe; called once, before the loop."""
    places: dict[str, list[Step]] = {"image": [], "normalized": []}
    for name, facts in AUGMENTATIONS.items():
        if name in STEPS and (step := STEPS[name](augment, streams)) is not None:
            places[facts.place].append(step)
    ways = [mix for name, mix in MIXES.items() if getattr(augment, name)]
    way = _either if len(ways) > 1 else next(iter(ways), None)
    return Augmentation(
        read=_reading(augment, streams),
        steps=tuple(places["image"]),
        erasures=tuple(places["normalized"]),
        mix=None if way is None else lambda x: way(augment, streams, x),
    )
