"""Data sets: decoded once to uint8 arrays under a fingerprint of their content, then memory-mapped by every job.

The fingerprint covers the pixels, the labels and the class names as trained on, so a job's identity does not
depend on where the files lie. Nothing here imports torch, but to decode one of torchvision's sets for the
first time.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ablate import places
from ablate.errors import DataError
from ablate.recipe import fields, identity
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Data
from ablate.training import decoding, folder
from ablate.training.decoding import Images, Labels, Split, fit

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
FLOOR = 1 / 255  # of a deviation that images are divided by: one grey level
OLDER_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SHOWN = 10  # corrupt files named in one message
CHUNK = 1024  # images looked at together where all of them may be too many


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
    """Decode a data set into `cache`, or find it there; a second call reads one small file.

    Raises a DataError that says what to do when there are no images, one is corrupt, or the folders do not
    fit.
    """
    note = cache / "index" / f"{_source_key(data)}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):  # two studies that start at once decode once
        known = find(data, cache, older=False)
        if known is not None:
            return known
        for left in cache.glob(
            "draft-*"
        ):  # of a process that was killed: we hold the lock, so nobody writes one now
            shutil.rmtree(left, ignore_errors=True)
        draft = cache / f"draft-{secrets.token_hex(4)}"
        draft.mkdir()  # as the umask wants it: a group may share the store
        try:
            made = _write(cache, draft, *LOADERS[data.name](data, draft, download=download))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _write_json(
            note,
            {"fingerprint": made.name, "name": data.name, "root": data.root, "image_size": data.image_size},
        )
    return read(made)


def is_there(data: Data) -> bool:
    """Whether the source of a data set is here: without its folder of images, only what was decoded is known."""
    return not is_folder(data.name) or folder.is_there(_root(data))


def check_root(data: Data) -> None:
    """Raise a DataError where there is no folder of images at all."""
    root = _root(data)
    if is_folder(data.name) and not root.is_dir():
        raise DataError(folder.missing(root))


def survey(data: Data) -> tuple[str, ...]:
    """Return what there is to say of a set before it is decoded. Raises a DataError where it cannot be."""
    return folder.survey(_root(data)).said if is_folder(data.name) else ()


def usual_shape(data: Data) -> tuple[int, int]:
    """Return how many channels and classes a set is known to have, before it is decoded."""
    facts = DATASETS[data.name]
    return facts.channels, facts.classes or max(2, folder.count_classes(_root(data)))


def count_files(data: Data) -> int:
    """Count the files of a folder of images that are to be trained on; 0 where there is no such folder."""
    try:
        return folder.count_files(_root(data)) if is_folder(data.name) else 0
    except DataError:
        return 0


def find(data: Data, cache: Path, *, older: bool = True) -> Prepared | None:
    """Find a data set that was prepared before; look at nothing else and decode nothing.

    `older`: also as an earlier version has decoded the same files, by which the results that are there were
    made. The next run decodes them again: where the images come out the same, so do their fingerprint and the
    identities of jobs.
    """
    for key in (_source_key, _older_key) if older else (_source_key,):
        try:
            note = cache / "index" / f"{key(data)}.json"
        except (DataError, OSError, ValueError):
            continue
        if note.exists():
            made = cache / json.loads(note.read_text())["fingerprint"]
            if (made / "meta.json").exists():
                return read(made)
    return None


def open_arrays(made: Path) -> Arrays:
    """Map a prepared set into memory. Copy-on-write, since torch wants writable arrays.

    Nothing ever writes.
    """
    return Arrays(*(np.load(made / f"{name}.npy", mmap_mode="c") for name in ARRAYS))


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
    given = (
        3
        if data.normalize == "imagenet"
        else len(data.normalize.mean)
        if isinstance(data.normalize, fields.MeanStd)
        else channels
    )
    if given not in (1, channels):
        raise DataError(
            f"data.normalize has {given} channels, and the images of {data.name} have {channels}: take "
            "another, or dataset"
        )


def warnings(data: Data, prepared: Prepared) -> list[str]:
    """List what makes a normalisation other than what one expects."""
    if isinstance(data.normalize, fields.MeanStd):
        wide = max(*data.normalize.mean, *data.normalize.std)
        return (
            [f"warning: data.normalize has {wide:g}, and images are in [0, 1]: divide mean and std by 255?"]
            if wide > 1
            else []
        )
    names = ("red", "green", "blue") if prepared.channels == 3 else ("the only channel",)
    flat = [names[i] for i, std in enumerate(prepared.std) if std <= FLOOR and data.normalize == "dataset"]
    varies = f"{' and '.join(flat)} of {data.name} hardly {'varies' if len(flat) == 1 else 'vary'}"
    return (
        [
            (
                f"warning: {varies}, by less than one grey level, and {'is' if len(flat) == 1 else 'are'} "
                "divided by one"
            )
        ]
        if flat
        else []
    )


def _balanced_order(labels: Labels, generator: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle so that every prefix has the classes in the proportions of the whole, to within one image a class."""
    shuffled = generator.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return shuffled[np.argsort(position, kind="stable")]


