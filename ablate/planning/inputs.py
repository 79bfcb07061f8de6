"""What the recipes of a study stand for on this machine: precision, images, networks."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ablate import hardware
from ablate.errors import DataError
from ablate.messages import show
from ablate.recipe import identity, networks, user_code
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Data
from ablate.store import study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study import grid
from ablate.study.file import Study, located
from ablate.study.grid import Cell, Fingerprints, Grid, Job
from ablate.training import data
from ablate.training.data import Prepared

CHANGED = (
    "the image files have changed or moved since the last run: "
    "results are of the images as they were then; the next run decodes the files again, "
    "and trains everything anew where an image, a label or the name of a class differs"
)
KEPT = "the images are taken as the last run has decoded them"
LOST = "a run needs the images, which are not decoded in the store any more"
AGAIN = (
    "the images were decoded by an older version: the next run decodes them again, and trains anew only "
    "where they come out otherwise"
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a study is resolved from: its cells in this machine's precision, and what its last run settled."""

    study: Study
    store: Store
    settled: Settled
    precision: str  # as when the study was first run in this store
    grid: Grid  # as the study writes the cells: what is to be tuned is still open
    # Of pretrained networks, by name; none: torchvision's newest, which imports torch.
    weights: Mapping[str, str] | None = None


def read(study: Study, store: Store, device: str = "auto", precision: str = "") -> Inputs:
    """Return what a study is resolved from; nothing is decoded, built or imported.

    `precision`: what "auto" is where jobs run, if that is not this machine.
    """
    settled = study_folder.settled(store, study.name)
    precision = settled.precision or precision or hardware.precision(device)
    return Inputs(study, store, settled, precision, grid.expand(study, precision=precision))


def fingerprints(inputs: Inputs, cells: Iterable[Cell], earlier: Fingerprints | None = None) -> Fingerprints:
    """Identify the images and the networks of cells; what `earlier` has of them is not looked up again.

    Images are those that the files as they are now were decoded to and, where they never were, those of the
    study's last run: only a run decodes. Own networks are as they are now or, where their code is gone or
    must not be looked for, as they were then.
    """
    recipes = [cell.recipe for cell in cells]
    images, codes = (dict(earlier.data), dict(earlier.code)) if earlier else ({}, {})
    by_key = {study_folder.data_key(section): name for section, name in images.items()}
    for section in dict.fromkeys(recipe.data for recipe in recipes):
        if section not in images:
            key = study_folder.data_key(section)
            if key not in by_key:
                by_key[key] = _images(inputs, section)
            images[section] = by_key[key]
    for name, pretrained in dict.fromkeys((recipe.model.name, recipe.model.pretrained) for recipe in recipes):
        if (name, pretrained) not in codes:
            codes[name, pretrained] = _weights(inputs, name) if pretrained else _code(inputs, name)
    return Fingerprints(images, codes)


def _images(inputs: Inputs, section: Data) -> str:
    """Return the fingerprint of a section's images; where they were never decoded, a placeholder."""
    key = study_folder.data_key(section)
    old = inputs.settled.fingerprints.get(key)
    try:
        decoded = data.find(located(inputs.study, section), inputs.store.data)
    except PermissionError as error:
        if old is None or Path(error.filename).is_relative_to(inputs.store.path):
            raise
        decoded = None
    return (decoded.fingerprint if decoded else old) or f"not decoded yet: {key}"


def _weights(inputs: Inputs, name: str) -> str:
    """Identify a pretrained network by its weights: other versions of torchvision have others."""
    if inputs.weights is not None:
        return inputs.weights.get(name, "")
    from ablate.training.models import weights

    return weights.file_name(name)


def _code(inputs: Inputs, name: str) -> str:
    """Identify a user's own network by its code; empty for others. A study of the store has no code here."""
    if not networks.is_own(name):
        return ""
    old = inputs.settled.codes.get(name)
    if not inputs.study.folder:
        return old or "unknown"
    folders = user_code.folders(inputs.study.folder)
    if old is not None and user_code.find(name, folders) is None:
        return old
    return user_code.fingerprint(name, folders)


