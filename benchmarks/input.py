"""(a) The input pipeline: normalised batches of 128 from 10,000 images of 32x32x3 in memory, on two threads.

Theirs: a DataLoader with torchvision's transforms of PIL images (0 and 2 workers, started before the clock), and with
its per-image v2 transforms of tensors.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from ablate.recipe import Augment, ColorJitter, MeanStd
from ablate.training import images
from ablate.training.augment import compose
from ablate.training.augment.streams import generators
from benchmarks.measure import Comparison, faster, rates

COUNT, BATCH, ROUNDS = 10_000, 128, 5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
PLAIN: dict[str, Any] = {"crop": "none", "flip": False}

CASES: dict[str, tuple[dict[str, Any], Callable[[Any], list[Any]], Callable[[Any], list[Any]], float]] = {
    # our recipe; torchvision's transforms of the image, and of its tensor; what is required
    "crop and flip": ({}, lambda t: [t.RandomCrop(32, 4), t.RandomHorizontalFlip()], lambda _: [], 10),
    "random_resized_crop and flip": (
        {"crop": "random_resized_crop"},
        lambda t: [t.RandomResizedCrop(32), t.RandomHorizontalFlip()],
        lambda _: [],
        7,
    ),
    "rotation, nearest": (PLAIN | {"rotation": 15.0, "interpolation": "nearest"}, lambda t: [t.RandomRotation(15)], lambda _: [], 8),
    "erasing": (PLAIN | {"erasing": 0.5}, lambda _: [], lambda t: [t.RandomErasing(0.5)], 9),
    "color_jitter": (PLAIN | {"color_jitter": ColorJitter(**JITTER)}, lambda t: [t.ColorJitter(**JITTER)], lambda _: [], 3),
    "all of them": (
        {
            "crop": "random_resized_crop",
            "rotation": 15.0,
            "interpolation": "nearest",
            "color_jitter": ColorJitter(**JITTER),
            "erasing": 0.5,
        },
        lambda t: [t.RandomResizedCrop(32), t.RandomHorizontalFlip(), t.RandomRotation(15), t.ColorJitter(**JITTER)],
        lambda t: [t.RandomErasing(0.5)],
        3.5,
    ),
}


class Pictures(Dataset[Any]):
    """Images in memory, as CIFAR10 of torchvision keeps them, with a transform of each."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Any, *, tensors: bool) -> None:
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() if tensors else pixels
        self.labels, self.transform, self.tensors = labels.tolist(), transform, tensors

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        """Transform one image."""
        one = self.pixels[i]
        return self.transform(one if self.tensors else Image.fromarray(one)), self.labels[i]


def loader(pixels: np.ndarray, labels: np.ndarray, case: str, workers: int, *, tensors: bool) -> DataLoader[Any]:
    """Make what people use today."""
    _, of_image, of_tensor, _ = CASES[case]
    kind: Any = v2 if tensors else v1
    to_float = [v2.ToDtype(torch.float32, scale=True)] if tensors else [v1.ToTensor()]
    chain = [*of_image(kind), *to_float, kind.Normalize(MEAN, STD), *of_tensor(kind)]
    data = Pictures(pixels, labels, kind.Compose(chain), tensors=tensors)
    return DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=True)


def speed_of_loader(made: DataLoader[Any]) -> float:
    """Give images a second of an epoch after its first batch, when all workers are at work."""
    batches = iter(made)
    next(batches)
    began, count = time.perf_counter(), sum(len(labels) for _, labels in batches)
    return count / (time.perf_counter() - began)


def speed_of_ours(some: images.Images, augment: Augment) -> float:
    """Give images a second of an epoch."""
    chain = compose(augment, generators(0))
    order = torch.randperm(COUNT)[: COUNT // BATCH * BATCH]
    began, count = time.perf_counter(), sum(len(batch.labels) for batch in some.batches(BATCH, order, chain))
    return count / (time.perf_counter() - began)


def run() -> list[Comparison]:
    """Compare every augmentation, and all together; then resident with streamed images."""
    torch.set_num_threads(2)
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, COUNT)
    normalize = MeanStd(mean=MEAN, std=STD)
    some = images.place(normalize, pixels, labels, np.arange(COUNT), torch.device("cpu"))
    found = []
    for case, (fields, _, _, required) in CASES.items():
        augment = Augment(**fields)
        loaders = {
            "PIL, no worker": loader(pixels, labels, case, 0, tensors=False),
            "PIL, 2 workers": loader(pixels, labels, case, 2, tensors=False),
            "v2, no worker": loader(pixels, labels, case, 0, tensors=True),
            "v2, 2 workers": loader(pixels, labels, case, 2, tensors=True),
        }
        speed_of_ours(some, augment)
        variants: dict[str, Callable[[], float]] = {name: lambda made=made: speed_of_loader(made) for name, made in loaders.items()}  # type: ignore[misc]
        variants["ablate"] = lambda augment=augment: speed_of_ours(some, augment)  # type: ignore[misc]
        speeds = rates(variants, ROUNDS, "images/s")
        found.append(faster(f"input, {case}", speeds.pop("ablate"), *speeds.values(), required=required))
        del loaders, variants
    found.append(_streaming(some, images.place(normalize, pixels, labels, np.arange(COUNT), torch.device("cpu"), memory=0)))
    return found


def _streaming(resident: images.Images, streamed: images.Images) -> Comparison:
    """Compare images that are where they are used with such that are brought there batch by batch; both give the same numbers."""
    augment, order = Augment(), torch.arange(COUNT)
    both = [some.batches(BATCH, order, compose(augment, generators(0))) for some in (resident, streamed)]
    same = all(torch.equal(one.images, other.images) for one, other in zip(*both, strict=True))
    speeds = rates(
        {"streamed": lambda: speed_of_ours(streamed, augment), "resident": lambda: speed_of_ours(resident, augment)}, ROUNDS, "images/s"
    )
    note = f"with a limit of 0 bytes; the same numbers: {'yes' if same else 'NO'}"
    return faster("input, streamed", speeds["streamed"], speeds["resident"], note=note)
