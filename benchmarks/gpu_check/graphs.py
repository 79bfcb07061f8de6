"""Step 13: a training step as one CUDA graph against the same step launched kernel by kernel."""

import statistics
from collections.abc import Iterator
from typing import Any

from ablate.recipe.fields import Recipe
from benchmarks.gpu_check import trainings
from benchmarks.gpu_check.part import Part, Setup

LEAST = 2.0  # times the speed of resnet_small at batch 128: below it `training.compile = "graph"` is to go
WAYS: dict[str, Any] = {"eager": False, "graph": "graph"}
CONSTANT = {"schedule": {"name": "constant"}, "optimizer": {"lr": 0.0625}}  # a rate that fp32 has exactly


def graphs(setup: Setup) -> Iterator[Part]:
    """Compare speed, the first epoch, and the bits after a stop."""
    for name, precision in setup.sized(
        (("resnet_small", "bf16"), ("resnet_small", "fp32"), ("cnn4", "bf16")), (("cnn4", "fp32"),)
    ):
        yield from _speed(setup, name, precision)
    for name in setup.sized(("resnet_small", "cnn4"), ("cnn4",)):
        yield from _numbers(setup, name)


def _speed(setup: Setup, name: str, precision: str) -> Iterator[Part]:
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(2):
        for way, compiling in WAYS.items():
            made = trainings.recipe(name, batch=setup.sized(128, 16), precision=precision, compile=compiling)
            session = trainings.noise(made, setup.device, 20)
            speeds[way].append(trainings.speed(session, setup.sized(1.5, 0.3)))
            assert (session.replay is not None) == (way == "graph")
    figures = {way: round(statistics.mean(each)) for way, each in speeds.items()}
    gain = figures["graph"] / figures["eager"]
    meant = setup.on_gpu and (name, precision) == ("resnet_small", "bf16")
    claim = f"{name} {precision}, batch 128: a graph has {LEAST:g} times the speed"
    yield Part(claim, gain >= LEAST if meant else None, figures | {"gain": round(gain, 2)})


def _numbers(setup: Setup, name: str) -> Iterator[Part]:
    made = {}
    for way, compiling in WAYS.items():
        usual = trainings.recipe(
            name, batch=64, precision="fp32", digits=setup.sized("all", "few"), epochs=setup.sized(3, 2),
            augment=trainings.EVERYTHING, compile=compiling,
        )  # fmt: skip
        made[way] = Recipe.model_validate(usual.model_dump() | CONSTANT)
    prepared = trainings.digits(setup.folder, made["eager"])
    eager, graph = (trainings.trained(each, prepared, setup.device) for each in made.values())
    losses = [session.history[0]["metrics"]["train/loss"] for session in (eager, graph)]
    yield Part(f"{name}: the same first epoch", abs(losses[0] - losses[1]) <= 1e-6, {"losses": losses})
    again = trainings.trained(made["graph"], prepared, setup.device, stop=1)
    bits = [trainings.bits(session) for session in (graph, again)]
    yield Part(f"{name}: equal bits after a stop", bits[0] == bits[1], {"bits": bits})
