"""Fixtures of the tests of the training engine."""

import copy

import pytest
import torch
from augmented import SHAPES, noise
from gpus import ON_GPU, restored
from patients import NETWORKS, original
from sessions import make

from ablate.training import data, loop


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute as a job does, and leave the process as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with restored():
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_GPU)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Prepare the digits that the short trainings of builders/sessions.py see."""
    return data.prepare(make().data, tmp_path_factory.mktemp("cache"))


# What a range test does


@pytest.fixture
def sessions(monkeypatch):
    """Collect the sessions that are started, each with a copy of its network as it was then."""
    seen, real = [], loop.start

    def spy(*args, **kwargs):
        session = real(*args, **kwargs)
        seen.append((session, copy.deepcopy(session.network)))
        return session

    monkeypatch.setattr(loop, "start", spy)
    return seen


@pytest.fixture
def batches(monkeypatch):
    """Collect the batches that are trained on."""
    seen, real = [], loop.step

    def spy(session, batch):
        seen.append(batch)
        return real(session, batch)

    monkeypatch.setattr(loop, "step", spy)
    return seen


# Images to augment


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def images(request, shape):
    return noise(shape).contiguous(memory_format=request.param)


# Networks to operate on


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]


@pytest.fixture
def network(case):
    return copy.deepcopy(original(case[0]))
