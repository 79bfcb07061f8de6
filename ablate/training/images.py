"""Images on their way into a network: read in whole batches, augmented, normalised, on the device.

On a CPU they are read where they lie, memory-mapped, so that all jobs share one copy in the page cache. On a
GPU they are kept on the device as bytes; those that do not fit are streamed there batch by batch, with the
same numbers.
"""

import functools
import gc
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.recipe.fields import MeanStd, Recipe
from ablate.training.augment import PLAIN, Applied, Augmentation, Mixed, Step
from ablate.training.augment.crop import take
from ablate.training.augment.streams import Form, move
from ablate.training.data import Arrays, Prepared

IMAGENET = MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # torchvision's reference training
CHUNK = 1 << 26  # bytes of images that are copied to a device at once
Arrival = torch.cuda.Event | None  # when what is copied beside other work has come; none: it is there
T = TypeVar("T")
MOST = 0.3  # of the memory that a GPU has free, for the training images, and as much for the others


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised images (B, C, H, W), channels last, and labels (B,).

    When they are mixed, whose `share` of each is its own.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """Some images of a data set: where they lie, which they are, their labels and normalisation."""

    pixels: Tensor  # (N, H, W, C) uint8, on the device or, streamed, on the host
    rows: Tensor  # (M,) int64, where `pixels` are: these images
    labels: Tensor  # (M,) int64 on the device
    scale: Tensor  # (H * W * C,), a row of them: normalised = bytes * scale + shift
    shift: Tensor
    streamed: bool = False  # every batch is copied to the device anew

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Return where batches are wanted."""
        return self.labels.device

    @property
    def side(self) -> int:
        """Return the pixels of a side: images are squares."""
        return self.pixels.shape[1]

    def batches(
        self, size: int, chosen: Tensor | None = None, augmentation: Augmentation = PLAIN
    ) -> Iterator[Batch]:
        """Yield the images, or the `chosen` ones (on the CPU) in this order, in batches.

        The last one may be smaller.
        """
        chosen = torch.arange(len(self)) if chosen is None else chosen
        for applied, pixels, which, labels in self._prepared(chosen, size, augmentation):
            x = self._normalised(applied.read(pixels, which), applied.steps)
            for erase in applied.erasures:
                x = erase(x)
            if applied.mix is None:
                yield Batch(x, labels)
            else:
                mixed = applied.mix(x)
                yield Batch(mixed.images, labels, mixed)

    def _prepared(
        self, chosen: Tensor, size: int, augmentation: Augmentation
    ) -> Iterator[tuple[Applied, Tensor, Tensor, Tensor]]:
        """Yield for each batch what is done to it, where its images are and which they are, and its labels.

        A batch is drawn, and read where images are streamed, while the device works on the one before.
        """
        (there,) = move(self.device, chosen)
        labels: tuple[Tensor, ...] = torch.split(self.labels[there], size)
        read = self.rows[chosen if self.streamed else there]  # where they are read: on the host or the device
        rows: tuple[Tensor, ...] = torch.split(read, size)
        _, height, width, channels = self.pixels.shape

        def prepare(i: int) -> tuple[Applied, Tensor, Tensor, Arrival]:
            form = Form(len(labels[i]), channels, height, width, self.device)
            applied = augmentation.drawn(form)
            if not self.streamed:
                return applied, self.pixels, rows[i], None
            pixels, arrival = _read(self.pixels, rows[i], self.device)
            return applied, pixels, torch.arange(len(pixels), device=self.device), arrival

        numbers = range(len(chosen) and len(rows))
        ahead = self.streamed or self.device.type != "cpu"  # else nothing works beside this process
        for i, (applied, pixels, which, arrival) in enumerate(_each(prepare, numbers, ahead=ahead)):
            if arrival is not None:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(arrival)
                pixels.record_stream(stream)
            yield applied, pixels, which, labels[i]

    def _normalised(self, read: Tensor, steps: tuple[Step, ...]) -> Tensor:
        """Return normalised floats of bytes (B, H, W, C), after some steps.

        Scale and shift are tiled over a whole image: on a CPU an inner loop of 3 channels costs more than the
        crop.
        """
        shape, scale = read.shape, self.scale
        if steps:
            x = (
                read.permute(0, 3, 1, 2)
                .to(torch.float32, memory_format=torch.contiguous_format)
                .mul_(1 / 255)
            )
            for step in steps:
                x = step(x)
            read, scale = x.permute(0, 2, 3, 1).contiguous(), scale * 255
        flat = torch.addcmul(self.shift, read.reshape(len(read), -1).to(torch.float32), scale)
        return flat.view(shape).permute(0, 3, 1, 2)


def _each(prepare: Callable[[int], T], numbers: range, *, ahead: bool) -> Iterator[T]:
    """Yield what is prepared for each number, the next one in a thread if `ahead`."""
    if not ahead or not numbers:
        yield from map(prepare, numbers)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(prepare, numbers[0])
        for number in numbers[1:]:
            prepared = coming.result()
            coming = pool.submit(prepare, number)
            yield prepared
        yield coming.result()


def _read(pixels: Tensor, rows: Tensor, device: torch.device) -> tuple[Tensor, Arrival]:
    """Read images on the host for a device; return them there, and when they have come.

    On a GPU they are read into pinned memory, and copied on a stream of their own, beside what it computes.
    """
    if device.type != "cuda":
        return take(pixels, rows).to(device), None
    pinned = torch.empty((len(rows), *pixels.shape[1:]), dtype=pixels.dtype, pin_memory=True)
    torch.index_select(pixels.flatten(1), 0, rows, out=pinned.view(len(rows), -1))
    aside = _aside(device)
    with torch.cuda.stream(aside):
        there = pinned.to(device, non_blocking=True)
        return there, aside.record_event()


@functools.cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which images are copied to a GPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def normalisation(recipe: Recipe, prepared: Prepared) -> MeanStd:
    """Return the mean and standard deviation that a recipe asks for.

    Raises a ValueError when they do not fit the channels.
    """
    normalize = recipe.data.normalize
    mean_std = (
        MeanStd(mean=prepared.mean, std=prepared.std)
        if normalize == "dataset"
        else IMAGENET
        if normalize == "imagenet"
        else normalize
    )
    assert isinstance(mean_std, MeanStd)
    if len(mean_std.mean) not in (1, prepared.channels):
        raise ValueError(
            f"data.normalize has {len(mean_std.mean)} channels, and the images have {prepared.channels}"
        )
    return mean_std


def for_training(
    recipe: Recipe,
    prepared: Prepared,
    arrays: Arrays,
    rows: NDArray[np.int64],
    device: torch.device,
    *,
    memory: int | None = None,
) -> Images:
    """Return some of the training images; `memory`: see `place`."""
    return place(
        normalisation(recipe, prepared), arrays.train_images, arrays.train_labels, rows, device, memory
    )


def for_test(
    recipe: Recipe, prepared: Prepared, arrays: Arrays, device: torch.device, *, memory: int | None = None
) -> Images:
    """Return all test images; `memory`: see `place`."""
    rows = np.arange(len(arrays.test_labels))
    return place(
        normalisation(recipe, prepared), arrays.test_images, arrays.test_labels, rows, device, memory
    )


def room(device: torch.device, jobs: int) -> int | None:
    """Return how many bytes of images may go to a device that so many jobs share.

    None on a CPU, which maps them.
    """
    if device.type == "cpu":
        return None
    gc.collect()
    torch.cuda.empty_cache()  # what an earlier job of this process has left is free, too
    return int(torch.cuda.mem_get_info(device)[0] * MOST / jobs)


def _copied(pixels: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Copy images to a device, some at a time: the host never has a second copy of them all."""
    there = torch.empty((len(rows), *pixels.shape[1:]), dtype=pixels.dtype, device=device)
    size = max(1, CHUNK // math.prod(pixels.shape[1:]))
    for start in range(0, len(rows), size):
        there[start : start + size].copy_(take(pixels, rows[start : start + size]))
    return there


def place(
    normalize: MeanStd,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    device: torch.device,
    memory: int | None = None,
) -> Images:
    """Put the images `rows` of `pixels` (N, H, W, C) where they are read from fastest.

    `memory`: the bytes that they may take on the device, beyond which they are streamed; none: no limit. On a
    CPU they stay mapped from the disk.
    """
    height, width, channels = pixels.shape[1:]
    needed = len(rows) * height * width * channels
    fits = memory is None or needed <= memory
    whole, which = torch.from_numpy(pixels), torch.from_numpy(rows)
    if device.type != "cpu" and fits:
        whole, which = _copied(whole, which, device), torch.arange(len(rows), device=device)
    mean, std = (
        torch.tensor(part, dtype=torch.float32, device=device).expand(channels)
        for part in (normalize.mean, normalize.std)
    )
    scale, shift = (part.repeat(height * width) for part in (1 / (255 * std), -mean / std))
    return Images(whole, which, torch.from_numpy(labels[rows]).to(device), scale, shift, streamed=not fits)
