"""The learning-rate schedules by name, with the fields of each; `ablate/recipe/rates.py` computes them.

A new one is a row here and a function there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ablate.recipe.section import Need, Section, one_of


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a schedule."""

    fields: tuple[str, ...] = ()  # of the section, that it uses


SCHEDULES = {
    "constant": Facts(),
    "step": Facts(("step_epochs", "gamma")),
    "cosine": Facts(),
    "one_cycle": Facts(("warmup", "flanks", "start", "end")),
}
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(SCHEDULES)]


class Schedule(Section):
    """The learning rate over the training, as a share of `optimizer.lr`, set before every step."""

    name: Name = "one_cycle"
    """`one_cycle`: up from `start` to 1 and down to `end` (Smith and Topin 2018; torch's OneCycleLR)."""
    warmup: float = Field(0.2, ge=0, lt=1)
    """Share of the training in which `one_cycle` rises."""
    flanks: Literal["cosine", "linear"] = "cosine"
    """How `one_cycle` rises and falls (torch's anneal_strategy)."""
    start: float = Field(1 / 25, gt=0, le=1)
    """Share of the rate that `one_cycle` starts from (1 by torch's div_factor)."""
    end: float = Field(1 / 250_000, gt=0, le=1)
    """Share of the rate that `one_cycle` ends with (1 by torch's div_factor and final_div_factor)."""
    step_epochs: int = Field(10, ge=1)
    """Epochs between two drops of `step`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor of each drop of `step`."""


def _need(field: str) -> Need:
    users = tuple(name for name, facts in SCHEDULES.items() if field in facts.fields)
    using: Callable[[Any], bool] = lambda recipe: recipe.schedule.name in users  # noqa: E731
    return Need(using, (("schedule.name", one_of(users)),))


NEEDS = {f"schedule.{field}": _need(field) for facts in SCHEDULES.values() for field in facts.fields}
