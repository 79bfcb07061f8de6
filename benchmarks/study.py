"""(e) A whole study: eight short trainings of cnn4 on the 1,442 real digits at 32x32, MLflow logging in both.

Theirs: eight runs of the usual script (usual.py), one process after the other. Ours: `ablate run`, from
nothing to the report. Same recipes, epochs and batches; everything is counted, from the first process to the
last.

And what a study costs besides training: eight jobs of resnet_small on 2,000 JPEG files, four epochs, from the
first process to the last, over the seconds that its epochs take on so many slots.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.execution.executors.server import ENVIRONMENT
from benchmarks.measure import Comparison, Limit, Timing, faster, rates, timed

ROUNDS, EPOCHS = 2, 6
STUDY = f"""
name  = "eight"
seeds = 2
[recipe]
data = {{ name = "digits", image_size = 32 }}
augment = {{ flip = false }}
model.name = "cnn4"
optimizer.lr = 0.05
training = {{ epochs = {EPOCHS}, batch_size = 128 }}
[factors]
augment.crop     = ["random_crop", "random_resized_crop"]
augment.rotation = [0, 15]
"""


JPEGS = """
name  = "overhead"
seeds = 2
[recipe]
data = {{ name = "imagefolder", root = "{root}", image_size = 32 }}
model.name = "resnet_small"
optimizer.lr = 0.05
training = {{ epochs = 4, batch_size = 128 }}
[factors]
augment.crop     = ["random_crop", "random_resized_crop"]
augment.rotation = [0, 15]
"""


def clean() -> dict[str, str]:
    """Return the environment of a user, without what is set for our workers."""
    return {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}


def usual() -> float:
    """Run eight scripts, one after the other; return jobs a minute."""
    with tempfile.TemporaryDirectory() as folder:

        def all_eight() -> None:
            for seed in range(2):
                for crop in ("random_crop", "random_resized_crop"):
                    for rotation in ("0", "15"):
                        arguments = [folder, crop, rotation, str(seed), str(EPOCHS)]
                        command = [sys.executable, "-m", "benchmarks.usual", *arguments]
                        subprocess.run(command, check=True, env=clean(), capture_output=True)

        return 8 * 60 / timed(all_eight)


def ours(precision: str) -> float:
    """Run the study in a new store; return jobs a minute."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "eight.toml"
        file.write_text(STUDY)
        options = ["--store", f"{folder}/mlruns", "--set", f"training.precision={precision}"]
        command = [sys.executable, "-m", "ablate", "run", str(file), *options]
        seconds = timed(lambda: subprocess.run(command, check=True, env=clean(), stdout=subprocess.DEVNULL))
        return 8 * 60 / seconds


def draw(root: Path) -> None:
    """Write 2,000 images to train on and 500 to test on, ten classes of noise around a color each."""
    random = np.random.default_rng(0)
    for part, number in (("train", 200), ("test", 50)):
        for label, color in enumerate(random.integers(0, 256, (10, 3))):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = np.clip(color + random.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=75)


def overhead() -> Limit:
    """Return how many times as long a study takes as its epochs alone."""
    ratios = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            root, store = Path(folder) / "images", Path(folder) / "mlruns"
            draw(root)
            file = Path(folder) / "overhead.toml"
            file.write_text(JPEGS.format(root=root))
            command = [sys.executable, "-m", "ablate", "run", str(file), "--store", str(store)]
            seconds = timed(
                partial(subprocess.run, command, check=True, env=clean(), stdout=subprocess.DEVNULL)
            )
            journals = [path.read_text().splitlines() for path in store.glob("jobs/*/journal.jsonl")]
            epochs = [json.loads(line)["seconds"] for line in chain(*journals)]
            assert len(epochs) == 8 * 4
            ratios.append(seconds / (sum(epochs) / len(os.sched_getaffinity(0))))
    ours = Timing("ablate", statistics.median(ratios), min(ratios), max(ratios), "x")
    return Limit("a study of 8 jobs on 2,000 JPEG files, over the time of its epochs", ours, 1.15)


def run() -> list[Comparison | Limit]:
    """Compare in bf16 and in fp32, and measure what is not training."""
    variants = {
        "the usual scripts": usual,
        "ablate, bf16": lambda: ours("bf16"),
        "ablate, fp32": lambda: ours("fp32"),
    }
    speeds = rates(variants, ROUNDS, "jobs/min")
    theirs = speeds["the usual scripts"]
    return [
        overhead(),
        faster("a study of 8 jobs, bf16", speeds["ablate, bf16"], theirs, required=3.5),
        faster("a study of 8 jobs, fp32", speeds["ablate, fp32"], theirs, required=1.7),
    ]
