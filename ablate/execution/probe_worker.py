"""What a worker process does for --jobs-per-gpu auto: it trains a few steps and measures their memory."""

import os
import time
from collections.abc import Callable
from typing import NoReturn

import torch

from ablate.execution import attempt, memory
from ablate.execution.executors.base import Stopped
from ablate.recipe import networks, user_code
from ablate.store.files import Json
from ablate.store.tasks import ProbeTask
from ablate.training import data, loop

PERIOD = 0.25  # seconds between two reports of a probe


def probe(task: ProbeTask, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> NoReturn:
    """Train a recipe without keeping anything until asked to stop.

    Report images, time and memory a few times a second.
    """
    with attempt.logging_to(task.log):
        _probe(task, report, should_stop)


def _probe(task: ProbeTask, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> NoReturn:
    recipe = task.recipe
    if networks.is_own(recipe.model.name):
        user_code.allow(recipe.model.name, task.context.code or ())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = task.context.compile_cache
    device, prepared = torch.device(task.device), data.read(task.data)
    session = loop.start(recipe, task.seed, prepared, data.open_arrays(prepared.folder), device)
    images, reported = 0, 0.0
    while True:
        for step in loop.steps(session):
            images += min(recipe.training.batch_size, len(session.train))
            if should_stop():
                raise Stopped
            if time.monotonic() - reported > PERIOD:
                step.tolist()  # waits for the device, so that the images are really done
                reported = time.monotonic()
                report({"images": images, "time": reported} | _memory(device))


def _memory(device: torch.device) -> Json:
    """Return the bytes in use, of a GPU by all processes or of main memory by this one, and all bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return {"used": total - free, "total": total}
    return {
        "used": memory.peak(device),
        "total": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
