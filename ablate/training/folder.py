"""A folder of images as people have them: its splits and classes by the usual names, and its files.

Nothing is opened here, so a study can be told what is wrong before anything is decoded.
"""

import difflib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ablate.errors import DataError

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga",
}  # fmt: skip
HEIF, AVIF = {".heic", ".heif"}, {".avif"}
TRAIN = ("train", "training", "train_set", "training_set")
TEST = ("test", "testing", "test_set", "testing_set")
VALIDATION = ("val", "valid", "validation", "val_set", "validation_set")
NO_CLASSES = {
    "__macosx",
    "@eadir",
    "$recycle.bin",
}  # of archives made by macOS, of network disks (with thumbnails), of Windows
SHOWN = 10  # names in one message
KINDS = 6  # of files that are left out, in one line
NO_ENDING, HIDDEN, NO_FILE, OUTSIDE, CIRCLE = (
    "without an ending",
    "hidden",
    "not a file",
    "in no folder of a class",
    "linked back",
)


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
        """List what a reader of the results must know of how the folder was read."""
        return (*self.notices, *([f"left out {self.left_out}"] if self.left_out else []))


def survey(root: Path) -> Folder:
    """Look through a folder of images.

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
    return Folder(classes, trained, tested, _left_out(root, left), (*notices, *_alike(classes)))


def is_there(root: Path) -> bool:
    """Whether a folder has images to train on."""
    return _named(root, TRAIN) != []


def count_classes(root: Path) -> int:
    """Count the folders of classes as they are now, whatever is in them."""
    found = _named(root, TRAIN)
    return len(_classes(root / found[0])) if found else 0


def count_files(root: Path) -> int:
    """Count the files of the images to train on by the folders as they are now, whatever they are."""
    found = _named(root, TRAIN)
    return sum(len(files) for _, _, files in os.walk(root / found[0])) if found else 0


def shown(path: object) -> str:
    """Write a path or name so that it can be printed, whatever bytes it has."""
    text = str(path)
    if text.isprintable():  # nearly all of them; what is not UTF-8 never is
        return text
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _splits(root: Path) -> tuple[str, str, list[str]]:
    """Find the folders to train and to test on by the usual names; what is not by the book is said."""
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
            "none (nor val/): "
            "move a part of the images of each class there"
        )
    usable = [
        name for name in (*test, *validation) if _classes(root / name)
    ]  # a test/ without labels has none
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
    """List the folders with one of these names: first as they are spelled here, then in any other case."""
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
    """Return the message that a folder is not there, and which one is near."""
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
    """Return what a folder without train/ looks like instead."""
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
    full = [name for name in _classes(root) if next(_files(root / name, {}), None)]
    if full:
        listed = ", ".join(map(shown, full[:SHOWN])) + (", ..." if len(full) > SHOWN else "")
        return (
            f"{shown(root)} must have train/<class>/* and test/<class>/*, and has folders of images "
            f"without them ({listed}): "
            "move those into train/, and a part of the images of each to test/ in folders of the same names"
        )
    return _empty(root / "train")


def _empty(folder: Path) -> str:
    wanted = "images as <class>/<name>.jpg (or png, ...)"
    return (
        f"{shown(folder)} must have {wanted}, and there are none: check data.root, or try --set "
        "data.name=digits"
    )


def _classes(folder: Path) -> list[str]:
    """List the folders of classes in order; hidden ones and those of systems are none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not _is_systems(entry.name))
    except OSError as error:
        raise DataError(
            f"{shown(folder)} cannot be read ({error.strerror}): make it readable, or check data.root"
        ) from None


def _is_systems(name: str) -> bool:
    return name.startswith(".") or name.casefold() in NO_CLASSES


