"""Schedules are torch's, step by step; optimizers are torch's with the values of the recipe."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from ablate.recipe import rates
from ablate.recipe.fields import Optimizer, Schedule
from ablate.recipe.optimizers import OPTIMIZERS
from ablate.training import optim

LENGTHS = [
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 3),
    (3, 7),
    (10, 1),
    (7, 12),
    (30, 5),
    (60, 3),
]  # epochs, batches an epoch


def factors(schedule, epochs, batches):
    steps = epochs * batches
    return [rates.lr_factor(schedule, step, steps, epochs) for step in range(steps)]


def torchs(make, epochs, batches, *, each_epoch=False):
    """Follow one of torch's schedulers over a training: the learning rate of every step, the peak being 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, epochs * batches)
    found = []
    for _, batch in itertools.product(range(epochs), range(batches)):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        last = len(found) == epochs * batches
        if not last and (batch == batches - 1 or not each_epoch):
            scheduler.step()
    return found


# The section of the recipe, torch's scheduler, and whether that one is stepped after each epoch instead of
# each step.
SCHEDULES = {
    "constant": (Schedule(name="constant"), lambda o, _: lr_scheduler.ConstantLR(o, factor=1.0), False),
    "step": (
        Schedule(name="step", step_epochs=2, gamma=0.3),
        lambda o, _: lr_scheduler.StepLR(o, 2, gamma=0.3),
        True,
    ),
    "step, the default": (Schedule(name="step"), lambda o, _: lr_scheduler.StepLR(o, 10, gamma=0.1), True),
    "step of one epoch": (
        Schedule(name="step", step_epochs=1, gamma=1.0),
        lambda o, _: lr_scheduler.StepLR(o, 1, gamma=1.0),
        True,
    ),
    "cosine": (
        Schedule(name="cosine"),
        lambda o, steps: lr_scheduler.CosineAnnealingLR(o, T_max=steps),
        False,
    ),
}


@pytest.mark.parametrize(("epochs", "batches"), LENGTHS, ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_torchs_at_every_step(name, epochs, batches):
    schedule, make, each_epoch = SCHEDULES[name]
    assert factors(schedule, epochs, batches) == pytest.approx(
        torchs(make, epochs, batches, each_epoch=each_epoch), rel=1e-9, abs=1e-9
    )


def one_cycle(warmup):
    def make(optimizer, steps):
        return lr_scheduler.OneCycleLR(
            optimizer,
            1.0,
            total_steps=steps,
            pct_start=warmup,
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=10_000,
        )

    return make


@pytest.mark.parametrize("warmup", [0.05, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("steps", [2, 3, 6, 7, 11, 20, 84, 150, 1000])
def test_one_cycle_is_torchs_wherever_its_rise_has_a_step_to_rise_in(steps, warmup):
    if warmup * steps - 1 <= 1e-9:
        assert factors(Schedule(warmup=warmup), 1, steps)[0] == 1.0  # the next test
        return
    expected = torchs(one_cycle(warmup), 1, steps)
    assert factors(Schedule(warmup=warmup), 1, steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "warmup"),
    [(1, 0.2), (2, 0.2), (4, 0.2), (5, 0.2), (2, 0.5), (4, 0.25), (10, 0.0), (10, 0.1), (1, 0.99)],
)
def test_one_cycle_that_is_too_short_to_rise_starts_at_its_peak_and_falls(steps, warmup):
    # torch divides by zero where the rise has just one step (5 steps at 0.2), and starts below the peak where
    # it has less.
    found = factors(Schedule(warmup=warmup), 1, steps)
    assert found[0] == 1.0
    assert all(earlier > later for earlier, later in itertools.pairwise(found))
    if steps > 1:
        assert found[-1] == pytest.approx(1 / 250_000)


def test_one_cycle_starts_at_a_25th_peaks_after_the_warmup_and_ends_at_a_250_000th():
    found = factors(Schedule(), 10, 10)
    assert found[0] == pytest.approx(1 / 25)
    assert found[19] == max(found) == 1.0
    assert found[-1] == pytest.approx(1 / 250_000)


@pytest.mark.parametrize("flanks", ["cosine", "linear"])
@pytest.mark.parametrize(("start", "end"), [(0.25, 0.25), (1 / 10, 1e-3), (1.0, 1.0)])
def test_flanks_start_and_end_of_one_cycle_are_torchs(flanks, start, end):
    def make(optimizer, steps):
        return lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=steps, pct_start=0.208, cycle_momentum=False,
            anneal_strategy={"cosine": "cos", "linear": "linear"}[flanks], div_factor=1 / start,
            final_div_factor=start / end,
        )  # fmt: skip

    schedule = Schedule(warmup=0.208, flanks=flanks, start=start, end=end)
    assert factors(schedule, 24, 98) == pytest.approx(torchs(make, 1, 24 * 98), rel=1e-9, abs=1e-12)


def test_the_schedules_of_this_file_are_all_there_are():
    assert {schedule.name for schedule, _, _ in SCHEDULES.values()} | {"one_cycle"} == set(rates.SCHEDULES)


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(rates.SCHEDULES)),
    warmup=st.floats(0, 1, exclude_max=True),
    gamma=st.floats(0.01, 1),
    step_epochs=st.integers(1, 20),
    epochs=st.integers(1, 100),
    batches=st.integers(1, 400),
    data=st.data(),
)
def test_the_learning_rate_is_always_positive_and_never_above_its_peak(
    name, warmup, gamma, step_epochs, epochs, batches, data
):
    schedule = Schedule(name=name, warmup=warmup, gamma=gamma, step_epochs=step_epochs)
    steps = epochs * batches
    drawn = data.draw(st.integers(0, steps - 1))
    for step in {0, 1 % steps, round(warmup * steps) % steps, drawn, steps - 1}:
        assert 0 < rates.lr_factor(schedule, step, steps, epochs) <= 1


