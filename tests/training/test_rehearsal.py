"""Networks of one's own as people write them: each trains in a fitting memory format or is refused."""

import random

import numpy as np
import pytest
import torch

from ablate.recipe.fields import Augment, Data, Model, Optimizer, Recipe, Training
from ablate.training import data, evaluate, images, layout, loop, lr_finder, models, rehearsal
from ablate.training.models import Shape
from ablate.training.surgery import ModelError

HEADER = """
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, classes, channels, size):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.head, self.side = nn.Linear(4 * size**2, classes), nn.Linear(4, classes)
        self.set_up(classes, channels, size)
    def set_up(self, classes, channels, size): pass
    def flat(self, x): return F.relu(self.conv(x)).flatten(1)
    def forward(self, x): return self.head(self.flat(x))

"""
MAKE = "\ndef net(classes, channels, image_size): return Mine(classes, channels, image_size)\n"
VIEW = (
    "class Mine(Net):\n    def forward(self, x): return self.head(F.relu(self.conv(x)).view(x.size(0), -1))"
)
FIRST = (
    "class Mine(Net):\n    def forward(self, x): return self.head(self.conv(x.view(x.size(0), "
    "-1).view(x.shape)).reshape(len(x), -1))"
)
EVAL = (
    "class Mine(Net):\n    def flat(self, x): return self.conv(x).flatten(1) if self.training else "
    "self.conv(x).view(len(x), -1)"
)
LAZY = """
class Mine(nn.Sequential):
    def __init__(self, classes, channels, size):
        layers = (nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Dropout(0.1), nn.Flatten())
        super().__init__(*layers, nn.LazyLinear(classes))
"""
SHAPE = Shape(1, 16, 3)


@pytest.fixture
def mine(tmp_path, monkeypatch, request):
    """Return a function that writes a class `Mine` to a module and returns the name of the network."""
    name = f"own_{abs(hash(request.node.nodeid)):x}"
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / f"{name}.py").write_text(HEADER + text + ("" if "def net(" in text else MAKE))
        return f"{name}:net"

    return write


def recipe(name, **training):
    return Recipe(
        data=Data(name="digits", image_size=16, train_size=60, validation=20),
        augment=Augment(crop="none", flip=False),
        model=Model(name=name),
        optimizer=Optimizer(name="adam", lr=0.005),
        training=Training(**{"epochs": 2, "batch_size": 16, "precision": "fp32", **training}),
    )


def refusal(name, **training):
    with pytest.raises(ModelError) as caught:
        rehearsal.rehearse(recipe(name, **training), SHAPE)
    assert str(caught.value).startswith(name)
    return str(caught.value)


# The memory format


@pytest.mark.parametrize(("text", "chosen"), [
    (VIEW, "contiguous"),
    (FIRST, "contiguous"),
    ("class Mine(Net): pass", "channels_last"),
    (LAZY, "channels_last"),
    ("class Mine(Net):\n    def forward(self, x): raise KeyError('in both')", "channels_last"),
    (EVAL, "contiguous"),
])  # fmt: skip
def test_a_network_runs_in_channels_last_unless_it_gets_further_without(mine, text, chosen):
    name = mine(text)
    assert layout.choose(Model(name=name), Shape(3, 16, 3), "fp32", "cpu") == chosen


def test_networks_that_are_not_ones_own_are_never_tried(monkeypatch):
    monkeypatch.setattr(models, "build", None)
    assert {
        layout.choose(Model(name=name), SHAPE, "fp32", "cpu") for name in ("cnn4", "vgg11", "fusion")
    } == {"channels_last"}


