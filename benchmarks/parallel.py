"""(d) Two jobs on two cores: one thread each, against one job with both, and against torch's defaults.

All are processes that train cnn4 at once; images a second in all. Ours have the settings of our workers; the
defaults are those of a script without any settings.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from ablate.execution.executors.server import ENVIRONMENT
from benchmarks.measure import Comparison, faster, rates

ROUNDS, SECONDS = 3, 6.0


def together(
    count: int, threads: int | None, precision: str, environment: dict[str, str]
) -> Callable[[], float]:
    """Return a function that runs so many trainings at once and tells images a second in all."""
    command = [sys.executable, "-m", "benchmarks.child", precision, str(threads or 0), str(SECONDS)]
    bare = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}

    def run() -> float:
        children = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bare | environment
            )
            for _ in range(count)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return sum(json.loads(child.communicate()[0])["speed"] for child in children)

    return run


def run() -> list[Comparison]:
    """Compare in fp32 and in bf16."""
    two_threads = ENVIRONMENT | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    found = []
    for precision in ("fp32", "bf16"):
        variants = {
            "2 jobs x 1 thread": together(2, 1, precision, ENVIRONMENT),
            "1 job x 2 threads": together(1, 2, precision, two_threads),
            "2 jobs, default threads": together(2, None, precision, {}),
        }
        speeds = rates(variants, ROUNDS, "images/s")
        ours = speeds["2 jobs x 1 thread"]
        found.append(
            faster(f"two jobs, cnn4 {precision}, over one", ours, speeds["1 job x 2 threads"], required=1.05)
        )
        found.append(
            faster(
                f"two jobs, cnn4 {precision}, over defaults",
                ours,
                speeds["2 jobs, default threads"],
                required=2.5,
            )
        )
    return found
