"""Decoded data sets: uint8 arrays on disk under a fingerprint of their content, memory-mapped by every job.

The fingerprint covers the pixels, the labels and the class names as trained on, so a job's identity does not
depend on where the files lie. Nothing here imports torch, but to decode one of torchvision's sets for the
first time.
"""

import hashlib
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ablate import descriptors
from ablate.errors import DataError
from ablate.recipe import fields, identity
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Data
from ablate.training import arrays
from ablate.training.datasets import LOADERS, folder, source
from ablate.training.datasets.decoding import Images, Labels, Split

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
FLOOR = 1 / 255  # of a deviation that images are divided by: one grey level
MOST = 1 << 40  # of whatever is counted
FINGERPRINT = re.compile("[0-9a-f]{64}")
CHUNK = 1024  # images counted at a time, where all of them may be too many for the memory


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded data set on disk."""

    folder: Path
    fingerprint: str
    classes: tuple[str, ...]
    train: int
    test: int
    channels: int
    image_size: int
    mean: tuple[float, ...]  # per channel, of the training images in [0, 1]
    std: tuple[float, ...]
    decoding: tuple[str, ...] = ()  # how its files were read, where that is not by the book


@dataclass(frozen=True, slots=True)
class Arrays:
    """The images of a prepared set, memory-mapped: all jobs share one copy in the page cache."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def prepare(data: Data, cache: Path, *, download: bool = True) -> Prepared:
    """Return a data set decoded into `cache`; a second call reads one small file.

    Raises a DataError that says what to do when there are no images, one is corrupt, or the folders do not
    fit.
    """
    note = cache / "index" / f"{source.key(data)}.json"
    descriptors.make(note.parent)
    descriptors.check(cache / "lock")
    with FileLock(cache / "lock"):  # two studies that start at once decode once
        prepared = find(data, cache, older=False)
        if prepared is not None:
            return prepared
        for name in descriptors.names(cache):
            if name.startswith("draft-"):  # of a killed process: we hold the lock
                _remove(cache / name)
        draft = cache / f"draft-{secrets.token_hex(4)}"
        with arrays.writing(cache):
            descriptors.make(draft)  # as the umask wants it: a group may share the store
            try:
                place = _write(cache, draft, *LOADERS[data.name](data, draft, download=download))
            finally:
                _remove(draft)
            about = {"name": data.name, "root": data.root, "image_size": data.image_size}
            arrays.write_json(note, {"fingerprint": place.name} | about)
    return read(place)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        descriptors.remove_folder(folder)


def is_there(data: Data) -> bool:
    """Whether the source of a data set is here: always, but for a folder of images."""
    return not is_folder(data.name) or folder.is_there(source.root(data))


def check_root(data: Data) -> None:
    """Raise a DataError where there is no folder of images at all."""
    root = source.root(data)
    if is_folder(data.name) and not root.is_dir():
        raise DataError(folder.missing(root))


def survey(data: Data) -> tuple[str, ...]:
    """Return remarks on a set before it is decoded. Raises a DataError where it cannot be."""
    return folder.survey(source.root(data)).said if is_folder(data.name) else ()


def usual_shape(data: Data) -> tuple[int, int]:
    """Return the numbers of channels and classes that a set has, as known before it is decoded."""
    facts = DATASETS[data.name]
    return facts.channels, facts.classes or max(2, folder.count_classes(source.root(data)))


def count_files(data: Data) -> int:
    """Return the number of files to train on in a folder of images; 0 where there is no such folder."""
    try:
        return folder.count_files(source.root(data)) if is_folder(data.name) else 0
    except DataError:
        return 0


def find(data: Data, cache: Path, *, older: bool = True) -> Prepared | None:
    """Return a data set that was prepared before, else None; decode nothing.

    `older`: also as an earlier version decoded the same files, for results of that version. The next run
    decodes them again: where the images come out the same, so do their fingerprint and the ids of jobs.
    """
    for key in (source.key, source.older_key) if older else (source.key,):
        try:
            note = cache / "index" / f"{key(data)}.json"
        except (DataError, OSError, ValueError):
            continue
        content = arrays.read_json(note)
        name = content.get("fingerprint") if isinstance(content, dict) else None
        if isinstance(name, str) and FINGERPRINT.fullmatch(name) and is_whole(cache / name):
            return read(cache / name)
    return None


def is_whole(place: Path) -> bool:
    """Whether a folder has a decoded set, none of whose arrays is cut off; their pixels are not read."""
    try:
        open_arrays(place)
    except DataError:
        return False
    return True


def open_arrays(place: Path) -> Arrays:
    """Map a prepared set into memory, copy-on-write, as torch wants writable arrays; nothing ever writes.

    Raises a DataError where it is not whole.
    """
    prepared = read(place)
    opened = Arrays(*(arrays.load(place / f"{name}.npy") for name in ARRAYS))
    shape = (prepared.image_size, prepared.image_size, prepared.channels)
    for images, labels, count in (
        (opened.train_images, opened.train_labels, prepared.train),
        (opened.test_images, opened.test_labels, prepared.test),
    ):
        are_images = images.dtype == np.uint8 and images.shape == (count, *shape)
        if not (are_images and labels.dtype == np.int64 and labels.shape == (count,)):
            raise _spoilt(place)
    return opened


