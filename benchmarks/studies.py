"""Write a store of many studies, for the service's pages (see serve.py); stores.py has one large one.

    python benchmarks/studies.py DIR --studies 20 --cells 100 --seeds 5

Two small jobs are trained for real; the others are copies of one under the identities that their recipes
have, with other numbers and without weights. MLflow has none of these.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ablate.planning.resolve import resolve
from ablate.store import job_folder, layout, study_folder
from ablate.study import file as study_file
from ablate.study.grid import Job

STUDY = """
name = "{name}"
question = "How large may a store become?"
seeds = {seeds}
min_effect = 0.01
[recipe]
data = {{ name = "digits", image_size = 16, train_size = 300 }}
augment = {{ crop = "none", flip = false }}
model = {{ name = "cnn4", width = 0.25 }}
training = {{ epochs = 3, batch_size = 20 }}
optimizer.name = "adam"
[factors]
optimizer.lr = {rates}
"""


def write(folder: Path, studies: int, cells: int, seeds: int) -> None:
    """Write a store of so many studies, each of so many cells and seeds."""
    pattern = _train(folder)
    store = layout.open_store(folder)
    for number in range(studies):
        rates = [round(0.001 * (cell + 1) + 1e-7 * (number + 1), 7) for cell in range(cells)]
        text = STUDY.format(name=f"study {number + 1}", seeds=seeds, rates=rates)
        study = study_file.parse(text, "benchmark")
        resolved = resolve(study, store)
        settled = study_folder.settled(store, "pattern")
        study_folder.keep(store, study, settled)
        for job in resolved.jobs:
            _copy(pattern, store.job(job.id).path, job)


def _train(folder: Path) -> Path:
    """Train two jobs, and return the folder of one."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pattern.toml"
        path.write_text(STUDY.format(name="pattern", seeds=1, rates=[0.003, 0.004]))
        command = [sys.executable, "-m", "ablate", "run", str(path), "--store", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next((folder / "jobs").glob("[0-9a-f]*"))


def _copy(pattern: Path, target: Path, job: Job) -> None:
    """Put the folder of a job there, with another accuracy."""
    shutil.copytree(
        pattern, target, ignore=shutil.ignore_patterns("*.pt", "*.png", "lock"), copy_function=os.link
    )
    target.joinpath("last.pt").touch()
    (target / "recipe.json").unlink()
    job_folder.create(job_folder.Folder(target), job)
    (outcome,) = target.glob("outcomes/*/outcome.json")
    content = json.loads(outcome.read_text())
    content["metrics"]["test/accuracy"] = round(random.Random(job.id).gauss(0.8, 0.02), 4)
    outcome.unlink()
    outcome.write_text(json.dumps(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    write(asked.folder, asked.studies, asked.cells, asked.seeds)