def last(store: Store, settled: Settled, section: Data) -> Prepared | None:
    """Return the images of a section as the study's last run has decoded them; None where they are gone."""
    folder = store.data / settled.fingerprints.get(study_folder.data_key(section), "none")
    return data.read(folder) if data.is_whole(folder) else None


def _different(sections: Iterable[Data]) -> dict[str, Data]:
    """Return one data section for each set of images, by its `data_key`: a large folder is read once."""
    return {study_folder.data_key(section): section for section in sections}


def check_images(inputs: Inputs) -> tuple[str, ...]:
    """Return notes on the folders of images before they are decoded.

    Raises a DataError for all that cannot be used. One that is gone, and was decoded before, will do.
    """
    notes: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for section in _different(cell.recipe.data for cell in inputs.grid.cells).values():
        source = located(inputs.study, section)
        try:
            if data.is_there(source) or study_folder.data_key(section) not in inputs.settled.fingerprints:
                data.check_root(source)
                decoded = data.find(source, inputs.store.data, older=False)
                notes |= dict.fromkeys(data.survey(source) if decoded is None else decoded.decoding)
                if decoded is None and data.find(source, inputs.store.data) is not None:
                    notes[AGAIN] = None
                elif decoded is None and _have_changed(inputs, section):
                    notes[CHANGED] = None
            else:
                is_kept = last(inputs.store, inputs.settled, section) is not None
                notes[f"{KEPT if is_kept else LOST}{_gone(inputs.study, section, source)}"] = None
        except DataError as error:
            wrong[f"{error}{_taken_from(inputs.study, section, source)}"] = None
    if wrong:
        raise DataError("\n".join(wrong))
    return tuple(notes)


def _have_changed(inputs: Inputs, section: Data) -> bool:
    """Whether a folder that is not decoded as it is now was decoded for the last run.

    Other sets never change.
    """
    return is_folder(section.name) and last(inputs.store, inputs.settled, section) is not None


def _gone(study: Study, section: Data, source: Data) -> str:
    """Return the message that the images of a section are not where the study says."""
    return f": none are found at {source.root}{_taken_from(study, section, source)}"


def _taken_from(study: Study, section: Data, source: Data) -> str:
    """Return what a relative path was taken from, and where else the folder is."""
    if section.root is None or section.root == source.root:
        return ""
    if os.path.exists(str(source.root)):  # noqa: PTH110 (unlike Path's, False where one may not look)
        return ""
    root, here = section.root, Path.cwd()
    if not study.relative_to:
        return (
            f" (data.root = {show(root)} is relative to the current directory, {here}, "
            "as the study was run by an older version)"
        )
    taken = f" (data.root = {show(root)} is relative to the folder of the study file, {study.relative_to})"
    if here == Path(study.relative_to) or not (here / root).is_dir():
        return taken
    path = show(os.path.relpath(here / root, study.relative_to))
    return (
        f"{taken}; the current directory has {here / root}: "
        f"write data.root = {path} in the study, or give --set data.root={root}"
    )


def decode(inputs: Inputs, notice: Callable[[str], None]) -> dict[Data, str]:
    """Decode every data set that the cells ask for, once, and return its fingerprint for each data section.

    Each recipe is checked against its images. `notice` hears what takes long and what is hardly meant.
    """
    decoded: dict[str, Prepared] = {}
    fingerprint: dict[Data, str] = {}
    warned: set[str] = set()
    for cell in inputs.grid.cells:
        section = cell.recipe.data
        key = study_folder.data_key(section)
        if key not in decoded:
            decoded[key] = _prepare(inputs, section, notice)
        fingerprint[section] = decoded[key].fingerprint
        for warning in data.warnings(section, decoded[key]):
            if warning not in warned:
                warned.add(warning)
                notice(warning)
        data.split(section, data.open_arrays(decoded[key].folder).train_labels, 0)
        data.check_normalize(section, decoded[key].channels)
    return fingerprint


