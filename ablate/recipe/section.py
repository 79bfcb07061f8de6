"""A section of the recipe: a table of the study file, checked; and when a field of one matters at all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

LARGEST = 2**63 - 1
"""Of whole numbers anywhere: what other programs can hold, and a float without an overflow."""

TOO_LARGE = f"must be at most {LARGEST:,}"


class Section(BaseModel):
    """One table of a recipe: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        if isinstance(given, dict) and (name := next((n for n, v in given.items() if is_too_large(v)), None)):
            raise ValueError(f"{name} {TOO_LARGE}")
        return given

    @model_validator(mode="before")
    @classmethod
    def _none(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        empty = {
            name: None
            for name, info in cls.model_fields.items()
            if given.get(name) == "none" and is_optional(info)
        }
        return given | empty


def is_too_large(given: Any) -> bool:
    """Whether a value is a whole number that no computer counts to, or a list with one."""
    if isinstance(given, list):
        return any(isinstance(part, int) and abs(part) > LARGEST for part in given)
    return isinstance(given, int) and abs(given) > LARGEST


def is_optional(info: FieldInfo) -> bool:
    """Whether a field may be `"none"`: TOML has no null, so the word stands for it."""
    return get_origin(info.annotation) in (Union, UnionType) and type(None) in get_args(info.annotation)


@dataclass(frozen=True, slots=True)
class Need:
    """What a field needs of others to matter: else it is no part of an identity, and no factor of a cell."""

    holds: Callable[[Any], bool]  # asked of a Recipe
    words: tuple[tuple[str, str], ...]  # other fields, and what each must be


def one_of(names: Iterable[str]) -> str:
    """Return which names a field may have: '= "sgd"', '= "step" or "cosine"'."""
    return "= " + " or ".join(f'"{name}"' for name in names)
