"""What the recipes of a study stand for on this machine: the precision, the images, the networks. Nothing is trained here."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ablate import networks, owncode, recipe
from ablate import store as stores
from ablate.errors import AblateError, StudyError
from ablate.executors import devices
from ablate.grid import Grid
from ablate.mistakes import show
from ablate.recipe import Data, Model, Recipe
from ablate.store import Settled, Store
from ablate.study import Study
from ablate.training import data

if TYPE_CHECKING:
    from ablate.training.models.summary import Summary  # brings torch


@dataclass(frozen=True, slots=True)
class Inputs:
    """How the fields of a recipe that name something outside of it are identified.

    Precision is as when the study was first run in this store. Images and own networks are as they are now or, where
    their source is gone, cannot be read or must not be looked for, as they were then.
    """

    study: Study
    store: Store
    settled: Settled
    precision: str
    _known: dict[str, str] = field(default_factory=dict)

    def fingerprint(self, section: Data) -> str:
        """Identify the images of a data section; where they were never decoded, as such."""
        key = stores.data_key(section)
        if key not in self._known:
            old = self.settled.fingerprints.get(key)
            try:
                found = data.find(section, self.store.data)
            except PermissionError as error:
                if old is None or Path(error.filename).is_relative_to(self.store.path):
                    raise
                found = None
            known = found.fingerprint if found else old if _is_hidden(section) else None
            self._known[key] = known or f"not decoded yet: {key}"
        return self._known[key]

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
            folders = owncode.folders(self.study.folder)
            gone = owncode.find(section.name, folders) is None
            self._known[section.name] = old if old is not None and gone else owncode.fingerprint(section.name, folders)
        return self._known[section.name]


def _is_hidden(section: Data) -> bool:
    """Whether nobody can see here what its images are now: they are gone, another user's, or of a set that is known by its name."""
    if section.name != "imagefolder":
        return True
    try:
        if not data.is_there(section):
            return True
        for _ in os.walk(Path(section.root or "").expanduser(), onerror=_raise):
            pass
    except PermissionError:
        return True
    return False


def _raise(error: OSError) -> None:
    raise error


def read(study: Study, store: Store, device: str) -> Inputs:
    """Look up what a study's recipes stand for; nothing is decoded, built or imported."""
    settled = stores.settled(store, study.name)
    return Inputs(study, store, settled, settled.precision or devices.precision(device))


def decode(expanded: Grid, store: Store) -> Iterator[str]:
    """Decode every data set that the cells ask for, once, and check that each recipe can be cut from it; say what takes long."""
    found: dict[str, data.Prepared] = {}
    for cell in expanded.cells:
        section = cell.recipe.data
        key = stores.data_key(section)
        if key not in found:
            if data.find(section, store.data) is None:
                yield f"decoding {section.name} at {section.image_size}x{section.image_size}, once for this store"
            found[key] = data.prepare(section, store.data)
        data.split(section, data.open_arrays(found[key].folder).train_labels, 0)
        data.check_normalize(section, found[key].channels)


def settle(known: Inputs, expanded: Grid) -> Settled:
    """Give what a run of these cells settles, once their images are decoded."""
    recipes = [cell.recipe for cell in expanded.cells]
    return Settled(
        known.precision,
        {stores.data_key(r.data): known.fingerprint(r.data) for r in recipes},
        {r.model.name: known.code(r.model) for r in recipes if networks.is_own(r.model.name)},
    )


def check_networks(study: Study, expanded: Grid, store: Store) -> None:
    """Build, without weights, each network of which only that shows whether it can be had; raise a StudyError for all that cannot."""
    doubtful = {cell.recipe: cell for cell in reversed(expanded.cells) if not networks.is_certain(cell.recipe.model)}
    if not doubtful:
        return
    if not study.folder and any(networks.is_own(made.model.name) for made in doubtful):
        raise AblateError(f"{study.source}: names a network of its own, which is imported for a study file only: name the file")
    wrong: dict[str, None] = {}
    known: dict[tuple[Model, tuple[int, int, int]], str | int] = {}
    path = list(sys.path)  # as it is now: what lies beside a study must not be taken for a library of ours later
    try:
        for made, cell in reversed(doubtful.items()):
            key = (made.model, shape(made, store))
            if key not in known:
                known[key] = _dropouts(study, *key)
            found = known[key]
            if found == 0 and made.evaluation.mc_dropout > 0:
                found = f"evaluation.mc_dropout has nothing to sample: {made.model.name} has no dropout, give it model.head_dropout"
            if isinstance(found, str):
                wrong[f"{study.source}: cell {cell.label}: {found}"] = None
    finally:
        sys.path[:] = path
    if wrong:
        raise StudyError(list(wrong))


def _dropouts(study: Study, model: Model, size: tuple[int, int, int]) -> int | str:
    """Build a network and count its layers of dropout, or say why it cannot be had."""
    from ablate.training.models import Shape, summary
    from ablate.training.surgery import ModelError

    own = networks.is_own(model.name)
    try:
        if own:
            owncode.allow(model.name, owncode.folders(study.folder))
        return summary.summarise(model, Shape(*size)).dropouts
    except (ModelError, AblateError) as error:
        return str(error)
    except (Exception, SystemExit) as error:
        if not own:
            raise  # our own mistake
        return f"{model.name} {_raised(error)}"


def _raised(error: BaseException) -> str:
    """Say what a user's own code raised, and on which line."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {''.join(traceback.format_exception_only(error)).strip()} ({at.filename}, line {at.lineno}): mend the network"


def fetch_weights(recipes: Iterable[Recipe]) -> None:
    """Have the pretrained weights here before a job needs them; raise a DataError that says what to do where they cannot be had."""
    names = {made.model.name for made in recipes if made.model.pretrained and networks.has_weights(made.model.name)}
    if names:
        from ablate.training.models import weights

        for name in sorted(names):
            weights.fetch(name)


def summaries(expanded: Grid, store: Store) -> dict[str, "Summary"]:
    """Describe each different network of a study, by what its recipe says of it, and by the size of its images where there are several."""
    from ablate.training.models import Shape, summary

    found: dict[str, Summary] = {}
    sections = {cell.recipe.data for cell in expanded.cells}
    differ = [key for key in ("name", "image_size") if len({getattr(section, key) for section in sections}) > 1]
    for cell in expanded.cells:
        named = recipe.canonical(cell.recipe).get("model", {})
        parts = [f"{key}={show(given)}" for key, given in named.items() if key != "name"]
        parts += [f"data.{key}={show(getattr(cell.recipe.data, key))}" for key in differ]
        label = ", ".join([cell.recipe.model.name, *parts])
        if label not in found:
            found[label] = summary.summarise(cell.recipe.model, Shape(*shape(cell.recipe, store)))
    return found


def test_images(expanded: Grid, store: Store) -> int | None:
    """Count the test images of a study, as well as they are known; none where its cells have different ones, or nobody has counted."""
    sections = {cell.recipe.data.name: cell.recipe.data for cell in expanded.cells}
    if len(sections) > 1:
        return None
    (section,) = sections.values()
    found = data.find(section, store.data)
    return found.test if found else data.TEST_IMAGES.get(section.name)


def shape(made: Recipe, store: Store) -> tuple[int, int, int]:
    """Give channels, pixels a side and classes of a recipe's images: before they are decoded, as well as they are known."""
    channels, classes = data.usual_shape(made.data)
    found = data.find(made.data, store.data)
    return (found.channels, found.image_size, len(found.classes)) if found else (channels, made.data.image_size, classes)
