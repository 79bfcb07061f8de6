"""Steps 6 to 9 and 12: steps that wait for nothing, kernels, images a second, checkpoints, streaming."""

import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ablate.execution import worker
from ablate.recipe import networks
from ablate.training import loop
from ablate.training.loop import Session
from benchmarks.gpu_check import trainings
from benchmarks.gpu_check.part import Part, Setup
from benchmarks.gpu_check.trainings import EVERYTHING, JITTERED, noise, recipe

EXPECTED = ("prototype", "adaptive_avg_pool2d_backward")  # of the sync mode; of torch, for vgg
OTHERS = ("vgg11", "densenet121", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16")


def waits(setup: Setup) -> Iterator[Part]:
    """Step 6: no step of any network waits for the device, or warns."""
    for name in setup.sized((*networks.BUILT_IN, *OTHERS), ("cnn4", "resnet9")):
        side = setup.sized(224 if name == "vit_b_16" else 64, 32)
        for precision in ("bf16", "fp32"):
            error = ""
            with warnings.catch_warnings(record=True) as caught:
                session = noise(recipe(name, batch=8, precision=precision, side=side), setup.device, 3)
                try:
                    for i, _ in enumerate(loop.steps(session)):
                        if i == 0 and setup.on_gpu:
                            torch.cuda.set_sync_debug_mode("error")
                except RuntimeError as raised:
                    error = str(raised).splitlines()[0]
                finally:
                    if setup.on_gpu:
                        torch.cuda.set_sync_debug_mode("default")
            said = {str(warning.message).splitlines()[0][:120] for warning in caught}
            told = sorted(text for text in said if not any(part in text for part in EXPECTED))
            figures = {"error": error, "warnings": sorted(said)}
            yield Part(f"{name} {precision}: no wait, no warning", not error and not told, figures)


def kernels(setup: Setup) -> Iterator[Part]:
    """Step 7: kernels a step, how busy they keep the device, and fills of new tensors."""
    steps = setup.sized(20, 3)
    for name, batch, augment, least in (
        ("cnn4", 128, {}, None), ("resnet9", 128, {}, None), ("resnet9", 512, {}, 0.9),
        ("resnet9", 512, EVERYTHING, None),
    ):  # fmt: skip
        session = noise(recipe(name, batch=setup.sized(batch, 16), augment=augment), setup.device, steps)
        for step in loop.steps(session):
            step.tolist()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setup.on_gpu else [])]
        began = time.perf_counter()
        with profile(activities=activities) as seen:
            last = list(loop.steps(session))[-1]
            last.tolist()
            wall = time.perf_counter() - began
        if not setup.on_gpu:
            operations = sum(event.name.startswith("aten::") for event in seen.events() or ())
            yield Part(f"{name}: operations a step", None, {"operations": operations / steps})
            continue
        events = [event for event in seen.events() or () if "CUDA" in str(event.device_type)]
        fills = sum("FillFunctor" in event.name for event in events) / steps
        busy = sum(event.time_range.elapsed_us() for event in events) / 1e6 / wall
        label = f"{name}, batch {batch}, {'everything' if augment else 'crop and flip'}"
        figures = {"kernels": len(events) / steps, "fills": fills, "busy": round(busy, 3)}
        yield Part(f"{label}: busy", None if least is None else busy > least, figures)
        yield Part(f"{label}: at most 12 fills a step", fills <= 12, {"fills": fills})


Change = Callable[[Session], None]


def _fill(_session: Session) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def _choose(_session: Session) -> None:
    torch.backends.cudnn.benchmark = True


def _contiguous(session: Session) -> None:
    session.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _channels_last(session: Session) -> None:
    session.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _as_is(_session: Session) -> None:
    pass


