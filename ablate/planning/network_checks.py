"""Whether the networks of a study can be trained: each is built, rehearsed and fetched beforehand."""

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
from ablate.study import idle_factors
from ablate.study.file import Study
from ablate.study.grid import Grid

if TYPE_CHECKING:  # brings torch, which most checks can do without
    from ablate.training.models.summary import Summary


def check(inputs: Inputs) -> tuple[str, ...]:
    """Check what only all cells together, or their networks, show; return notes, or raise a StudyError."""
    idle_factors.check(inputs.study, inputs.grid)
    notes = check_networks(inputs)
    _check_starts(inputs)
    return notes


ALIKE = ("trainable", "pretrained", "conv_dropout", "head_dropout")  # what changes no weight's name or size


def _check_starts(inputs: Inputs) -> None:
    """Raise a StudyError where a network cannot take the weights that it is to start from.

    Of a user's own network only the training shows it.
    """
    pairs = {
        (cell.recipe, cell.lineage[-1]): cell.label
        for cell in reversed(inputs.grid.cells)
        if cell.lineage and _weights_of(cell.recipe.model) != _weights_of(cell.lineage[-1].model)
    }
    known = {
        pair: label
        for pair, label in pairs.items()
        if not any(networks.is_own(recipe.model.name) for recipe in pair)
    }
    if not known:
        return
    from ablate.training import models, surgery

    sizes, wrong = shapes(inputs, (recipe.data for pair in known for recipe in pair)), []
    for pair, label in reversed(known.items()):
        ours, theirs = (
            models.build(
                recipe.model,
                models.Shape(*sizes[study_folder.data_key(recipe.data)]),
                seed=0,
                pretrained=False,
            ).state_dict()
            for recipe in pair
        )
        if differences := surgery.differences(ours, theirs):
            start = f"cannot start from the weights of {pair[1].model.name}: {'; '.join(differences)}"
            wrong.append(f"{inputs.study.source}: cell {label}: {start}")
    if wrong:
        raise StudyError(wrong)


def _weights_of(model: Model) -> Model:
    return model.model_copy(update={name: getattr(Model(), name) for name in ALIKE})


@dataclass(frozen=True, slots=True)
class _Looked:
    """What building a network, and a training step with it, have shown."""

    dropouts: int = 0
    mistake: str = ""
    notes: tuple[str, ...] = ()


def _look(study: Study, recipe: Recipe, size: tuple[int, int, int]) -> _Looked:
    """Build a network, count its layers of dropout, and rehearse its training; report also what fails."""
    from ablate.training import rehearsal
    from ablate.training.models import Shape, summary
    from ablate.training.surgery import ModelError

    own = networks.is_own(recipe.model.name)
    try:
        if own:
            user_code.allow(recipe.model.name, user_code.folders(study.folder))
        described = summary.summarise(recipe.model, Shape(*size))
        too_large = described.macs > rehearsal.MOST_MACS or described.parameters > rehearsal.MOST_PARAMETERS
        notes = () if too_large and not own else rehearsal.rehearse(recipe, Shape(*size)).notes
        return _Looked(described.dropouts, notes=notes)
    except (ModelError, AblateError) as error:
        return _Looked(mistake=str(error))
    except (Exception, SystemExit) as error:
        if not own:
            raise  # our own mistake
        return _Looked(mistake=f"{recipe.model.name} {_raised(error, study.folder)}")


