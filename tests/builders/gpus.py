"""What the tests of a GPU share: they are skipped, with the reason, where there is none."""

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
ON_GPU = (pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device"))
"""The marks of a parameter that needs a GPU."""


def NEEDS_GPU(test):  # noqa: N802 (as a mark)
    """Mark a test that needs a GPU: `pytest -m gpu` runs all of them."""
    for mark in ON_GPU:
        test = mark(test)
    return test
