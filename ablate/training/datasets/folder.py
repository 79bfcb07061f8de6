"""A folder of images as people have them: its splits and classes by the usual names, and its files.

Nothing is opened here, so mistakes show before anything is decoded.
"""

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import DataError
from ablate.training.datasets import files
from ablate.training.datasets.files import shown

TRAIN = ("train", "training", "train_set", "training_set")
TEST = ("test", "testing", "test_set", "testing_set")
VALIDATION = ("val", "valid", "validation", "val_set", "validation_set")
SHOWN = 10  # names in one message


@dataclass(frozen=True, slots=True)
class Part:
    """One split: its name on the disk, and its images as (class, file), in a fixed order."""

    name: str
    images: tuple[tuple[str, Path], ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder of images has. The classes are those of `train`, in the order of their labels."""

    classes: tuple[str, ...]
    train: Part
    test: Part
    left_out: str  # a count of each kind of file that is no image, with an example; empty: there are none
    notices: tuple[str, ...]  # what was taken for what

    @property
    def said(self) -> tuple[str, ...]:
        """The remarks on how the folder was read that belong beside results."""
        return (*self.notices, *([f"left out {self.left_out}"] if self.left_out else []))


def survey(root: Path) -> Folder:
    """Return what a folder of images has.

    Raises a DataError that says what must be there, what is, and what to do.
    """
    train, test, notices = _splits(root)
    left: dict[str, list[Path]] = {}
    trained, tested = _part(root / train, left), _part(root / test, left)
    classes = tuple(dict.fromkeys(label for label, _ in trained.images))
    _check_classes(root / train, classes, trained)
    names = {unicodedata.normalize("NFC", label): label for label in classes}
    tested = Part(
        test,
        tuple((names.get(unicodedata.normalize("NFC", label), label), path) for label, path in tested.images),
    )
    _check_same(root, classes, trained, tested)
    return Folder(classes, trained, tested, files.describe(root, left), (*notices, *_alike(classes)))


def is_there(root: Path) -> bool:
    """Whether a folder has images to train on."""
    return _named(root, TRAIN) != []


def count_classes(root: Path) -> int:
    """Return the number of folders of classes as they are now, whatever is in them."""
    names = _named(root, TRAIN)
    return len(_classes(root / names[0])) if names else 0


def count_files(root: Path) -> int:
    """Return the number of files in the training folder as it is now, whatever they are."""
    names = _named(root, TRAIN)
    return sum(len(names) for _, _, names in os.walk(root / names[0])) if names else 0


def _splits(root: Path) -> tuple[str, str, list[str]]:
    """Return the folders to train and to test on, by the usual names, and notices of what is unusual."""
    if not root.is_dir():
        raise DataError(missing(root))
    train, test, validation = (_named(root, names) for names in (TRAIN, TEST, VALIDATION))
    if not train:
        raise DataError(_without_train(root))
    if not test and not validation:
        if not _classes(root / train[0]):
            raise DataError(_empty(root / train[0]))
        raise DataError(
            f"{shown(root)} has {train[0]}/ and must have test/ too, with the same classes, and there is "
            "none (nor val/): move a part of the images of each class there"
        )
    usable = [name for name in (*test, *validation) if _classes(root / name)]  # none: a test/ without labels
    taken = [train[0], (usable or test or validation)[0]]
    notices = []
    if taken[1] in validation:
        why = f"{shown(test[0])}/ has no folders of classes" if test else "there is no test/"
        notices.append(f"{shown(taken[1])}/ is the test set, as {why}")
    unused = [
        name for name in (*train, *(test if taken[1] in test else ()), *validation) if name not in taken
    ]
    for name in unused:
        instead = "images for validation are drawn from the training images (data.validation)"
        instead = instead if name in validation else f"{taken[0] if name in train else taken[1]}/ is"
        notices.append(f"{shown(name)}/ is not used: {instead}")
    return taken[0], taken[1], notices


def _named(root: Path, names: tuple[str, ...]) -> list[str]:
    """Return the folders with one of these names: first as they are spelled here, then in any other case."""
    try:
        there = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    except (OSError, ValueError):
        return []
    rank = {name: i for i, name in enumerate(names)}
    return sorted(
        (name for name in there if name.casefold() in rank),
        key=lambda name: (rank[name.casefold()], name not in rank, name),
    )


def missing(root: Path) -> str:
    """Return the message that a folder is not there, with a similar one that is."""
    if root.exists():
        return (
            f"{shown(root)} must be a folder with train/<class>/* and test/<class>/*, and is a file: "
            "unpack it, or check data.root"
        )
    first = root
    while not first.parent.is_dir() and first != first.parent:
        first = first.parent
    near: list[str] = []
    if first.parent.is_dir():
        beside = (
            [entry.name for entry in os.scandir(first.parent) if entry.is_dir()]
            if os.access(first.parent, os.R_OK)
            else []
        )
        folded = {name.casefold(): name for name in beside}
        near = [
            folded[name]
            for name in difflib.get_close_matches(first.name.casefold(), list(folded), n=1, cutoff=0.5)
        ]
    whole = [
        path
        for name in near
        for path in (first.parent / name / root.relative_to(first), first.parent / name)
        if path.is_dir()
    ]
    meant = f" (did you mean {shown(whole[0])}?)" if whole else ""
    return (
        f"{shown(root)} must be a folder with train/<class>/* and test/<class>/*, and is not "
        f"there{meant}: check data.root"
    )


def _without_train(root: Path) -> str:
    """Return the message about a folder without train/, by what it has instead."""
    inner = [name for name in _classes(root) if _named(root / name, TRAIN)]
    if inner:
        return (
            f"{shown(root)} must have train/ and test/, and they are one level below: set data.root to "
            f"{shown(root / inner[0])}"
        )
    if root.name.casefold() in (*TRAIN, *TEST, *VALIDATION) and _named(root.parent, TRAIN):
        return (
            f"{shown(root)} must have train/ and test/, and they are one level above: set data.root to "
            f"{shown(root.parent)}"
        )
    full = [name for name in _classes(root) if next(files.images_below(root / name, {}), None)]
    if full:
        listed = ", ".join(map(shown, full[:SHOWN])) + (", ..." if len(full) > SHOWN else "")
        return (
            f"{shown(root)} must have train/<class>/* and test/<class>/*, and has folders of images "
            f"without them ({listed}): move those into train/, and a part of the images of each to test/ in "
            "folders of the same names"
        )
    return _empty(root / "train")


def _empty(folder: Path) -> str:
    wanted = "images as <class>/<name>.jpg (or png, ...)"
    return (
        f"{shown(folder)} must have {wanted}, and there are none: check data.root, or try --set "
        "data.name=digits"
    )


def _classes(folder: Path) -> list[str]:
    """Return the folders of classes in order, without hidden ones and those that systems add."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and not files.is_systems(entry.name)
            )
    except OSError as error:
        raise DataError(
            f"{shown(folder)} cannot be read ({error.strerror}): make it readable, or check data.root"
        ) from None


