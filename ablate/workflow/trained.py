"""A finished run, as `predict` and `export` take it: what was trained, its classes, its network."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import AblateError
from ablate.execution.executors import devices, server
from ablate.execution.options import Where
from ablate.messages import printable
from ablate.planning import job_names
from ablate.recipe import identity, networks, user_code
from ablate.recipe.fields import Recipe
from ablate.store import job_folder, job_state
from ablate.store.job_folder import Folder
from ablate.store.records import Evaluation, Result
from ablate.workflow import argument

if TYPE_CHECKING:
    from ablate.training.data import Prepared
    from ablate.training.predictions import Network

FILE = ".toml:"  # ends the study file that a run may be named by


@dataclass(frozen=True, slots=True)
class Trained:
    """A run that has been trained to its end."""

    name: str
    job: str
    seed: int
    recipe: Recipe  # with the evaluation of the run
    code: str  # fingerprint of a network of the user's own
    folder: Folder
    result: Result
    prepared: "Prepared"
    code_folders: tuple[str, ...] | None  # where such a network may be imported from
    evaluation: Evaluation | None  # on the test images; none before
    warning: str = ""  # what its answers are worth, where that is little


def find(text: str, where: Where) -> Trained:
    """Return the finished run that a text names: a JOB, or FILE.toml:cell/seed.

    Raises an AblateError with a sentence for one that is not there, not finished, or lost its images.
    """
    from ablate.training import data

    folders, name = _opened(text, where)
    known = job_names.read(where.store, where.device)
    job = job_names.find(name, known, "RUN")
    named = [name] if name in known.runs else [run for run in known.names.get(job, ()) if run in known.runs]
    shown = named[0] if named else job[: identity.ID_SHOWN]
    folder = where.store.job(job)
    result = _result(folder, shown)
    description = job_folder.read_description(folder)
    try:
        recipe = description.parsed() if description is not None else None
    except ValueError:
        recipe = None
    if (
        description is None
        or recipe is None
        or identity.job_id(recipe, description.seed, description.data, description.code, description.start)
        != job
    ):
        raise AblateError(
            f"{folder.recipe} is not what {shown} was trained as, or is of another version of ablate: "
            "ablate doctor says what to do"
        )
    if named:
        recipe = recipe.model_copy(update={"evaluation": known.runs[named[0]].cell.recipe.evaluation})
    place = where.store.data / description.data
    if not (place / "meta.json").exists():
        raise AblateError(
            f"{place}: has the classes and the normalisation of {shown}, and is gone: "
            "ablate run decodes the images again"
        )
    evaluation = job_folder.read_evaluation(folder, identity.evaluation_id(recipe))
    status, reason = evaluation.end() if evaluation is not None else ("finished", "")
    return Trained(
        name=shown, job=job, seed=description.seed, recipe=recipe, code=description.code, folder=folder,
        result=result, prepared=data.read(place), code_folders=folders, evaluation=evaluation,
        warning=f"{shown} is {reason}" if status == "at_chance" else "",
    )  # fmt: skip


def _opened(text: str, where: Where) -> tuple[tuple[str, ...] | None, str]:
    """Return the folders of own code that a study file allows, and the run by the name of its study."""
    before, is_file, run = text.rpartition(FILE)
    if not is_file:
        return None, text
    study = argument.load(f"{before}{FILE[:-1]}", (), where.store)
    return user_code.folders(study.folder), f"{study.name}:{run}"


def _result(folder: Folder, name: str) -> Result:
    standing = job_state.state(folder)
    result = standing.result
    if result is not None and standing.is_trained:
        return result
    if result is not None:
        raise AblateError(f"{name} has diverged ({result.reason}), and has no weights to go by")
    words = {"running": "is still running", "crashed": "has crashed", "stopped": "was stopped"}
    stage = words.get(standing.stage(), "was not run yet")
    raise AblateError(f"{name} must be finished, and {stage}: ablate run takes it to its end")


def device(where: Where) -> str:
    """Return the device to compute on, with this process's environment set for it."""
    slot = devices.slots(where.device, 1)[0]
    for name, value in (server.environment(slot.device) | dict(slot.environment)).items():
        os.environ.setdefault(name, value)
    from ablate.execution import preflight  # torch, which reads its environment once

    preflight.check(slot.device)
    return slot.device


def network(trained: Trained, device: str) -> "tuple[Network, str]":
    """Return the network with the weights that the run was evaluated with, and a note; mostly none.

    Code of a user's own is imported only where its study file was named, never because a store says so.
    """
    from ablate.execution import weights

    note = _allow(trained) if networks.is_own(trained.recipe.model.name) else ""
    return weights.ready_network(trained.folder, trained.recipe, trained.prepared, device), note


def _allow(trained: Trained) -> str:
    name = trained.recipe.model.name
    if trained.code_folders is None:
        run = trained.name.partition(":")[2] or "CELL/SEED"
        raise AblateError(
            f"{printable(name)} is a network of your own, and what lies in a store must not choose the code "
            f"that runs here: name the run by its study file, such as FILE.toml:{run}"
        )
    is_same = user_code.fingerprint(name, trained.code_folders) == trained.code
    user_code.allow(name, trained.code_folders)
    if is_same:
        return ""
    file = user_code.find(name, trained.code_folders) or Path(name)
    return f"{file} has changed since {trained.name} was trained: the answers may be others"
