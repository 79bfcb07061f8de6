"""Step 5: what goes wrong on a GPU costs a task or an attempt, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ablate.execution.executors.base import ENDS
from ablate.training import loop
from benchmarks.gpu_check import processes, tasks, trainings
from benchmarks.gpu_check.part import Part, Setup
from benchmarks.gpu_check.tasks import Call

CAP = 12 * 2**30  # bytes of a small card


def check(setup: Setup) -> Iterator[Part]:
    """Bring about one fault after another."""
    yield from _poisoned(setup)
    yield from _killed(setup)
    yield from _frozen(setup)
    yield from _orphaned(setup)
    if setup.on_gpu:
        yield from _full(setup)
        yield from _beside_a_cache(setup)
        yield from _large_images(setup)


def _call(setup: Setup, name: str, do: str, **values: Any) -> Call:
    folder = setup.folder / name
    folder.mkdir(exist_ok=True)
    return Call(name, {"do": do, "folder": str(folder)} | values)


def _poisoned(setup: Setup) -> Iterator[Part]:
    with closing(tasks.start(setup.device.type, 1)) as executor:
        (before,) = tasks.ask(executor, _call(setup, "before", "multiply"))
        (broken,) = tasks.ask(executor, _call(setup, "broken", "break"))
        after = tasks.ask(executor, *(_call(setup, f"after{i}", "multiply") for i in range(3)))
    kinds = [event.kind for event in after]
    figures = {"broken": [broken.kind, broken.error], "after": kinds}
    yield Part(
        "a task that loses its context is crashed, to be tried again", broken.kind == "crashed", figures
    )
    pids = {event.detail.get("pid") for event in after} - {before.detail["pid"]}
    yield Part(
        "the next three finish, in another process", kinds == ["finished"] * 3 and len(pids) == 1, figures
    )


def _killed(setup: Setup) -> Iterator[Part]:
    made = trainings.recipe(digits=setup.sized("all", "few"), epochs=setup.sized(100, 8), batch=64)
    prepared = trainings.digits(setup.folder, made)
    task = trainings.task(setup.folder / "killed", made, prepared)
    folder = setup.folder / "killed"
    with closing(tasks.start(setup.device.type, 1)) as executor:
        before = _used() if setup.on_gpu else 0
        executor.submit(task)
        tasks.hear(executor, lambda _: len(trainings.lines(folder)) >= 3)
        executor.kill(task.id)
        ends = list(tasks.hear(executor, lambda heard: any(e.kind in ENDS for e in heard)))
        if setup.on_gpu:
            time.sleep(2)
            left = _used() - before
            yield Part("its memory is back within 2 s", left < 1024, {"MiB": left})
        epochs = len(trainings.lines(folder))
        (done,) = tasks.ask(executor, task)
        whole = [line["epoch"] for line in trainings.lines(folder)] == list(
            range(1, made.training.epochs + 1)
        )
        figures = {"ends": [event.kind for event in ends], "epochs": epochs, "done": [done.kind, done.error]}
        yield Part("a killed job finishes on its next attempt", done.kind == "finished" and whole, figures)


def _used() -> int:
    """Return the MiB in use on the first GPU."""
    command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout)


def _study(setup: Setup) -> Path:
    return processes.study(setup.folder, setup.sized(200, 3), setup.sized(32, 16))


def _frozen(setup: Setup) -> Iterator[Part]:
    file, store = _study(setup), setup.folder / "frozen"
    frozen = list[int]()

    def look(pid: int) -> None:
        if not frozen and list(store.glob("jobs/*/journal.jsonl")):
            for worker in processes.workers(pid)[:1]:
                os.kill(worker, signal.SIGSTOP)
                frozen.append(worker)

    stall = setup.sized("5s", "20s")
    options = ("--store", store, "--device", setup.device.type, "--jobs", 1, "--stall", stall)
    code, said = processes.watched(processes.ablate("run", file, *options), look)
    figures = {"exit": code, "frozen": len(frozen), "says": said.splitlines()[-6:]}
    yield Part("a frozen job is stopped and tried again", code == 0 and bool(frozen), figures)


def _orphaned(setup: Setup) -> Iterator[Part]:
    file, store = _study(setup), setup.folder / "orphaned"
    process = processes.ablate("run", file, "--store", store, "--device", setup.device.type, "--jobs", 2)
    while process.poll() is None and not list(store.glob("jobs/*/journal.jsonl")):
        time.sleep(0.1)
    below = processes.descendants(process.pid)
    process.kill()
    process.communicate()
    seconds = setup.sized(3, 60)  # where the cores are busy with other things
    end = time.monotonic() + seconds
    while (left := [pid for pid in below if processes.is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    claim = f"{seconds} s after the coordinator's death nothing is left of it"
    yield Part(claim, bool(below) and not left, {"left": left})


def _full(setup: Setup) -> Iterator[Part]:
    made = trainings.recipe("resnet9", digits="all", epochs=2, batch=512)
    task = trainings.task(setup.folder / "full", made, trainings.digits(setup.folder, made))
    stranger = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_check.hold", "300"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert stranger.stdout is not None
    held = stranger.stdout.readline()
    with closing(tasks.start("cuda", 1)) as executor:
        (first,) = tasks.ask(executor, task)
        stranger.communicate("")
        (then,) = tasks.ask(executor, task, exclusive=True)
    figures = {"held": held, "first": [first.kind, first.error], "then": [then.kind, then.error]}
    yield Part(
        "a full GPU is want of memory, whichever part of CUDA says so", first.kind == "out_of_memory", figures
    )
    yield Part("alone it finishes", then.kind == "finished", figures)


def _beside_a_cache(setup: Setup) -> Iterator[Part]:
    total = torch.cuda.get_device_properties(0).total_memory // 2**20
    with closing(tasks.start("cuda", 2)) as executor:
        tasks.ask(executor, *(_call(setup, f"cache{i}", "take", mib=int(total * 0.3)) for i in range(2)))
        (alone,) = tasks.ask(executor, _call(setup, "alone", "take", mib=int(total * 0.85)), exclusive=True)
    figures = {"kind": alone.kind, "error": alone.error}
    yield Part("alone on its GPU a task gets what idle neighbours had", alone.kind == "finished", figures)


def _large_images(setup: Setup) -> Iterator[Part]:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
    session = trainings.noise(
        trainings.recipe("vgg16", precision="fp32", side=224, batch=16), setup.device, 64
    )
    size = loop.evaluation_batch(setup.device, 224)
    some = replace(session.train, rows=session.train.rows[:size], labels=session.train.labels[:size])
    try:
        loop.score(session.network, some, session.recipe)
        said = ""
    except torch.OutOfMemoryError as error:
        said = str(error)
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.set_per_process_memory_fraction(1.0)
    claim = "vgg16 at 224 pixels is evaluated within 12 GB"
    yield Part(claim, not said, {"images": size, "GiB": round(peak, 2), "error": said})
