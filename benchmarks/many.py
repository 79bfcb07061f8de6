"""(f) Many small jobs, and what tracking costs one job.

2,000 real trainings of milliseconds (18 digits, one epoch, a tiny network; then judged on all test images)
through everything that `ablate run` has: scheduler, two worker processes, journals, the writer with MLflow on
SQLite, the report. What is counted is `workflow.run` from the first job's start to its return, the end of the
upload and the report included.

And what tracking costs one job, see cost.py.

"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from ablate.execution.crew import assemble
from ablate.execution.events import Event, Notice, TaskEnded, TaskStarted
from ablate.execution.options import How, Where
from ablate.store import layout
from ablate.store.layout import Store
from ablate.tracking import client
from ablate.workflow import plan as planning
from ablate.workflow import run as workflow
from benchmarks.measure import Limit, Timing, rates, timed
from benchmarks.study import clean

SEEDS, ROUNDS = 100, 3
CELLS = 20
LOOKS = 0.05  # seconds between two looks at the memory
STUDY = """
name  = "{name}"
seeds = {seeds}
[recipe]
data = {{ name = "digits", image_size = 16, train_size = 20 }}
augment = {{ crop = "none", flip = false }}
model = {{ name = "baseline_cnn", width = 0.125 }}
training = {{ epochs = 1, batch_size = 20, precision = "fp32" }}
[factors]
training.label_smoothing = [0.0, 0.05, 0.1, 0.15, 0.2]
optimizer.weight_decay = [0.0, 1e-4]
optimizer.momentum = [0.9, 0.8]
"""


@dataclass(slots=True)
class Watch:
    """An observer that notes when jobs start and end."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        """Note the time, and show messages."""
        match event:
            case Notice():
                print(event.text, file=sys.stderr)
            case TaskStarted():
                self.starts.append(time.perf_counter())
            case TaskEnded(end="finished"):
                self.ends.append(time.perf_counter())


def megabytes() -> float:
    """Return the memory of this process that is resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@contextmanager
