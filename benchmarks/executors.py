"""(h) Empty tasks through each executor: what placing a job costs, beside what others need for the same.

Counted is everything: the executor starts, 500 tasks are handed to it, all of them have ended. Ray is a
cluster of one node on this host, and Ray Tune runs as many trials of an empty function on the same one. Slurm
is a cluster of two nodes on this host, of the Debian packages, and submitit's job array runs on the same one,
at most as many tasks at a time. Torch is imported nowhere.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ablate.execution.executors.base import ENDS, Executor, Options, Program, Slot
from ablate.execution.executors.local import LocalExecutor
from benchmarks.measure import Comparison, Limit, Timing, faster

TASKS = int(os.environ.get("ABLATE_BENCHMARK_TASKS", "500"))
AT_A_TIME = 8  # on Slurm
PROGRAM = Program("benchmarks.executors:empty")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Empty:
    """A task without anything to do."""

    id: str

    def to_json(self) -> Json:
        """Return its payload."""
        return {}


def empty(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Do nothing, in a worker."""
    del payload, report, should_stop
    return {}


def jobs_a_second(start: Callable[[], Executor]) -> float:
    """Run all tasks to their ends, as the scheduler does."""
    began, waiting, left = time.perf_counter(), [Empty(f"task {i}") for i in range(TASKS)], TASKS
    with closing(start()) as executor:
        takes_all = executor.resources().keeps_queue
        while left:
            while waiting and (takes_all or executor.free()):
                executor.submit(waiting.pop())
            left -= sum(event.kind in ENDS for event in executor.events(0.2))
        return TASKS / (time.perf_counter() - began)


def local() -> LocalExecutor:
    """Start the local executor."""
    return LocalExecutor(PROGRAM.function, tuple(Slot(f"cpu:{i}", "cpu") for i in range(os.cpu_count() or 1)))


def on_ray() -> list[Comparison | Limit]:
    """Compare ours with Ray Tune, on the same cluster; nothing where Ray is not installed."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "builders"))
    if find_spec("ray") is None:
        print("no Ray: it is not installed")
        return []
    from ray_nodes import Cluster

    from ablate.execution.executors import ray_cluster
    from ablate.execution.executors.ray import RayExecutor

    slots = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        closing(Cluster(Path(folder), str(Path(__file__).parents[1]))) as cluster,
    ):
        cluster.add(slots, 0)
        places = ray_cluster.places(Options("cpu"), ray_cluster.nodes())
        ours = jobs_a_second(lambda: RayExecutor(PROGRAM, places))
        theirs = ray_tune(Path(folder) / "tune")
    name = f"{TASKS} empty tasks on Ray, {slots} at a time"
    return [faster(name, _once("ray", ours), _once("Ray Tune", theirs), required=3.0)]


def ray_tune(folder: Path) -> float:
    """Run as many trials of an empty function by Ray Tune, with actors that are used again."""
    from ray import tune

    began = time.perf_counter()
    tune.Tuner(
        lambda _config: {"done": 1},
        param_space={"task": tune.grid_search(list(range(TASKS)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    return TASKS / (time.perf_counter() - began)


def submitit_on_slurm(folder: Path) -> float:
    """Run as many calls of a function of Python by submitit's job array, without accounting as ours."""
    import submitit

    began = time.perf_counter()
    executor = submitit.AutoExecutor(folder, cluster="slurm")
    executor.update_parameters(timeout_min=60, cpus_per_task=1, slurm_array_parallelism=AT_A_TIME)
    for job in executor.map_array(abs, range(TASKS)):
        job.result()
    return TASKS / (time.perf_counter() - began)


@contextmanager
def cluster() -> Iterator[Path]:
    """Start a cluster whose arrays may be long enough for all; yield a folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "builders"))
    import slurm_cluster

    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        started = slurm_cluster.start(Path(folder) / "cluster", longest_array=TASKS + 1)
        os.environ |= started.environment | {"PYTHONPATH": str(Path(__file__).parents[1])}
        with closing(started):
            yield Path(folder)


def on_slurm() -> list[Comparison | Limit]:
    """Compare ours with submitit; nothing where there can be no cluster."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "builders"))
    import slurm_cluster

    from ablate.execution.executors.slurm import SlurmExecutor
    from ablate.execution.executors.slurm_elements import Array

    if reason := slurm_cluster.lacking():
        print(f"no Slurm: {reason}")
        return []
    with cluster() as folder:
        array = Array(folder / "mailbox", "cpu", "fp32", jobs=AT_A_TIME)
        ours = jobs_a_second(lambda: SlurmExecutor(PROGRAM, array))
        theirs = submitit_on_slurm(folder / "submitit")
    name = f"{TASKS} empty tasks on Slurm, {AT_A_TIME} at a time"
    return [faster(name, _once("slurm", ours), _once("submitit", theirs))]


def _once(name: str, value: float) -> Timing:
    return Timing(name, value, value, value, "jobs/s")


def run() -> list[Comparison | Limit]:
    """Measure each executor that can be had here."""
    here = Limit(f"{TASKS} empty tasks here", _once("local", jobs_a_second(local)), 50.0, is_most=False)
    return [here, *on_ray(), *on_slurm()]
