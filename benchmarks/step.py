"""(b) The training step: batches of 128 images of 32x32x3, SGD with Nesterov momentum, two threads.

Theirs: float32, the usual layout, torch's default optimizer, a batch that is ready. Ours: the loop itself, reading included.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import Recipe
from ablate.training import loop, models
from ablate.training.data import Arrays, Prepared
from benchmarks.measure import Comparison, Timing, faster, rates, shorter

BATCH, ROUNDS = 128, 5
STEPS = {"cnn4": 30, "resnet_small": 10, "resnet9": 3}


def session(name: str, precision: str, batches: int, *, threads: int = 2, augment: dict[str, object] | None = None) -> loop.Session:
    """Set up a training of random images, of so many batches an epoch."""
    fields = {
        "data": {"validation": 0},
        "augment": augment or {"crop": "none", "flip": False},
        "model": {"name": name},
        "training": {"batch_size": BATCH, "precision": precision, "threads": threads},
    }
    random = np.random.default_rng(0)
    count = BATCH * batches
    pixels, labels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, count)
    prepared = Prepared(Path(), "", tuple("0123456789"), count, 1, 3, 32, (0.5,) * 3, (0.25,) * 3)
    return loop.start(Recipe.model_validate(fields), 0, prepared, Arrays(pixels, labels, pixels[:1], labels[:1]), torch.device("cpu"))


def ours(name: str, precision: str, *, threads: int = 2, augment: dict[str, object] | None = None) -> Callable[[], float]:
    """Give a function that trains an epoch and tells images a second."""
    made = session(name, precision, STEPS[name], threads=threads, augment=augment)

    def run() -> float:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        for _ in loop.steps(made):
            pass
        return BATCH * STEPS[name] / (time.perf_counter() - began)

    return run


def theirs(name: str) -> Callable[[], float]:
    """Give the same of what most scripts do."""
    fields = Recipe.model_validate({"model": {"name": name}})
    network: nn.Module = models.build(fields.model, models.Shape(3, 32, 10), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    x, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))

    def run() -> float:
        torch.set_num_threads(2)
        network.train()
        began, seen = time.perf_counter(), 0.0
        for _ in range(STEPS[name]):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
            seen += loss.item()
        return BATCH * STEPS[name] / (time.perf_counter() - began)

    return run


def run() -> list[Comparison]:
    """Compare the step of three networks, in bf16 and in fp32; and what augmentation takes of it."""
    found = []
    for name in STEPS:
        variants = {"fp32 NCHW": theirs(name), "bf16": ours(name, "bf16"), "fp32": ours(name, "fp32")}
        for one in variants.values():
            one()
        speeds = rates(variants, ROUNDS, "images/s")
        found.append(faster(f"step, {name}, bf16", speeds["bf16"], speeds["fp32 NCHW"], required=2.2))
        found.append(faster(f"step, {name}, fp32", speeds["fp32"], speeds["fp32 NCHW"]))
    return [*found, _share_of_augmentation()]


def _share_of_augmentation() -> Comparison:
    """Compare an epoch of the smallest network, on one thread in bf16, with the reading, cropping and flipping in it."""
    made = session("cnn4", "bf16", STEPS["cnn4"], threads=1, augment={"crop": "random_crop"})

    def train() -> float:
        torch.set_num_threads(1)
        began = time.perf_counter()
        for _ in loop.steps(made):
            pass
        return (time.perf_counter() - began) * 1000 / STEPS["cnn4"]

    def read() -> float:
        torch.set_num_threads(1)
        order = torch.randperm(len(made.train))
        began = time.perf_counter()
        for _ in made.train.batches(BATCH, order, made.augmentation):
            pass
        return (time.perf_counter() - began) * 1000 / STEPS["cnn4"]

    for one in (train, read):
        one()
    times: dict[str, Timing] = rates({"crop and flip": read, "the whole step": train}, ROUNDS, "ms/batch")
    share = times["crop and flip"].median / times["the whole step"].median
    note = f"{share:.1%} of the time; at most 5 % allowed"
    return shorter("augmentation in training, cnn4 bf16", times["crop and flip"], times["the whole step"], required=20, note=note)
