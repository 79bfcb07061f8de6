"""A network written down as operations answers as it does, after any surgery, to any number of images."""

import importlib.util

import pytest
import torch
from torch import nn

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import graph_code, models
from ablate.training.models import Shape
from ablate.training.surgery import ModelError

QUICK = {"cnn4"}
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in (*networks.BUILT_IN, "resnet18", "densenet121", "mobilenet_v3_small")
]


def forward(text, folder):
    path = folder / "written.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("written", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.forward


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_down_answers_as_the_network(name, tmp_path):
    batch_norm = name in networks.WITHOUT_BATCH_NORM
    model = Model(name=name, conv_dropout=0.1, head_dropout=0.2, batch_norm=batch_norm)
    network = models.build(model, Shape(3, 32, 7), seed=1, pretrained=False)
    for part in network.modules():  # statistics of a training, so that they matter
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    program = graph_code.recorded(network, torch.zeros(2, 3, 32, 32))
    function, weights = forward(graph_code.code(program, 7), tmp_path), graph_code.tensors(program)
    assert weights.keys() <= network.state_dict().keys()
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(function(weights, images), network.eval()(images), atol=1e-5)
        assert torch.allclose(function(weights, images[:1]), network(images[:1]), atol=1e-5)


class Odd(nn.Module):
    """A network with a constant, two outputs of one operation, and a buffer that nothing reads."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("unread", torch.zeros(3))
        self.scale = torch.tensor([2.0, 3.0])

    def forward(self, x):
        first, second = x.flatten(1).split([2, x[0].numel() - 2], 1)
        return self.layer(first) * self.scale + second.amax(1, keepdim=True).to(torch.float32)


def test_constants_and_parts_of_results_are_written_down_and_what_nothing_reads_is_not(tmp_path):
    network = Odd()
    program = graph_code.recorded(network, torch.zeros(2, 1, 2, 4))
    weights = graph_code.tensors(program)
    assert {"layer.weight", "layer.bias"} < weights.keys()
    assert "unread" not in weights
    images = torch.randn(4, 1, 2, 4)
    text = graph_code.code(program, 2)
    assert "ablate" not in text
    with torch.no_grad():
        assert torch.equal(forward(text, tmp_path)(weights, images), network(images))


class Deciding(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def test_a_network_that_looks_at_its_images_to_decide_is_refused_in_one_line():
    with pytest.raises(ModelError, match=r"torch.export cannot record it: ") as refused:
        graph_code.recorded(Deciding(), torch.zeros(2, 1, 2, 4))
    assert "\n" not in str(refused.value)
