"""Facts about a run, from its job's folder and the store: user, commit, images, the size of its network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablate.errors import StoreError
from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity
from ablate.recipe.datasets import DATASETS, is_folder
from ablate.recipe.fields import Recipe, Section
from ablate.store import records
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.store.network import Network
from ablate.store.records import Environment, ImageSet, Result

NOT_SHOWN = ("data.root",)  # a path of one machine, and no part of what was trained


@dataclass(frozen=True, slots=True)
class Images:
    """A data set as MLflow lists it among the inputs of a run."""

    name: str
    digest: str
    kind: str  # of its source
    source: str  # JSON
    profile: str  # JSON


@dataclass(frozen=True, slots=True)
class Origin:
    """The content of a job's environment.json; empty as long as there is none."""

    tags: Mapping[str, str]
    data: str = ""  # fingerprint of the images


def text(value: Any) -> str:
    """Return a param's value as a study file has it; 15.0 becomes 15, so that a search finds both."""
    if isinstance(value, Section):
        return json.dumps(value.model_dump())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def fields(recipe: Recipe) -> dict[str, str]:
    """Return every field that matters in a recipe, by its path: they can filter the runs of all studies."""
    paths = (
        path
        for path in recipe_fields.fields()
        if path not in NOT_SHOWN and recipe_fields.is_active(recipe, path)
    )
    return {path: text(recipe_fields.value(recipe, path)) for path in paths}


def origin(folder: Folder) -> Origin:
    """Return where a job's last attempt was made."""
    path = folder.environment
    try:
        about = path.stat()
    except FileNotFoundError:
        return Origin({})
    return _origin(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=64)  # it may hold a diff of 200 KB, and is asked for at every epoch
def _origin(path: Path, _modified: int, _size: int) -> Origin:
    read = records.read_or_empty(path, Environment)
    tags = {"mlflow.user": read.user, "mlflow.source.git.commit": read.git.commit}
    dirty = {"mlflow.source.git.dirty": "true"} if read.git.dirty else {}
    return Origin({name: value for name, value in tags.items() if value} | dirty, read.data)


def images(data: recipe_fields.Data, fingerprint: str, store: Store) -> Images | None:
    """Return a description of a job's images, without reading them; None without their fingerprint."""
    if not fingerprint:
        return None
    own = is_folder(data.name) and data.root is not None
    name = (Path(data.root).name or data.root) if own and data.root is not None else data.name
    source = {"uri": data.root} if own else {"name": data.name}
    kind = DATASETS[data.name].source
    return Images(
        name[:500],
        fingerprint[: identity.ID_SHOWN],
        kind,
        json.dumps(source),
        _profile(store.data / fingerprint / "meta.json"),
    )


@lru_cache(maxsize=64)
def _profile(path: Path) -> str:
    try:
        meta = records.read(path, ImageSet)
    except StoreError:  # no result rests on it
        meta = None
    if meta is None:
        return json.dumps({"classes": 0})
    sizes = {"train images": meta.train, "test images": meta.test, "classes": len(meta.classes)}
    return json.dumps({**sizes, "image_size": meta.image_size, "channels": meta.channels})


def size(folder: Folder, result: Result) -> dict[str, float]:
    """Return the size of a trained network and the memory that its training took, as metrics."""
    model = records.read_or_empty(folder.model, Network)
    sizes = {
        "model/parameters": result.parameters, "model/macs": model.macs,
        "memory/peak_bytes": result.peak_memory,
    }  # fmt: skip
    return {name: float(value) for name, value in sizes.items() if value is not None}
