"""What the tests of a GPU share: they are skipped, with the reason, where there is none."""

import warnings
from contextlib import contextmanager

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


@contextmanager
def no_waiting():
    """Let every operation that waits for the GPU raise a RuntimeError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def restored():
    """Leave the modes of torch that a training on a GPU sets as they were."""
    deterministic = torch.utils.deterministic
    is_on, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fills, chooses = deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_on, warn_only=only_warns)
        deterministic.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = chooses
        if HAS_GPU:
            torch.cuda.set_sync_debug_mode("default")
