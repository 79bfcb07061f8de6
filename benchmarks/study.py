"""(e) A whole study: eight short trainings of cnn4 on the 1,437 real digits at 32x32, MLflow logging in both.

Theirs: eight runs of the usual script (usual.py), one process after the other. Ours: `ablate run`, from
nothing to the report. Same recipes, epochs and batches; everything is counted, from the first process to the
last.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ablate.execution.executors.server import ENVIRONMENT
from benchmarks.measure import Comparison, faster, rates, timed

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


def run() -> list[Comparison]:
    """Compare in bf16 and in fp32."""
    variants = {
        "the usual scripts": usual,
        "ablate, bf16": lambda: ours("bf16"),
        "ablate, fp32": lambda: ours("fp32"),
    }
    speeds = rates(variants, ROUNDS, "jobs/min")
    theirs = speeds["the usual scripts"]
    return [
        faster("a study of 8 jobs, bf16", speeds["ablate, bf16"], theirs, required=3.5),
        faster("a study of 8 jobs, fp32", speeds["ablate, fp32"], theirs, required=1.7),
    ]
