"""A step as one CUDA graph: always from the same place, what the ordinary loop computes, asking nothing."""

import pytest
import torch
from gpus import NEEDS_GPU, no_waiting
from sessions import (
    EVERYTHING,
    TRAININGS,
    Reads,
    Scalars,
    end,
    fingerprint,
    make,
    on_gpu,
    start,
    train,
    without_times,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.recipe import identity
from ablate.training import graph, loop, rehearsal
from ablate.training.models import Shape
from ablate.training.surgery import ModelError


def as_graph(**changes):
    return make(**changes | {"training": changes.get("training", {}) | {"compile": "graph"}})


def told(session):
    """Return the metrics of each epoch, a loss that is no number as text."""
    lines = without_times(session.history)
    return [repr({k: v for k, v in line["metrics"].items() if not k.startswith("time/")}) for line in lines]


@pytest.mark.parametrize("name", ["everything in bf16", "adam", "sgd without momentum", "diverging"])
def test_the_captured_step_leaves_the_bits_of_the_ordinary_loop(name, digits):
    changes = TRAININGS[name]
    ordinary, session = train(make(**changes), digits), train(as_graph(**changes), digits)
    assert session.replay is not None
    assert told(session) == told(ordinary)
    ours, theirs = (loop.snapshot(each) for each in (session, ordinary))
    for part in ("network", "order", "streams", "dropout"):
        assert fingerprint(ours[part]) == fingerprint(theirs[part]), part
    slots = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert fingerprint(slots[0]) == fingerprint(slots[1])


@pytest.mark.parametrize("name", ["plain", "adam"])
def test_a_captured_training_is_taken_up_with_the_same_bits(name, digits):
    recipe = as_graph(**TRAININGS[name])
    session = start(recipe, digits)
    lines = loop.epochs(session)
    next(lines)
    middle = loop.snapshot(session)
    for _ in lines:
        pass
    again = start(recipe, digits)
    loop.capture(again)  # what it has captured before is of another state
    loop.restore(again, middle)
    assert again.replay is None
    for _ in loop.epochs(again):
        pass
    assert told(again) == told(session)
    bits = [{**loop.snapshot(each), "history": []} for each in (again, session)]
    assert fingerprint(bits[0]) == fingerprint(bits[1])


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_capture_leaves_no_trace(changes, digits):
    session, other = start(as_graph(**changes), digits), start(make(**changes), digits)
    assert loop.compile_step(session) >= 0
    ours, theirs = loop.snapshot(session), loop.snapshot(other)
    slots = [slot for own in ours.pop("optimizer")["state"].values() for slot in own.values()]
    theirs.pop("optimizer")
    assert slots
    assert not any(slot.any() for slot in slots)
    assert fingerprint(ours) == fingerprint(theirs)


class Places(TorchDispatchMode):
    """Notes what is computed, of which shapes; and the memory that is written in place."""

    def __init__(self):
        super().__init__()
        self.shapes, self.written = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves((args, out)) if isinstance(part, torch.Tensor)]
        self.shapes.append((func.name(), tuple(tuple(part.shape) for part in tensors)))
        if func.name().startswith(("aten::copy_", "aten::_fused")):
            self.written |= {
                part.data_ptr() for part in tree_leaves(args[0]) if isinstance(part, torch.Tensor)
            }
        return out


@pytest.mark.parametrize("name", ["everything in bf16", "adam"])
def test_each_step_is_of_the_same_operations_shapes_and_places_and_asks_for_no_number(name, digits):
    session = start(as_graph(**TRAININGS[name]), digits)
    loop.capture(session)
    batches = list(loop.shuffled(session))
    loop.surgery.train(session.network)
    loop.set_lr(session, 0.01)
    steps = []
    with Reads() as reads, Scalars() as scalars:
        for batch in batches:
            with Places() as places:
                session.replay(batch)
            steps.append(places)
    assert len(steps) >= 3
    assert reads.seen == scalars.seen == []
    for step in steps[1:]:
        assert step.shapes == steps[0].shapes
        assert step.written == steps[0].written


def test_a_batch_of_another_size_is_no_batch_of_a_graph(digits):
    session = start(as_graph(), digits)
    loop.capture(session)
    with pytest.raises(AssertionError, match="whole"):
        session.replay(next(session.train.batches(7)))


def test_a_graph_has_a_place_of_its_own(digits):
    session = start(as_graph(**EVERYTHING), digits)
    example, other = list(loop.shuffled(session))[:2]
    before = example.images.clone(), example.labels.clone(), example.mixed.share.clone()
    replay = graph.captured(lambda batch: batch.images.sum().view(1), example, lambda: None)
    assert replay(other) == other.images.sum()
    after = example.images, example.labels, example.mixed.share
    assert all(torch.equal(one, same) for one, same in zip(before, after, strict=True))


