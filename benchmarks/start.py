"""(c) How long a job takes to start, to the end of a step of a linear layer.

Theirs: a Python process a job that imports torch, torchvision and mlflow. Ours: a fresh process forked from
the warm server, and the next job in a warm worker.
"""

import subprocess
import sys
import time
from contextlib import closing

from ablate.execution.executors.local import LocalExecutor
from benchmarks import jobs
from benchmarks.measure import Comparison, Timing, rates, shorter, timed

ROUNDS = 5
SCRIPT = "import torch, torchvision, mlflow; from benchmarks import jobs; jobs.step()"


def subprocess_per_job() -> float:
    """Start a process as a script does."""
    return timed(lambda: subprocess.run([sys.executable, "-c", SCRIPT], check=True))


def finish(executor: LocalExecutor, name: str) -> float:
    """Run one tiny job to its end."""
    began = time.perf_counter()
    executor.submit(jobs.Call(name, {}))
    while not any(event.kind == "finished" for event in executor.events(1.0)):
        pass
    return time.perf_counter() - began


def forked_per_job() -> float:
    """Start a fresh process from the warm server, and run a job in it."""
    began = time.perf_counter()
    with closing(jobs.start("tiny", 1)) as executor:
        finish(executor, "one")
        return time.perf_counter() - began


def run() -> list[Comparison]:
    """Compare them; what the warm server itself takes to start is reported beside."""
    first = forked_per_job()
    with closing(jobs.start("tiny", 1)) as warm:
        finish(warm, "first")
        variants = {
            "a subprocess a job": subprocess_per_job,
            "a fresh process": forked_per_job,
            "a warm worker": lambda: finish(warm, "next"),
        }
        times: dict[str, Timing] = rates(variants, ROUNDS, "s")
    note = f"at most 0.15 s allowed; once a study, the server and its first worker: {first:.1f} s"
    theirs = times["a subprocess a job"]
    allowed = theirs.median / 0.15
    return [
        shorter(
            "job start, a fresh process",
            times["a fresh process"],
            theirs,
            required=round(allowed, 1),
            note=note,
        ),
        shorter("job start, the next job", times["a warm worker"], theirs, required=round(allowed, 1)),
    ]