def _part(folder: Path, left: dict[str, list[Path]]) -> Part:
    """List the images of one split; files that are none go to `left`, by their kind."""
    classes = _classes(folder)
    if not classes:
        raise DataError(_empty(folder))
    for name in sorted({path.name for path in folder.iterdir()} - set(classes)):
        outside = not _is_systems(name) and Path(name).suffix.lower() in readable()
        left.setdefault(OUTSIDE if outside else _kind(name), []).append(folder / name)
    images: list[tuple[str, Path]] = []
    for label in classes:
        others: dict[str, list[Path]] = {}
        found = sorted(_files(folder / label, others), key=lambda path: path.split(os.sep))  # noqa: PTH206
        if not found:
            has = f" (but {_left_out(folder / label, others)})" if others else ""
            raise DataError(
                f"{shown(folder / label)} must have images (.jpg, .png, ...), and there are none{has}: "
                "add some, or remove this folder of a class"
            )
        for kind, paths in others.items():
            left.setdefault(kind, []).extend(paths)
        images += [(label, Path(path)) for path in found]
    return Part(folder.name, tuple(images))


def _files(folder: Path, left: dict[str, list[Path]]) -> Iterator[str]:
    """Go through the images of a class, those in its sub-folders too, in no order.

    Links that lead back are not followed.
    """
    endings = readable()
    waiting = [(folder, frozenset(map(str, folder.resolve().parents)))]
    while waiting:
        here, above = waiting.pop()
        real = os.path.realpath(here)
        if real in above:
            left.setdefault(CIRCLE, []).append(here)
            continue
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except OSError as error:
            raise DataError(
                f"{shown(here)} cannot be read ({error.strerror}): make it readable, or remove it"
            ) from None
        for entry in found:  # strings as long as it goes: there may be millions of files
            if _is_systems(entry.name):
                left.setdefault(_kind(entry.name), []).append(Path(entry.path))
            elif entry.is_dir():
                waiting.append((Path(entry.path), above | {real}))
            elif os.path.splitext(entry.name)[1].lower() not in endings:  # noqa: PTH122
                left.setdefault(_kind(entry.name), []).append(Path(entry.path))
            elif not entry.is_file() and (
                not entry.is_symlink() or _is_special(entry.path)
            ):  # a pipe would be waited for for ever
                left.setdefault(NO_FILE, []).append(Path(entry.path))
            else:
                yield entry.path


def _is_special(path: str) -> bool:
    """Whether a link leads to a pipe or a device.

    One that leads nowhere is a missing image, which decoding names.
    """
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


@cache
def readable() -> frozenset[str]:
    """Return the endings of the images that this Pillow reads, without importing it: that takes a while."""
    found = set(SUFFIXES)
    if find_spec("pillow_heif") is not None:
        found |= HEIF
    pillow = find_spec("PIL")
    if pillow is not None and any(
        any(Path(place).glob("_avif*")) for place in pillow.submodule_search_locations or ()
    ):
        found |= AVIF
    return frozenset(found)


def _kind(name: str) -> str:
    if _is_systems(name):
        return HIDDEN
    return Path(name).suffix.lower() or NO_ENDING


def _left_out(root: Path, left: dict[str, list[Path]]) -> str:
    """Count and name what is left out: each kind with an example."""
    if not left:
        return ""
    kinds = sorted(left, key=lambda kind: (-len(left[kind]), kind))
    parts = [
        f"{len(left[kind])} {shown(kind)} ({shown(min(left[kind]).relative_to(root))})"
        for kind in kinds[:KINDS]
    ]
    more = sum(len(left[kind]) for kind in kinds[KINDS:])
    parts += [f"{more} of other kinds"] if more else []
    heif = "; Pillow reads HEIC where pillow-heif is installed" if HEIF & set(kinds) else ""
    total = sum(map(len, left.values()))
    return f"{total} {'file' if total == 1 else 'files'}: {', '.join(parts)}{heif}"


def _check_classes(folder: Path, classes: tuple[str, ...], part: Part) -> None:
    """Raise a DataError where the classes of a split are no classes to tell apart."""
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
    """Raise a DataError for names that cannot be written down, or told apart by those who read them."""
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
                "in two forms of Unicode "
                "(with composed letters, and with accents apart): move the images into one of them"
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
    """Warn of classes that differ in case only: letters of an alphabet do, most others are one class by mistake."""
    groups: dict[str, list[str]] = {}
    for label in classes:
        groups.setdefault(label.casefold(), []).append(label)
    several = [group for group in groups.values() if len(group) > 1]
    if several:
        yield (
            f"{', '.join(' and '.join(map(shown, group)) for group in several[:SHOWN])} are different "
            "classes, and differ in case only"
        )
