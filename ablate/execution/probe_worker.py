"""What a worker does for --jobs-per-gpu auto: what a job does, for a few seconds, keeping nothing."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import torch

from ablate.execution import attempt, memory
from ablate.execution.executors.base import Stopped
from ablate.recipe import networks, user_code
from ablate.store.files import Json
from ablate.store.tasks import ProbeTask
from ablate.training import copies, data, images, loop, surgery
from ablate.training.loop import Session

PERIOD = 0.25  # seconds between two reports of a probe
PAUSE = 3.0  # seconds between two evaluations: at least one in the time that is measured


def probe(task: ProbeTask, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> NoReturn:
    """Train a recipe without keeping anything until asked to stop.

    Report images, time and memory a few times a second.
    """
    device = torch.device(task.device)
    with attempt.logging_to(task.log), memory.shared(device, task.context.jobs_a_device):
        _probe(task, device, report, should_stop)


def _probe(
    task: ProbeTask, device: torch.device, report: Callable[[Json], None], should_stop: Callable[[], bool]
) -> NoReturn:
    recipe = task.recipe
    if networks.is_own(recipe.model.name):
        user_code.allow(recipe.model.name, task.context.code or ())
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = task.context.compile_cache
    prepared = data.read(task.data)
    room = images.room(device, task.context.jobs_a_device)
    arrays = data.open_arrays(prepared.folder)
    session = loop.start(recipe, task.seed, prepared, arrays, device, memory=room)
    session.shares_device = task.context.jobs_a_device > 1
    _end_epoch(session)  # before anything is reported: memory has been at its peak once
    seen, reported, ended = 0, 0.0, time.monotonic()
    while True:
        for step in loop.steps(session):
            seen += min(recipe.training.batch_size, len(session.train))
            if should_stop():
                raise Stopped
            if time.monotonic() - ended > PAUSE:
                _end_epoch(session)
                surgery.train(session.network)
                ended = time.monotonic()
            if time.monotonic() - reported > PERIOD:
                step.tolist()  # waits for the device, so that the images are really done
                reported = time.monotonic()
                report({"images": seen, "time": reported} | _memory(device))


def _end_epoch(session: Session) -> None:
    """Do what a job does between two epochs: evaluate, here one batch, and copy all that a checkpoint has."""
    size = loop.evaluation_batch(session.device, session.train.side)
    rows, labels = session.train.rows[:size], session.train.labels[:size]
    loop.score(session.network, replace(session.train, rows=rows, labels=labels), session.recipe)
    if session.shares_device:
        torch.cuda.empty_cache()  # as `loop.epochs` does
    copies.copied(loop.state(session), session.device).content()


def _memory(device: torch.device) -> Json:
    """Return the bytes in use, of a GPU by all processes or of main memory by this one, and all bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return {"used": total - free, "total": total}
    return {
        "used": memory.peak(device),
        "total": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
