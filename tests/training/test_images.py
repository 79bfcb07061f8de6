"""Images are read, augmented and normalised alike wherever they lie; the data set is never changed."""

import hashlib
import threading

import numpy as np
import pytest
import torch
from gpus import NEEDS_GPU

from ablate.recipe.fields import Augment, ColorJitter, Data, MeanStd, Recipe
from ablate.training import data, images
from ablate.training.augment import PLAIN, Augmentation, compose, crop
from ablate.training.augment.streams import generators

CPU = torch.device("cpu")
OF_CHANNELS = {
    1: MeanStd(mean=(0.13,), std=(0.31,)),
    3: MeanStd(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)),
}
JITTER = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
OFF = {"crop": "none", "flip": False}
AUGMENTS = {
    "nothing": OFF,
    "random_crop": {"crop": "random_crop", "flip": False},
    "reflect": {"crop": "random_crop", "padding_mode": "reflect", "flip": True},
    "random_resized_crop": {"crop": "random_resized_crop"},
    "flip": OFF | {"flip": True},
    "rotation": OFF | {"rotation": 15.0},
    "nearest": OFF | {"rotation": 15.0, "interpolation": "nearest"},
    "color_jitter": OFF | {"color_jitter": JITTER},
    "erasing": OFF | {"erasing": 0.5},
    "cutout": OFF | {"cutout": 4},
    "mixup": OFF | {"mixup": 1.0},
    "cutmix": OFF | {"cutmix": 1.0},
    "both": OFF | {"mixup": 1.0, "cutmix": 1.0},
    "everything": {
        "rotation": 15.0, "color_jitter": JITTER, "erasing": 0.5, "cutout": 4, "mixup": 1.0, "cutmix": 1.0,
    },
}  # fmt: skip


@pytest.fixture(params=AUGMENTS)
def augment(request):
    return Augment(**AUGMENTS[request.param])


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def channels(request):
    return request.param


def noise(number=40, channels=3, size=(8, 9)):
    return np.random.default_rng(1).integers(0, 256, (number, *size, channels), np.uint8)


def labels_of(pixels):
    """Label each image by its first value, so that a label tells whose it is."""
    return pixels[:, 0, 0, 0].astype(np.int64)


ROWS = np.array([30, 2, 3, 17, 4, 39, 0, 21, 22, 23, 8, 11, 5])
ORDER = torch.tensor([12, 0, 1, 5, 5, 3, 2, 11, 7, 6, 4])


def placed(pixels, *, device=CPU, memory=None, rows=ROWS):
    return images.place(OF_CHANNELS[pixels.shape[-1]], pixels, labels_of(pixels), rows, device, memory)


def augmentation_of(augment, found):
    return compose(augment, generators(5))


def normalised(pixels, rows, mean_std):
    """Return (x / 255 - mean) / std of some images, (B, C, H, W), in float64."""
    x = pixels[rows].astype(np.float64) / 255
    return torch.from_numpy(((x - np.array(mean_std.mean)) / np.array(mean_std.std)).transpose(0, 3, 1, 2))


# Batches


@pytest.mark.parametrize("size", [1, 4, 11, 100])
@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_batches_are_the_chosen_images_in_their_order_with_a_smaller_last_one(size, memory, channels, device):
    pixels = noise(channels=channels)
    batches = list(placed(pixels, device=device, memory=memory).batches(size, ORDER))
    assert [len(batch.labels) for batch in batches] == [min(size, 11 - start) for start in range(0, 11, size)]
    x, labels = (
        torch.cat([getattr(batch, name) for batch in batches]).cpu() for name in ("images", "labels")
    )
    rows = ROWS[ORDER.numpy()]
    assert labels.tolist() == labels_of(pixels)[rows].tolist()
    assert x.dtype == torch.float32
    assert (x - normalised(pixels, rows, OF_CHANNELS[channels])).abs().max() <= 1e-5
    assert all(batch.mixed is None for batch in batches)
    assert all(part.device.type == device.type for batch in batches for part in (batch.images, batch.labels))


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_without_a_choice_all_images_come_in_the_order_of_their_rows(memory):
    found = placed(noise(), memory=memory)
    assert len(found) == len(ROWS)
    assert (
        torch.cat([batch.labels for batch in found.batches(5)]).tolist() == labels_of(noise())[ROWS].tolist()
    )


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize("chosen", [torch.arange(0), None], ids=["chosen", "all"])
def test_of_no_images_there_are_no_batches(memory, chosen):
    assert (
        list(placed(noise(), memory=memory, rows=ROWS if chosen is not None else ROWS[:0]).batches(4, chosen))
        == []
    )


