"""(g) Stores of 1,000 and 10,000 runs: what each command takes that looks at all of them.

A hundred tiny trainings are run truly (see many.py); the folders of the others are copies of theirs under the
identities that their seeds have, so that every check and every number is that of a store that was trained.
MLflow gets the runs from a second `ablate run`. Beside the seconds of the larger store stand those of the
smaller one, and what the larger one takes of the processor and of memory.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.execution.options import Where
from ablate.store import job_folder, layout, records
from ablate.store.layout import Store
from ablate.study.grid import Job
from ablate.workflow import plan as planning
from benchmarks.measure import Limit, Timing
from benchmarks.study import clean

REAL = 5  # seeds that are trained; the others are copies of them
SIZES = (1_000, 10_000)  # runs
ROUNDS = 3
NAME = "many"
CELLS = 20
STUDY = """
name  = "{name}"
seeds = {seeds}
min_effect = 0.01
[recipe]
data = {{ name = "digits", image_size = 16, train_size = 200 }}
augment = {{ crop = "none", flip = false }}
model = {{ name = "baseline_cnn", width = 0.125 }}
training = {{ epochs = 3, batch_size = 20, precision = "fp32" }}
[factors]
training.label_smoothing = [0.0, 0.05, 0.1, 0.15, 0.2]
optimizer.weight_decay = [0.0, 1e-4]
optimizer.momentum = [0.9, 0.8]
[[claim]]
text   = "a momentum of 0.8 is as good as 0.9"
expect = "optimizer.momentum: 0.9 ~ 0.8"
"""
ANSWERS = {"check": range(4)}  # exit codes: what a claim has come to
MOST = {"doctor": 15.0}  # seconds of the larger store; of the others:
USUAL = 5.0
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", NAME),
    "status": ("status", NAME),
    "report": ("report", NAME, "--format", "json"),
    "check": ("check", NAME),
    "gc": ("gc",),
    "doctor": ("doctor",),
    "run": ("run", NAME, "--device", "cpu"),
    "sync": ("sync", NAME),
}
"""What is measured; `run` has nothing left to do."""
OLD = ("plan", "status", "report", "check", "gc", "doctor", "run")  # those with a limit


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took: seconds by the clock and of the processor, and its most memory."""

    wall: float
    busy: float
    memory: float  # MB


def build(folder: Path, runs: int) -> None:
    """Make the study's file and a store with so many finished runs of it, MLflow's view included."""
    folder.mkdir(parents=True, exist_ok=True)
    ablate(folder, "run", *_write(folder, REAL), "--device", "cpu")
    _write(folder, runs // CELLS)
    fill(folder)
    ablate(folder, "run", *_write(folder, runs // CELLS), "--device", "cpu")


def _write(folder: Path, seeds: int) -> tuple[str]:
    file = folder / f"{NAME}.toml"
    file.write_text(STUDY.format(name=NAME, seeds=seeds))
    return (str(file),)


def fill(folder: Path) -> None:
    """Make the folders of all jobs that the store lacks, as copies of those of the first seeds."""
    store = layout.open_store(folder / "mlruns")
    jobs = planning.plan(
        planning.load(str(folder / f"{NAME}.toml"), (), store), Where(store, device="cpu")
    ).jobs
    trained = {(_about(job), job.seed): job for job in jobs if job.seed < REAL}
    for job in jobs:
        if job.seed >= REAL:
            _copy(store, trained[_about(job), job.seed % REAL], job)


def _about(job: Job) -> str:
    return job.recipe.model_dump_json()


def _copy(store: Store, trained: Job, job: Job) -> None:
    source, target = store.job(trained.id), store.job(job.id)
    shutil.copytree(source.path, target.path)
    description = job_folder.read_description(source)
    assert description is not None, source
    own = description.model_copy(update={"job": job.id, "seed": job.seed})
    records.write(target.recipe, own, durable=False)


def ablate(folder: Path, *arguments: str) -> Spent:
    """Run a command on the store of a folder."""
    command = [sys.executable, "-m", "ablate", *arguments, "--store", str(folder / "mlruns")]
    began = os.times()
    with subprocess.Popen(command, env=clean(), stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ANSWERS.get(arguments[0], (0,)):
        raise subprocess.CalledProcessError(process.returncode, command)
    ended = os.times()
    return Spent(ended.elapsed - began.elapsed, _busy(usage), usage.ru_maxrss / 1e3)


def _busy(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def measure(folder: Path, rounds: int = ROUNDS) -> dict[str, list[Spent]]:
    """Run every command so often, in turn."""
    spent: dict[str, list[Spent]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            spent[name].append(ablate(folder, *arguments))
    return spent


def limits(small: dict[str, list[Spent]], large: dict[str, list[Spent]]) -> Iterator[Limit]:
    """Return a row for each command."""
    for name in OLD:
        walls = sorted(one.wall for one in large[name])
        middle = walls[len(walls) // 2]
        before = sorted(one.wall for one in small[name])[len(small[name]) // 2]
        busy = sorted(one.busy for one in large[name])[len(walls) // 2]
        memory = max(one.memory for one in large[name])
        yield Limit(
            f"ablate {name} of {SIZES[1]:,} runs",
            Timing(name, middle, walls[0], walls[-1], "s"),
            MOST.get(name, USUAL),
            note=f"{before:.1f} s with {SIZES[0]:,} runs; {busy:.1f} s of the processor, {memory:,.0f} MB",
        )


def run() -> list[Limit]:
    """Build both stores and measure."""
    with tempfile.TemporaryDirectory() as name:
        spent = []
        for size in SIZES:
            build(Path(name) / str(size), size)
            spent.append(measure(Path(name) / str(size)))
        return list(limits(*spent))


def main() -> None:
    """Build a store where it is not there, and print what each command takes: FOLDER RUNS [ROUNDS]."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    if not (folder / "mlruns" / "mlflow.db").exists():
        build(folder, runs)
    for name, all_ in measure(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 1).items():
        walls, busy = (
            sorted(getattr(one, what) for one in all_)[len(all_) // 2] for what in ("wall", "busy")
        )
        print(
            f"{name:8} {walls:7.2f} s, {busy:7.2f} s busy, {max(one.memory for one in all_):6.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
