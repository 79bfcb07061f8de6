"""What the benchmarks let real worker processes do."""

import collections
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.execution.crew import PRELOAD
from ablate.execution.executors.base import ENDS, Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.recipe.fields import Augment, MeanStd, Recipe
from ablate.training import images, loop
from ablate.training.augment import compose
from ablate.training.augment.streams import generators
from ablate.training.data import Arrays, Prepared

Json = dict[str, Any]
COUNT, BATCH = 10_000, 128
NORMALIZE = MeanStd(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


@dataclass(frozen=True, slots=True)
class Call:
    """A task: a call of the workers' function with a payload."""

    id: str
    payload: Json

    def to_json(self) -> Json:
        """Return the payload."""
        return self.payload


def start(function: str, slots: int, module: str = "benchmarks.jobs") -> LocalExecutor:
    """Start workers as `ablate run` does: warm, with their own settings of malloc and threads."""
    return LocalExecutor(
        f"{module}:{function}", tuple(Slot(f"cpu:{i}", "cpu") for i in range(slots)), PRELOAD
    )


def noise(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Make random images (N, 32, 32, 3) uint8, and labels."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, count)


def read(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Read so many epochs of augmented batches on so many threads; return images a second."""
    del report, should_stop
    torch.set_num_threads(payload["threads"])
    memory = payload.get("memory")
    some = images.place(NORMALIZE, *noise(), np.arange(COUNT), torch.device("cpu"), memory)
    chain = compose(Augment.model_validate(payload["augment"]), generators(0))
    count, began = 0, 0.0
    for epoch in range(payload["epochs"] + 1):
        if epoch == 1:  # the first one warms up
            count, began = 0, time.perf_counter()
        for batch in some.batches(BATCH, torch.randperm(COUNT)[: COUNT // BATCH * BATCH], chain):
            count += len(batch.labels)
    return {"speed": count / (time.perf_counter() - began)}


def session(name: str, precision: str, batches: int, *, threads: int, augment: Json) -> loop.Session:
    """Set up a training of random images, of so many batches an epoch."""
    fields = {
        "data": {"validation": 0},
        "augment": augment,
        "model": {"name": name},
        "training": {"batch_size": BATCH, "precision": precision, "threads": threads},
    }
    pixels, labels = noise(BATCH * batches)
    prepared = Prepared(Path(), "", tuple("0123456789"), len(labels), 1, 3, 32, (0.5,) * 3, (0.25,) * 3)
    return loop.start(
        Recipe.model_validate(fields),
        0,
        prepared,
        Arrays(pixels, labels, pixels[:1], labels[:1]),
        torch.device("cpu"),
    )


def train(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Train an epoch after one that warms up, or only read its batches; return images a second."""
    del report, should_stop
    made = session(
        payload["name"],
        payload["precision"],
        payload["batches"],
        threads=payload["threads"],
        augment=payload["augment"],
    )
    for _ in range(2):
        began = time.perf_counter()
        if payload.get("only_read"):
            collections.deque(
                made.train.batches(BATCH, torch.randperm(len(made.train)), made.augmentation), maxlen=0
            )
        else:
            collections.deque(loop.steps(made), maxlen=0)
    return {"speed": BATCH * payload["batches"] / (time.perf_counter() - began)}


def ask(worker: LocalExecutor, payload: Json) -> Json:
    """Let a worker do one task, and return its answer."""
    worker.submit(Call("asked", payload))
    while True:
        for event in worker.events(1.0):
            if event.kind in ENDS:
                return event.detail


def tiny(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Train one tiny step: a job that is nothing but its start."""
    del payload, report, should_stop
    step()
    return {"pid": os.getpid()}


def step() -> None:
    """Train one step of a linear layer."""
    network = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.ones(4, 8)).sum().backward()
    optimizer.step()
