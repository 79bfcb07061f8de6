"""One of several trainings at once (see parallel.py): precision, threads (0: torch's default), seconds."""

import json
import sys
import time

import torch

from ablate.training import loop
from benchmarks.jobs import BATCH, session


def main() -> None:
    """Get ready, wait for the others, train for some seconds, print images a second."""
    precision, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    default = torch.get_num_threads()
    made = session(
        "cnn4", precision, 500, threads=threads or default, augment={"crop": "none", "flip": False}
    )
    steps = loop.steps(made)
    for _ in range(3):
        next(steps)
    print("ready", flush=True)
    sys.stdin.readline()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(steps)
        count += BATCH
    print(json.dumps({"speed": count / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