def split(data: Data, labels: Labels, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the training and validation images of one seed, class-balanced: two sorted, disjoint index arrays.

    Raises a DataError when there are not enough images for what the recipe asks.
    """
    generator = np.random.default_rng(identity.stream_seed(seed, "split"))
    wanted = len(labels) if data.train_size is None else data.train_size
    if wanted > len(labels):
        raise DataError(
            f"data.train_size must be at most the {len(labels)} training images of {data.name}, got {wanted}"
        )
    held = int(data.validation) if isinstance(data.validation, int) else round(wanted * data.validation)
    if wanted - held < 2:
        raise DataError(
            f"data.validation leaves {max(wanted - held, 0)} of {wanted} images to train on: make it smaller"
        )
    if data.validation > 0 and held == 0:
        raise DataError(
            f"data.validation = {data.validation} holds none of {wanted} images back: make it larger, or 0"
        )
    order = _balanced_order(labels, generator)[:wanted]
    return np.sort(order[held:]), np.sort(order[:held])


def check_normalize(data: Data, channels: int) -> None:
    """Raise a DataError when a normalisation is for images of other channels."""
    count = (
        3
        if data.normalize == "imagenet"
        else len(data.normalize.mean)
        if isinstance(data.normalize, fields.MeanStd)
        else channels
    )
    if count not in (1, channels):
        raise DataError(
            f"data.normalize has {count} channels, and the images of {data.name} have {channels}: take "
            "another, or dataset"
        )


def warnings(data: Data, prepared: Prepared) -> list[str]:
    """Return warnings of a normalisation that is hardly meant."""
    if isinstance(data.normalize, fields.MeanStd):
        wide = max(*data.normalize.mean, *data.normalize.std)
        if wide <= 1:
            return []
        return [
            f"warning: data.normalize has {wide:g}, and images are in [0, 1]: divide mean and std by 255?"
        ]
    names = ("red", "green", "blue") if prepared.channels == 3 else ("the only channel",)
    flat = [names[i] for i, std in enumerate(prepared.std) if std <= FLOOR and data.normalize == "dataset"]
    if not flat:
        return []
    vary, are = ("varies", "is") if len(flat) == 1 else ("vary", "are")
    channels = f"{' and '.join(flat)} of {data.name}"
    return [f"warning: {channels} hardly {vary}, by less than one grey level, and {are} divided by one"]


def _balanced_order(labels: Labels, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return a shuffle whose every prefix has the proportions of the classes, to within one image a class."""
    shuffled = generator.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return shuffled[np.argsort(position, kind="stable")]


def _write(
    cache: Path, draft: Path, classes: list[str], train: Split, test: Split, remarks: list[str]
) -> Path:
    """Write a decoded set to `draft`, move it to its fingerprint in `cache`, and return that folder."""
    parts: dict[str, NDArray[Any]] = dict(zip(ARRAYS, (*train, *test), strict=True))
    whole = hashlib.sha256(json.dumps([classes, [array.shape for array in parts.values()]]).encode())
    for array in parts.values():
        whole.update(np.ascontiguousarray(array).data)
    moments = [_moments(train[0], c) for c in range(train[0].shape[-1])]
    if any(std < FLOOR for _, std in moments):
        # earlier versions divided by less, so their results differ
        whole.update(b"deviations of one grey level at least")
    place = cache / whole.hexdigest()
    meta = {
        "classes": classes,
        "train": len(train[1]),
        "test": len(test[1]),
        "channels": train[0].shape[-1],
        "image_size": train[0].shape[1],
        "mean": [mean for mean, _ in moments],
        "std": [max(std, FLOOR) for _, std in moments],
        "decoding": remarks,
    }
    if is_whole(place):
        if list(read(place).decoding) != remarks:  # the same images, from other files
            arrays.write_json(place / "meta.json", meta)
        return place
    for name, array in parts.items():
        arrays.save(draft / f"{name}.npy", array)
    arrays.write_json(draft / "meta.json", meta)
    spoilt = cache / f"draft-{secrets.token_hex(4)}"
    if os.path.lexists(place):  # a power cut has left a part of it; whoever has that open keeps it
        descriptors.rename(place, spoilt.name)
    descriptors.rename(draft, place.name)
    arrays.sync(cache)
    _remove(spoilt)
    return place


def _moments(images: Images, channel: int) -> tuple[float, float]:
    """Return mean and standard deviation of one channel in [0, 1], by counts of the 256 values."""
    counts = sum(
        np.bincount(images[i : i + CHUNK, :, :, channel].ravel(), minlength=256)
        for i in range(0, len(images), CHUNK)
    )
    values = np.arange(256) / 255
    mean = np.average(values, weights=counts)
    return float(mean), float(np.average((values - mean) ** 2, weights=counts) ** 0.5)


def read(place: Path) -> Prepared:
    """Return the prepared set in a folder. Raises a DataError where it is none."""
    meta = arrays.read_json(place / "meta.json")
    try:
        prepared = Prepared(
            folder=place, fingerprint=place.name, classes=tuple(meta["classes"]),
            train=meta["train"], test=meta["test"], channels=meta["channels"], image_size=meta["image_size"],
            mean=tuple(meta["mean"]), std=tuple(meta["std"]),
            decoding=tuple(meta.get("decoding", ())),  # versions before decoding.VERSION 2 wrote none
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        raise _spoilt(place) from None
    counts = (prepared.train, prepared.test, prepared.channels, prepared.image_size)
    moments = (*prepared.mean, *prepared.std)
    are_counts = all(type(count) is int and 0 < count < MOST for count in counts)
    are_moments = all(type(part) in (int, float) and abs(part) < MOST for part in moments)
    are_texts = all(isinstance(text, str) for text in (*prepared.classes, *prepared.decoding))
    if not (are_counts and are_moments and are_texts and len(moments) == 2 * prepared.channels):
        raise _spoilt(place)
    return prepared


def _spoilt(place: Path) -> DataError:
    return DataError(
        f"{place}: must be images as ablate decodes them, and is not: {arrays.AGAIN.format(place)}"
    )
