"""A range test agrees with torch-lr-finder, a public one, and differs from it where that one is wrong."""

import copy
import math

import numpy as np
import pytest
import torch
from sessions import make
from sweeps import PLAIN, SHORT, sweep
from torch import nn
from torch.utils.data import DataLoader

from ablate.recipe import range_test
from ablate.recipe.range_test import Sweep
from ablate.training import optim

pytestmark = pytest.mark.slow  # it changes with torch-lr-finder alone


def finder_of(*arguments, **options):
    from torch_lr_finder import LRFinder  # late: it brings matplotlib to every worker

    return LRFinder(*arguments, **options)


def theirs(network, recipe, loader, plan, smooth_f=0.0):
    """Run the public finder on a copy of a network with the same optimizer."""
    network = copy.deepcopy(network)
    optimizer = optim.optimizer(network, recipe.optimizer)
    finder = finder_of(network, optimizer, nn.CrossEntropyLoss(), device="cpu")
    mode = "exp" if plan.mode == "exponential" else "linear"
    finder.range_test(
        loader,
        start_lr=plan.low,
        end_lr=plan.high,
        num_iter=plan.steps,
        step_mode=mode,
        smooth_f=smooth_f,
        diverge_th=math.inf,
    )
    return finder


def suggested(finder, losses=None, tried=None):
    """Return the rate that the public finder suggests, of a curve of its own or of a given one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if losses is not None:
        finder.history = {"lr": list(tried), "loss": list(losses)}
    figure, axes = plt.subplots()
    _, rate = finder.plot(skip_start=0, skip_end=0, ax=axes, suggest_lr=True)
    plt.close(figure)
    return rate


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_on_the_same_batches_the_curve_is_that_of_torch_lr_finder(mode, digits, sessions, batches):
    recipe = make(augment=PLAIN, data={"train_size": 400})
    plan = Sweep(1e-5, 3.0, 50) if mode == "exponential" else Sweep(1e-4, 0.1, 30, "linear")
    curve = sweep(recipe, digits, plan)
    ((_, network),) = sessions
    pairs = [(batch.images, batch.labels) for batch in batches]
    history = theirs(network, recipe, DataLoader(pairs, batch_size=None), plan).history
    number = len(curve.losses)
    assert number > 15
    assert history["lr"][:number] == pytest.approx(curve.rates)
    # The same sums in the same order, but for the last bits, which grow a little from step to step and a lot
    # while it blows up.
    calm = int(np.argmin(curve.losses)) + 1
    assert calm > 8
    assert history["loss"][:calm] == pytest.approx(curve.losses[:calm], rel=0.02)


def test_on_the_same_images_in_another_order_the_curve_is_that_of_torch_lr_finder_within_noise(
    digits, sessions
):
    recipe, plan = make(augment=PLAIN, data={"train_size": 600}), Sweep(1e-5, 3.0, 60)
    curves = [sweep(recipe, digits, plan, seed=seed) for seed in range(2)]
    session, network = sessions[0]
    (whole,) = session.train.batches(len(session.train))
    loader = DataLoader(list(zip(whole.images, whole.labels, strict=True)), 32, shuffle=True, drop_last=True)
    torch.manual_seed(0)
    history = theirs(network, recipe, loader, plan).history
    number = min(int(np.argmin(range_test.smoothed(curve).losses)) for curve in curves) + 1

    def smooth(losses):
        return range_test.average(np.asarray(losses[:number]), 0.8)

    ours, other = (smooth(curve.losses) for curve in curves)
    public = smooth(history["loss"])
    assert number > 30
    assert np.corrcoef(ours, public)[0, 1] > 0.97
    noise = np.median(np.abs(ours - other) / ours)  # of another order and other weights
    assert np.median(np.abs(ours - public) / ours) < max(0.05, 2 * noise)


def test_torch_lr_finder_leaves_the_generators_moved(digits, sessions):
    recipe = make(augment=PLAIN, model={"head_dropout": 0.5})
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sweep(recipe, digits)
    assert torch.equal(torch.get_rng_state(), before)
    session, network = sessions[0]
    pairs = [(batch.images, batch.labels) for batch in session.train.batches(32)]
    finder = theirs(network, recipe, DataLoader(pairs, batch_size=None), SHORT)
    finder.reset()
    assert not torch.equal(torch.get_rng_state(), before)


def test_where_torch_lr_finder_gives_a_number_for_nothing_there_is_none():
    finder = finder_of(nn.Linear(1, 1), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), None)
    tried = range_test.rates(Sweep())
    for losses in (np.full(100, 2.3), np.random.default_rng(0).normal(2.3, 0.1, 100)):
        assert suggested(finder, losses, tried) in tried
        curve = range_test.Curve(tried, tuple(losses.tolist()), (0.1,) * 100, "end")
        assert {one.status for one in range_test.suggest([curve]).values()} == {"flat"}


def test_where_torch_lr_finder_takes_the_slope_by_index_a_linear_sweep_moves_its_answer():
    finder = finder_of(nn.Linear(1, 1), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), None)
    found = {}
    for mode in ("exponential", "linear"):
        tried = np.array(range_test.rates(Sweep(0.01, 10.0, 400, mode)))
        x = np.log10(tried)
        losses = 2.3 - 2 / (1 + np.exp(-3 * (x + 1)))  # steepest per decade at 0.1
        curve = range_test.Curve(tuple(tried.tolist()), tuple(losses.tolist()), (0.5,) * 400, "end")
        found[mode] = suggested(finder, losses, tried), range_test.suggest([curve])["steepest"].rate
    assert found["exponential"][0] == pytest.approx(0.1, rel=0.05)
    assert found["linear"][0] < 0.06
    assert all(ours == pytest.approx(0.1, rel=0.5) for _, ours in found.values())


def test_where_the_mean_of_torch_lr_finder_lags_ours_stands_where_the_losses_are(digits, sessions, batches):
    recipe = make(augment=PLAIN, data={"train_size": 600}, model={"width": 1.0})  # learns fast enough to lag
    plan = Sweep(1e-5, 3.0, 80)
    curve = sweep(recipe, digits, plan)
    ((_, network),) = sessions
    pairs = [(batch.images, batch.labels) for batch in batches]
    history = theirs(network, recipe, DataLoader(pairs, batch_size=None), plan, smooth_f=0.05).history
    number = len(curve.losses) - 5  # without the blow-up
    truth = [
        np.median(curve.losses[max(0, i - 3) : i + 4]) for i in range(number)
    ]  # of a window that looks both ways

    def off(tried, losses):
        expected = np.interp(np.log(tried[:number]), np.log(curve.rates[:number]), truth)
        return np.median(np.abs(np.log(np.array(losses[:number]) / expected)))

    smooth = range_test.smoothed(curve)
    assert off(history["lr"], history["loss"]) > 0.5
    assert off(smooth.rates, smooth.losses) < 0.15
    lowest = smooth.rates[int(np.argmin(smooth.losses))]
    assert history["lr"][int(np.argmin(history["loss"]))] > 1.5 * lowest
