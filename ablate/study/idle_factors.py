"""Factors that change nothing in any cell of a study: a mistake, told with what the factor needs."""

from collections.abc import Iterable

from ablate.errors import StudyError
from ablate.messages import near, show
from ablate.recipe import fields as recipe_fields
from ablate.recipe import networks
from ablate.recipe.fields import Recipe
from ablate.study.file import Study
from ablate.study.grid import Grid, matters


def check(study: Study, expanded: Grid) -> None:
    """Raise a StudyError that names each factor without effect in any cell, and the fields that it needs.

    A factor whose `when` never holds is left alone: a study file is often run with other values of the fields
    that its `when` asks for.
    """
    recipes = [cell.recipe for cell in expanded.cells]
    idle = [
        factor
        for factor in study.factors
        if factor.when is None and not any(matters(factor, recipe) for recipe in recipes)
    ]
    wrong = []
    for factor in idle:
        path = next(path for level in factor.levels for path in level.set)
        if recipe_fields.is_option(path):
            wrong.append(f"{study.source}: {_not_taken(path, recipes)}")
            continue
        needs = recipe_fields.BELONGS[path]
        joined = " or " if path == "evaluation.mc_dropout" else " and "
        belongs = joined.join(f"{other} {words}" for other, words in needs)
        here = [
            " or ".join(dict.fromkeys(show(recipe_fields.value(recipe, other)) for recipe in recipes))
            for other, _ in needs
        ]
        named = "" if factor.name == path else f"factor {factor.name}: "
        wrong.append(
            f"{study.source}: {named}{path} belongs to {belongs}, "
            f"and every cell has {' and '.join(here)}: it changes nothing"
        )
    if wrong:
        raise StudyError(wrong)


def _not_taken(path: str, recipes: Iterable[Recipe]) -> str:
    """Return that no network of a study has an argument, with what they have."""
    names = dict.fromkeys(recipe.model.name for recipe in recipes)
    known = list(dict.fromkeys(option for name in names for option in networks.facts(name).options))
    meant = near(path.rpartition(".")[2], known)
    has = ", ".join(known) or "none"
    return (
        f"factors.{path}: no network of the study takes it{meant}: the networks are {', '.join(names)}, "
        f"whose options are {has}"
    )
