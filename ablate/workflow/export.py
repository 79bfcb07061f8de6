"""The story of `ablate export`: a finished run as a folder that needs no ablate."""

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from ablate import __version__
from ablate.errors import AblateError
from ablate.execution.options import Where
from ablate.recipe import metrics
from ablate.workflow import trained
from ablate.workflow.trained import Trained


@dataclass(frozen=True, slots=True)
class Exported:
    """What `ablate export` has written."""

    run: str
    job: str
    folder: Path
    files: dict[str, int]  # bytes by name
    notes: tuple[str, ...]


def export(run: str, folder: Path, where: Where, *, onnx: bool = False) -> Exported:
    """Write a finished run into a folder, whole or not at all.

    Raises an AblateError where that folder has anything in it, or the run or its network will not do.
    """
    _check_free(folder)
    own = trained.find(run, where)
    network, note = trained.network(own, "cpu")
    from ablate.training import export as exporting

    draft = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft.mkdir()
    try:
        exporting.write(draft, network, _about(own), onnx=onnx)
        settled = own.recipe.model_dump(mode="json")
        settled["data"].pop("root")  # a path of this machine
        recipe = {"job": own.job, "seed": own.seed, "recipe": settled}
        (draft / "recipe.json").write_text(json.dumps(recipe, indent=1), encoding="utf-8")
        shutil.rmtree(draft / "__pycache__", ignore_errors=True)
        sizes = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
        try:
            os.rename(draft, folder)  # noqa: PTH104 (Path.rename says the same; an empty folder is replaced)
        except OSError:
            _check_free(folder)
            raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    evaluation = own.recipe.evaluation
    notes = (
        note,
        own.warning,
        "it computes in fp32, and was trained in bf16" if own.recipe.training.precision == "bf16" else "",
        "the run was evaluated by several passes over each image, and load.py makes one"
        if evaluation.mc_dropout or evaluation.tta != "none"
        else "",
    )
    return Exported(own.name, own.job, folder, sizes, tuple(filter(None, notes)))


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        what = "has something in it" if folder.is_dir() else "is a file"
        raise AblateError(f"{folder} must be a new or an empty folder, and {what}: choose another name")


def _about(own: Trained) -> dict[str, object]:
    """Return what model.json says: all that the script needs, and where the network comes from."""
    from ablate.execution import provenance
    from ablate.training import images

    prepared, recipe = own.prepared, own.recipe
    normalize = images.normalisation(recipe, prepared)
    measured = {}
    if own.evaluation is not None:
        every = metrics.with_derived(own.evaluation.metrics, own.evaluation.confusion)
        measured = {name: value for name, value in every.items() if not name.startswith(metrics.PER_CLASS)}
    return {
        "run": own.name,
        "job": own.job,
        "network": recipe.model.name,
        "parameters": own.result.parameters,
        "classes": list(prepared.classes),
        "channels": prepared.channels,
        "image_size": prepared.image_size,
        "mean": list(normalize.mean),
        "std": list(normalize.std),
        "weights": recipe.evaluation.select,
        "metrics": measured,
        "versions": {"ablate": __version__, **provenance.versions()},
    }
