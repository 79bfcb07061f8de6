"""Steps 10 and 11: several jobs on one GPU, with and without MPS; what torch.compile does."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

from torch._dynamo.utils import counters
from torch._inductor import config

from ablate.execution import executors, probe
from ablate.execution.crew import PROGRAM
from ablate.execution.executors.base import Options
from ablate.store.tasks import Context, ProbeTask
from ablate.training import loop
from benchmarks.gpu_check import processes, trainings
from benchmarks.gpu_check.part import Part, Setup

WINDOW = 2.0


def jobs(setup: Setup) -> Iterator[Part]:
    """Step 10: images a second of 1, 2, 4 and 8 jobs together, and what each has of the memory."""
    for name in setup.sized(("cnn4", "resnet18"), ("cnn4",)):
        made = trainings.recipe(name, digits=setup.sized("all", "few"), batch=setup.sized(128, 32))
        prepared = trainings.digits(setup.folder, made)
        task = ProbeTask(
            context=Context(compile_cache=str(setup.folder / "compiled")), recipe=made, seed=0,
            data=prepared.folder, log=setup.folder / "log",
        )  # fmt: skip
        for with_mps in (
            (False, True) if setup.on_gpu and shutil.which("nvidia-cuda-mps-control") else (False,)
        ):
            found = {}
            with _mps(setup) if with_mps else closing(_Nothing()):
                for count in _counts(setup, name, with_mps=with_mps):
                    load = _load(setup, task, count)
                    if load is not None:
                        found[count] = {
                            "images/s": round(load.images_a_second),
                            "GiB": round(load.used / 2**30, 2),
                        }
            how = "with MPS" if with_mps else "without MPS"
            fine = list(found) == list(_counts(setup, name, with_mps=with_mps))
            yield Part(f"{name}, {how}: all run", fine, {str(k): v for k, v in found.items()})


def _counts(setup: Setup, name: str, *, with_mps: bool) -> tuple[int, ...]:
    """Return how many jobs are tried together: several times ten seconds must do."""
    if not setup.on_gpu:
        return (1, 2)
    if with_mps:
        return (4,) if name == "cnn4" else (2,)
    return (1, 2, 4, 8) if name == "cnn4" else (1, 2)


class _Nothing:
    def close(self) -> None:
        """Close nothing."""


def _load(setup: Setup, task: ProbeTask, count: int) -> probe.Load | None:
    options = Options("cuda", None, jobs_per_gpu=count, devices=1) if setup.on_gpu else Options("cpu", count)
    shared = task.model_copy(update={"context": task.context.model_copy(update={"jobs_a_device": count})})
    with closing(executors.start("local", PROGRAM, options)) as executor:
        return probe.measure(executor, shared, count, window=setup.sized(WINDOW, 0.5))


@contextmanager
def _mps(_setup: Setup) -> Iterator[None]:
    """Run CUDA's multi-process service, with a short path for its pipes, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="mps") as pipes:
        control = shutil.which("nvidia-cuda-mps-control") or ""
        ours = {"CUDA_MPS_PIPE_DIRECTORY": pipes, "CUDA_MPS_LOG_DIRECTORY": pipes}
        os.environ.update(ours)
        try:
            subprocess.run([control, "-d"], check=True, timeout=20)
            yield
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False, timeout=20)
            for name in ours:
                del os.environ[name]


def compiled(setup: Setup) -> Iterator[Part]:
    """Step 11: one graph without a break, not compiled again; dropout is seen; few helpers."""
    name = setup.sized("resnet9", "cnn4")
    made = trainings.recipe(name, batch=setup.sized(512, 16), augment={"mixup": 0.5}, compile=True)
    session = trainings.noise(made, setup.device, 4)
    counters.clear()
    seconds = loop.compile_step(session)
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(3):
        for step in loop.steps(session):
            step.tolist()
    again = counters["stats"]["unique_graphs"] - graphs
    breaks = dict(counters["graph_break"])
    figures = {"graphs": graphs, "again": again, "breaks": breaks, "seconds": seconds}
    yield Part("one graph, no break, not compiled again", (graphs, again, breaks) == (1, 0, {}), figures)
    other = trainings.recipe(name, batch=made.training.batch_size, compile=True)
    dropped = other.model_copy(update={"model": other.model.model_copy(update={"conv_dropout": 0.5})})
    outputs = []
    for each in (other, dropped):
        session = trainings.noise(each, setup.device, 1)
        loop.compile_step(session)
        outputs.append(next(loop.steps(session)).tolist()[0])
    yield Part("dropout is seen by the next job of a process", outputs[0] != outputs[1], {"losses": outputs})
    threads = config.compile_threads
    below = len(processes.descendants(os.getpid()))
    yield Part("helpers of the compiler", None, {"threads": threads, "processes": below})
