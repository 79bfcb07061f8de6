"""Studies resolved without looking at images or networks: their fingerprints are said by the test."""

from ablate.planning.inputs import Inputs
from ablate.planning.resolve import Resolved, resolve_inputs
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study import grid
from ablate.study.file import Study
from ablate.study.grid import Fingerprints, Grid

IMAGES = "f" * 64


def fingerprints(expanded: Grid, data: str = IMAGES, code: str = "") -> Fingerprints:
    """Return the same images and the same code for every cell."""
    recipes = [cell.recipe for cell in expanded.cells]
    return Fingerprints(
        {recipe.data: data for recipe in recipes},
        {(recipe.model.name, recipe.model.pretrained): code for recipe in recipes},
    )


def resolved(study: Study, store: Store, data: str = IMAGES, code: str = "") -> Resolved:
    expanded = grid.expand(study, precision="fp32")
    return resolve_inputs(
        Inputs(study, store, Settled("fp32"), "fp32", expanded), fingerprints(expanded, data, code)
    )
