"""What the recipes of a study stand for on this machine: the precision, the images, the networks. Nothing is trained here."""

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ablate import hardware
from ablate.errors import DataError
from ablate.messages import show
from ablate.recipe import identity, networks, user_code
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Data, Model
from ablate.store import study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study.file import Study, located
from ablate.study.grid import Grid, Job
from ablate.training import data
from ablate.training.data import Prepared

CHANGED = (
    "the image files have changed or moved since the last run: results are of the images as they were then; the next run decodes the "
    "files again, and trains everything anew where an image, a label or the name of a class differs"
)
KEPT = "the images are taken as the last run has decoded them"
LOST = "a run needs the images, which are not decoded in the store any more"
AGAIN = "the images were decoded by an older version: the next run decodes them again, and trains anew only where they come out otherwise"


@dataclass(frozen=True, slots=True)
class Inputs:
    """How the fields of a recipe that name something outside of it are identified.

    Precision is as when the study was first run in this store. Images are those that the files as they are now were decoded to
    and, where they never were, those of the study's last run: only a run decodes. Own networks are as they are now or, where
    their code is gone or must not be looked for, as they were then.
    """

    study: Study
    store: Store
    settled: Settled
    precision: str
    _known: dict[str, str] = field(default_factory=dict)

    def fingerprint(self, section: Data) -> str:
        """Identify the images of a data section; where neither they nor any others were decoded for this study, as such."""
        key = study_folder.data_key(section)
        if key not in self._known:
            old, source = self.settled.fingerprints.get(key), located(self.study, section)
            try:
                found = data.find(source, self.store.data)
            except PermissionError as error:
                if old is None or Path(error.filename).is_relative_to(self.store.path):
                    raise
                found = None
            known = found.fingerprint if found else old
            self._known[key] = known or f"not decoded yet: {key}"
        return self._known[key]

    def learn(self, section: Data, decoded: Prepared) -> None:
        """Take note that the images of a data section have just been decoded."""
        self._known[study_folder.data_key(section)] = decoded.fingerprint

    def code(self, section: Model) -> str:
        """Identify a user's own network by its code, a pretrained one by its weights; empty for every other one.

        A study of the store has no code here.
        """
        if section.pretrained:  # the newest ones of another version of torchvision are others
            from ablate.training.models import weights

            return weights.file_name(section.name)
        if not networks.is_own(section.name):
            return ""
        old = self.settled.codes.get(section.name)
        if not self.study.folder:
            return old or "unknown"
        if section.name not in self._known:
            folders = user_code.folders(self.study.folder)
            gone = user_code.find(section.name, folders) is None
            self._known[section.name] = old if old is not None and gone else user_code.fingerprint(section.name, folders)
        return self._known[section.name]


def read(study: Study, store: Store, device: str) -> Inputs:
    """Look up what a study's recipes stand for; nothing is decoded, built or imported."""
    settled = study_folder.settled(store, study.name)
    return Inputs(study, store, settled, settled.precision or hardware.precision(device))


def last(store: Store, settled: Settled, section: Data) -> Prepared | None:
    """Return the images of a data section as the study's last run has decoded them; None where they are not in the store any more."""
    made = store.data / settled.fingerprints.get(study_folder.data_key(section), "none")
    return data.read(made) if (made / "meta.json").exists() else None


def _different(sections: Iterable[Data]) -> dict[str, Data]:
    """Return one data section for each set of images, by its `data_key`: a folder may be large, and is looked through once."""
    return {study_folder.data_key(section): section for section in sections}


def check_images(known: Inputs, expanded: Grid) -> tuple[str, ...]:
    """Return what there is to say of the folders of images before they are decoded.

    Raises a DataError for all that cannot be used. One that is gone, and was decoded for this study, is known well enough.
    """
    said: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for section in _different(cell.recipe.data for cell in expanded.cells).values():
        source = located(known.study, section)
        try:
            if data.is_there(source) or study_folder.data_key(section) not in known.settled.fingerprints:
                data.check_root(source)
                found = data.find(source, known.store.data, older=False)
                said |= dict.fromkeys(data.survey(source) if found is None else found.decoding)
                if found is None and data.find(source, known.store.data) is not None:
                    said[AGAIN] = None
                elif found is None and _have_changed(known, section):
                    said[CHANGED] = None
            else:
                is_kept = last(known.store, known.settled, section) is not None
                said[f"{KEPT if is_kept else LOST}{_gone(known.study, section, source)}"] = None
        except DataError as error:
            wrong[f"{error}{_taken_from(known.study, section, source)}"] = None
    if wrong:
        raise DataError("\n".join(wrong))
    return tuple(said)


def _have_changed(known: Inputs, section: Data) -> bool:
    """Whether a folder of images that is not decoded as it is now was decoded for the last run; the other sets are always the same."""
    return is_folder(section.name) and last(known.store, known.settled, section) is not None


def _gone(study: Study, section: Data, source: Data) -> str:
    """Return the message that the images of a section are not where the study says."""
    return f": none are found at {source.root}{_taken_from(study, section, source)}"