@pytest.mark.parametrize("size", [1, 4, 7])
def test_resident_and_streamed_batches_are_identical(augment, size, device):
    everything = []
    for memory, streamed in ((None, False), (0, True)):
        found = placed(noise(), device=device, memory=memory)
        assert found.streamed is streamed
        everything.append(list(found.batches(size, ORDER, augmentation_of(augment, found))))
    assert len(everything[0]) == len(everything[1]) == -(-11 // size)
    for one, other in zip(*everything, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.mixed is None) is (other.mixed is None) is not (augment.mixup or augment.cutmix)
        if one.mixed is not None:
            assert torch.equal(one.mixed.share, other.mixed.share)
            assert torch.equal(one.mixed.partner, other.mixed.partner)
            assert one.mixed.images is one.images


def test_images_are_mixed_with_those_of_their_own_batch():
    found = placed(noise())
    for batch in found.batches(4, ORDER, augmentation_of(Augment(**AUGMENTS["both"]), found)):
        own = len(batch.labels)
        assert len(batch.mixed.share) == len(batch.mixed.partner) == len(batch.images) == own
        assert batch.mixed.partner.max() < own


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_what_comes_out_is_channels_last(augment, channels, memory):
    found = placed(noise(channels=channels), memory=memory)
    for batch in found.batches(4, ORDER, augmentation_of(augment, found)):
        assert batch.images.shape[1:] == (channels, 8, 9)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("how", ["closed", "dropped", "failed", "finished"])
def test_streaming_leaves_no_thread(how):
    before = set(threading.enumerate())

    def readers():
        return [
            thread
            for thread in threading.enumerate()
            if thread not in before and thread.name.startswith("ThreadPool")
        ]

    def breaks(pixels, which):
        assert len(readers()) == 1
        raise RuntimeError("no")

    batches = placed(noise(), memory=0).batches(
        2, ORDER, Augmentation(read=breaks) if how == "failed" else PLAIN
    )
    if how == "failed":
        with pytest.raises(RuntimeError, match="no"):
            next(batches)
    else:
        next(batches)
        assert len(readers()) == 1, "the next batch is read ahead"
    if how == "closed":
        batches.close()
    elif how == "dropped":
        del batches
    elif how == "finished":
        list(batches)
    assert readers() == []


# Normalisation


def identity(x):
    return x


@pytest.mark.parametrize("steps", [(), (identity,)], ids=["bytes", "floats"])
def test_every_value_is_normalised(steps, channels, device):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, 3)
    found = placed(pixels, device=device, rows=np.arange(1))
    (batch,) = found.batches(1, None, Augmentation(steps=steps))
    assert (batch.images.cpu() - normalised(pixels, [0], OF_CHANNELS[channels])).abs().max() <= 1e-5


def test_steps_get_contiguous_floats_from_0_to_1():
    seen = []

    def look(x):
        seen.append(x.clone())
        assert x.is_contiguous()
        return x

    pixels = noise()
    list(placed(pixels).batches(100, ORDER, Augmentation(steps=(look,))))
    expected = torch.from_numpy(pixels[ROWS[ORDER.numpy()]]).permute(0, 3, 1, 2).to(torch.float32) / 255
    assert seen[0].dtype == torch.float32
    assert (seen[0] - expected).abs().max() <= 1e-7
    assert seen[0].max() <= 1


@pytest.mark.parametrize("level", [{"erasing": 1.0}, {"cutout": 6}], ids=["erasing", "cutout"])
@pytest.mark.parametrize(
    "mean_std",
    [
        OF_CHANNELS[3],
        images.IMAGENET,
        MeanStd(mean=(0.0, 0.5, 1.0), std=(0.3, 0.3, 0.3)),
        MeanStd(mean=(0.5,), std=(0.25,)),
    ],
    ids=["data set", "imagenet", "ends", "one number"],
)
def test_what_is_erased_is_0_after_normalisation(level, mean_std):
    pixels = np.full((40, 8, 9, 3), 200, np.uint8)
    found = images.place(mean_std, pixels, labels_of(pixels), ROWS, CPU)
    (batch,) = found.batches(100, None, augmentation_of(Augment(**OFF | level), found))
    plain = next(iter(found.batches(1))).images[0]
    erased = (batch.images - plain).abs().amax(1, keepdim=True) > 1e-3
    assert 0.01 < erased.float().mean() < 0.9
    assert batch.images.masked_select(erased).abs().max() <= 1e-6
    assert (batch.images - plain).masked_select(~erased).abs().max() <= 1e-6


def prepared(channels):
    mean_std = OF_CHANNELS[channels]
    return data.Prepared(
        folder=None,
        fingerprint="",
        classes=("a",),
        train=40,
        test=40,
        channels=channels,
        image_size=16,
        mean=mean_std.mean,
        std=mean_std.std,
    )


