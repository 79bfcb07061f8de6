"""What a batch costs a GPU before its network sees it: steps on the device, copies to it, and who draws it.

The device is torch's `meta`, which computes nothing and is no CPU; a GPU spends some 7 us on each step.
"""

import itertools

import numpy as np
import pytest
import torch
from augmented import ALL, SUBSETS, form, generator, noise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.recipe.fields import Augment, ColorJitter, MeanStd
from ablate.training import images
from ablate.training.augment import color, compose
from ablate.training.augment.streams import generators, packed, unpacked

META, CPU = torch.device("meta"), torch.device("cpu")
OFF = {"crop": "none", "flip": False}
EVERYTHING = {
    "crop": "random_resized_crop", "rotation": 15.0, "color_jitter": ALL, "erasing": 0.5, "cutout": 4,
    "mixup": 1.0, "cutmix": 1.0,
}  # fmt: skip
LIMITS = {  # fields, steps at most, and in brackets before: those, and copies, each of which had its own
    "nothing": (OFF, 3),  # (3, 0)
    "crop, flip": ({"flip": True}, 21),  # (21, 3)
    "random_resized_crop": ({"crop": "random_resized_crop"}, 55),  # (55, 5)
    "rotation": (OFF | {"rotation": 15.0}, 21),  # (21, 1)
    "color_jitter": (OFF | {"color_jitter": ALL}, 48),  # (306, 4)
    "erasing": (OFF | {"erasing": 0.5}, 16),  # (16, 4)
    "cutout": (OFF | {"cutout": 4}, 16),  # (16, 4)
    "mixup": (OFF | {"mixup": 1.0}, 8),  # (8, 2)
    "cutmix": (OFF | {"cutmix": 1.0}, 16),  # (16, 6)
    "everything": (EVERYTHING, 160),  # (417, 27)
}


class Counting(TorchDispatchMode):
    """Counts what computes on the device, and what is copied there."""

    def __init__(self):
        super().__init__()
        self.steps = self.copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {part.device.type for part in tree_leaves(out) if isinstance(part, torch.Tensor)}
        sources = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
        if "meta" in devices:
            is_copy = any(part.device.type == "cpu" and part.dim() for part in sources)
            is_free = func.is_view or "view" in func.name() or "empty" in func.name()
            self.copies += is_copy
            self.steps += not is_copy and not is_free
        return out


def pixels(number=40):
    return np.random.default_rng(1).integers(0, 256, (number, 16, 16, 3), np.uint8)


def placed(device, memory=None):
    some = pixels()
    return images.place(
        MeanStd(mean=(0.5,), std=(0.2,)), some, np.arange(40) % 10, np.arange(40), device, memory
    )


def counted(found, augmentation, batches):
    with Counting() as counting:
        assert len(list(found.batches(8, torch.arange(8 * batches), augmentation))) == batches
    return counting


@pytest.mark.parametrize("name", LIMITS)
def test_a_batch_takes_so_many_steps_and_one_copy(name, monkeypatch):
    fields, most = LIMITS[name]
    monkeypatch.setattr(images, "_each", lambda prepare, numbers, ahead: map(prepare, numbers))  # one thread
    found, augmentation = placed(META), compose(Augment(**fields), generators(0))
    one, three = (counted(found, augmentation, batches) for batches in (1, 3))
    assert (three.steps - one.steps) / 2 <= most
    assert (three.copies - one.copies) / 2 == (0 if name == "nothing" else 1)


def test_draws_come_out_of_one_piece_of_memory_as_they_went_in():
    draws = [
        torch.tensor([True, False, True]), torch.rand(5, generator=generator()), torch.arange(7),
        torch.tensor(3.5), torch.rand(2, 3, generator=generator()).T, torch.zeros(0), torch.ones(3, 2, 4),
        torch.tensor([1, -2], dtype=torch.int16), torch.arange(6).view(2, 3), torch.ones(1, dtype=torch.bool),
    ]  # fmt: skip
    for some in (draws, draws[::-1], draws[3:4], draws[5:6]):
        whole = packed(some, pinned=False)
        assert whole.nbytes == sum(draw.nbytes for draw in some)
        back = unpacked(whole, some)
        assert all(torch.equal(one, other) for one, other in zip(back, some, strict=True))
        assert [(one.dtype, one.shape) for one in back] == [(one.dtype, one.shape) for one in some]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kinds", SUBSETS, ids=str)
def test_jitter_in_rounds_is_that_of_groups(kinds, channels):
    names = ("brightness", "contrast", "saturation", "hue")
    on = {names[kind]: getattr(ALL, names[kind]) for kind in kinds}
    jitter, x = ColorJitter(**dict.fromkeys(names, 0.0) | on), noise((50, channels, 8, 9))
    before = x.clone()
    order, factors = color.sample_color_jitter(50, jitter, generator(4))
    found = color.color_jitter_in_rounds(x, *color.rounds(order, factors, channels))
    assert (found - color.color_jitter(x, order, factors)).abs().max() <= 3e-6  # a hue is 0..6
    assert torch.equal(x, before)


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_what_is_drawn_ahead_is_what_would_be_drawn_in_turn(memory, monkeypatch):
    def epochs(*, ahead):
        def each(prepare, numbers, **_):
            used.add(ahead)
            return plain(prepare, numbers, ahead=ahead)

        monkeypatch.setattr(images, "_each", each)
        streams, found = generators(3), placed(CPU, memory)
        augmentation = compose(Augment(**EVERYTHING), streams)
        for _ in range(2):
            yield from found.batches(8, torch.arange(36), augmentation)
            yield {role: stream.get_state() for role, stream in streams.items()}

    plain, used = images._each, set()
    in_turn, drawn_ahead = list(epochs(ahead=False)), list(epochs(ahead=True))
    assert used == {True, False}
    assert len(in_turn) == len(drawn_ahead) == 2 * (5 + 1)
    for one, other in zip(in_turn, drawn_ahead, strict=True):
        if isinstance(one, dict):  # at the end of an epoch, when a checkpoint is copied
            assert all(torch.equal(one[role], other[role]) for role in one)
        else:
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.mixed.share, other.mixed.share)


@pytest.mark.parametrize("images_at_once", [1, 7, 40, 1000])
def test_images_go_to_a_device_in_parts(images_at_once, monkeypatch):
    read, some = [], torch.from_numpy(pixels())

    def take(whole, rows):
        read.append(len(rows))
        return plain(whole, rows)

    plain = images.take
    monkeypatch.setattr(images, "take", take)
    monkeypatch.setattr(images, "CHUNK", images_at_once * 16 * 16 * 3 + 1)
    rows = torch.tensor([*range(39, -1, -1), 5])
    there = images._copied(some, rows, CPU)
    assert torch.equal(there, some[rows])
    assert sum(read) == 41
    assert max(read) == min(images_at_once, 41)
    read.clear()
    placed(META)
    assert max(read) == min(images_at_once, 40)


def test_what_the_network_sees_on_a_device_has_the_form_of_that_on_a_cpu():
    augmentation = compose(Augment(**EVERYTHING), generators(0))
    for memory in (None, 0):
        here, there = (
            list(placed(device, memory).batches(8, torch.arange(36), augmentation)) for device in (CPU, META)
        )
        for one, other in zip(here, there, strict=True):
            assert one.images.shape == other.images.shape
            assert one.images.stride() == other.images.stride()
            parts = itertools.chain((other.images, other.labels), (other.mixed.share, other.mixed.partner))
            assert {part.device.type for part in parts} == {"meta"}
        assert form(here[0].images)[:4] == (8, 3, 16, 16)
