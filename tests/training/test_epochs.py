"""What is trained and validated in an epoch, and that every network learns."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loops import batches, weights, whole
from sessions import CPU, EVERYTHING, make, numbered, start, train
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import networks, rates
from ablate.recipe.fields import Augment
from ablate.training import data, images, loop
from ablate.training.augment import compose, streams


def test_gradient_clipping_limits_the_norm_of_the_whole_gradient(digits):
    def norms(clip):
        session, found = start(make(training={"gradient_clip": clip, "epochs": 1}), digits), []
        parameters = list(session.network.parameters())
        session.optimizer.register_step_post_hook(
            lambda *_: found.append(sum(p.grad.square().sum() for p in parameters).sqrt().item())
        )
        next(loop.epochs(session))
        return found

    free = norms(None)
    clip = min(free) / 2
    assert norms(clip) == pytest.approx([clip] * len(free), rel=1e-4)
    assert norms(1e9) == pytest.approx(free, rel=1e-4)


def test_the_time_of_an_epoch_has_what_is_done_with_the_one_before(digits, monkeypatch):
    clock = [0.0]  # that only the caller moves
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0], time_ns=lambda: 0))
    seconds = []
    for line in loop.epochs(start(make(), digits)):
        clock[0] += 10 * line["epoch"]  # copies a checkpoint, or waits for a disk
        seconds.append(line["seconds"])
    assert seconds == [0, 10, 20]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_training_loss_is_the_smoothed_cross_entropy_of_what_was_trained(smoothing, digits):
    recipe = make(
        augment={"crop": "none", "flip": False},
        training={"label_smoothing": smoothing, "batch_size": 100, "epochs": 1},
    )
    session = start(recipe, digits)
    twin = copy.deepcopy(session.network).train()
    line = next(loop.epochs(session))
    logits = twin(whole(session.train))
    classes, log_p = logits.shape[1], logits.log_softmax(1)
    target = F.one_hot(session.train.labels, classes) * (1 - smoothing) + smoothing / classes
    assert line["metrics"]["train/loss"] == pytest.approx(-(target * log_p).sum(1).mean().item(), rel=1e-5)
    assert line["metrics"]["train/accuracy"] == pytest.approx(
        (logits.argmax(1) == session.train.labels).float().mean().item()
    )


def test_every_step_has_the_learning_rate_of_the_schedule(digits):
    recipe = make(training={"epochs": 3, "batch_size": 30}, optimizer={"lr": 0.07})
    session, found = start(recipe, digits), []
    session.optimizer.register_step_pre_hook(
        lambda optimizer, *_: found.append(optimizer.param_groups[0]["lr"])
    )
    for _ in loop.epochs(session):
        pass
    assert found == [0.07 * rates.lr_factor(recipe.schedule, step, 9, 3) for step in range(9)]


def test_validation_is_a_plain_pass_in_eval_mode_over_all_held_out_images(digits):
    recipe = make(
        data={"train_size": 400, "validation": 300}, model={"head_dropout": 0.5}, training={"epochs": 1}
    )
    session = start(recipe, digits)
    line = next(loop.epochs(session))
    statistics = weights(session)
    assert len(session.validation) == 300  # more than two batches of an evaluation
    logits = session.network.eval()(whole(session.validation))
    assert line["metrics"]["validation/loss"] == pytest.approx(
        F.cross_entropy(logits, session.validation.labels).item(), rel=1e-5
    )
    right = (logits.argmax(1) == session.validation.labels).sum().item()
    assert line["metrics"]["validation/accuracy"] == pytest.approx(right / 300)
    loop.score(session.network, session.validation, recipe)
    assert all(torch.equal(part, statistics[name]) for name, part in session.network.state_dict().items())


@pytest.mark.parametrize(
    ("number", "batch_size", "expected"),
    [(64, 16, [16] * 4), (70, 16, [16] * 4), (79, 16, [16] * 4), (70, 100, [70]), (2, 2, [2]), (3, 2, [2])],
)
def test_every_image_is_visited_once_an_epoch_but_for_the_last_incomplete_batch(number, batch_size, expected):
    prepared, arrays = numbered(number)
    recipe = make(
        data={"train_size": None, "validation": 0}, augment={"crop": "none", "flip": False},
        training={"epochs": 8, "batch_size": batch_size}, optimizer={"lr": 1e-3},
    )  # fmt: skip
    session = loop.start(recipe, 0, prepared, arrays, CPU)
    seen, orders = batches(session), []
    for _ in loop.epochs(session):
        assert [len(x) for x in seen] == expected
        visited = [round(v * 255) for x in seen for v in x[:, 0, 0, 0].tolist()]
        assert len(set(visited)) == len(visited), "an image twice"
        assert set(visited) <= set(range(number))
        orders.append(visited)
        seen.clear()
    if number > 3:
        assert len({tuple(order) for order in orders}) == 8, "the same order twice"
    if number % batch_size and number > batch_size:
        assert set().union(*orders) == set(range(number)), "another rest each epoch"


def test_training_and_validation_images_are_those_of_the_split(digits):
    recipe = make()
    session = start(recipe, digits, seed=4)
    arrays = data.open_arrays(digits.folder)
    for part, chosen in zip(
        (session.train, session.validation), data.split(recipe.data, arrays.train_labels, 4), strict=True
    ):
        assert np.array_equal(part.pixels[part.rows], arrays.train_images[chosen])
        assert np.array_equal(part.labels, arrays.train_labels[chosen])


GIVEN = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
NORMALIZATIONS = {
    "dataset": ("dataset", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
    "imagenet": ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "given": (GIVEN, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
    "one for all channels": ({"mean": [0.5], "std": [0.25]}, (0.5,) * 3, (0.25,) * 3),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_images_are_normalised_as_the_recipe_says(name):
    normalize, mean, std = NORMALIZATIONS[name]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    prepared = data.Prepared(Path(), "", ("a", "b"), 5, 5, 3, 16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    arrays = data.Arrays(pixels, np.zeros(5, np.int64), pixels, np.zeros(5, np.int64))
    some = images.for_training(make(data={"normalize": normalize}), prepared, arrays, np.arange(5), CPU)
    (x,) = (batch.images for batch in some.batches(2, torch.tensor([4, 0])))
    expected = (pixels[[4, 0]] / 255 - np.array(mean)) / np.array(std)
    assert torch.allclose(x, torch.from_numpy(expected.transpose(0, 3, 1, 2)).float(), atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert len(some) == 5


def test_augmentation_comes_before_normalisation_so_that_padding_is_black():
    pixels = np.full((2, 16, 16, 1), 255, np.uint8)
    prepared = data.Prepared(Path(), "", ("a", "b"), 2, 2, 1, 16, (0.5,), (0.25,))
    arrays = data.Arrays(pixels, np.zeros(2, np.int64), pixels, np.zeros(2, np.int64))
    some = images.for_training(make(), prepared, arrays, np.arange(2), CPU)
    padded = compose(Augment(padding=4), streams.generators(0))
    (x,) = (batch.images for batch in some.batches(2, augmentation=padded))
    assert x.unique().tolist() == pytest.approx([-2.0, 2.0])


def test_the_images_on_the_device_are_not_changed_by_training(digits):
    session = start(make(**EVERYTHING), digits)
    before = session.train.pixels.clone()
    next(loop.epochs(session))
    assert session.train.pixels.dtype == torch.uint8
    assert torch.equal(session.train.pixels, before)


def test_a_normalisation_that_does_not_fit_the_channels_is_refused(digits):
    with pytest.raises(ValueError, match="has 3 channels, and the images have 1"):
        start(make(data={"normalize": "imagenet"}), digits)


def test_a_training_uses_the_threads_of_its_recipe(digits):
    start(make(training={"threads": 2}), digits)
    assert torch.get_num_threads() == 2
    start(make(), digits)
    assert torch.get_num_threads() == 1


LEARNS = {
    "baseline_cnn": (0.05, 8),
    "cnn4": (0.05, 6),
    "resnet_small": (0.05, 6),
    "resnet9": (0.01, 5),
    "depthwise_dilated": (0.05, 10),
    "resnet18": (0.05, 4),
    "fusion": (0.02, 4),
}


LARGER = {"resnet9", "resnet18", "fusion"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGER else []) for name in LEARNS]
)
def test_every_network_learns(name, digits):
    lr, epochs = LEARNS[name]
    recipe = make(
        model={"name": name, "width": 1.0, "stem": "imagenet"}, optimizer={"lr": lr},
        augment={"flip": False, "padding": 1}, training={"epochs": epochs, "batch_size": 20},
    )  # fmt: skip
    session = train(recipe, digits)
    first, last = (session.history[i]["metrics"] for i in (0, -1))
    assert last["train/loss"] < 0.8 * first["train/loss"]
    assert last["train/accuracy"] > first["train/accuracy"] + 0.1


def test_every_network_of_our_own_learns_here():
    assert set(LEARNS) >= set(networks.BUILT_IN)
