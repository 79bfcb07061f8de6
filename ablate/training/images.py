"""Images on their way into a network: read in whole batches, augmented, normalised, on the device.

On a CPU they are read where they lie, memory-mapped, so that all jobs share one copy in the page cache. On a
GPU they are kept on the device as bytes; those that do not fit are streamed there batch by batch, with the
same numbers.
"""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.recipe.fields import MeanStd, Recipe
from ablate.training.augment import PLAIN, Augmentation, Mixed, Step
from ablate.training.augment.crop import take
from ablate.training.augment.streams import move
from ablate.training.data import Arrays, Prepared

IMAGENET = MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # torchvision's reference training
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
        source = self._streamed(chosen, size) if self.streamed else self._resident(chosen, size)
        for pixels, which, labels in source:
            x = self._normalised(augmentation.read(pixels, which), augmentation.steps)
            for erase in augmentation.erasures:
                x = erase(x)
            if augmentation.mix is None:
                yield Batch(x, labels)
            else:
                mixed = augmentation.mix(x)
                yield Batch(mixed.images, labels, mixed)

    def _resident(self, chosen: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        (chosen,) = move(self.device, chosen)
        rows, labels = self.rows[chosen], self.labels[chosen]
        for i in range(0, len(chosen), size):
            yield self.pixels, rows[i : i + size], labels[i : i + size]

    def _streamed(self, chosen: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Read the next batch on the host while the device works on this one."""
        if len(chosen) == 0:
            return
        rows: tuple[Tensor, ...] = torch.split(self.rows[chosen], size)
        (on_device,) = move(self.device, chosen)
        labels: tuple[Tensor, ...] = torch.split(self.labels[on_device], size)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(take, self.pixels, rows[0])
            for i in range(len(rows)):
                (pixels,) = move(self.device, ahead.result())
                if i + 1 < len(rows):
                    ahead = pool.submit(take, self.pixels, rows[i + 1])
                yield pixels, torch.arange(len(pixels), device=self.device), labels[i]

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
        whole, which = take(whole, which).to(device), torch.arange(len(rows), device=device)
    mean, std = (
        torch.tensor(part, dtype=torch.float32, device=device).expand(channels)
        for part in (normalize.mean, normalize.std)
    )
    scale, shift = (part.repeat(height * width) for part in (1 / (255 * std), -mean / std))
    return Images(whole, which, torch.from_numpy(labels[rows]).to(device), scale, shift, streamed=not fits)
