"""The files in a folder of images: the images, the kinds of the others, and names that can be printed."""

import os
import stat
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ablate.errors import DataError

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga",
}  # fmt: skip
HEIF, AVIF = {".heic", ".heif"}, {".avif"}
NO_CLASSES = {"__macosx", "@eadir", "$recycle.bin"}  # of macOS archives, network disks (thumbnails), Windows
KINDS = 6  # of files that are left out, in one line
NO_ENDING, HIDDEN, NO_FILE, OUTSIDE, CIRCLE = (
    "without an ending",
    "hidden",
    "not a file",
    "in no folder of a class",
    "linked back",
)


def shown(path: object) -> str:
    """Return a path or name so that it can be printed, whatever bytes it has."""
    text = str(path)
    if text.isprintable():  # nearly all of them; what is not UTF-8 never is
        return text
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def is_systems(name: str) -> bool:
    """Whether a name is hidden, or that of a folder which systems add."""
    return name.startswith(".") or name.casefold() in NO_CLASSES


def images_below(folder: Path, left: dict[str, list[Path]]) -> Iterator[str]:
    """Yield the images of a class, also those in its sub-folders, in no order; other files go to `left`.

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
                children = list(entries)
        except OSError as error:
            raise DataError(
                f"{shown(here)} cannot be read ({error.strerror}): make it readable, or remove it"
            ) from None
        for entry in children:  # strings as long as possible: there may be millions of files
            if is_systems(entry.name):
                left.setdefault(kind_of(entry.name), []).append(Path(entry.path))
            elif entry.is_dir():
                waiting.append((Path(entry.path), above | {real}))
            elif os.path.splitext(entry.name)[1].lower() not in endings:  # noqa: PTH122
                left.setdefault(kind_of(entry.name), []).append(Path(entry.path))
            elif not entry.is_file() and (not entry.is_symlink() or _is_special(entry.path)):
                # reading a pipe would never end
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
    endings = set(SUFFIXES)
    if find_spec("pillow_heif") is not None:
        endings |= HEIF
    pillow = find_spec("PIL")
    if pillow is not None and any(
        any(Path(place).glob("_avif*")) for place in pillow.submodule_search_locations or ()
    ):
        endings |= AVIF
    return frozenset(endings)


def kind_of(name: str) -> str:
    """Return the kind of a file that is no image: hidden, or its ending."""
    if is_systems(name):
        return HIDDEN
    return Path(name).suffix.lower() or NO_ENDING


def describe(root: Path, left: dict[str, list[Path]]) -> str:
    """Return a count of the files left out, each kind with an example; empty where there are none."""
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
