"""Networks, built."""

import pytest

from ablate.recipe.fields import Model
from ablate.training import models
from ablate.training.models import Shape, summary
from ablate.training.surgery import ModelError

RGB = Shape(3, 32, 10)


def built(shape=RGB, *, seed=3, **fields):
    return models.build(Model(**fields), shape, seed=seed)


def summed(shape=RGB, **fields):
    return summary.summarise(Model(**fields), shape)


def refusal(shape=RGB, **fields):
    """Return the sentence with which a network is refused before anything is trained."""
    with pytest.raises(ModelError) as caught:
        summary.summarise(Model(**fields), shape)
    return str(caught.value)
