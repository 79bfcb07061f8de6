"""A copy of a training's state is whole, its own, and written to the same bytes."""

import io

import pytest
import torch
from gpus import NEEDS_GPU
from sessions import CPU, EVERYTHING, fingerprint, make

from ablate.training import copies, data, loop


def trained(digits, device=CPU):
    """Return a training after its first epoch, and the epochs after that."""
    recipe = make(**EVERYTHING | {"optimizer": {"name": "adam", "lr": 0.003}})
    session = loop.start(recipe, 0, digits, data.open_arrays(digits.folder), device)
    epochs = loop.epochs(session)
    next(epochs)
    return session, epochs


def as_saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_copy_stays_as_the_training_was_and_is_saved_to_the_same_bytes(digits):
    session, epochs = trained(digits)
    weights, before = as_saved(session.network.state_dict()), fingerprint(loop.state(session))
    copy = copies.copied(loop.state(session), CPU)
    next(epochs)
    assert fingerprint(loop.state(session)) != before
    assert fingerprint(copy.content()) == before
    assert as_saved(copy.content()["network"]) == weights


def test_every_tensor_is_fetched_once_and_stands_in_the_place_of_the_first(digits):
    session, _ = trained(digits)
    state, fetched = loop.state(session) | {"again": [session.order.get_state()] * 2}, []

    def fetch(tensor):
        fetched.append(tensor)
        return tensor.clone()

    copy = copies.replaced(state, fetch)
    assert fingerprint(copy) == fingerprint(state)
    assert len({id(tensor) for tensor in fetched}) == len(fetched)
    storages = {tensor.data_ptr() for tensor in copies._tensors(state)}
    assert not storages & {tensor.data_ptr() for tensor in copies._tensors(copy)}
    assert copy["again"][0] is copy["again"][1]


@NEEDS_GPU
@pytest.mark.parametrize("others", [1, 50])
def test_a_copy_from_a_gpu_is_in_the_host_and_is_what_the_training_was_when_it_was_asked_for(digits, others):
    cuda = torch.device("cuda")
    session, epochs = trained(digits, cuda)
    expected = fingerprint(copies.replaced(loop.state(session), lambda tensor: tensor.cpu()))
    copy = copies.copied(loop.state(session), cuda)
    for _ in range(others):  # queued behind the copy
        for weight in session.network.parameters():
            weight.detach().add_(1)
    next(epochs)
    assert {tensor.device.type for tensor in copies._tensors(copy.content())} == {"cpu"}
    assert fingerprint(copy.content()) == expected
