"""Networks, checkpoints and weights of a job on the disk."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ablate.errors import AblateError
from ablate.recipe import identity
from ablate.recipe.fields import Recipe
from ablate.store import files
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.store.records import Epoch
from ablate.training import data, layout, loop, models, surgery
from ablate.training.loop import Session
from ablate.training.models import loading
from ablate.training.surgery import ModelError

UNLOADABLE = (
    pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    AssertionError, EOFError, OverflowError, UnicodeError, MemoryError,
)  # fmt: skip
"""What torch raises of a file that is whole and not what was saved here."""


def build_network(folder: Folder, recipe: Recipe, prepared: data.Prepared, device: torch.device) -> nn.Module:
    """Return the network with the weights that the evaluation selects.

    They are read from the file, whether the training has just ended or ended last year.
    """
    shape = models.Shape(prepared.channels, prepared.image_size, len(prepared.classes))
    network = models.build(recipe.model, shape, seed=0, pretrained=False)
    path = folder.weights(recipe.evaluation.select)
    if not path.exists() or files.damage(path):
        raise AblateError(
            f"{path}: must be the weights of a finished training, and is gone or damaged: "
            "remove that folder, and run again"
        )
    try:
        loading.load(network, load(path, device))
    except torch.OutOfMemoryError:
        raise
    except ModelError as error:
        raise AblateError(
            f"{path}: {error}: {recipe.model.name} is not the network that was trained, as its code, or that "
            "of its library, has changed"
        ) from None
    except UNLOADABLE:
        raise AblateError(
            f"{path}: must be the weights of a finished training as this version of torch loads them, "
            "and is not: remove that folder, and run again"
        ) from None
    return layout.place(network, recipe.model, shape, recipe.training.precision, device)


def ready_network(folder: Folder, recipe: Recipe, prepared: data.Prepared, device: str) -> nn.Module:
    """Return the network that an evaluation would evaluate, in a process set to compute as that does."""
    loop.settle(recipe, torch.device(device))
    return build_network(folder, recipe, prepared, torch.device(device)).eval()


def save(path: Path, content: Json, *, keep: Path | None = None, durable: bool = False) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    `keep`: the name under which the file of before is kept; for `durable` see `files.write`.
    """
    held = io.BytesIO()
    torch.save(content, held)
    files.write(path, held.getvalue(), keep=keep, durable=durable)


def resumed(folder: Folder, begin: Callable[[], Session], device: torch.device) -> Session:
    """Return a session that goes on from the last checkpoint or, where that will not do, the one before.

    Where neither will, as both are damaged, of another version of torch, or not of this training at all, it
    begins at the start; the log says so. `begin` makes a new session.
    """
    session = begin()
    for path in (folder.checkpoint, folder.previous):
        try:
            wrong = files.damage(path) and "is damaged"
            if not wrong:
                loop.restore(session, load(path, device))
                _check(session)
                return session
        except FileNotFoundError:
            continue
        except torch.OutOfMemoryError:
            raise
        except UNLOADABLE:  # never with torch's own words, which recommend to run what is in the file
            wrong = "cannot be loaded as a checkpoint of this training"
            del session  # first: there may not be memory for two
            session = begin()
        is_last = path == folder.previous or not files.is_there(folder.previous)
        goes_on = "begins at the start" if is_last else "goes on from an earlier epoch"
        print(f"{path.name} {wrong}: the training {goes_on}", flush=True)
    return session


def started(begin: Callable[[], Session], weights: Path | None) -> Session:
    """Return a new session, with the weights of another job where it starts from these."""
    session = begin()
    if weights is None:
        return session
    job = weights.parent.name[: identity.ID_SHOWN]
    if not weights.exists() or files.damage(weights):
        raise AblateError(
            f"{weights}: must be the weights of the training that this one starts from, and is gone or "
            "damaged: remove that folder, and run again"
        )
    try:
        state = load(weights, session.device)
        if differences := surgery.differences(session.network.state_dict(), state):
            raise AblateError(
                f"the network cannot start from the weights of the job {job}: {'; '.join(differences)}"
            )
        session.network.load_state_dict(state)
    except torch.OutOfMemoryError:
        raise
    except UNLOADABLE:
        raise AblateError(
            f"{weights}: must be weights as this version of torch loads them, and is not: remove that "
            "folder, and run again"
        ) from None
    return session


def _check(session: Session) -> None:
    """Raise a ValueError where a session cannot have been saved so: others may write to a store, too."""
    history = [Epoch.model_validate(line) for line in session.history]
    if [line.epoch for line in history] != list(range(1, session.epoch + 1)):
        raise ValueError("its epochs are not those of its history")


def load(path: Path, device: torch.device) -> Json:
    """Return the tensors and plain values of a file, never code (weights_only)."""
    place = device if device.type == "cpu" else "cpu"
    with files.open_binary(path) as file:
        loaded: Json = torch.load(file, map_location=place, weights_only=True)
    return loaded
