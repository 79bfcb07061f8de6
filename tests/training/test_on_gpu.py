"""Trainings on a GPU end with the same bits: again, taken up, streamed, compiled; and they leave no mode."""

import pytest
import torch
from gpus import NEEDS_GPU, no_waiting, restored
from sessions import CUDA, TRAININGS, end, make, on_gpu, outcome, without_times

from ablate.training import loop

COMPILED = {"model": {"width": 0.125}, "training": {"compile": True, "epochs": 2}}


@NEEDS_GPU
@pytest.mark.parametrize("name", ["crop, flip", "everything in bf16", "adam", "cosine, no batch norm"])
def test_a_training_on_a_gpu_ends_with_the_same_bits_again_taken_up_and_streamed(name, digits):
    recipe = make(**TRAININGS[name])
    reference = end(on_gpu(recipe, digits))
    assert outcome(end(on_gpu(recipe, digits))) == outcome(reference)
    streamed = end(on_gpu(recipe, digits, memory=0))
    assert streamed.train.streamed
    assert outcome(streamed) == outcome(reference)
    first = on_gpu(recipe, digits)
    next(loop.epochs(first))
    other = on_gpu(recipe, digits)
    loop.restore(other, loop.snapshot(first))
    assert outcome(end(other)) == outcome(reference)


@NEEDS_GPU
@pytest.mark.filterwarnings("default")  # torch's own
def test_a_compiled_training_on_a_gpu_learns_what_a_plain_one_does_and_can_be_taken_up(digits):
    recipe = make(**COMPILED)
    session = on_gpu(recipe, digits)
    lines = loop.epochs(session)
    next(lines)
    middle = loop.snapshot(session)
    for _ in lines:
        pass
    again = on_gpu(recipe, digits)
    loop.restore(again, middle)
    assert outcome(end(again)) == outcome(session)
    plain = end(on_gpu(make(**COMPILED | {"training": {"epochs": 2}}), digits))
    for ours, theirs in zip(without_times(session.history), without_times(plain.history), strict=True):
        ours["metrics"].pop("time/compile_seconds", None)
        assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=0.05)


@NEEDS_GPU
def test_a_read_of_the_gpu_is_an_error_where_none_is_allowed():
    x = torch.ones(3, device=CUDA)
    with no_waiting(), pytest.raises(RuntimeError, match="synchron"):
        x.sum().item()
    assert x.sum().item() == 3


def test_what_a_training_sets_is_restored():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with restored():
        torch.use_deterministic_algorithms(not before[0], warn_only=True)
        torch.backends.cudnn.benchmark = not before[1]
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
