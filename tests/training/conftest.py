"""Fixtures of the tests of the training engine."""

import pytest
import torch
from gpus import NEEDS_GPU


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute as a job does, and leave the process as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request):
    return torch.device(request.param)
