"""The story of `ablate init`: a study to begin with, a copy of one of ours or made for a folder of images."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path

from ablate.errors import AblateError, StudyError
from ablate.messages import near, show
from ablate.store import files
from ablate.study import file as study_file

FIRST = "quickstart"  # without a wish
LOOKED_AT = 100  # images whose size is read
SIZES = (32, 64, 96, 128, 224)  # of images that networks are made for
NAME = re.compile(r'^name[ \t]*=[ \t]*(?:"[^"\n]*"|\'[^\'\n]*\')', re.MULTILINE)
STUDY = """\
# Which choices help on the images of {root}? Each choice alone against the baseline.
#   ablate plan {file}      # what it would train, and the smallest effect that it can see
#   ablate run  {file}
#
{seen}

name       = {name}
question   = "Which of the usual choices help on my images?"
design     = "one_at_a_time"        # the baseline, then each other level alone
seeds      = 5                      # the same in every cell: a verdict compares pairs
metric     = "test/accuracy"
min_effect = 0.01                   # 1 point: smaller effects are "equivalent"

[recipe]
data = {{ name = "imagefolder", root = {root}, image_size = {size}, validation = 0.1 }}
model = {model}
training = {{ epochs = {epochs}, batch_size = {batch} }}
optimizer = {{ name = "sgd", lr = "find", momentum = 0.9, weight_decay = 5e-4 }}   # "find": by a range test
schedule = {{ name = "one_cycle", warmup = 0.2 }}

[factors]                           # the first level is the baseline
augment.crop     = ["random_crop", "random_resized_crop"]
augment.flip     = [true, false]    # of digits, letters and signs a mirror image is another one
augment.rotation = [0, 15]          # degrees
model.head_dropout = [0.0, 0.2]

# [[claim]]                         # what you expect; the report answers confirmed, refuted or undecided
# text   = "Mirror images help"
# expect = "augment.flip: true better than false"
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to know of a folder of images before it is decoded."""

    classes: tuple[str, ...]
    train: int
    test: int
    size: int  # what fits most of them
    lines: tuple[str, ...]


def shipped() -> dict[str, str]:
    """Return the text of each study that comes with ablate, by its name."""
    inside = resources.files("ablate") / "studies"
    beside = Path(__file__).parents[2] / "studies"  # where the package runs from its source folder
    place = inside if inside.is_dir() else beside
    paths = (path for path in place.iterdir() if path.name.endswith(".toml"))
    return {path.name.removesuffix(".toml"): path.read_text(encoding="utf-8") for path in paths}


def write(name: str, template: str | None, images: str | None) -> tuple[Path, tuple[str, ...]]:
    """Write a study beside here; return its file, and what was seen of its images.

    `template`: one of ours by its name, or a file. Raises an AblateError where the file is there, or where
    there is nothing to make it from.
    """
    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    if not path.parent.is_dir():
        raise AblateError(f"{path.parent} must be a folder, and there is none: make it first")
    seen = look(Path(images)) if images is not None else None
    text = _of_images(path, str(images), seen) if seen else _copied(path, template)
    if os.path.lexists(path):
        raise AblateError(f"{path} is there already: choose another name, or remove it first")
    try:
        files.write(path, text)  # whole or not at all: a full disk leaves no empty study
    except OSError as error:
        raise AblateError(f"{path} cannot be written: {error.strerror}") from None
    return path, seen.lines if seen else ()


def _copied(path: Path, template: str | None) -> str:
    """Return the text of a study under a new name."""
    ours = shipped()
    wanted = template or (path.stem if path.stem in ours else FIRST)
    if wanted.endswith(".toml") or "/" in wanted:
        study_file.load(Path(wanted))
        text = Path(wanted).read_text(encoding="utf-8-sig")
    elif wanted in ours:
        text = ours[wanted].replace(f"studies/{wanted}.toml", str(path))
    else:
        names = ", ".join(sorted(ours))
        raise AblateError(
            f"--from must be one of {names}, or a study file (NAME.toml), got {show(wanted)}"
            f"{near(wanted, ours)}"
        )
    if not NAME.search(text):
        raise StudyError([f"{wanted}: its name is not in a line of its own, and so cannot be changed"])
    return NAME.sub(lambda _: f"name       = {show(path.stem)}", text, count=1)


def look(root: Path) -> Seen:
    """Return what is to be known of a folder of images. Raises a DataError where it is none."""
    from ablate.training.datasets import folder

    survey = folder.survey(root.expanduser())
    counts = Counter(label for label, _ in survey.train.images)
    sizes = sorted(_sizes([path for _, path in survey.train.images]))
    few, many = min(counts.values()), max(counts.values())
    middle = sizes[len(sizes) // 2] if sizes else SIZES[0]
    size = max((fit for fit in SIZES if fit <= middle * 1.25), default=SIZES[0])
    shown = ", ".join(counts) if len(counts) <= 10 else f"{', '.join(islice(counts, 9))} and others"
    lines = (
        f"{len(counts)} classes: {shown}",
        (
            f"{sum(counts.values()):,} images in {survey.train.name}/, {few:,} to {many:,} a class; "
            f"{len(survey.test.images):,} in {survey.test.name}/"
        ),
        f"shorter sides of {sizes[0]} to {sizes[-1]} pixels, mostly about {middle}: resized to {size}"
        if sizes
        else "no image could be read",
        *survey.said,
    )
    return Seen(survey.classes, sum(counts.values()), len(survey.test.images), size, lines)


def _sizes(paths: Sequence[Path]) -> list[int]:
    """Return the shorter sides of some images, evenly spread over all, in pixels."""
    from ablate.training.datasets import decoding

    step = max(1, len(paths) // LOOKED_AT)
    return [side for path in paths[::step] if (side := decoding.shorter_side(path))]


def _of_images(path: Path, given: str, seen: Seen) -> str:
    """Return the text of a study of a folder of images; its place is relative to the study, if it can be."""
    root = Path(given).expanduser().absolute()
    beside = path.parent.absolute()
    place = str(root.relative_to(beside)) if root.is_relative_to(beside) else str(root)
    is_small = seen.size <= 64
    return STUDY.format(
        root=json.dumps(place, ensure_ascii=False),
        file=path,
        seen="\n".join(f"# Seen: {line}" for line in seen.lines),
        name=json.dumps(path.stem, ensure_ascii=False),
        size=seen.size,
        model='{ name = "resnet_small" }' if is_small else '{ name = "resnet18", stem = "imagenet" }',
        epochs=20 if seen.train > 2000 else 30,
        batch=min(128, max(8, 2 ** (seen.train // 20).bit_length() // 2)),
    )
