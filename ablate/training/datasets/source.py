"""The source of a data set: the folder of its images or archives, and a key that changes with them."""

from importlib import metadata
from pathlib import Path
from typing import Any

from ablate import places
from ablate.errors import DataError
from ablate.recipe import identity
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Data
from ablate.training.datasets import decoding, files, folder
from ablate.training.datasets.decoding import Split

OLDER_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

Loaded = tuple[list[str], Split, Split, list[str]]
"""Classes, train, test, and remarks on how they were read, where that is not by the book."""


def root(data: Data) -> Path:
    """Return the folder of the images or archives of a data set. Raises a DataError."""
    if data.root is not None:
        try:
            return Path(data.root).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # no such user or HOME, links in a circle, a NUL
            raise DataError(
                f"data.root must be a folder, and {files.shown(data.root)} cannot be one: {error}"
            ) from None
    return places.cache() / "datasets"


def key(data: Data) -> str:
    """Return a digest of the source: name, place, size, and a folder's files with their sizes and times."""
    listing: list[Any] = []
    package = DATASETS[data.name].package
    if is_folder(data.name):
        images = folder.survey(root(data))
        listing = [
            (files.shown(path), *_stat(path))
            for part in (images.train, images.test)
            for _, path in part.images
        ]
        listing.append(decoding.VERSION)
    elif package:
        listing = [metadata.version(package)]  # not by importing it: that takes a second
    return identity.digest([data.name, files.shown(root(data)), data.image_size, listing])


def older_key(data: Data) -> str:
    """Return the key of versions before decoding.VERSION 2, which knew fewer endings and no sub-folders."""
    if not is_folder(data.name):
        return key(data)
    listing = []
    for name in ("train", "test"):
        for label in sorted(
            path for path in (root(data) / name).iterdir() if path.is_dir() and not path.name.startswith(".")
        ):
            taken = (
                path
                for path in label.iterdir()
                if path.suffix.lower() in OLDER_SUFFIXES and not path.name.startswith(".")
            )
            listing += [(str(path), *_stat(path)) for path in sorted(taken)]
    return identity.digest([data.name, str(root(data)), data.image_size, listing])


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere, which decoding names
        return 0, 0
    return status.st_size, status.st_mtime_ns