KINDS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
VALUES = {
    "sgd": {"lr": 0.3, "momentum": 0.7, "weight_decay": 0.02, "nesterov": False},
    "adam": {"lr": 0.003, "weight_decay": 0.02},
    "adamw": {"lr": 0.003, "weight_decay": 0.02},
}


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def test_the_optimizers_of_this_file_are_all_there_are():
    assert set(KINDS) == set(VALUES) == set(optim.MAKE) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", KINDS)
def test_an_optimizer_is_torchs_fused_one_with_the_values_of_the_recipe(name):
    made = optim.optimizer(network(), Optimizer(name=name, **VALUES[name]))
    assert type(made) is KINDS[name]
    (group,) = made.param_groups
    assert group["fused"] is True
    assert {key: group[key] for key in VALUES[name]} == VALUES[name]


@pytest.mark.parametrize("name", KINDS)
def test_an_optimizer_without_values_has_the_recipes_defaults(name):
    (group,) = optim.optimizer(network(), Optimizer(name=name)).param_groups
    assert (group["lr"], group["weight_decay"]) == (OPTIMIZERS[name].lr, 5e-4)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.9, True)
    else:
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "expected"),
    [(0.9, True, True), (0.9, False, False), (0.0, True, False), (0.0, False, False)],
)
def test_nesterov_needs_momentum(momentum, nesterov, expected):
    (group,) = optim.optimizer(
        network(), Optimizer(name="sgd", momentum=momentum, nesterov=nesterov)
    ).param_groups
    assert group["nesterov"] is expected


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_those_of_torchs_plain_optimizer(name):
    ours, theirs = network(), network()
    made = optim.optimizer(ours, Optimizer(name=name, **VALUES[name]))
    plain = KINDS[name](theirs.parameters(), **VALUES[name], foreach=False, fused=False)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        for model, optimizer in ((ours, made), (theirs, plain)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    for own, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)
        assert not any(
            torch.allclose(own, start) for start in network().parameters() if start.shape == own.shape
        )


@pytest.mark.parametrize("name", KINDS)
def test_frozen_parameters_are_left_out(name):
    model = network()
    model[0].requires_grad_(False)
    (group,) = optim.optimizer(model, Optimizer(name=name)).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model[2].parameters()]
