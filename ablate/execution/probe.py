"""How many jobs share one GPU best: 1, 2 and 4 of them are run for a few seconds, and nothing is kept.

Each does what a job does, in its share of the memory: training, an evaluation, a copy for a checkpoint.

A small network leaves most of a GPU idle, waiting for its next kernel, and how much depends on the network,
the images and the GPU; so it is measured, not guessed.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ablate.errors import AblateError
from ablate.execution.executors.base import ENDS, Executor, Options
from ablate.store.tasks import ProbeTask

TRIED = (1, 2, 4)  # jobs a GPU
WINDOW = 4.0  # seconds in which all of them are seen at work
START = 300.0  # seconds in which all of them must have started, and then in which each must be seen again
ROOM = 0.9  # share of the memory that may be full
WORTH = 1.05  # what more jobs must gain in all: else fewer of them end sooner


@dataclass(frozen=True, slots=True)
class Load:
    """The load of some jobs at once on one device: images a second in all, bytes in use, bytes there are."""

    jobs: int
    images_a_second: float
    used: int
    total: int
    slot: str = ""


def best(measure: Callable[[int], Load | None], tried: Iterable[int] = TRIED) -> tuple[int, tuple[Load, ...]]:
    """Return how many jobs a device runs best, and what was measured.

    More are tried as long as they fit, going by the memory of fewer, and as long as they gain; `measure`
    returns None for a number that did not fit after all. Raises an AblateError when not even one job runs.
    """
    loads: list[Load] = []
    for jobs in tried:
        if loads and loads[-1].used / loads[-1].jobs * jobs > ROOM * loads[-1].total:
            break
        load = measure(jobs)
        if load is None:
            break
        loads.append(load)
        if len(loads) > 1 and load.images_a_second < WORTH * loads[-2].images_a_second:
            break
    if not loads:
        raise AblateError(
            "--jobs-per-gpu auto: not even one job runs on the device: try --jobs-per-gpu 1 and see its log"
        )
    chosen = loads[0]
    for load in loads[1:]:
        chosen = load if load.images_a_second >= WORTH * chosen.images_a_second else chosen
    return chosen.jobs, tuple(loads)


def probe(
    start: Callable[[Options], Executor], device: str, task: ProbeTask, interrupted: Callable[[], bool]
) -> tuple[int, str]:
    """Measure with real workers how many jobs a device runs best; return that number and, in words, why."""

    def measured(jobs: int) -> Load | None:
        context = task.context.model_copy(update={"jobs_a_device": jobs})  # each has its share of the memory
        shared = task.model_copy(update={"context": context})
        with closing(start(Options(device, jobs, devices=1))) as executor:
            return measure(executor, shared, jobs, interrupted=interrupted)

    jobs, loads = best(measured)
    figures = (
        f"{load.jobs}: {load.images_a_second:,.0f} images/s, {load.used / 2**30:.1f} GiB" for load in loads
    )
    return jobs, f"{jobs} jobs a GPU, by a probe on {loads[0].slot} ({', '.join(figures)})"


def measure(
    executor: Executor, task: ProbeTask, jobs: int, *,
    window: float = WINDOW, interrupted: Callable[[], bool] = lambda: False,
) -> Load | None:  # fmt: skip
    """Run `jobs` probes at once until all were seen at work for `window` seconds; return their load.

    None if one did not survive. Raises KeyboardInterrupt when `interrupted` returns True.
    """
    for i in range(jobs):
        executor.submit(task.model_copy(update={"number": i}))
    slot = ""
    first: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    began, all_started = time.monotonic(), False
    while True:
        if interrupted():
            raise KeyboardInterrupt
        for event in executor.events(0.1):
            if event.kind in ENDS:
                return None
            if event.kind == "progress":
                last[event.task], slot = event.detail, event.slot
        if not all_started and len(last) == jobs:
            all_started, began, first = True, time.monotonic(), dict(last)
        if (
            all_started
            and time.monotonic() - began > window
            and all(last[task]["time"] > first[task]["time"] for task in first)
        ):
            break
        if time.monotonic() - began > START:
            return None
    speed = sum(
        (last[t]["images"] - first[t]["images"]) / (last[t]["time"] - first[t]["time"]) for t in first
    )
    used = [detail["used"] for detail in last.values()]
    # A GPU reports the memory of all processes.
    in_use = sum(used) if executor.resources().device == "cpu" else max(used)
    return Load(jobs, speed, in_use, next(iter(last.values()))["total"], slot)