def _part(folder: Path, left: dict[str, list[Path]]) -> Part:
    """Return the images of one split; other files go to `left`, by their kind."""
    classes = _classes(folder)
    if not classes:
        raise DataError(_empty(folder))
    for name in sorted({path.name for path in folder.iterdir()} - set(classes)):
        outside = not files.is_systems(name) and Path(name).suffix.lower() in files.readable()
        left.setdefault(files.OUTSIDE if outside else files.kind_of(name), []).append(folder / name)
    images: list[tuple[str, Path]] = []
    for label in classes:
        others: dict[str, list[Path]] = {}
        paths = sorted(files.images_below(folder / label, others), key=lambda path: path.split(os.sep))  # noqa: PTH206
        if not paths:
            has = f" (but {files.describe(folder / label, others)})" if others else ""
            raise DataError(
                f"{shown(folder / label)} must have images (.jpg, .png, ...), and there are none{has}: "
                "add some, or remove this folder of a class"
            )
        for kind, others_of_kind in others.items():
            left.setdefault(kind, []).extend(others_of_kind)
        images += [(label, Path(path)) for path in paths]
    return Part(folder.name, tuple(images))


def _check_classes(folder: Path, classes: tuple[str, ...], part: Part) -> None:
    """Raise a DataError where a split has a single class, or names of classes that are refused."""
    _check_names(folder, classes)
    if len(classes) > 1:
        return
    below = Counter(
        path.relative_to(folder / classes[0]).parts[0]
        for _, path in part.images
        if path.parent != folder / classes[0]
    )
    levels = (
        f"; its own folders ({', '.join(map(shown, list(below)[:SHOWN]))}) look like classes: move them up"
        if len(below) > 1
        else ""
    )
    raise DataError(
        f"{shown(folder)} must have at least two classes, each a folder, and has one, {shown(classes[0])}: "
        f"add the folder of another class, or check data.root{levels}"
    )


def _check_names(folder: Path, classes: Iterable[str]) -> None:
    """Raise a DataError for names that are not UTF-8, or that read the same in two forms of Unicode."""
    for label in classes:
        try:
            label.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{shown(folder / label)} is a class and must have a name in UTF-8, and has not: rename it"
            ) from None
    seen: dict[str, str] = {}
    for label in classes:
        other = seen.setdefault(unicodedata.normalize("NFC", label), label)
        if other != label:
            raise DataError(
                f"{shown(folder)} must have one folder a class, and has two that both read {shown(label)}, "
                "in two forms of Unicode (with composed letters, and with accents apart): move the images "
                "into one of them"
            )


def _check_same(root: Path, classes: tuple[str, ...], train: Part, test: Part) -> None:
    """Raise a DataError where the splits have different classes."""
    others = tuple(dict.fromkeys(label for label, _ in test.images))
    _check_names(root / test.name, others)
    odd = sorted(set(classes) ^ set(others))
    if not odd:
        return
    folded = {label.casefold(): label for label in classes if label in odd}
    cases = [
        f"{shown(folded[label.casefold()])} and {shown(label)}"
        for label in others
        if label in odd and label.casefold() in folded
    ]
    only = ", ".join(shown(label) for label in odd[:SHOWN]) + (
        f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    )
    hint = f" ({', '.join(cases[:SHOWN])} differ in case: name them alike)" if cases else ""
    raise DataError(
        f"{shown(root)}: {train.name}/ and {test.name}/ must have the same classes, and these are in one "
        f"of them only: {only}{hint}"
    )


def _alike(classes: tuple[str, ...]) -> Iterator[str]:
    """Yield a notice of classes that differ in case only: but for letters, mostly one class by mistake."""
    groups: dict[str, list[str]] = {}
    for label in classes:
        groups.setdefault(label.casefold(), []).append(label)
    several = [group for group in groups.values() if len(group) > 1]
    if several:
        yield (
            f"{', '.join(' and '.join(map(shown, group)) for group in several[:SHOWN])} are different "
            "classes, and differ in case only"
        )
