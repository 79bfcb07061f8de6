"""What identifies a training: its canonical form, its identity, its random streams."""

import hashlib
import json
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ablate.recipe.fields import Recipe, fields, is_active, value

NUMERICS = 2
"""Raised when the same recipe would train to other numbers (a changed default, a bug fixed, ...)."""

ID_SHOWN = 12
"""Hex digits of an identity that people see; all 64 are kept."""


def canonical(recipe: Recipe, *, evaluation: bool = True) -> dict[str, Any]:
    """Reduce a recipe to what identifies it: active fields that differ from their default, without paths.

    Leaving defaults out keeps every known identity when a later version adds a field; a default that changes
    its value raises `NUMERICS` instead.
    """
    skipped = () if evaluation else ("evaluation",)
    return {
        section: short
        for section in Recipe.model_fields
        if section not in skipped and (short := _differing(recipe, section))
    }


def _differing(recipe: Recipe, section: str) -> dict[str, Any]:
    """Reduce one section of a recipe to its active fields that differ from their default, without paths."""
    short: dict[str, Any] = {}
    for path, info in _of_section(section).items():
        here = value(recipe, path)
        if path == "data.root" or here == info.default or not is_active(recipe, path):
            continue
        short[path.partition(".")[2]] = here.model_dump() if isinstance(here, BaseModel) else here
    return short


@cache
def _of_section(section: str) -> dict[str, FieldInfo]:
    return {path: info for path, info in fields().items() if path.partition(".")[0] == section}


def digest(content: object) -> str:
    """Hash any JSON-able value: sha256 of its JSON with sorted keys, 64 hex digits.

    15 and 15.0 are one number.
    """
    text = json.dumps(_one_form(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _one_form(content: object) -> object:
    match content:
        case float() if content.is_integer():
            return int(content)
        case dict():
            return {key: _one_form(part) for key, part in content.items()}
        case list() | tuple():
            return [_one_form(part) for part in content]
    return content


def job_id(recipe: Recipe, seed: int, data: str, code: str = "", start: str = "") -> str:
    """Return the identity of one training, 64 hex digits.

    It covers the recipe without its evaluation, the seed, the numerics version, the fingerprints of the data
    and of the code of a user's own network, and the training whose weights it starts from.
    """
    return seeded(training(recipe, data, code), seed, start)


def training(recipe: Recipe, data: str, code: str = "") -> dict[str, Any]:
    """Return what identifies the trainings of a recipe, but for their seeds: what takes the time."""
    assert recipe.training.precision != "auto", "precision is settled before a job gets its identity"
    own = {"code": code} if code else {}
    return {"recipe": canonical(recipe, evaluation=False), "data": data, "numerics": NUMERICS} | own


def seeded(training: dict[str, Any], seed: int, start: str = "") -> str:
    """Return the identity of one training: of these, the one with this seed, and what it starts from."""
    return digest(training | {"seed": seed} | ({"start": start} if start else {}))


def evaluation_id(recipe: Recipe) -> str:
    """Return the identity of the way in which a trained model is evaluated."""
    return digest(_differing(recipe, "evaluation"))


def stream_seed(seed: int, role: str) -> int:
    """Return the seed of the generator of one role (init, split, order, crop, flip, ...), 63 bits.

    Each role has a generator of its own, so that switching one choice on leaves the draws of all others where
    they were: that is what makes the runs of one seed comparable pairs.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{role}".encode()).digest()[:8]) >> 1
