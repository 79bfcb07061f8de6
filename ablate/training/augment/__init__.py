"""Augmentation of whole batches with random parameters for each image.

Each is a `sample_*`, which draws the parameters from a generator of its own, and a pure function of the batch
and these parameters, which agrees with `torchvision.transforms.v2.functional` on float images. Parameters are
drawn on the CPU, so that a GPU trains on the same draws, and all those of a batch go there in one copy. A new
one is a row in recipe/augmentations.py, and a file here of that name, with a function `step`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import chain, islice
from typing import Any

import torch
from torch import Generator, Tensor

from ablate.recipe.augmentations import AUGMENTATIONS, Augment
from ablate.training.augment import color, crop, erase, mix
from ablate.training.augment.streams import Drawn, Form, move

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
class Applied:
    """What is done to one batch: how it is read, changed before and after normalisation, and mixed."""

    read: Reading
    steps: tuple[Step, ...]
    erasures: tuple[Step, ...]
    mix: Callable[[Tensor], Mixed] | None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a recipe does to each batch; what is random of that is Drawn."""

    read: Reading | Drawn = crop.take
    steps: tuple[Step | Drawn, ...] = ()
    erasures: tuple[Step | Drawn, ...] = ()
    mix: Drawn | None = None

    def drawn(self, form: Form) -> Applied:
        """Draw all that a batch needs, and move it to its device; return what is done to that batch."""
        parts = (self.read, *self.steps, *self.erasures, *(() if self.mix is None else (self.mix,)))
        draws = [part.draw(form) if isinstance(part, Drawn) else () for part in parts]
        moved = iter(move(form.device, *chain.from_iterable(draws)))
        read, *rest = (
            _bound(part, tuple(islice(moved, len(own)))) for part, own in zip(parts, draws, strict=True)
        )
        steps, end = len(self.steps), len(self.steps) + len(self.erasures)
        return Applied(read, tuple(rest[:steps]), tuple(rest[steps:end]), next(iter(rest[end:]), None))


PLAIN = Augmentation()


def _bound(part: Callable[..., Any], draws: tuple[Any, ...]) -> Callable[..., Any]:
    """Return a part with its draws, as a function of what it changes."""
    apply = part.apply if isinstance(part, Drawn) else part
    return lambda *changed: apply(*changed, *draws)


def _reading(augment: Augment, streams: Streams) -> Reading | Drawn:
    """Read with `random_crop` and flip; the flip of `random_resized_crop` is its own."""
    padding = augment.padding if augment.crop == "random_crop" else 0
    flips = augment.flip and augment.crop != "random_resized_crop"
    if not padding and not flips:
        return crop.take

    def draw(form: Form) -> tuple[Tensor, ...]:
        batch = form.images
        top, left = (
            crop.sample_random_crop(batch, padding, streams["crop"])
            if padding
            else (torch.zeros(batch, dtype=torch.long),) * 2
        )
        mirrored = crop.sample_flip(batch, streams["flip"]) if flips else torch.zeros(batch, dtype=torch.bool)
        return top, left, mirrored

    return Drawn(draw, partial(crop.cut, padding=padding, mode=augment.padding_mode))


def _crop(augment: Augment, streams: Streams) -> Drawn | None:
    if augment.crop != "random_resized_crop":
        return None

    def draw(form: Form) -> tuple[Tensor, ...]:
        where = crop.sample_random_resized_crop(form.images, form.height, form.width, streams["crop"])
        return (*where, crop.sample_flip(form.images, streams["flip"])) if augment.flip else where

    return Drawn(draw, crop.random_resized_crop)


def _color_jitter(augment: Augment, streams: Streams) -> Drawn | None:
    jitter = augment.color_jitter
    if jitter is None:
        return None

    def draw(form: Form) -> tuple[Any, ...]:
        order, factors = color.sample_color_jitter(form.images, jitter, streams["color_jitter"])
        return (order, factors) if form.device.type == "cpu" else color.rounds(order, factors, form.channels)

    def apply(x: Tensor, *draws: Any) -> Tensor:
        """Group the images by their order on a CPU, which then does least; a GPU wants few steps."""
        return (color.color_jitter if x.device.type == "cpu" else color.color_jitter_in_rounds)(x, *draws)

    return Drawn(draw, apply)