def _prepare(inputs: Inputs, section: Data, notice: Callable[[str], None]) -> Prepared:
    """Decode one data set, or find it decoded, by the last run where its source is gone."""
    source = located(inputs.study, section)
    kept = None if data.is_there(source) else last(inputs.store, inputs.settled, section)
    if kept is not None:
        notice(f"{KEPT}{_gone(inputs.study, section, source)}")
        return kept
    is_new = data.find(source, inputs.store.data, older=False) is None
    if is_new:
        _check_who_names(inputs.study, section, source)
        why = "once for this store"
        if data.find(source, inputs.store.data) is not None:
            why = "again, as an older version has read some files otherwise"
        elif _have_changed(inputs, section):
            why = "again, as the files have changed or moved since the last run"
        notice(f"decoding {section.name} at {section.image_size}x{section.image_size}, {why}")
    try:
        prepared = data.prepare(source, inputs.store.data)
    except DataError as error:
        raise DataError(f"{error}{_taken_from(inputs.study, section, source)}") from None
    if is_new and prepared.decoding:
        notice(f"{section.name}: {'; '.join(prepared.decoding)}")
    return prepared


def _check_who_names(study: Study, section: Data, source: Data) -> None:
    """Raise a DataError where a store alone names a folder: others who write to it must not choose that.

    What is decoded from there would lie in the store, for everybody who reads that.
    """
    if not study.folder and section.root is not None:
        file = Path(study.source).name
        raise DataError(
            f'the images of "{study.name}" are not decoded in this store as they are at {source.root}, '
            f"and that folder is read only when you name the study's file, as in ablate run {file}"
        )


def settle(inputs: Inputs, fingerprints: Fingerprints) -> Settled:
    """Return what a run of the study settles, once its images are decoded."""
    recipes = [cell.recipe for cell in inputs.grid.cells]
    return Settled(
        inputs.precision,
        {study_folder.data_key(recipe.data): fingerprints.of(recipe)[0] for recipe in recipes},
        {
            recipe.model.name: fingerprints.of(recipe)[1]
            for recipe in recipes
            if networks.is_own(recipe.model.name)
        },
    )


def changed(inputs: Inputs, jobs: Iterable[Job]) -> tuple[str, ...]:
    """Return in words how many of these jobs the store has with the code or the images of the last run."""
    counts: Counter[str] = Counter()
    for job in jobs:
        own = networks.is_own(job.recipe.model.name)
        data_then = inputs.settled.fingerprints.get(study_folder.data_key(job.recipe.data), job.data)
        code_then = inputs.settled.codes.get(job.recipe.model.name, job.code) if own else job.code
        then = identity.job_id(job.recipe, job.seed, data_then, code_then, job.start)
        if then == job.id or job.pending or not inputs.store.job(then).result.exists():
            continue
        module = job.recipe.model.name.partition(":")[0].rpartition(".")[-1]
        with_code = f"with another {module}.py" if code_then != job.code else ""
        on_images = "on other images" if data_then != job.data else ""
        counts[" and ".join(filter(None, (with_code, on_images)))] += 1
    return tuple(
        f"{count} {'job was' if count == 1 else 'jobs were'} trained {how} the last time"
        for how, count in counts.items()
    )


def test_images(inputs: Inputs) -> int | None:
    """Return the number of test images; None where cells have different sets, or it is not known."""
    sections = {cell.recipe.data.name: cell.recipe.data for cell in inputs.grid.cells}
    if len(sections) > 1:
        return None
    (section,) = sections.values()
    prepared = data.find(located(inputs.study, section), inputs.store.data) or last(
        inputs.store, inputs.settled, section
    )
    return prepared.test if prepared else DATASETS[section.name].test


def shapes(inputs: Inputs, sections: Iterable[Data]) -> dict[str, tuple[int, int, int]]:
    """Return channels, pixels a side and classes of each set of images, by its `data_key`."""
    return {key: _shape(inputs, section) for key, section in _different(sections).items()}


def _shape(inputs: Inputs, section: Data) -> tuple[int, int, int]:
    source = located(inputs.study, section)
    prepared = data.find(source, inputs.store.data)
    if prepared is None and not data.is_there(source):
        prepared = last(inputs.store, inputs.settled, section)
    if prepared is not None:
        return prepared.channels, prepared.image_size, len(prepared.classes)
    channels, classes = data.usual_shape(source)
    return channels, section.image_size, classes
