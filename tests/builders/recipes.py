"""Values that the fields of a recipe allow."""

from functools import cache
from typing import Any, get_args

from ablate.recipe import fields as recipe_fields
from ablate.study.checks import in_field

CANDIDATES = (
    *(None, False, True, 0, 1, 2, 3, 8, 16, 24, 32, 64, 0.05, 0.25, 0.5, 2.5, 15.5, "a", "b"),
    *(
        "cnn4",
        "resnet_small",
        "resnet18",
        "mobilenet_v2",
        "fusion",
        "nets:mine",
        ["a", "b"],
        {"depth": 3},
        {"shortcut": False},
        {"brightness": 0.5},
        {"hue": 0.1},
    ),
    *({"mean": [0.5], "std": [0.25]}, {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25]}),
)


@cache
def legal(path: str) -> tuple[Any, ...]:
    """List some values that a field allows, whatever fields there will be."""
    info = recipe_fields.fields()[path]
    kinds = [info.annotation, *get_args(info.annotation)]
    names = [name for kind in kinds for name in get_args(kind) if isinstance(name, str)]
    found = {repr(given): given for given in (*CANDIDATES, *names) if not in_field(info, given)}
    return tuple(given for given in found.values() if given != "auto")