def _erasing(augment: Augment, streams: Streams) -> Drawn | None:
    if augment.erasing == 0:
        return None
    stream = streams["erasing"]
    return Drawn(
        lambda form: erase.sample_erasing(form.images, augment.erasing, form.height, form.width, stream),
        erase.erase,
    )


def _cutout(augment: Augment, streams: Streams) -> Drawn | None:
    if augment.cutout == 0:
        return None
    stream = streams["cutout"]
    return Drawn(
        lambda form: erase.sample_cutout(form.images, augment.cutout, form.height, form.width, stream),
        erase.erase,
    )


Make = Callable[[Augment, Streams], Step | Drawn | None]
STEPS: dict[str, Make] = {
    "crop": _crop, "color_jitter": _color_jitter, "erasing": _erasing, "cutout": _cutout,
}  # fmt: skip
STEPS |= {
    name: import_module(f"{__name__}.{name}").step
    for name, facts in AUGMENTATIONS.items()
    if facts.place in ("image", "normalized") and name not in STEPS
}  # each has a file of its own
"""What happens to single images, by name; where and in which order, the table of augmentations says."""


def _mixup(augment: Augment, streams: Streams) -> Drawn:
    stream = streams["mixup"]
    return Drawn(lambda form: mix.sample_mixup(form.images, augment.mixup, stream), _blended)


def _blended(x: Tensor, partner: Tensor, share: Tensor) -> Mixed:
    return Mixed(mix.mixup(x, partner, share), share, partner)


def _cutmix(augment: Augment, streams: Streams) -> Drawn:
    stream = streams["cutmix"]
    return Drawn(
        lambda form: mix.sample_cutmix(form.images, augment.cutmix, form.height, form.width, stream), _pasted
    )


def _pasted(x: Tensor, partner: Tensor, *where: Tensor) -> Mixed:
    *box, share = where
    return Mixed(mix.cutmix(x, partner, *box), share, partner)


def _either(augment: Augment, streams: Streams) -> Drawn:
    """Mix each image in one of the two ways, by a coin."""
    blending, pasting = _mixup(augment, streams), _cutmix(augment, streams)

    def draw(form: Form) -> tuple[Tensor, ...]:
        heads = torch.rand(form.images, generator=streams["coin"]) < 0.5
        return heads, *blending.draw(form), *pasting.draw(form)

    def apply(x: Tensor, heads: Tensor, partner: Tensor, share: Tensor, *rest: Tensor) -> Mixed:
        blended, pasted = _blended(x, partner, share), _pasted(x, *rest)
        images = torch.where(heads[:, None, None, None], blended.images, pasted.images)
        share = torch.where(heads, blended.share, pasted.share)
        partner = torch.where(heads, blended.partner, pasted.partner)
        return Mixed(images, share, partner)

    return Drawn(draw, apply)


MIXES: dict[str, Callable[[Augment, Streams], Drawn]] = {"mixup": _mixup, "cutmix": _cutmix}
"""How images are mixed, by name."""


def compose(augment: Augment, streams: Streams) -> Augmentation:
    """Return the augmentation of a recipe; called once, before the loop."""
    places: dict[str, list[Step | Drawn]] = {"image": [], "normalized": []}
    for name, facts in AUGMENTATIONS.items():
        if name in STEPS and (step := STEPS[name](augment, streams)) is not None:
            places[facts.place].append(step)
    ways = [mix for name, mix in MIXES.items() if getattr(augment, name)]
    way = _either if len(ways) > 1 else next(iter(ways), None)
    return Augmentation(
        read=_reading(augment, streams),
        steps=tuple(places["image"]),
        erasures=tuple(places["normalized"]),
        mix=None if way is None else way(augment, streams),
    )