def rates(setup: Setup) -> Iterator[Part]:
    """Step 8: images a second of each variant, in turns, twice."""
    bf16: dict[str, tuple[Change, dict[str, Any]]] = {
        "as is": (_as_is, {}), "filled with NaN": (_fill, {}), "cudnn chooses": (_choose, {}),
        "contiguous": (_contiguous, {}), "compiled": (_as_is, {"compile": True}),
    }  # fmt: skip
    fp32: dict[str, tuple[Change, dict[str, Any]]] = {
        "fp32, channels last": (_channels_last, {"precision": "fp32"}),
        "fp32, contiguous": (_contiguous, {"precision": "fp32"}),
        "jitter": (_as_is, {"augment": JITTERED}),
    }
    some = {"as is": bf16["as is"]}
    many = {way: options for way, options in bf16.items() if way != "compiled"}  # half a minute each
    ways = {("resnet9", 512): bf16 | fp32, ("resnet9", 128): many, ("cnn4", 128): many, ("cnn4", 512): many}
    for name in setup.sized(("cnn4", "resnet9", "resnet18"), ("cnn4",)):
        for batch in setup.sized((128, 512), (16,)):
            found: dict[str, list[float]] = {}
            for _ in range(2):
                for way, (change, options) in ways.get((name, batch), some).items():
                    session = noise(recipe(name, batch=batch, **options), setup.device, 20)
                    change(session)
                    each = found.setdefault(way, [])
                    each.append(trainings.speed(session, setup.sized(0.7, 0.3)))
            figures = {way: round(statistics.mean(each)) for way, each in found.items()}
            held = (
                figures["as is"] >= 68_000 if (name, batch, setup.on_gpu) == ("resnet9", 512, True) else None
            )
            yield Part(
                f"{name}, batch {batch}: images/s (an H100 is expected at 68-85 thousand)", held, figures
            )


def checkpoints(setup: Setup) -> Iterator[Part]:
    """Step 9: the part of a job's time in which it only writes."""
    name, epochs = setup.sized(("resnet9", 12), ("cnn4", 4))
    made = recipe(name, digits=setup.sized("all", "few"), epochs=epochs, batch=64)
    task = trainings.task(setup.folder / "job", made, trainings.digits(setup.folder, made))
    task = task.model_copy(update={"device": setup.device.type})
    stamps: list[float] = []
    began = time.perf_counter()
    worker.run_job(task, lambda detail: stamps.append(time.perf_counter()) if detail else None, lambda: False)
    wall = time.perf_counter() - began
    told = trainings.lines(setup.folder / "job")
    span = (told[-1]["timestamp"] - told[0]["timestamp"]) / 1000
    training = sum(line["seconds"] for line in told[1:])
    share = 1 - training / span
    figures = {"epochs": len(told), "between lines": round(share, 3), "wall": round(wall, 2)}
    yield Part(
        "less than 5 % of the time between epochs is not training", _within(setup, share < 0.05), figures
    )


def _within(setup: Setup, held: bool) -> bool | None:  # noqa: FBT001 (its own value)
    """Return a verdict on a GPU, where it is meant, and none on a CPU."""
    return held if setup.on_gpu else None


def streaming(setup: Setup) -> Iterator[Part]:
    """Step 12: images that do not fit are streamed as fast; fp32 is fp32 whatever a container says."""
    side, batch, batches = setup.sized((224, 256, 60), (32, 16, 8))
    made = recipe(setup.sized("resnet50", "cnn4"), batch=batch, side=side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speeds = {}
    for way, memory in (("resident", None), ("streamed", 0)):
        session = noise(made, setup.device, batches, memory)
        speeds[way] = trainings.speed(session, setup.sized(5.0, 0.3))
        assert session.train.streamed == (way == "streamed")
        del session
    figures = {way: round(found) for way, found in speeds.items()}
    figures["host MiB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    held = speeds["streamed"] >= 0.95 * speeds["resident"]
    yield Part("streamed at 0.95 of the speed", _within(setup, held), figures)
    sums = {value: _product(setup, value) for value in ("0", "1")}
    claim = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE changes no bit of fp32"
    yield Part(claim, sums["0"] == sums["1"], {"sums": list(sums.values())})


PRODUCT = """
import sys, torch
from ablate.training import loop
from benchmarks.gpu_check.trainings import recipe
device = torch.device(sys.argv[1])
loop.settle(recipe(precision="fp32"), device)
x = torch.linspace(0, 1, 512 * 512, device=device).view(512, 512)
print((x @ x).double().sum().item().hex())
"""


def _product(setup: Setup, override: str) -> str:
    """Return a sum of products in a process with this setting."""
    environment = os.environ | {
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": override,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    done = subprocess.run(
        [sys.executable, "-c", PRODUCT, setup.device.type], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()