def test_choosing_disturbs_no_random_numbers(mine):
    name = mine(
        "class Mine(Net):\n    def forward(self, x): return super().forward(x + random.random() + "
        "np.random.rand())"
    )
    torch.manual_seed(3), random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002 (the global one is meant)
    layout.choose(Model(name=name), SHAPE, "fp32", "cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[2]) == before[1:]  # noqa: NPY002


def started(name, tmp_path, seed=0, **training):
    made = recipe(name, **training)
    prepared = data.prepare(made.data, tmp_path / "data")
    return (
        made,
        prepared,
        loop.start(made, seed, prepared, data.open_arrays(prepared.folder), torch.device("cpu")),
    )


@pytest.mark.parametrize("text", [VIEW, FIRST, LAZY])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_trained_resumed_and_judged(mine, tmp_path, text, precision):
    name = mine(text)
    made, prepared, whole = started(name, tmp_path, precision=precision)
    lines = list(loop.epochs(whole))
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["metrics"]["train/loss"] < lines[0]["metrics"]["train/loss"]
    half = started(name, tmp_path, precision=precision)[2]
    next(loop.epochs(half))
    state = loop.snapshot(half)
    resumed = started(name, tmp_path, precision=precision)[2]
    loop.restore(resumed, state)
    list(loop.epochs(resumed))
    ends = [session.network.state_dict() for session in (whole, resumed)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    network = models.build(made.model, Shape(1, 16, 10), seed=0)
    network.load_state_dict(ends[0])
    test = images.for_test(made, prepared, data.open_arrays(prepared.folder), torch.device("cpu"))
    loaded = layout.place(network, made.model, Shape(1, 16, 10), precision, torch.device("cpu"))
    assert torch.equal(
        evaluate.predict(loaded, made, 0, test), evaluate.predict(whole.network, made, 0, test)
    )


def test_its_rate_is_found(mine, tmp_path):
    made, prepared, _ = started(mine(VIEW), tmp_path)
    curve = lr_finder.sweep(
        made, 0, prepared, data.open_arrays(prepared.folder), torch.device("cpu"), lr_finder.Sweep(steps=5)
    )
    assert len(curve.losses) > 1


def test_the_numbers_of_a_network_that_needs_it_are_those_of_plain_torch(mine, tmp_path):
    session = started(mine(VIEW), tmp_path)[2]
    x = next(session.validation.batches(20)).images
    plain = session.network.head(
        session.network.conv(x.clone(memory_format=torch.contiguous_format)).relu().flatten(1)
    )
    assert torch.equal(session.network.eval()(x), plain)
    assert session.network.conv.weight.is_contiguous()


def test_lazy_weights_are_drawn_from_the_seed(mine):
    model = Model(name=mine(LAZY))
    one, same, other = (models.build(model, SHAPE, seed=seed).state_dict() for seed in (4, 4, 5))
    assert one["4.weight"].shape == (3, 4 * 14**2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["4.weight"], other["4.weight"])
    assert one["1.running_mean"].abs().sum() == 0  # no statistics of an image of zeros


# What is told before a training


FORWARD = "class Mine(Net):\n    def forward(self, x): return "
SET_UP = "class Mine(Net):\n    def set_up(self, classes, channels, size): "
WRONG_SHAPE = "one score a class, a tensor of shape (2, 3) for 2 images, and gave a tensor of shape (2, 2)"
POOLED = (
    "def net(classes, channels, image_size): return nn.Sequential(nn.Flatten(), "
    "nn.AdaptiveAvgPool1d(classes))"
)
WITH_MASK = "class Mine(Net):\n    def forward(self, x, mask): return super().forward(x)"
LATE = """class Mine(Net):
    def forward(self, x):
        if not hasattr(self, 'more'): self.more = nn.Linear(3, 3)
        return self.more(super().forward(x))"""
PLAIN = (
    SET_UP
    + "self.mix = torch.randn(classes, classes)\n    def forward(self, x): return super().forward(x) @ "
    "self.mix"
)
SHARED = "class Mine(Net): pass\nNET = Mine(3, 1, 16)\ndef net(classes, channels, image_size): return NET"
HIDDEN = """class Mine(Net):
    def set_up(self, classes, channels, size): self.late = nn.LazyLinear(classes)
    def forward(self, x): return self.late(self.flat(x)) if self.training else super().forward(x)"""
REFUSED = {
    "tuple": (
        FORWARD + "(super().forward(x), 1) if self.training else super().forward(x)",
        "and gave a tuple in training mode: return",
    ),
    "dict": (
        FORWARD + "{'out': super().forward(x)} if self.training else super().forward(x)",
        "and gave a dict in training mode",
    ),
    "classes": (FORWARD + "super().forward(x)[:, :2]", WRONG_SHAPE),
    "squeeze": (FORWARD + "super().forward(x).squeeze()", "and gave a tensor of shape (3,) in eval mode"),
    "frozen": (SET_UP + "self.requires_grad_(False)", ("has nothing to train: all of its parameters are "
                                                      "frozen")),
    "empty": (POOLED, "it has no parameters"),
    "detached": (FORWARD + "super().forward(x).detach()", "is there a torch.no_grad or a detach in forward?"),
    "double": (SET_UP + "self.double()", "computes in float64, and images come in float32"),
    "arguments": (WITH_MASK, "must take the images alone: forward(self, x)"),
    "nan": (FORWARD + "super().forward(x) * float('nan')", ("gives scores that are not finite numbers (its "
                                                           "first loss is nan)")),
    "batch": (FORWARD + "self.head(self.flat(x).reshape(64, -1))", "cannot take a training step ("),
    "late": (LATE, "makes layers while it runs, and they are not trained"),
    "plain": (PLAIN, "register_buffer"),
    "shared": (SHARED, "has returned before: build new ones"),
    "inplace": (FORWARD + "super().forward(x).sigmoid_().sqrt_().exp_().mul_(2)", ("changes a tensor in "
                                                                                  "place that its gradient "
                                                                                  "needs")),
    "hidden": (HIDDEN, "lazy layers that only training mode"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_be_trained_is_a_sentence(mine, mistake):
    text, said = REFUSED[mistake]
    assert said in refusal(mine(text))


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is another error")
def test_a_network_that_moves_tensors_to_a_gpu_is_told_what_to_take_out(mine):
    assert "take .cuda() and .to(device) out" in refusal(mine(FORWARD + "super().forward(x.cuda())"))


NOTED = {
    "softmax": (FORWARD + "super().forward(x).softmax(1)", "ends in a softmax"),
    "log_softmax": (FORWARD + "super().forward(x).log_softmax(1)", "ends in a log_softmax"),
    "dropout": (FORWARD + "self.head(F.dropout(self.flat(x)))", "gives other scores each time in eval mode"),
    "entropy": (
        SET_UP + "nn.init.constant_(self.head.bias, np.random.default_rng().normal())",
        "starts from other weights each time",
    ),
}


@pytest.mark.parametrize("habit", NOTED)
def test_what_works_and_is_hardly_meant_is_a_note(mine, habit):
    text, said = NOTED[habit]
    (note,) = rehearsal.rehearse(recipe(mine(text)), SHAPE).notes
    assert said in note


@pytest.mark.parametrize("text", [
    "class Mine(Net): pass", VIEW, FIRST, LAZY,
    SET_UP + "self.more = nn.BatchNorm1d(classes)\n    def forward(self, x): return "
             "self.more(super().forward(x))",
    SET_UP + "self.conv.requires_grad_(False)",
    FORWARD + "self.head(F.dropout(self.flat(x), training=self.training))",
    FORWARD + "super().forward(x + np.random.rand() if self.training else x)",
    SET_UP + "self.double()\n    def forward(self, x): return super().forward(x.double())",
])  # fmt: skip
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_trains_is_left_in_peace(mine, text, precision):
    assert (
        rehearsal.rehearse(
            recipe(mine(text), precision=precision, label_smoothing=0.1, gradient_clip=1.0), SHAPE
        ).notes
        == ()
    )


SLOW = ("vgg11_bn", "googlenet")  # seconds each


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", "shufflenet_v2_x0_5", "cnn4", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)],
)
def test_networks_of_others_pass(name):
    assert rehearsal.rehearse(recipe(name), Shape(3, 64, 10)) == rehearsal.Rehearsed("channels_last")


def test_a_rehearsal_leaves_the_process_as_it_was(mine):
    name = mine(FORWARD + "super().forward(x + random.random() + torch.rand(1))")
    torch.manual_seed(3), random.seed(3)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    rehearsal.rehearse(recipe(name), SHAPE)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]
