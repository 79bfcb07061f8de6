"""A range test leaves no trace and sees what a training would.

The list of what may go wrong is that of other finders: torch-lr-finder, fastai, Lightning.
"""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from gpus import NEEDS_GPU
from sessions import CPU, EVERYTHING, Reads, Scalars, fingerprint, make, numbered, start, without_times
from sweeps import PLAIN, SHORT, sweep
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import identity, range_test
from ablate.recipe.range_test import Sweep
from ablate.training import data, loop, lr_finder, surgery

TOO_FAR = Sweep(low=1e-2, high=100.0, steps=20)


TRAINED = {
    "plain": {},
    "everything": EVERYTHING,
    "everything in bf16": EVERYTHING | {"training": EVERYTHING["training"] | {"precision": "bf16"}},
    "adam, dropout, cosine": {
        "optimizer": {"name": "adam", "lr": 0.003},
        "model": {"conv_dropout": 0.2},
        "schedule": {"name": "cosine"},
    },
}


@pytest.mark.parametrize(
    "name",
    [
        "everything in bf16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in TRAINED if "bf16" not in name),
    ],
)
def test_a_training_has_the_same_bits_with_range_tests_before_it_and_between_its_epochs(name, digits):
    recipe = make(**TRAINED[name] | {"training": TRAINED[name].get("training", {}) | {"epochs": 2}})
    outcomes = []
    for tested in (False, True):
        if tested:
            sweep(recipe, digits)
        session = start(recipe, digits)
        for _ in loop.epochs(session):
            before = (
                fingerprint(loop.snapshot(session)),
                [group["lr"] for group in session.optimizer.param_groups],
            )
            if tested:
                sweep(recipe, digits)
                sweep(make(), digits, TOO_FAR, seed=1)
            assert (
                fingerprint(loop.snapshot(session)),
                [group["lr"] for group in session.optimizer.param_groups],
            ) == before
        state = loop.snapshot(session)
        outcomes.append(
            (
                without_times(session.history),
                fingerprint(state | {"history": without_times(state["history"])}),
            )
        )
    assert outcomes[0] == outcomes[1]


def test_between_two_steps_of_an_epoch_a_range_test_changes_nothing_either(digits):
    recipe = make(**EVERYTHING)
    ends = []
    for tested in (False, True):
        session = start(recipe, digits)
        for _ in loop.steps(session):
            if tested:
                sweep(recipe, digits)
        ends.append(fingerprint(loop.snapshot(session)))
    assert ends[0] == ends[1]