def check_networks(inputs: Inputs) -> tuple[str, ...]:
    """Build each network, without weights, and train it for a step, where only that shows whether it works.

    Returns notes on networks that work and are hardly meant. Raises a StudyError for all that cannot be
    trained.
    """
    study = inputs.study
    doubtful = {
        cell.recipe: cell
        for cell in reversed(inputs.grid.cells)
        if not networks.is_certain(cell.recipe.model)
    }
    if not doubtful:
        return ()
    own = next((recipe.model.name for recipe in doubtful if networks.is_own(recipe.model.name)), None)
    if not study.folder and own is not None:
        hint = f"give the file, as in ablate plan {Path(study.source).name}"
        raise AblateError(f"{study.name} uses your code ({own}), which is imported only when you {hint}")
    wrong: dict[tuple[str, str], list[str]] = {}  # labels of cells, by network and what is wrong with it
    notes: dict[str, None] = {}
    looked: dict[tuple[Model, tuple[int, int, int], str, bool], _Looked] = {}
    sizes = shapes(inputs, (recipe.data for recipe in doubtful))
    path = list(sys.path)  # restored at the end: a file beside a study must not pass for a library of ours
    try:
        for recipe, cell in reversed(doubtful.items()):
            size, training = sizes[study_folder.data_key(recipe.data)], recipe.training
            key = (recipe.model, size, training.precision, training.compile == "graph")
            if key not in looked:
                looked[key] = _look(study, recipe, key[1])
            notes |= dict.fromkeys(looked[key].notes)
            if mistake := looked[key].mistake or _unsampled(recipe, looked[key]):
                wrong.setdefault((recipe.model.name, mistake), []).append(cell.label)
    finally:
        sys.path[:] = path
    if wrong:
        raise StudyError(
            [f"{study.source}: cell {_first(labels)}: {mistake}" for (_, mistake), labels in wrong.items()]
        )
    return tuple(notes)


def _unsampled(recipe: Recipe, looked: _Looked) -> str:
    """Return what is wrong where MC dropout is asked of a network without dropout."""
    if looked.dropouts or not recipe.evaluation.mc_dropout:
        return ""
    return (
        f"evaluation.mc_dropout has nothing to sample: {recipe.model.name} has no dropout, "
        "give it model.head_dropout"
    )


def _first(labels: list[str]) -> str:
    return f"{labels[0]} and {len(labels) - 1} more" if len(labels) > 1 else labels[0]


def _raised(error: BaseException, folder: str) -> str:
    """Return what a user's own code raised, and on which line: the last that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    at = (theirs or frames)[-1]
    message = "".join(traceback.format_exception_only(error)).strip()
    return f"raised {message} ({at.filename}, line {at.lineno}): mend the network"


def fetch_weights(recipes: Iterable[Recipe], fetched: frozenset[str] = frozenset()) -> frozenset[str]:
    """Fetch the pretrained weights before a job needs them.

    Returns the names of their networks, with those `fetched` before.

    Raises a DataError that says what to do where they cannot be downloaded.
    """
    models = [recipe.model for recipe in recipes]
    names = {
        model.name for model in models if model.pretrained and networks.has_weights(model.name)
    } - fetched
    if names:
        from ablate.training.models import weights

        for name in sorted(names):
            weights.fetch(name)
    return fetched | names


def summaries(inputs: Inputs, expanded: Grid) -> dict[str, "Summary"]:
    """Return a summary of each different network of a study.

    Its label has what the recipe says of it, and the set and size of its images where there are several.
    """
    from ablate.training import layout
    from ablate.training.models import Shape, summary

    described: dict[str, Summary] = {}
    sections = {cell.recipe.data for cell in expanded.cells}
    sizes = shapes(inputs, sections)
    differ = [
        key for key in ("name", "image_size") if len({getattr(section, key) for section in sections}) > 1
    ]
    for cell in expanded.cells:
        named = identity.canonical(cell.recipe).get("model", {})
        parts = [f"{key}={show(value)}" for key, value in named.items() if key != "name"]
        parts += [f"data.{key}={show(getattr(cell.recipe.data, key))}" for key in differ]
        label = ", ".join([cell.recipe.model.name, *parts])
        if label not in described:
            size = Shape(*sizes[study_folder.data_key(cell.recipe.data)])
            chosen = layout.choose(cell.recipe.model, size, cell.recipe.training.precision, "cpu")
            described[label] = replace(summary.summarise(cell.recipe.model, size), memory_format=chosen)
    return described