def test_all_batches_of_an_epoch_are_whole(digits):
    session = start(as_graph(), digits)
    assert len(session.train) % 32
    assert {len(batch.labels) for batch in loop.shuffled(session)} == {32}


def test_the_learning_rate_of_each_step_is_written_where_the_graph_reads_it(digits):
    session = start(as_graph(optimizer={"name": "adamw", "lr": 0.003}), digits)
    (group,) = session.optimizer.param_groups
    rate, seen = group["lr"], []
    assert group["capturable"]
    for _ in loop.steps(session):
        assert session.optimizer.param_groups[0]["lr"] is rate
        seen.append(rate.item())
    assert len(set(seen)) == len(seen) == 3


def test_a_graph_is_of_the_identity_and_no_other_value_is_moved_by_it():
    ids = [identity.job_id(make(training={"compile": way}), 0, "x") for way in (False, True, "graph")]
    assert len(set(ids)) == 3
    assert ids[0] == identity.job_id(make(), 0, "x")
    assert identity.canonical(make(training={"compile": True}))["training"]["compile"] is True


class Counts(torch.nn.Module):
    def __init__(self, way):
        super().__init__()
        self.head, self.way = torch.nn.Linear(192, 10), way

    def forward(self, x):
        x = self.head(x.flatten(1))
        if self.way == "item":
            return x * (1 if x.sum() > 0 else 2)
        if self.way == "mask":
            return x + x[x > 0].sum()
        if self.way == "random":
            import random

            return x * random.choice([1, 2])
        return x


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("item", "waits for its numbers (item)"),
        ("mask", "(indices by a mask)"),
        ("random", "draws from random"),
    ],
)
def test_a_network_that_cannot_be_captured_is_a_sentence_before_any_training(way, why, monkeypatch):
    monkeypatch.setattr(rehearsal.models, "build", lambda *_, **__: Counts(way))
    with pytest.raises(ModelError) as raised:
        rehearsal.rehearse(as_graph(), Shape(3, 8, 10))
    assert why in str(raised.value)
    assert "training.compile = false" in str(raised.value)
    rehearsal.rehearse(make(), Shape(3, 8, 10))
    monkeypatch.setattr(rehearsal.models, "build", lambda *_, **__: Counts(""))
    rehearsal.rehearse(as_graph(), Shape(3, 8, 10))


def test_a_capture_that_fails_is_a_sentence_and_a_want_of_memory_stays_one():
    refused = RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch for ...")
    assert graph.refusal(refused) == (
        "this training step cannot be a CUDA graph (CUDA error: operation not permitted when stream is "
        "capturing): take training.compile = false"
    )
    memory = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert graph.refusal(memory) is None


# On a GPU


# CUDA's kernels take the rate of a graph in 32 bits: this one is the same in 64.
EXACT = {"schedule": {"name": "constant"}, "optimizer": {"lr": 0.0625}}


@NEEDS_GPU
@pytest.mark.parametrize("name", ["crop, flip", "everything in bf16", "adam"])
def test_a_graph_learns_what_the_ordinary_loop_does_and_is_taken_up_with_the_same_bits(name, digits):
    changes = dict(TRAININGS[name])
    changes |= {section: changes.get(section, {}) | fields for section, fields in EXACT.items()}
    ordinary, recipe = end(on_gpu(make(**changes), digits)), as_graph(**changes)
    session = on_gpu(recipe, digits)
    lines = loop.epochs(session)
    first, middle = next(lines), loop.snapshot(session)
    for name in ("train/loss", "train/accuracy"):
        assert first["metrics"][name] == pytest.approx(ordinary.history[0]["metrics"][name], abs=1e-6)
    for _ in lines:
        pass
    again = on_gpu(recipe, digits)
    loop.restore(again, middle)
    assert told(end(again)) == told(session)
    assert fingerprint(again.network.state_dict()) == fingerprint(session.network.state_dict())
    assert told(end(on_gpu(recipe, digits, memory=0))) == told(session)


@NEEDS_GPU
def test_a_replay_waits_for_nothing_and_dropout_draws_anew_in_each(digits):
    recipe = as_graph(model={"conv_dropout": 0.5}, optimizer={"lr": 1e-30})
    session = on_gpu(recipe, digits)
    loop.capture(session)
    loop.set_lr(session, 0.0)
    batch = next(loop.shuffled(session))
    with no_waiting():
        losses = [session.replay(batch) for _ in range(4)]
    assert len({loss[0].item() for loss in losses}) == 4
