"""The images of a folder, decoded on as many threads as there are cores."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import arrays
from ablate.training.datasets import decoding, files, folder, source
from ablate.training.datasets.source import Loaded

SHOWN = 10  # corrupt files named in one message


def load(data: Data, draft: Path, *, download: bool) -> Loaded:  # noqa: ARG001
    """Return the decoded images of a folder, and remarks on how they were read. Raises a DataError.

    Pillow releases the GIL, so threads help. Each image goes to its place in a mapped file at once, so that a
    set may be larger than the memory.
    """
    layout = folder.survey(source.root(data))
    parts = {"train": layout.train.images, "test": layout.test.images}
    images = {
        name: arrays.allocate(
            draft / f"{name}_images.npy", np.uint8, (len(part), data.image_size, data.image_size, 3)
        )
        for name, part in parts.items()
    }

    def decode(place: tuple[str, int]) -> tuple[str, ...] | str:
        name, i = place
        path = parts[name][i][1]
        try:
            images[name][i], marks = decoding.read(path, data.image_size)
        except ValueError as error:
            return f"  {files.shown(path)}: {files.shown(error)}"
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
    remarks = [
        f"{counts[mark]} {'image' if counts[mark] == 1 else 'images'} {mark}"
        for mark in decoding.MARKS
        if counts[mark]
    ]
    number = {label: i for i, label in enumerate(layout.classes)}
    train, test = (
        (images[name], np.array([number[label] for label, _ in part], np.int64))
        for name, part in parts.items()
    )
    return list(layout.classes), train, test, [*remarks, *layout.said]
