"""Fixtures of the tests of the training engine."""

import pytest
import torch
from gpus import NEEDS_GPU
from sessions import make

from ablate.training import data


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


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Prepare the digits that the short trainings of builders/sessions.py see."""
    return data.prepare(make().data, tmp_path_factory.mktemp("cache"))
