"""Short range tests on the CPU."""

from sessions import CPU

from ablate.recipe.range_test import Sweep
from ablate.training import data, lr_finder

SHORT = Sweep(low=1e-4, high=0.1, steps=12)
PLAIN = {"crop": "none", "flip": False}


def sweep(recipe, prepared, plan=SHORT, seed=0, **options):
    return lr_finder.sweep(recipe, seed, prepared, data.open_arrays(prepared.folder), CPU, plan, **options)
