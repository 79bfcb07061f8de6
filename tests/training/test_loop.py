"""Recipe and seed decide a training to the last bit, interrupted or not, and pairs share their draws."""

import copy
import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import sessions
import torch
from gpus import NEEDS_GPU, no_waiting
from loops import batches, weights
from sessions import (
    EVERYTHING,
    IN_CHILD,
    TRAININGS,
    Reads,
    Scalars,
    fingerprint,
    make,
    outcome,
    start,
    train,
    without_times,
)

from ablate.recipe import identity, rates
from ablate.training import data, loop, optim
from ablate.training.augment import rotation, streams


def test_the_fingerprint_of_this_file_sees_one_bit():
    state = {"a": [torch.zeros(3), {"b": 1.0}]}
    other = copy.deepcopy(state)
    assert fingerprint(state) == fingerprint(other)
    other["a"][0].view(torch.int32)[1] ^= 1
    assert fingerprint(state) != fingerprint(other)
    assert fingerprint({"a": 0.1 + 0.2}) != fingerprint({"a": 0.3})


CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
import sessions as t
from ablate.training import data
prepared = data.read(Path(sys.argv[2]))
torch.manual_seed(12345)
torch.rand(7)
t.train(t.make(**t.TRAININGS["diverging"]), prepared, seed=5)
print(json.dumps({name: t.outcome(t.train(t.make(**t.TRAININGS[name]), prepared)) for name in t.IN_CHILD}))
"""


@pytest.fixture(scope="module")
def undisturbed(digits):
    """Train each of the trainings once: name -> (session, its bits)."""
    found = {}

    def of(name):
        if name not in found:
            session = train(make(**TRAININGS[name]), digits)
            found[name] = session, outcome(session)
        return found[name]

    return of


@pytest.mark.parametrize("name", TRAININGS)
def test_the_same_seed_gives_the_same_bits_after_whatever_else_the_process_did(name, digits, undisturbed):
    _, expected = undisturbed(name)
    torch.manual_seed(99)
    train(make(model={"head_dropout": 0.5}, training={"epochs": 1}), digits, seed=8)
    assert outcome(train(make(**TRAININGS[name]), digits)) == expected


@pytest.mark.slow  # seconds
def test_the_same_seed_gives_the_same_bits_in_another_process(digits, undisturbed):
    command = [sys.executable, "-c", CHILD, str(Path(sessions.__file__).parent), str(digits.folder)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == {name: undisturbed(name)[1] for name in IN_CHILD}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_is_put_away_and_taken_up_at_any_epoch_ends_with_the_same_bits(
    name, digits, undisturbed
):
    recipe = make(**TRAININGS[name])
    whole, expected = undisturbed(name)
    session, files = start(recipe, digits), []
    lines = loop.epochs(session)
    while True:
        file = io.BytesIO()
        torch.save(loop.snapshot(session), file)
        files.append(file)
        if next(lines, None) is None:
            break
    assert outcome(session) == expected, "taking a snapshot must not disturb a training"
    for epoch, file in enumerate(files[:-1]):
        file.seek(0)
        torch.manual_seed(epoch)  # whatever the process did before
        again = start(recipe, digits)
        loop.restore(again, torch.load(file, weights_only=True))
        assert again.epoch == epoch
        assert [line["epoch"] for line in loop.epochs(again)] == list(range(epoch + 1, whole.epoch + 1))
        assert outcome(again) == expected, f"taken up after epoch {epoch}"
        assert (again.best, again.best_epoch, again.diverged) == (
            whole.best,
            whole.best_epoch,
            whole.diverged,
        )


def test_the_trainings_of_this_file_cover_what_there_is(undisturbed):
    sections = [make(**changes) for changes in TRAININGS.values()]
    assert {r.optimizer.name for r in sections} == set(optim.MAKE)
    assert {r.schedule.name for r in sections} == set(rates.SCHEDULES)
    assert {r.augment.crop for r in sections} == {"none", "random_crop", "random_resized_crop"}
    stopped, _ = undisturbed("stopping early")
    assert 0 < stopped.best_epoch < stopped.epoch < 8, "another rate: this training has to stop early"


def test_a_snapshot_stays_as_it_was_taken_and_can_be_taken_up_twice(digits):
    session = start(make(**EVERYTHING), digits)
    lines = loop.epochs(session)
    next(lines)
    state = loop.snapshot(session)
    taken = fingerprint(state)
    next(lines)
    assert fingerprint(state) == taken
    ends = []
    for _ in range(2):
        loop.restore(session, state)
        for _ in loop.epochs(session):
            pass
        ends.append(outcome(session))
        assert fingerprint(state) == taken
    assert ends[0] == ends[1]


def test_a_finished_training_that_is_taken_up_trains_nothing(digits, undisturbed):
    for name in ("crop, flip", "stopping early", "diverging"):
        session, _ = undisturbed(name)
        again = start(make(**TRAININGS[name]), digits)
        loop.restore(again, loop.snapshot(session))
        assert again.finished
        assert list(loop.epochs(again)) == []


def test_a_line_of_the_journal_has_epoch_time_and_metrics(digits, undisturbed):
    session, _ = undisturbed("crop, flip")
    assert [line["epoch"] for line in session.history] == [1, 2, 3]
    for line in session.history:
        assert set(line) == {"epoch", "timestamp", "seconds", "metrics"}
        assert list(line["metrics"]) == [
            "train/loss",
            "train/accuracy",
            "validation/loss",
            "validation/accuracy",
        ]
    assert json.loads(json.dumps(session.history)) == session.history
    alone, _ = undisturbed("no validation")
    assert list(alone.history[0]["metrics"]) == ["train/loss", "train/accuracy"]
    assert alone.best_epoch == 0


def first_weight(network):
    return next(network.parameters())


def test_another_seed_changes_weights_order_split_and_every_stream(digits):
    one, other = (start(make(**EVERYTHING), digits, seed) for seed in (0, 1))
    assert not torch.equal(first_weight(one.network), first_weight(other.network))
    assert not torch.equal(one.order.get_state(), other.order.get_state())
    assert not torch.equal(one.train.rows, other.train.rows)
    for role in streams.ROLES:
        assert not torch.equal(one.streams[role].get_state(), other.streams[role].get_state())
    start(make(), digits, seed=0)
    dropout = torch.get_rng_state()
    start(make(), digits, seed=1)
    assert not torch.equal(torch.get_rng_state(), dropout)


def test_dropout_is_drawn_from_its_own_stream(digits):
    start(make(), digits, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(identity.stream_seed(3, "dropout"))
    assert torch.equal(torch.get_rng_state(), state)


def after_one_epoch(digits, **changes):
    session = start(make(**changes), digits)
    initial, seen = weights(session), batches(session)
    next(loop.epochs(session))
    states = {role: stream.get_state() for role, stream in session.streams.items()}
    return initial, seen, states | {"order": session.order.get_state(), "dropout": torch.get_rng_state()}


def test_switching_rotation_on_moves_no_other_draw(digits):
    dropout = {"model": {"head_dropout": 0.2}}
    weights_off, seen_off, states_off = after_one_epoch(digits, **dropout)
    weights_on, seen_on, states_on = after_one_epoch(digits, augment={"rotation": 15.0}, **dropout)
    assert all(torch.equal(weights_on[name], part) for name, part in weights_off.items())
    assert {role for role in states_off if not torch.equal(states_on[role], states_off[role])} == {"rotation"}
    # The very same crops of the very same images, turned: undo the normalisation, and turn what was not
    # turned.
    session = start(make(augment={"rotation": 15.0}), digits)
    scale, shift = session.train.scale[0], session.train.shift[0]
    angle = rotation.sample_rotation(32, 15.0, session.streams["rotation"])
    turned = rotation.rotate((seen_off[0] - shift) / scale / 255, angle)
    assert torch.allclose(turned * 255 * scale + shift, seen_on[0], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"batch_norm": False}},
        {"model": {"conv_dropout": 0.2}},
        {"model": {"head_dropout": 0.2}},
        {"optimizer": {"lr": 0.01}},
        {"training": {"label_smoothing": 0.1}},
        {"schedule": {"name": "cosine"}},
    ],
    ids=str,
)
def test_a_choice_outside_the_images_leaves_initial_weights_order_and_augmentation_as_they_were(
    changes, digits
):
    weights_off, seen_off, states_off = after_one_epoch(digits)
    weights_on, seen_on, states_on = after_one_epoch(digits, **changes)
    convolutions = {name for name, part in weights_off.items() if part.ndim > 1}
    assert convolutions <= weights_on.keys()
    assert all(
        torch.equal(weights_on[name], weights_off[name]) for name in weights_off.keys() & weights_on.keys()
    )
    assert all(torch.equal(on, off) for on, off in zip(seen_on, seen_off, strict=True))
    moved = {role for role in states_off if not torch.equal(states_on[role], states_off[role])}
    assert moved == ({"dropout"} if any("dropout" in name for name in changes.get("model", {})) else set())


def test_a_crop_of_another_kind_leaves_order_and_flip_as_they_were(digits):
    _, _, one = after_one_epoch(digits)
    _, _, other = after_one_epoch(digits, augment={"crop": "random_resized_crop"})
    assert {role for role in one if not torch.equal(one[role], other[role])} == {"crop"}


def test_the_network_sees_the_same_images_in_bf16_as_in_fp32(digits):
    # Under autocast the matrices of a resize and the grid of a rotation would be bf16: pixels up to 30 levels
    # off.
    turned = {"augment": {"crop": "random_resized_crop", "rotation": 15.0}}
    _, fp32, _ = after_one_epoch(digits, **turned)
    _, bf16, _ = after_one_epoch(digits, training={"precision": "bf16"}, **turned)
    assert len(fp32) == len(bf16) == 3
    assert all(torch.equal(one, other) for one, other in zip(fp32, bf16, strict=True))


def test_bf16_runs_the_network_in_bf16_and_keeps_its_weights_in_fp32(digits):
    kinds = {}
    for precision in ("fp32", "bf16"):
        session = start(make(training={"precision": precision, "epochs": 1}), digits)
        session.network[0].register_forward_hook(
            lambda _m, _i, out, at=precision: kinds.update({at: out.dtype})
        )
        next(loop.epochs(session))
        assert {part.dtype for part in session.network.parameters()} == {torch.float32}
    assert kinds == {"fp32": torch.float32, "bf16": torch.bfloat16}


def reads_of_an_epoch(recipe, prepared):
    session = start(recipe, prepared)
    lines = loop.epochs(session)
    next(lines)
    with Reads() as reads, Scalars() as scalars:
        next(lines)
    return len(reads.seen) + len(scalars.seen)


def test_reads_are_counted():
    with Reads() as reads, Scalars() as scalars:
        x = torch.ones(3)
        x.tolist()
        float(x[0])
        assert x[1] > 0
        x[x > 0]
    assert reads.seen == ["tolist", "__float__", "__bool__"]
    assert scalars.seen


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("crop, flip", "sgd"), ("crop, flip", "adam"), ("everything", "adamw"),
        pytest.param("crop, flip", "adamw", marks=pytest.mark.slow),
        pytest.param("everything", "sgd", marks=pytest.mark.slow),
        pytest.param("everything", "adam", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_device_is_read_once_an_epoch_and_once_to_validate_however_many_batches(name, optimizer, digits):
    changes = TRAININGS[name] | {"optimizer": {"name": optimizer, "lr": 0.01}}
    training = changes.get("training", {})
    counts = [
        reads_of_an_epoch(make(**changes | {"training": training | {"batch_size": size}}), digits)
        for size in (100, 20, 5)
    ]
    assert counts == [2, 2, 2]


@NEEDS_GPU
@pytest.mark.parametrize("name", ["crop, flip", "everything"])
def test_no_step_on_a_gpu_waits_for_it(name, digits):
    cuda = torch.device("cuda")
    session = loop.start(make(**TRAININGS[name]), 0, digits, data.open_arrays(digits.folder), cuda)
    for _ in loop.steps(session):  # what is made at first use may wait
        pass
    with no_waiting():
        for _ in loop.steps(session):
            pass


def test_early_stopping_stops_after_so_many_epochs_without_a_better_validation(digits):
    # A rate this small changes no answer, and the loss only grows smaller: the last epoch is the best, so
    # nothing stops it.
    for patience, changes in itertools.product((1, 2), ({"lr": 0.05}, {"lr": 1e-6})):
        session = train(make(optimizer=changes, training={"early_stopping": patience, "epochs": 8}), digits)
        values = [
            (line["metrics"]["validation/accuracy"], -line["metrics"]["validation/loss"])
            for line in session.history
        ]
        best = 0
        for epoch in range(1, 9):
            if best == 0 or values[epoch - 1] > values[best - 1]:
                best = epoch
            if epoch - best >= patience:
                break
        assert (session.epoch, session.best_epoch) == (epoch, best)
    steep = {"lr": 0.2}  # at which an epoch is worse than the one before
    longer = train(make(training={"epochs": 8}, optimizer=steep), digits)
    stopped = train(make(training={"epochs": 8, "early_stopping": 1}, optimizer=steep), digits)
    assert stopped.epoch < longer.epoch == 8
    assert without_times(stopped.history) == without_times(longer.history[: stopped.epoch])


@pytest.mark.parametrize("seed", range(4))
def test_the_best_epoch_is_that_of_the_best_validation_accuracy_then_the_smallest_loss_then_the_first(
    seed, digits
):
    session = train(make(training={"epochs": 6, "batch_size": 10}, optimizer={"lr": 0.02}), digits, seed)
    found = [
        (line["metrics"]["validation/accuracy"], -line["metrics"]["validation/loss"])
        for line in session.history
    ]
    assert session.best_epoch == 1 + found.index(max(found))
    assert session.best == max(found)


def test_the_best_epoch_by_the_loss_is_that_of_the_smallest_one(digits):
    # A rate at which the accuracy still grows when the loss does too.
    recipe = make(training={"epochs": 6, "batch_size": 10, "monitor": "loss"}, optimizer={"lr": 0.1})
    session = train(recipe, digits, 2)
    lines = [line["metrics"] for line in session.history]
    losses = [line["validation/loss"] for line in lines]
    accuracies = [line["validation/accuracy"] for line in lines]
    assert session.best_epoch == 1 + losses.index(min(losses))
    assert session.best == (-min(losses), accuracies[session.best_epoch - 1])
    patient = train(
        make(training={"epochs": 6, "batch_size": 10, "monitor": "loss", "early_stopping": 1},
             optimizer={"lr": 0.1}), digits, 2,
    )  # fmt: skip
    first_worse = next((i for i in range(1, 6) if losses[i] > min(losses[:i])), 5)
    assert patient.epoch == first_worse + 1


@pytest.mark.parametrize(
    ("lr", "best"), [(1e-3, 3), (1e-5, 1)]
)  # slow enough to leave the accuracy: the loss falls, or rises
def test_between_epochs_of_equal_accuracy_the_smaller_loss_is_the_better(lr, best, digits):
    session = train(make(optimizer={"lr": lr}, schedule={"name": "constant"}), digits, seed=2)
    accuracies = {line["metrics"]["validation/accuracy"] for line in session.history}
    losses = [line["metrics"]["validation/loss"] for line in session.history]
    assert len(accuracies) == 1
    assert losses == sorted(set(losses), reverse=best == 3)
    assert session.best_epoch == best


def test_between_epochs_that_are_quite_equal_the_first_is_the_best(digits):
    session = train(make(optimizer={"lr": 1e-30}, model={"batch_norm": False}), digits)
    assert (
        len(
            {
                tuple(line["metrics"][name] for name in ("validation/loss", "validation/accuracy"))
                for line in session.history
            }
        )
        == 1
    )
    assert session.best_epoch == 1


def test_divergence_is_flagged_and_ends_the_training(digits, undisturbed):
    session, _ = undisturbed("diverging")
    assert session.diverged
    assert session.finished
    assert session.epoch < session.recipe.training.epochs
    last = session.history[-1]["metrics"]
    assert not math.isfinite(last["train/loss"])
    assert "validation/loss" not in last
    assert session.best_epoch < session.epoch
    healthy, _ = undisturbed("crop, flip")
    assert not healthy.diverged


@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_that_break_in_the_last_step_of_an_epoch_are_seen_in_the_validation_and_never_the_best(
    epoch, digits
):
    session = start(make(), digits)
    steps = itertools.count(1)

    def break_at_the_end_of_the_epoch(*_):
        if next(steps) == 3 * epoch:
            with torch.no_grad():
                first_weight(session.network).fill_(math.inf)

    session.optimizer.register_step_post_hook(break_at_the_end_of_the_epoch)
    *_, last = loop.epochs(session)
    assert last["epoch"] == epoch
    assert math.isfinite(last["metrics"]["train/loss"])
    assert not math.isfinite(last["metrics"]["validation/loss"])
    assert session.diverged
    assert session.best_epoch == epoch - 1
