"""The answers of a trained network to pictures that it has not been trained or tested on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ablate.recipe.fields import Recipe
from ablate.training import evaluate
from ablate.training.data import Prepared
from ablate.training.datasets.decoding import Images
from ablate.training.images import normalisation, place

Network = nn.Module
Shares = NDArray[np.float32]  # (N, K)


def predict(
    network: nn.Module, recipe: Recipe, seed: int, prepared: Prepared, pixels: Sequence[Images], device: str
) -> tuple[Shares, Shares]:
    """Return the probability of each class for each picture, and its standard deviation over the passes.

    As in the evaluation of the test images: by the recipe's passes with dropout and its views, and where
    there is one pass of one view, a deviation of 0.
    """
    if not pixels:
        return np.zeros((0, len(prepared.classes)), np.float32), np.zeros((0, 0), np.float32)
    images = place(
        normalisation(recipe, prepared),
        np.stack(pixels),
        np.zeros(len(pixels), np.int64),
        np.arange(len(pixels)),
        torch.device(device),
    )
    means, spreads = evaluate.probabilities(network, recipe, seed, images)
    return means.numpy(), spreads.numpy()
