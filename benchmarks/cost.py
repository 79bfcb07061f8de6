"""What tracking costs a job of some seconds in a worker (see many.py).

Every line of the log, every JSON file and every report to the coordinator is timed; weights and the pictures,
which evaluating needs, are reported beside. Checkpoints and the journal's lines are written by another thread
while the job goes on, and not counted.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from ablate.execution import provenance, worker
from ablate.execution.crew import assemble
from ablate.execution.options import How, Where
from ablate.store import files, job_folder, layout, records, tasks
from ablate.store.tasks import Context, TrainTask
from ablate.workflow import plan as planning
from ablate.workflow import run as workflow
from benchmarks import jobs

ROUNDS = 3
ONE = """
name  = "one"
seeds = 1
[recipe]
data = { name = "digits", image_size = 32 }
augment = { flip = false }
model.name = "cnn4"
training = { epochs = 6, precision = "fp32" }
"""


@dataclass(slots=True)
class Clock:
    """Sums the seconds of calls by what they are for; a call within another counts as that one's.

    Calls of other threads cost the job nothing: checkpoints are written while it goes on.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    thread: int = field(default_factory=threading.get_ident)
    is_busy: bool = False

    def wrap(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, timed."""

        @wraps(call)
        def timing(*given: Any, **named: Any) -> Any:
            if self.is_busy or threading.get_ident() != self.thread:
                return call(*given, **named)
            self.is_busy, began = True, time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.seconds[kind] += time.perf_counter() - began
                self.is_busy = False

        return timing


def clocked(
    payload: dict[str, Any], report: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train a job in a worker, with a clock on all that tracks it; return the seconds of each purpose."""
    clock = Clock()
    kept: dict[tuple[Any, str], Any] = {}
    for home, name, kind in (
        (records, "append", "tracking"),
        (job_folder, "finish", "tracking"),
        (files, "write_json", "tracking"),
        (files, "write", "weights and picture"),
        (worker, "_environment", "tracking"),
        (worker, "_summary", "tracking"),
        (worker, "print", "tracking"),
    ):
        before = getattr(home, name, print)
        kept[home, name] = before
        setattr(home, name, clock.wrap(kind, before))
    provenance.versions.cache_clear()
    task = tasks.from_json(payload)
    assert isinstance(task, TrainTask)
    began = time.perf_counter()
    try:
        worker.run_job(task, clock.wrap("tracking", report), should_stop)
    finally:
        for (home, name), before in kept.items():
            setattr(home, name, before)
    return dict(clock.seconds) | {"all": time.perf_counter() - began}


def share(folder: Path) -> list[dict[str, float]]:
    """Train one job a few times, in a fresh folder each time; return the seconds of each."""
    store, file = layout.open_store(folder / "mlruns"), folder / "one.toml"
    file.write_text(ONE)
    where = Where(store, tracking_uri=f"sqlite:///{store.database}", device="cpu")
    study = planning.load(str(file), (), store)
    with assemble(where, How()) as crew:
        workflow.run(study, crew)  # decodes the images
    (item,) = planning.plan(study, where).jobs
    shares = []
    with closing(jobs.start("clocked", 1, "benchmarks.cost")) as executor:
        for i in range(ROUNDS):
            other = layout.open_store(folder / f"other{i}")
            job_folder.create(other.job(item.id), item)
            task = TrainTask(
                context=Context(git=provenance.git(Path.cwd())),
                folder=other.job(item.id).path,
                job=item.id,
                data=store.data / item.data,
                evaluations=(item.recipe.evaluation,),
            )
            shares.append(jobs.ask(executor, task.to_json()))
    return shares
