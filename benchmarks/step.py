"""(b) The training step: batches of 128 images of 32x32x3, SGD with Nesterov momentum, two threads.

Theirs: float32, the usual layout, torch's default optimizer, a batch that is ready. Ours: the loop itself in
a worker with its settings of malloc, reading included.
"""

import time
from collections.abc import Callable
from contextlib import closing

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.execution.executors.local import LocalExecutor
from ablate.recipe.fields import Recipe
from ablate.training import models
from benchmarks import jobs
from benchmarks.measure import Comparison, faster, rates, shorter

BATCH, ROUNDS = jobs.BATCH, 5
STEPS = {"cnn4": 30, "resnet_small": 10, "resnet9": 3}


def ours(worker: LocalExecutor, name: str, precision: str) -> Callable[[], float]:
    """Return a function that trains an epoch in a worker and tells images a second."""
    payload = {
        "name": name,
        "precision": precision,
        "threads": 2,
        "batches": STEPS[name],
        "augment": {"crop": "none", "flip": False},
    }
    return lambda: jobs.ask(worker, payload)["speed"]


def theirs(name: str) -> Callable[[], float]:
    """Return the same of what most scripts do."""
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
    with closing(jobs.start("train", 1)) as worker:
        for name in STEPS:
            variants = {
                "fp32 NCHW": theirs(name),
                "bf16": ours(worker, name, "bf16"),
                "fp32": ours(worker, name, "fp32"),
            }
            variants["fp32 NCHW"]()
            speeds = rates(variants, ROUNDS, "images/s")
            found.append(faster(f"step, {name}, bf16", speeds["bf16"], speeds["fp32 NCHW"], required=2.2))
            found.append(faster(f"step, {name}, fp32", speeds["fp32"], speeds["fp32 NCHW"]))
        return [*found, _share_of_augmentation(worker)]


def _share_of_augmentation(worker: LocalExecutor) -> Comparison:
    """Compare an epoch of the smallest network, on one thread in bf16, with its cropping and flipping."""
    payload = {
        "name": "cnn4",
        "precision": "bf16",
        "threads": 1,
        "batches": STEPS["cnn4"],
        "augment": {"crop": "random_crop"},
    }
    variants = {
        "crop and flip": lambda: BATCH * 1000 / jobs.ask(worker, payload | {"only_read": True})["speed"],
        "the whole step": lambda: BATCH * 1000 / jobs.ask(worker, payload)["speed"],
    }
    times = rates(variants, ROUNDS, "ms/batch")
    share = times["crop and flip"].median / times["the whole step"].median
    note = f"{share:.1%} of the time; at most 5 % allowed"
    return shorter(
        "augmentation in training, cnn4 bf16",
        times["crop and flip"],
        times["the whole step"],
        required=20,
        note=note,
    )
