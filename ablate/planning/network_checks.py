"""Whether the networks of a study can be had: built, changed and fetched before anything is trained."""

import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import AblateError, StudyError
from ablate.messages import show
from ablate.planning.inputs import Inputs, shapes
from ablate.recipe import identity, networks, user_code
from ablate.recipe.fields import Model, Recipe
from ablate.store import study_folder
from ablate.study.file import Study
from ablate.study.grid import Grid, check_factors

if TYPE_CHECKING:  # brings torch, which most checks can do without
    from ablate.training.models.summary import Summary


def check(known: Inputs) -> tuple[str, ...]:
    """Check what only all cells together, or their networks, show; return notes, or raise a StudyError."""
    check_factors(known.study, known.grid)
    return check_networks(known)


@dataclass(frozen=True, slots=True)
class _Looked:
    """What building a network and a training step with it have shown."""

    dropouts: int = 0
    mistake: str = ""
    notes: tuple[str, ...] = ()


def _look(study: Study, made: Recipe, size: tuple[int, int, int]) -> _Looked:
    """Build a network, count its layers of dropout, and rehearse its training, or say why it cannot be had."""
    from ablate.training import rehearsal
    from ablate.training.models import Shape, summary
    from ablate.training.surgery import ModelError

    own = networks.is_own(made.model.name)
    try:
        if own:
            user_code.allow(made.model.name, user_code.folders(study.folder))
        described = summary.summarise(made.model, Shape(*size))
        too_large = described.macs > rehearsal.MOST_MACS or described.parameters > rehearsal.MOST_PARAMETERS
        notes = () if too_large and not own else rehearsal.rehearse(made, Shape(*size)).notes
        return _Looked(described.dropouts, notes=notes)
    except (ModelError, AblateError) as error:
        return _Looked(mistake=str(error))
    except (Exception, SystemExit) as error:
        if not own:
            raise  # our own mistake
        return _Looked(mistake=f"{made.model.name} {_raised(error, study.folder)}")


def check_networks(known: Inputs) -> tuple[str, ...]:
    """Build, without weights, each network of which only that shows whether it can be had, and take a training step with it.

    Returns notes on networks that work and are hardly meant. Raises a StudyError for all that cannot be trained.
    """
    study = known.study
    doubtful = {
        cell.recipe: cell for cell in reversed(known.grid.cells) if not networks.is_certain(cell.recipe.model)
    }
    if not doubtful:
        return ()
    own = next((made.model.name for made in doubtful if networks.is_own(made.model.name)), None)
    if not study.folder and own is not None:
        given = f"give the file, as in ablate plan {Path(study.source).name}"
        raise AblateError(f"{study.name} uses your code ({own}), which is imported only when you {given}")
    wrong: dict[tuple[str, str], list[str]] = {}  # labels of cells, by network and what is wrong with it
    notes: dict[str, None] = {}
    looked: dict[tuple[Model, tuple[int, int, int], str], _Looked] = {}
    sizes = shapes(known, (made.data for made in doubtful))
    path = list(
        sys.path
    )  # as it is now: what lies beside a study must not be taken for a library of ours later
    try:
        for made, cell in reversed(doubtful.items()):
            key = (made.model, sizes[study_folder.data_key(made.data)], made.training.precision)
            if key not in looked:
                looked[key] = _look(study, made, key[1])
            notes |= dict.fromkeys(looked[key].notes)
            mistake = looked[key].mistake
            if not mistake and looked[key].dropouts == 0 and made.evaluation.mc_dropout > 0:
                mistake = (
                    f"evaluation.mc_dropout has nothing to sample: {made.model.name} has no dropout, "
                    "give it model.head_dropout"
                )
            if mistake:
                wrong.setdefault((made.model.name, mistake), []).append(cell.label)
    finally:
        sys.path[:] = path
    if wrong:
        more = {
            key: f" and {len(labels) - 1} more" if len(labels) > 1 else "" for key, labels in wrong.items()
        }
        raise StudyError(
            [f"{study.source}: cell {labels[0]}{more[key]}: {key[1]}" for key, labels in wrong.items()]
        )
    return tuple(notes)


def _raised(error: BaseException, folder: str) -> str:
    """Return what a user's own code raised, and on which line of it: the last one that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    at = (theirs or frames)[-1]
    said = "".join(traceback.format_exception_only(error)).strip()
    return f"raised {said} ({at.filename}, line {at.lineno}): mend the network"


def fetch_weights(recipes: Iterable[Recipe], fetched: frozenset[str] = frozenset()) -> frozenset[str]:
    """Have the pretrained weights here before a job needs them.

    Return the names of their networks, those `fetched` before included.

    Raises a DataError that says what to do where they cannot be had.

    """
    names = {
        made.model.name for made in recipes if made.model.pretrained and networks.has_weights(made.model.name)
    } - fetched
    if names:
        from ablate.training.models import weights

        for name in sorted(names):
            weights.fetch(name)
    return fetched | names


def summaries(known: Inputs, expanded: Grid) -> dict[str, "Summary"]:
    """Describe each different network of a study, by what its recipe says of it, and by the size of its images where there are several."""
    from ablate.training import layout
    from ablate.training.models import Shape, summary

    found: dict[str, Summary] = {}
    sections = {cell.recipe.data for cell in expanded.cells}
    sizes = shapes(known, sections)
    differ = [
        key for key in ("name", "image_size") if len({getattr(section, key) for section in sections}) > 1
    ]
    for cell in expanded.cells:
        named = identity.canonical(cell.recipe).get("model", {})
        parts = [f"{key}={show(given)}" for key, given in named.items() if key != "name"]
        parts += [f"data.{key}={show(getattr(cell.recipe.data, key))}" for key in differ]
        label = ", ".join([cell.recipe.model.name, *parts])
        if label not in found:
            size = Shape(*sizes[study_folder.data_key(cell.recipe.data)])
            described = summary.summarise(cell.recipe.model, size)
            chosen = layout.choose(cell.recipe.model, size, cell.recipe.training.precision, "cpu")
            found[label] = replace(described, memory_format=chosen)
    return found