def settings_of_torch():
    return (
        torch.get_rng_state().tolist(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32, torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "mode",
    [
        torch.enable_grad,
        *(pytest.param(mode, marks=pytest.mark.slow) for mode in (torch.no_grad, torch.inference_mode)),
    ],
)
@pytest.mark.parametrize("how", [pytest.param("to the end", marks=pytest.mark.slow), "diverging", "stopped"])
def test_torch_is_left_as_it_was(how, mode, digits):
    torch.manual_seed(4)
    torch.rand(3)
    recipe = make(model={"conv_dropout": 0.1}, training={"threads": 2})
    expected = sweep(recipe, digits) if how == "to the end" else None
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = not flags[0], not flags[1]
    try:
        with mode():
            before = settings_of_torch()
            if how == "stopped":
                with pytest.raises(lr_finder.Stopped):
                    sweep(recipe, digits, should_stop=lambda: True)
            elif how == "diverging":
                assert sweep(make(), digits, TOO_FAR).stopped == "diverged"
            else:
                assert sweep(recipe, digits) == expected
            assert settings_of_torch() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = flags


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_whatever_is_set_inside_is_put_back(ends):
    before = settings_of_torch()
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32

    def disturb():
        with lr_finder.undisturbed(CPU):
            torch.manual_seed(1)
            torch.set_num_threads(2)
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = not flags[0], not flags[1]
            assert sum(one != other for one, other in zip(before, settings_of_torch(), strict=True)) == 6
            if ends == "with an error":
                raise ZeroDivisionError

    with nullcontext() if ends == "well" else pytest.raises(ZeroDivisionError):
        disturb()
    assert settings_of_torch() == before


def test_a_range_test_within_another_changes_neither(digits):
    recipe, other, inner = make(**EVERYTHING), make(model={"conv_dropout": 0.3}), []
    alone = sweep(recipe, digits), sweep(other, digits, seed=2)
    outer = sweep(recipe, digits, progress=lambda _: inner.append(sweep(other, digits, seed=2)))
    assert (outer, *inner) == (alone[0], alone[1], alone[1])  # told after 10 and after 12 steps


def test_inside_torch_is_set_as_the_recipe_says(digits):
    seen = []
    sweep(make(training={"threads": 2}), digits, progress=lambda _: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_curve(digits):
    recipe = make(**EVERYTHING)
    one = sweep(recipe, digits)
    torch.manual_seed(77)
    sweep(make(), digits, seed=3)
    assert sweep(recipe, digits) == one
    assert sweep(recipe, digits, seed=1).losses != one.losses


def test_its_draws_are_not_the_jobs_but_its_images_are(digits, sessions):
    recipe = make(**EVERYTHING)
    sweep(recipe, digits, Sweep(steps=5), seed=3)
    ((tested, initial),) = sessions
    loop.start(recipe, 3, digits, data.open_arrays(digits.folder), CPU)
    job, fresh = sessions[1]
    for one, other in zip(initial.parameters(), fresh.parameters(), strict=True):
        assert one.ndim == 1 or not torch.equal(one, other)
    assert tested.order.initial_seed() != job.order.initial_seed()
    seeds = {role: stream.initial_seed() for role, stream in job.streams.items()}
    assert not set(seeds.values()) & {stream.initial_seed() for stream in tested.streams.values()}
    assert identity.stream_seed(identity.stream_seed(3, "range"), "dropout") != identity.stream_seed(
        3, "dropout"
    )
    assert torch.equal(tested.train.rows, job.train.rows), (
        "else the rate is chosen on images that the job validates on"
    )
    assert torch.equal(tested.train.labels, job.train.labels)


def test_the_curve_is_that_of_plain_steps_at_rising_rates(digits, sessions, batches):
    # Written anew with torch alone: loss before the step, label smoothing, momentum, weight decay, clipping.
    recipe = make(
        optimizer={"momentum": 0.8, "nesterov": False, "weight_decay": 0.01},
        training={"label_smoothing": 0.1, "gradient_clip": 0.5, "batch_size": 20},
    )
    plan = Sweep(1e-3, 0.3, 12)
    curve = sweep(recipe, digits, plan)
    ((_, network),) = sessions
    network.train()
    speed = [torch.zeros_like(p) for p in network.parameters()]
    clipped = 0
    for rate, loss, accuracy, batch in zip(
        range_test.rates(plan), curve.losses, curve.accuracies, batches, strict=True
    ):
        logits = network(batch.images)
        found = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
        assert loss == pytest.approx(found.item(), rel=1e-3)
        assert accuracy == pytest.approx((logits.argmax(1) == batch.labels).float().mean().item(), abs=0.051)
        gradients = torch.autograd.grad(found, list(network.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        clipped += norm.item() > 0.5
        with torch.no_grad():
            for p, g, v in zip(network.parameters(), gradients, speed, strict=True):
                v.mul_(0.8).add_(g * min(1.0, 0.5 / norm.item()) + 0.01 * p)
                p.sub_(rate * v)
    assert clipped > 3, "another rate: the clipping has to matter"


def test_every_rate_is_tried_however_few_batches_an_epoch_has_and_every_epoch_has_its_own_order(batches):
    prepared, arrays = numbered(40)
    recipe = make(
        data={"train_size": None, "validation": 0},
        augment=PLAIN,
        training={"batch_size": 10},
        model={"width": 0.25},
    )
    plan = Sweep(1e-6, 1e-3, 22)  # 5 epochs and a half
    curve = lr_finder.sweep(recipe, 0, prepared, arrays, CPU, plan)
    assert curve.rates == range_test.rates(plan)
    assert len(batches) == 22
    seen = [tuple(round(v * 255) for v in batch.images[:, 0, 0, 0].tolist()) for batch in batches]
    for i in range(0, 20, 4):
        assert sorted(itertools.chain(*seen[i : i + 4])) == list(range(40)), (
            "an epoch visits every image once"
        )
    assert len(set(seen)) == 22


@pytest.mark.parametrize("images", [7, 2])
def test_fewer_images_than_a_batch_are_one_batch(images, batches):
    prepared, arrays = numbered(images)
    recipe = make(data={"train_size": None, "validation": 0}, model={"width": 0.25})
    for per in ("batch", "epoch"):
        curve = lr_finder.sweep(recipe, 0, prepared, arrays, CPU, Sweep(1e-6, 1e-3, 5, per=per))
        assert len(curve.losses) == 5
    assert {len(batch.labels) for batch in batches} == {images}
    assert len(batches) == 10


def test_an_epoch_at_each_rate_gives_the_means_over_its_batches(digits, sessions, batches):
    recipe = make(augment={"rotation": 10.0}, model={"width": 0.5})
    plan = Sweep(1e-4, 0.1, 6, per="epoch")
    curve = sweep(recipe, digits, plan)
    ((session, _),) = sessions
    assert len(batches) == 6 * 3 == 6 * loop.batches_an_epoch(session)
    again = loop.start(
        recipe, identity.stream_seed(0, "range"), digits, data.open_arrays(digits.folder), CPU, split=0
    )
    surgery.train(again.network)
    for rate, loss, accuracy in zip(range_test.rates(plan), curve.losses, curve.accuracies, strict=True):
        loop.set_lr(again, rate)
        steps = [loop.step(again, batch).tolist() for batch in loop.shuffled(again)]
        assert (loss, accuracy) == pytest.approx(tuple(np.mean(steps, axis=0)), rel=1e-5)
    assert curve.stopped == "end"
    assert curve.losses[3] < 0.9 * curve.losses[0]


@pytest.mark.parametrize(
    "changes", [{"optimizer": {"name": "adam"}}, {}, {"training": {"batch_size": 5}}], ids=str
)
def test_a_training_that_diverges_stops_and_says_so_wherever_the_device_is_read(changes, digits, monkeypatch):
    plan, found = Sweep(1e-4, 100.0, 40), []
    for block in (1, 7, 10, 40):
        monkeypatch.setattr(lr_finder, "BLOCK", block)
        found.append(sweep(make(**changes), digits, plan))
    assert all(repr(one) == repr(found[0]) for one in found)  # repr, as NaN is not equal to itself
    curve = found[0]
    assert curve.stopped == "diverged"
    assert 5 < len(curve.losses) < 40
    assert range_test.divergence(curve.losses, 40) == len(curve.losses) - 1
    assert curve.rates == range_test.rates(plan)[: len(curve.losses)]


def test_a_training_that_diverges_at_once_is_not_a_crash(digits):
    curve = sweep(make(model={"batch_norm": False}), digits, Sweep(1e4, 1e6, 20))
    assert curve.stopped == "diverged"
    assert {one.status for one in range_test.suggest([curve]).values()} == {"diverged at once"}
    assert range_test.from_json(range_test.to_json(curve)).rates == curve.rates


def test_a_healthy_network_gets_a_rate_that_trains_it_and_the_range_holds_it(digits):
    recipe = make(data={"train_size": 600}, augment={"flip": False, "padding": 1})
    found = range_test.best(
        range_test.suggest([sweep(recipe, digits, Sweep(steps=60), seed=seed) for seed in range(2)])
    )
    assert found.low <= found.rate <= found.high
    losses = {}
    for rate in (found.rate, found.rate / 100):
        session = start(
            make(data={"train_size": 600}, augment={"flip": False, "padding": 1}, optimizer={"lr": rate}),
            digits,
        )
        losses[rate] = [line["metrics"]["validation/loss"] for line in loop.epochs(session)][-1]
    assert losses[found.rate] < 0.7 * losses[found.rate / 100]


def test_nothing_but_images_network_and_optimizer_matters(digits):
    one = sweep(make(), digits)
    for changes in (
        {"schedule": {"name": "cosine"}}, {"schedule": {"name": "step", "step_epochs": 1}},
        {"optimizer": {"lr": 0.7}}, {"training": {"epochs": 1, "early_stopping": 1}},
        {"evaluation": {"tta": "flip"}},
    ):  # fmt: skip
        assert sweep(make(**changes), digits) == one, changes
    for changes in (
        {"augment": {"rotation": 15.0}}, {"optimizer": {"momentum": 0.5}},
        {"optimizer": {"weight_decay": 0.3}}, {"training": {"gradient_clip": 0.01}},
        {"training": {"label_smoothing": 0.2}}, {"training": {"precision": "bf16"}},
        {"model": {"head_dropout": 0.3}}, {"optimizer": {"name": "adam"}}, {"augment": {"mixup": 1.0}},
    ):  # fmt: skip
        assert sweep(make(**changes), digits).losses != one.losses, changes


def test_a_recipe_that_is_compiled_is_not_compiled_for_a_range_test(digits, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    monkeypatch.setattr(torch.compiler, "reset", lambda: pytest.fail("what a job has compiled is forgotten"))
    assert sweep(make(training={"compile": True}), digits) == sweep(make(), digits)


def test_a_frozen_network_trains_its_head_alone_and_keeps_its_statistics(digits, sessions):
    sweep(make(model={"trainable": "head"}), digits)
    ((session, initial),) = sessions
    name, _ = surgery.head(initial)
    before = initial.state_dict()
    changed = {
        key for key, part in session.network.state_dict().items() if not torch.equal(part, before[key])
    }
    assert changed == {f"{name}.weight", f"{name}.bias"}


def test_dropout_is_on_and_batch_norm_learns_in_a_range_test(digits, sessions):
    sweep(make(model={"head_dropout": 0.5}), digits)
    ((session, initial),) = sessions
    assert all(module.training for module in session.network.modules())
    norms = [key for key in initial.state_dict() if key.endswith("running_mean")]
    assert norms
    assert not any(torch.equal(session.network.state_dict()[key], initial.state_dict()[key]) for key in norms)


def test_the_validation_images_are_never_judged(digits, monkeypatch):
    monkeypatch.setattr(loop, "score", lambda *_: pytest.fail("judged"))
    assert sweep(make(), digits).stopped == "end"
    assert len(sweep(make(data={"validation": 0}), digits).losses) == SHORT.steps


def test_the_device_is_read_once_a_block_of_steps(digits):
    counts = []
    for steps in (10, 40, 80):
        with Reads() as reads, Scalars() as scalars:
            sweep(make(augment=PLAIN), digits, Sweep(1e-6, 1e-4, steps))
        counts.append(len(reads.seen) + len(scalars.seen))
    assert counts[1] - counts[0] == 3
    assert counts[2] - counts[1] == 4


def test_progress_is_told_and_a_stop_is_heard_at_every_step(digits):
    told = []
    sweep(make(), digits, Sweep(1e-6, 1e-4, 25), progress=told.append)
    assert told == [10, 20, 25]
    for per, expected in (("batch", [10]), ("epoch", [1, 2, 3, 4])):  # an epoch has 3 steps
        answers, told = iter([False] * 13 + [True]), []
        with pytest.raises(lr_finder.Stopped):
            sweep(
                make(),
                digits,
                Sweep(1e-6, 1e-4, 25, per=per),
                progress=told.append,
                should_stop=answers.__next__,
            )
        assert next(answers, None) is None
        assert told == expected


@NEEDS_GPU
def test_on_a_gpu_its_generator_is_left_as_it_was_and_the_curve_is_about_that_of_the_cpu(digits):
    cuda = torch.device("cuda")
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state(cuda).tolist()
    recipe, arrays = make(augment={"rotation": 10.0}), data.open_arrays(digits.folder)
    one, other = (
        lr_finder.sweep(recipe, 0, digits, arrays, cuda, SHORT, memory=memory) for memory in (None, 0)
    )
    assert torch.cuda.get_rng_state(cuda).tolist() == before
    assert one == other
    assert one.losses == pytest.approx(sweep(recipe, digits).losses, rel=0.05)