def _taken_from(study: Study, section: Data, source: Data) -> str:
    """Return what a relative path was taken from, and where else the folder is."""
    if section.root is None or section.root == source.root or os.path.exists(str(source.root)):  # noqa: PTH110 (false, too, where one may not look)
        return ""
    root, here = section.root, Path.cwd()
    if not study.relative_to:
        return f" (data.root = {show(root)} is relative to the current directory, {here}, as the study was run by an older version)"
    said = f" (data.root = {show(root)} is relative to the folder of the study file, {study.relative_to})"
    if here == Path(study.relative_to) or not (here / root).is_dir():
        return said
    return (
        f"{said}; the current directory has {here / root}: write data.root = {show(os.path.relpath(here / root, study.relative_to))} "
        f"in the study, or give --set data.root={root}"
    )


def decode(known: Inputs, expanded: Grid) -> Iterator[str]:
    """Decode every data set that the cells ask for, once, and check that each recipe can be cut from it; say what takes long."""
    found: dict[str, Prepared] = {}
    warned: set[str] = set()
    for cell in expanded.cells:
        section = cell.recipe.data
        key = study_folder.data_key(section)
        if key not in found:
            found[key] = yield from _prepare(known, section)
            known.learn(section, found[key])
        for warning in data.warnings(section, found[key]):
            if warning not in warned:
                warned.add(warning)
                yield warning
        data.split(section, data.open_arrays(found[key].folder).train_labels, 0)
        data.check_normalize(section, found[key].channels)


def _prepare(known: Inputs, section: Data) -> Generator[str, None, Prepared]:
    """Decode one data set, or find it decoded, by the last run where its source is gone; say what takes long."""
    source = located(known.study, section)
    kept = None if data.is_there(source) else last(known.store, known.settled, section)
    if kept is not None:
        yield f"{KEPT}{_gone(known.study, section, source)}"
        return kept
    is_new = data.find(source, known.store.data, older=False) is None
    if is_new:
        why = "once for this store"
        if data.find(source, known.store.data) is not None:
            why = "again, as an older version has read some files otherwise"
        elif _have_changed(known, section):
            why = "again, as the files have changed or moved since the last run"
        yield f"decoding {section.name} at {section.image_size}x{section.image_size}, {why}"
    try:
        made = data.prepare(source, known.store.data)
    except DataError as error:
        raise DataError(f"{error}{_taken_from(known.study, section, source)}") from None
    if is_new and made.decoding:
        yield f"{section.name}: {'; '.join(made.decoding)}"
    return made


def settle(known: Inputs, expanded: Grid) -> Settled:
    """Return what a run of these cells settles, once their images are decoded."""
    recipes = [cell.recipe for cell in expanded.cells]
    return Settled(
        known.precision,
        {study_folder.data_key(r.data): known.fingerprint(r.data) for r in recipes},
        {r.model.name: known.code(r.model) for r in recipes if networks.is_own(r.model.name)},
    )


def changed(known: Inputs, jobs: Iterable[Job]) -> tuple[str, ...]:
    """Return for how many of these jobs the store has the same training with the code or the images of the study's last run."""
    found: Counter[str] = Counter()
    for job in jobs:
        own = networks.is_own(job.recipe.model.name)
        data_then = known.settled.fingerprints.get(study_folder.data_key(job.recipe.data), job.data)
        code_then = known.settled.codes.get(job.recipe.model.name, job.code) if own else job.code
        then = identity.job_id(job.recipe, job.seed, data_then, code_then)
        if then == job.id or job.pending or not known.store.job(then).result.exists():
            continue
        module = job.recipe.model.name.partition(":")[0].rpartition(".")[-1]
        with_code = f"with another {module}.py" if code_then != job.code else ""
        on_images = "on other images" if data_then != job.data else ""
        found[" and ".join(filter(None, (with_code, on_images)))] += 1
    return tuple(f"{count} {'job was' if count == 1 else 'jobs were'} trained {how} the last time" for how, count in found.items())


def test_images(study: Study, expanded: Grid, store: Store) -> int | None:
    """Count the test images of a study, as well as they are known; none where its cells have different ones, or nobody has counted."""
    sections = {cell.recipe.data.name: cell.recipe.data for cell in expanded.cells}
    if len(sections) > 1:
        return None
    (section,) = sections.values()
    found = data.find(located(study, section), store.data) or last(store, study_folder.settled(store, study.name), section)
    return found.test if found else DATASETS[section.name].test


def shapes(study: Study, sections: Iterable[Data], store: Store) -> dict[str, tuple[int, int, int]]:
    """Return channels, pixels a side and classes of each set of images, by its `data_key`: before it is decoded, as well as known."""
    return {key: _shape(study, section, store) for key, section in _different(sections).items()}


def _shape(study: Study, section: Data, store: Store) -> tuple[int, int, int]:
    source = located(study, section)
    found = data.find(source, store.data)
    if found is None and not data.is_there(source):
        found = last(store, study_folder.settled(store, study.name), section)
    if found is not None:
        return found.channels, found.image_size, len(found.classes)
    channels, classes = data.usual_shape(source)
    return channels, section.image_size, classes
