"""Pictures that a trained network is asked about: files and folders, read as the training images were."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.errors import DataError
from ablate.training.datasets import decoding, files
from ablate.training.datasets.decoding import Images


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and its pixels as a network gets them (H, W, C), or why it has none."""

    path: Path
    pixels: Images | None
    remarks: tuple[str, ...] = ()  # on how it was read, where that is not by the book
    error: str = ""


def files_of(paths: Iterable[Path]) -> tuple[tuple[Path, ...], str]:
    """Return the files that are meant, those of a folder in order of their names, and what was left out.

    A file that is named counts, whatever its ending. Raises a DataError for a folder without any image.
    """
    meant: dict[Path, None] = {}
    said = []
    for path in paths:
        if not path.is_dir():
            meant[path] = None
            continue
        left: dict[str, list[Path]] = {}
        inside = sorted(map(Path, files.images_below(path, left)))
        others = files.describe(path, left)
        if not inside:
            raise DataError(
                f"{files.shown(path)}: must be an image or a folder of images, and has none"
                f"{f', but {others}' if others else ''}"
            )
        meant |= dict.fromkeys(inside)
        said += [f"left out of {files.shown(path)}: {others}"] if others else []
    return tuple(meant), "\n".join(said)


def read(paths: Sequence[Path], size: int, channels: int) -> tuple[Picture, ...]:
    """Return pictures as squares of `size` pixels a side; grey ones where a network has one channel."""
    with decoding.quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(lambda path: _read(path, size, channels), paths))


def _read(path: Path, size: int, channels: int) -> Picture:
    try:
        if not path.is_symlink() and not path.is_file():
            wrong = "it is not a file" if path.exists() else "there is no such file"
            return Picture(path, None, error=wrong)
        pixels, remarks = decoding.read(path, size)
    except (ValueError, OSError) as error:
        return Picture(path, None, error=files.shown(error))
    return Picture(path, _grey(pixels) if channels == 1 else pixels, remarks)


def _grey(pixels: Images) -> Images:
    """Return the brightness of an image (H, W, 3), (H, W, 1); of a grey one that is each of its channels."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