def _source_key(data: Data) -> str:
    """Identify what would be decoded: name, place, size, and for a folder of images its files with sizes and times."""
    listing: list[Any] = []
    package = DATASETS[data.name].package
    if is_folder(data.name):
        found = folder.survey(_root(data))
        listing = [
            (folder.shown(path), *_stat(path))
            for part in (found.train, found.test)
            for _, path in part.images
        ]
        listing.append(decoding.VERSION)
    elif package:
        listing = [metadata.version(package)]  # not by importing it: that takes a second
    return identity.digest([data.name, folder.shown(_root(data)), data.image_size, listing])


def _older_key(data: Data) -> str:
    """Identify a folder of images as versions before decoding.VERSION 2 did: they knew fewer endings, and no sub-folders."""
    if not is_folder(data.name):
        return _source_key(data)
    listing = []
    for name in ("train", "test"):
        for label in sorted(
            path for path in (_root(data) / name).iterdir() if path.is_dir() and not path.name.startswith(".")
        ):
            taken = (
                path
                for path in label.iterdir()
                if path.suffix.lower() in OLDER_SUFFIXES and not path.name.startswith(".")
            )
            listing += [(str(path), *_stat(path)) for path in sorted(taken)]
    return identity.digest([data.name, str(_root(data)), data.image_size, listing])


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # a link that leads nowhere, which decoding names
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _root(data: Data) -> Path:
    """Return where the images or archives of a set lie."""
    if data.root is not None:
        try:
            return Path(data.root).expanduser().resolve()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # a user or HOME that is not there, links in a circle, a NUL
            raise DataError(
                f"data.root must be a folder, and {folder.shown(data.root)} cannot be one: {error}"
            ) from None
    return places.cache() / "datasets"


Loaded = tuple[
    list[str], Split, Split, list[str]
]  # classes, train, test, and how they were read where that is to be said


def _load_digits(data: Data, _draft: Path, *, download: bool) -> Loaded:  # noqa: ARG001
    """scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels.

    Every fifth one of a class is a test image.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.stack([fit(image, data.image_size) for image in grey])
    labels = bunch.target.astype(np.int64)
    rank = np.zeros(len(labels), np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    test = rank % 5 == 4
    return [str(name) for name in range(10)], (images[~test], labels[~test]), (images[test], labels[test]), []


TORCHVISION: dict[str, tuple[str, Callable[[bool], dict[str, Any]]]] = {
    "cifar10": ("CIFAR10", lambda train: {"train": train}),
    "cifar100": ("CIFAR100", lambda train: {"train": train}),
    "svhn": ("SVHN", lambda train: {"split": "train" if train else "test"}),
    "mnist": ("MNIST", lambda train: {"train": train}),
    "fashion_mnist": ("FashionMNIST", lambda train: {"train": train}),
}


def _load_torchvision(data: Data, _draft: Path, *, download: bool) -> Loaded:
    """Read one of torchvision's sets, downloading it first where it is not there."""
    from torchvision import datasets

    kind, options = TORCHVISION[data.name]
    root = _root(data)
    archive = getattr(getattr(datasets, kind), "filename", "the files that torchvision downloads for it")
    parts = []
    for train in (True, False):
        try:
            parts.append(getattr(datasets, kind)(str(root), **options(train), download=download))
        except (
            RuntimeError,
            OSError,
            ValueError,
            AssertionError,
        ) as error:  # the last two: of files that are cut off
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"{data.name} must be in {root} or be downloadable, and it is neither ({reason}): "
                f"put {archive} there, or try the study with --set data.name=digits"
            ) from None
    names = getattr(parts[0], "classes", None) or [str(label) for label in range(10)]  # SVHN names no classes
    return list(names), _to_split(parts[0], data.image_size), _to_split(parts[1], data.image_size), []


def _to_split(dataset: Any, size: int) -> Split:
    images = np.asarray(dataset.data)
    if images.ndim == 4 and images.shape[1] == 3 != images.shape[3]:  # SVHN is (N, C, H, W)
        images = images.transpose(0, 2, 3, 1)
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    return np.stack([fit(image, size) for image in images]), np.asarray(labels, np.int64)