def watched() -> Iterator[list[float]]:
    """Look at the memory all the time; the list has the largest figure in the end."""
    peak, over = [megabytes()], threading.Event()

    def look() -> None:
        while not over.wait(LOOKS):
            peak[0] = max(peak[0], megabytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def counted(calls: Counter[str]) -> None:
    """Count the calls of MLflow's client from here on."""
    make = client.connect  # the one place where they all come from

    def counting(address: str) -> Any:
        made = make(address)
        for name in (
            "create_run",
            "log_batch",
            "log_artifacts",
            "log_artifact",
            "set_terminated",
            "update_run",
            "search_runs",
            "set_tag",
        ):
            setattr(made, name, _counts(getattr(made, name), name, calls))
        return made

    client.connect = counting


def _counts(call: Callable[..., Any], name: str, calls: Counter[str]) -> Callable[..., Any]:
    @wraps(call)
    def counting(*given: Any, **named: Any) -> Any:
        calls[name] += 1
        return call(*given, **named)

    return counting


def work(folder: Path, store: Store, name: str, seeds: int | list[int]) -> tuple[Watch, float]:
    """Run a study in this process; give when its jobs started and ended, and its end."""
    file, watch = folder / f"{name}.toml", Watch()
    file.write_text(STUDY.format(name=name, seeds=seeds))
    where = Where(store, tracking_uri=f"sqlite:///{store.database}", device="cpu")
    with assemble(where, How(), watch.observe) as crew:
        ran = workflow.run(planning.load(str(file), (), store), crew)
    assert (len(ran.ledger.failures), ran.late) == (0, 0), ran
    return watch, time.perf_counter()


def coordinate(folder: Path, seeds: int) -> dict[str, Any]:
    """Run a small study, which imports everything there is, and then the large one; give its figures."""
    store, calls = layout.open_store(folder / "mlruns"), Counter[str]()
    counted(calls)
    first = megabytes()
    work(
        folder, store, "few", [SEEDS]
    )  # of seeds that the other has not, as the same jobs would not be trained again
    calls.clear()
    before, began = megabytes(), time.perf_counter()
    with watched() as peak:
        watch, end = work(folder, store, "many", seeds)
    count = len(watch.ends)
    runs = client.connect(f"sqlite:///{store.database}").search_runs(
        [client.connect(f"sqlite:///{store.database}").get_experiment_by_name("many").experiment_id],
        "status = 'FINISHED' and tags.`ablate.kind` = 'run'", max_results=50_000,
    )  # fmt: skip
    assert len(runs) == count == CELLS * seeds, (len(runs), count)
    return {
        "count": count,
        "speed": count / (end - watch.starts[0]),
        "whole": end - began,
        "start": watch.starts[0] - began,
        "training": watch.ends[-1] - watch.starts[0],
        "after": end - watch.ends[-1],
        "gap": max(b - a for a, b in zip(watch.starts, watch.starts[1:], strict=False)),
        "first": first,
        "before": before,
        "peak": peak[0],
        "later": megabytes(),
        "calls": {name: round(n / count, 2) for name, n in calls.items()},
    }


def run() -> list[Limit]:
    """Measure all of it, each in processes of its own."""
    from benchmarks import cost  # brings torch, which the coordinator, this file as a program, does without

    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "benchmarks.many", name, str(SEEDS)]
        told = json.loads(
            subprocess.run(
                command, check=True, env=clean(), stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
        )
        ablate = [sys.executable, "-m", "ablate"]
        store = ["--store", f"{name}/mlruns"]
        looks = {
            what: _seconds([*ablate, what, "many", *more, *store])
            for what, more in (("status", ()), ("report", ("--format", "json")), ("plan", ()))
        }
        seconds = rates(looks, ROUNDS, "s")
    with tempfile.TemporaryDirectory() as name:
        costs = cost.share(Path(name))
    count, calls = told["count"], ", ".join(f"{call} {n:g}" for call, n in told["calls"].items() if n >= 0.01)
    shares = sorted(100 * one["tracking"] / one["all"] for one in costs)
    middle = sorted(costs, key=lambda one: one["tracking"] / one["all"])[len(costs) // 2]
    return [
        Limit(
            f"{count:,} tiny jobs, from the first start to the end of upload and report",
            _one("ablate", told["speed"], "jobs/s"),
            20,
            is_most=False,
            note=f"start {told['start']:.1f} s, jobs {told['training']:.1f} s, "
            f"rest of upload and report {told['after']:.1f} s; "
            f"at most {told['gap']:.2f} s between two starts; MLflow calls a run: {calls}",
        ),
        Limit(
            f"memory of the coordinator over {count:,} jobs",
            _one("growth", told["peak"] - told["before"], "MB"),
            200,
            note=f"{told['before']:.0f} MB with all imports, peak {told['peak']:.0f} MB, "
            f"after it {told['later']:.0f} MB",
        ),
        *(Limit(f"ablate {what} of {count:,} runs", seconds[what], 5) for what in looks),
        Limit(
            "tracking in a job of seconds",
            Timing("share", shares[len(shares) // 2], shares[0], shares[-1], "%"),
            1,
            note=f"{1000 * middle['tracking']:.0f} ms of {middle['all']:.1f} s; "
            f"weights and pictures {1000 * middle['weights and picture']:.0f} ms",
        ),
    ]


def _one(name: str, value: float, unit: str) -> Timing:
    return Timing(name, value, value, value, unit)


def _seconds(command: list[str]) -> Callable[[], float]:
    return lambda: timed(lambda: subprocess.run(command, check=True, env=clean(), stdout=subprocess.DEVNULL))


if __name__ == "__main__":
    print(json.dumps(coordinate(Path(sys.argv[1]), int(sys.argv[2]))))