GIVEN = MeanStd(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
GREY = MeanStd(mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize(
    ("normalize", "channels", "expected"),
    [
        ("dataset", 1, OF_CHANNELS[1]), ("dataset", 3, OF_CHANNELS[3]), ("imagenet", 3, images.IMAGENET),
        (GIVEN, 3, GIVEN), (GREY, 1, GREY), (GREY, 3, GREY),
    ],
)  # fmt: skip
def test_the_normalisation_is_that_of_the_recipe(normalize, channels, expected):
    assert images.normalisation(Recipe(data=Data(normalize=normalize)), prepared(channels)) == expected


@pytest.mark.parametrize(
    ("normalize", "channels", "number"),
    [("imagenet", 1, 3), (GIVEN, 1, 3), (MeanStd(mean=(0.5, 0.5), std=(0.2, 0.2)), 3, 2)],
    ids=["imagenet", "three", "two"],
)
def test_a_normalisation_of_other_channels_is_refused(normalize, channels, number):
    with pytest.raises(
        ValueError, match=f"data.normalize has {number} channels, and the images have {channels}"
    ):
        images.normalisation(Recipe(data=Data(normalize=normalize)), prepared(channels))


def test_one_mean_normalises_three_channels_alike():
    pixels = noise()
    (batch,) = images.place(GREY, pixels, labels_of(pixels), ROWS, CPU).batches(100)
    assert (batch.images - normalised(pixels, ROWS, GREY)).abs().max() <= 1e-5


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_training_images_are_the_rows_of_the_split_and_test_images_all_of_them(memory):
    train, test = noise(), noise(17)[::-1].copy()
    arrays = data.Arrays(train, labels_of(train), test, labels_of(test))
    some = images.for_training(Recipe(), prepared(3), arrays, ROWS, CPU, memory=memory)
    every = images.for_test(Recipe(), prepared(3), arrays, CPU, memory=memory)
    for found, pixels, rows in ((some, train, ROWS), (every, test, np.arange(17))):
        (batch,) = found.batches(100)
        assert batch.labels.tolist() == labels_of(pixels)[rows].tolist()
        assert (batch.images - normalised(pixels, rows, OF_CHANNELS[3])).abs().max() <= 1e-5


# Where the data set lies


@pytest.fixture
def mapped(tmp_path):
    """Return a data set that is mapped from a file, as `data.open_arrays` does it."""
    np.save(tmp_path / "pixels.npy", noise())
    return np.load(tmp_path / "pixels.npy", mmap_mode="c")


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_on_a_cpu_images_stay_mapped_and_no_batch_changes_them(mapped, tmp_path, augment, memory):
    before = hashlib.sha256((tmp_path / "pixels.npy").read_bytes()).digest()
    found = placed(mapped, memory=memory)
    assert np.shares_memory(found.pixels.numpy(), mapped)
    for batch in found.batches(4, ORDER, augmentation_of(augment, found)):
        batch.images.zero_()  # whoever gets a batch may do with it what he likes
    assert np.array_equal(mapped, noise())
    assert hashlib.sha256((tmp_path / "pixels.npy").read_bytes()).digest() == before


def test_resident_batches_are_read_where_the_data_set_lies(device):
    found, seen = placed(noise(), device=device), []

    def look(pixels, which):
        seen.append((pixels.data_ptr(), len(pixels)))
        return crop.take(pixels, which)

    list(found.batches(4, ORDER, Augmentation(read=look)))
    assert seen == [(found.pixels.data_ptr(), len(found.pixels))] * 3


def test_streamed_batches_are_read_from_copies_of_their_own_images():
    found, seen = placed(noise(), memory=0), []

    def look(pixels, which):
        seen.append((pixels, len(pixels), which.tolist()))
        return crop.take(pixels, which)

    list(found.batches(4, ORDER, Augmentation(read=look)))
    assert [rest for _, *rest in seen] == [[4, [0, 1, 2, 3]], [4, [0, 1, 2, 3]], [3, [0, 1, 2]]]
    assert not any(np.shares_memory(pixels.numpy(), found.pixels.numpy()) for pixels, *_ in seen)


@pytest.mark.parametrize(("short", "streamed"), [(0, False), (1, True)])
def test_images_are_streamed_when_they_need_more_memory_than_there_is(short, streamed, device):
    needed = len(ROWS) * 8 * 9 * 3
    found = placed(noise(), device=device, memory=needed - short)
    assert found.streamed is streamed
    assert found.device.type == device.type
    assert found.pixels.device.type == ("cpu" if streamed else device.type)


@NEEDS_GPU
def test_a_gpu_holds_only_the_images_it_was_given():
    found = placed(noise(), device=torch.device("cuda"))
    assert len(found.pixels) == len(ROWS)
    assert found.pixels.dtype == torch.uint8
    assert torch.equal(found.pixels.cpu(), torch.from_numpy(noise()[ROWS]))


@NEEDS_GPU
def test_a_gpu_trains_on_the_same_images_as_a_cpu_but_for_rounding(augment):
    both = []
    for device in (CPU, torch.device("cuda")):
        found = placed(noise(), device=device)
        both.append(
            torch.cat(
                [batch.images.cpu() for batch in found.batches(4, ORDER, augmentation_of(augment, found))]
            )
        )
    off = (both[0] - both[1]).abs() > 1e-3
    assert off.double().mean() <= (1e-3 if augment.interpolation == "nearest" else 0)  # ties
