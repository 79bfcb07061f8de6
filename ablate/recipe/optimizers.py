"""The optimizers by name, with what is known of each; `ablate/training/optim.py` makes them.

A new one is a row here and a function there. A field of its own stands in the section below, and its need
with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from ablate.recipe.section import Need, Section, one_of


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an optimizer."""

    lr: float  # the customary rate
    fields: tuple[str, ...] = ()  # of the section, that it uses beside lr and weight_decay


OPTIMIZERS = {
    "sgd": Facts(0.1, ("momentum", "nesterov")),  # He et al. 2016, section 4.2
    "adam": Facts(1e-3),  # Kingma and Ba 2015, section 2
    "adamw": Facts(1e-3),
}
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(OPTIMIZERS)]


class Optimizer(Section):
    """How the weights are updated."""

    name: Name = "sgd"
    lr: float = Field(gt=0, le=100)
    """Peak learning rate. Left out: 0.1 for sgd, 0.001 for adam and adamw. In a study, `"find"`: what a
    range test of the cell suggests."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(5e-4, ge=0, le=1)
    """On every parameter: an L2 gradient for sgd and adam, decoupled for adamw (Loshchilov and Hutter
    2019)."""
    nesterov: bool = True
    """Of sgd with momentum (Sutskever et al. 2013, section 2)."""

    @model_validator(mode="wrap")
    @classmethod
    def _default_lr(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the customary rate where none is set; `lr` is then not in `model_fields_set`."""
        name = given.get("name", "sgd") if isinstance(given, dict) and "lr" not in given else None
        if name not in OPTIMIZERS:
            return handler(given)
        optimizer = handler({**given, "lr": OPTIMIZERS[name].lr})
        optimizer.model_fields_set.discard("lr")
        return optimizer


def _using(field: str) -> Callable[[Any], bool]:
    return lambda recipe: field in OPTIMIZERS[recipe.optimizer.name].fields


def _users(field: str) -> tuple[str, str]:
    return "optimizer.name", one_of(name for name, facts in OPTIMIZERS.items() if field in facts.fields)


NEEDS = {
    "optimizer.momentum": Need(_using("momentum"), (_users("momentum"),)),
    "optimizer.nesterov": Need(
        lambda recipe: _using("nesterov")(recipe) and recipe.optimizer.momentum > 0,
        (_users("nesterov"), ("optimizer.momentum", "above 0")),
    ),
}
