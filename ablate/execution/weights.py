"""Networks, checkpoints and weights of a job on the disk."""

import io
from pathlib import Path

import torch
from torch import nn

from ablate.errors import AblateError
from ablate.recipe.fields import Recipe
from ablate.store import files
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.training import data, layout, models


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
    weights = load(path, device)
    assert weights is not None
    network.load_state_dict(weights)
    return layout.place(network, recipe.model, shape, recipe.training.precision, device)


def save(path: Path, content: Json, *, keep: Path | None = None, durable: bool = False) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    `keep`: the name under which the file of before is kept; for `durable` see `files.write`.
    """
    held = io.BytesIO()
    torch.save(content, held)
    files.write(path, held.getvalue(), keep=keep, durable=durable)


def last_state(folder: Folder, device: torch.device) -> Json | None:
    """Return the checkpoint or, where a disk has damaged it, the one before; None where there is neither."""
    for path in (folder.checkpoint, folder.previous):
        if path.exists() and not files.damage(path):
            return load(path, device)
        if path.exists():
            print(f"{path.name} is damaged: the training goes on from an earlier epoch", flush=True)
    return None


def load(path: Path, device: torch.device) -> Json | None:
    """Return the tensors and plain values of a file, never code (weights_only); None if there is no file."""
    if not path.exists():
        return None
    place = device if device.type == "cpu" else "cpu"
    with files.open_binary(path) as file:
        loaded: Json = torch.load(file, map_location=place, weights_only=True)
    return loaded