def _load_folder(data: Data, draft: Path, *, download: bool) -> Loaded:  # noqa: ARG001
    """Decode a folder of images, on as many threads as there are cores (Pillow releases the GIL).

    Say how it was read.

    Each image goes to its place in a mapped file at once, so that a set may be larger than the memory.

    """
    found = folder.survey(_root(data))
    parts = {"train": found.train.images, "test": found.test.images}
    images = {
        name: np.lib.format.open_memmap(
            draft / f"{name}_images.npy",
            mode="w+",
            dtype=np.uint8,
            shape=(len(part), data.image_size, data.image_size, 3),
        )
        for name, part in parts.items()
    }

    def decode(place: tuple[str, int]) -> tuple[str, ...] | str:
        name, i = place
        path = parts[name][i][1]
        try:
            images[name][i], marks = decoding.read(path, data.image_size)
        except ValueError as error:
            return f"  {folder.shown(path)}: {folder.shown(error)}"
        return marks

    with decoding.quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(decode, ((name, i) for name, part in parts.items() for i in range(len(part)))))
    corrupt = [reason for reason in done if isinstance(reason, str)]
    if corrupt:
        more = f"\nand {len(corrupt) - SHOWN} more" if len(corrupt) > SHOWN else ""
        raise DataError(
            "these images cannot be decoded: replace or remove them\n" + "\n".join(corrupt[:SHOWN]) + more
        )
    counts = Counter(mark for marks in done for mark in marks)
    said = [
        f"{counts[mark]} {'image' if counts[mark] == 1 else 'images'} {mark}"
        for mark in decoding.MARKS
        if counts[mark]
    ]
    number = {label: i for i, label in enumerate(found.classes)}
    train, test = (
        (images[name], np.array([number[label] for label, _ in part], np.int64))
        for name, part in parts.items()
    )
    return list(found.classes), train, test, [*said, *found.said]


LOADERS: dict[str, Callable[..., Loaded]] = {
    "digits": _load_digits,
    "imagefolder": _load_folder,
    **dict.fromkeys(TORCHVISION, _load_torchvision),
}
"""By name. Each decodes train and test to uint8 (N, H, W, C) and int64 labels.

What may not fit into memory goes to files in the folder `draft`.
"""


def _write(cache: Path, draft: Path, classes: list[str], train: Split, test: Split, said: list[str]) -> Path:
    """Write a decoded set to `draft`, then name it after its fingerprint: whole, or not at all."""
    arrays: dict[str, NDArray[Any]] = dict(zip(ARRAYS, (*train, *test), strict=True))
    whole = hashlib.sha256(json.dumps([classes, [array.shape for array in arrays.values()]]).encode())
    for array in arrays.values():
        whole.update(np.ascontiguousarray(array).data)
    moments = [_moments(train[0], c) for c in range(train[0].shape[-1])]
    if any(std < FLOOR for _, std in moments):
        whole.update(
            b"deviations of one grey level at least"
        )  # earlier versions divided by less, so results differ
    made = cache / whole.hexdigest()
    meta = {
        "classes": classes, "train": len(train[1]), "test": len(test[1]), "channels": train[0].shape[-1],
        "image_size": train[0].shape[1], "mean": [mean for mean, _ in moments], "std": [max(std, FLOOR) for _,
        std in moments], "decoding": said, }  # fmt: skip if (made / "meta.json").exists(): if
        list(read(made).decoding) != said:  # the same images, from other files _write_json(made /
        "meta.json", meta) return made for name, array in arrays.items(): if isinstance(array, np.memmap):
        array.flush() else: np.save(draft / f"{name}.npy", array) _write_json(draft / "meta.json", meta) try:
        draft.rename(made) except OSError: if not (made / "meta.json").exists():  # else another process was
        faster, with the same content raise return made


def _moments(images: Images, channel: int) -> tuple[float, float]:
    """Return mean and standard deviation of one channel in [0, 1], from how often each of the 256 values occurs."""
    counts = sum(
        np.bincount(images[i : i + CHUNK, :, :, channel].ravel(), minlength=256)
        for i in range(0, len(images), CHUNK)
    )
    values = np.arange(256) / 255
    mean = np.average(values, weights=counts)
    return float(mean), float(np.average((values - mean) ** 2, weights=counts) ** 0.5)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)


def read(made: Path) -> Prepared:
    """Read what a prepared set is."""
    meta = json.loads((made / "meta.json").read_text())
    for key in ("classes", "mean", "std", "decoding"):
        meta[key] = tuple(
            meta.get(key, ())
        )  # versions before decoding.VERSION 2 have not said how they decoded
    return Prepared(folder=made, fingerprint=made.name, **meta)
