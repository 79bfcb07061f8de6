"""The layers of a network: their sizes and costs, counted by hand, whatever was cut, frozen or folded."""

from dataclasses import astuple

import pytest
from built_networks import RGB
from torch import nn

from ablate.recipe.fields import Model
from ablate.training import models
from ablate.training.models import Shape, outline, summary


def rows(shape=RGB, **fields):
    return [astuple(layer) for layer in summary.describe(Model(**fields), shape)[1]]


def test_layers_of_a_small_network_are_those_that_are_counted_by_hand():
    conv = 3 * 3 * 8
    assert rows(Shape(3, 32, 10), name="cnn4", width=0.25)[:4] == [
        ("block1.conv", "Conv2d", (8, 32, 32), conv * 3, conv * 3, 32 * 32 * conv * 3, 0),
        ("block1.norm", "BatchNorm2d", (8, 32, 32), 16, 16, 0, 0),
        ("block1.relu", "ReLU", (8, 32, 32), 0, 0, 0, 0),
        ("block1.pool", "MaxPool2d", (8, 16, 16), 0, 0, 0, 0),
    ]
    assert rows(Shape(3, 32, 10), name="cnn4", width=0.25)[-2:] == [
        ("flatten", "Flatten", (32 * 2 * 2,), 0, 0, 0, 0),
        ("head", "Linear", (10,), 128 * 10 + 10, 1290, 1280, 0),
    ]


def test_surgery_is_seen_a_norm_taken_out_a_bias_dropout_and_what_is_frozen():
    cut = {row[0]: row for row in rows(
        name="cnn4", width=0.25, batch_norm=False, conv_dropout=0.1, head_dropout=0.2, trainable="block4",
    )}  # fmt: skip
    assert cut["block1.norm"][1:] == ("Identity", (8, 32, 32), 0, 0, 0, 0)
    assert cut["block1.conv"][3:5] == (3 * 3 * 3 * 8 + 8, 0)
    assert cut["block1.conv.output_dropout"][1:] == ("QuickDropout", (8, 32, 32), 0, 0, 0, 0)
    assert cut["head.input_dropout"][2] == (128,)
    assert cut["block4.conv"][3:5] == (3 * 3 * 32 * 32 + 32,) * 2
    assert cut["head"][3:5] == (1290, 1290)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"name": "resnet18", "trainable": "layer4"}, 32),
        ({"name": "fusion"}, 32),
        ({"name": "vit_b_32"}, 224),  # parameters of no layer, attention in one call
        ({"name": "densenet121"}, 64),  # folded
    ],
)
def test_the_rows_add_up_to_the_network(fields, size):
    whole, layers = summary.describe(Model(**fields), Shape(3, size, 10))
    assert 10 < len(layers) <= outline.MOST_LAYERS
    for number in ("parameters", "trainable_parameters", "macs"):
        assert sum(getattr(layer, number) for layer in layers) == getattr(whole, number) > 0


class Odd(nn.Module):
    """A layer of two names that works twice, called by another module than its parent, and a long name."""

    passes = 0

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(48, 48)
        self.again = self.first
        self.caller = Caller([self.first])
        self.add_module("x" * 500, nn.Linear(48, 10))

    def forward(self, x):
        Odd.passes += 1
        return getattr(self, "x" * 500)(self.caller(self.first(x.flatten(1))))


class Caller(nn.Module):
    def __init__(self, others):
        super().__init__()
        self.others, self.scale = others, nn.Linear(48, 1)

    def forward(self, x):
        return self.others[0](x) * self.scale(x)


def odd(_model, _channels, _size, _classes):
    return Odd()


def test_a_layer_of_several_names_counts_once_and_works_wherever_it_is_called(monkeypatch):
    monkeypatch.setitem(models.MODELS, "cnn4", odd)
    Odd.passes = 0
    made = rows(Shape(3, 4, 10), name="cnn4")
    assert made == [
        ("first", "Linear", (48,), 48 * 48 + 48, 48 * 48 + 48, 2 * 48 * 48, 0),
        ("caller.scale", "Linear", (1,), 49, 49, 48, 0),
        ("x" * 119 + "\N{HORIZONTAL ELLIPSIS}", "Linear", (10,), 490, 490, 480, 0),
    ]
    assert Odd.passes == 1, "no pass is made for the layers"


def deep(blocks, inside):
    """Make a network of blocks in blocks, (1, C, H, W) to (1, 10)."""
    parts = [nn.Sequential(nn.Sequential(*(nn.ReLU() for _ in range(inside)))) for _ in range(blocks)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(48, 10))


@pytest.mark.parametrize(
    ("blocks", "inside", "count", "first", "last"),
    [
        (3, 60, 182, ("0.0.0", "ReLU", 0), ("4", "Linear", 0)),
        (3, 70, 5, ("0.0", "Sequential", 70), ("4", "Linear", 0)),
        (300, 2, 200, ("0", "Sequential", 2), ("", "", 103)),
    ],
)
def test_deep_blocks_are_folded_and_what_is_too_long_all_the_same_is_one_row(
    monkeypatch, blocks, inside, count, first, last
):
    monkeypatch.setitem(models.MODELS, "cnn4", lambda *_: deep(blocks, inside))
    made = rows(Shape(3, 4, 10), name="cnn4")
    assert len(made) == count
    assert [(row[0], row[1], row[6]) for row in (made[0], made[-1])] == [first, last]
    assert made[-1][3:6] == (490, 490, 480)
