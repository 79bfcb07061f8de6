"""Arguments of networks: what each does, against torch's and torchvision's, and that none moves a draw."""

import sys

import pytest
import torch
from built_networks import RGB, built, refusal, summed
from torch import nn
from torchvision.models.resnet import BasicBlock

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models
from ablate.training.models.resnet_small import Block
from ablate.training.surgery import BatchNorm

ANOTHER = {"first_pool": False, "norm": "after", "depth": 3, "shortcut": False}
EVERY = [(name, option) for name, facts in networks.BUILT_IN.items() for option in facts.options]


def images(count=2, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "option"), EVERY)
def test_what_both_networks_have_starts_from_the_same_weights(name, option):
    plain = built(name=name, width=0.5).state_dict()
    network = built(name=name, width=0.5, options={option: ANOTHER[option]})
    other = network.state_dict()
    common = [key for key in other if key in plain and not (option == "first_pool" and "head" in key)]
    missing = 2 if option == "first_pool" else 12 if (name, option) == ("resnet_small", "shortcut") else 0
    assert len(common) == len(plain) - missing, "another head; two 1x1 convolutions with their norms"
    assert all(torch.equal(plain[key], other[key]) for key in common)
    assert not torch.equal(network(images()), built(name=name, width=0.5)(images()))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_stage_has_as_many_blocks_as_its_depth_and_more_are_drawn_by_he(depth):
    network = built(name="resnet_small", options={"depth": depth})
    assert [len(network.get_submodule(f"layer{stage}")) for stage in (1, 2, 3)] == [depth] * 3
    assert summed(name="resnet_small", options={"depth": depth}).convolutions == 6 * depth + 1 + 2
    last = network.layer3[-1].conv2.weight
    assert last.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_torchvisions_and_without_its_shortcut_two_convolutions(training):
    network = built(name="resnet_small", options={"depth": 3}).train(training)
    ours, theirs = network.layer1[2], BasicBlock(16, 16)
    pairs = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}
    for name, own in pairs.items():
        theirs.get_submodule(name).load_state_dict(ours.get_submodule(own).state_dict())
    theirs.train(training)
    x = torch.rand(4, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    plain = built(name="resnet_small", options={"depth": 3, "shortcut": False}).train(training).layer1[2]
    both = nn.Sequential(plain.conv1, plain.norm1, nn.ReLU(), plain.conv2, plain.norm2, nn.ReLU())
    assert isinstance(plain, Block)
    assert torch.allclose(plain(x), both(x), atol=1e-6)
    assert not torch.allclose(plain(x), theirs(x), atol=1e-2)


def test_resnet9_without_shortcuts_is_its_layers_one_after_the_other():
    network = built(name="resnet9", width=0.25, options={"shortcut": False}).eval()
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)
    chain = nn.Sequential(*(part for part in network.modules() if isinstance(part, kinds))).eval()
    assert torch.equal(network(images()), chain(images()))


def test_cnn4_normalises_after_the_activation():
    network = built(name="cnn4", options={"norm": "after"})
    assert [name for name, _ in network.block2.named_children()] == ["conv", "relu", "norm", "pool"]
    x = torch.rand(4, 32, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    by_hand = nn.MaxPool2d(2)(nn.BatchNorm2d(64)(nn.functional.relu(network.block2.conv(x))))
    assert torch.allclose(network.block2(x), by_hand, atol=1e-6)


def test_cnn4_without_its_first_pooling_has_four_times_the_places_for_any_image():
    for side, last in ((32, 4), (16, 2), (33, 4)):
        network = models.build(
            Model(name="cnn4", options={"first_pool": False}), models.Shape(3, side, 10), seed=0
        )
        assert network.head.in_features == 128 * last * last
        assert network.eval()(images(side=side)).shape == (2, 10)


def test_taking_norms_out_leaves_one_network_wherever_they_stood():
    before, after = (
        models.build(Model.model_construct(**vars(Model(name="cnn4")) | given), RGB, seed=0).eval()
        for given in (
            {"batch_norm": False},
            {"batch_norm": False, "options": networks.Options(norm="after")},  # as no study can ask for it
        )
    )
    assert not any(isinstance(part, BatchNorm) for part in after.modules())
    assert torch.equal(before(images()), after(images()))


def test_torchvisions_networks_take_what_their_functions_take():
    network = built(name="resnet18", options={"zero_init_residual": True})
    assert not network.layer1[0].bn2.weight.any()
    assert refusal(name="resnet18", options={"depht": 3}).startswith(
        "model.options of resnet18 must be arguments of torchvision's function, got depht: "
    )
    assert not networks.is_certain(Model(name="resnet18", options={"depht": 3})), "plan has to build it"


NET = """from torch import nn


def mine(classes, channels, image_size, depth=1):
    layers = [nn.Linear(channels * image_size ** 2, 8)] + [nn.Linear(8, 8) for _ in range(depth - 1)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(8, classes))
"""


def test_ones_own_network_takes_its_arguments_by_name(tmp_path, monkeypatch):
    (tmp_path / "optional_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    name = "optional_net:mine"
    assert len(built(name=name, options={"depth": 3})) == 5
    assert len(built(name=name)) == 3
    assert refusal(name=name, options={"depht": 3}) == (
        "optional_net:mine must take the arguments classes, channels and image_size, those of model.options "
        "(depht), by name, and nothing more: got an unexpected keyword argument 'depht'"
    )
    assert refusal(name=name, options={"classes": 3}) == (
        "model.options.classes is what the images are: take it out"
    )
    del sys.modules["optional_net"]


def test_options_are_compared_hashed_and_kept_as_json():
    one, same = (Model(name="resnet_small", options={"depth": 3, "shortcut": False}) for _ in range(2))
    assert one == same
    assert len({one, same, Model(name="resnet_small"), Model(name="resnet_small", options={"depth": 4})}) == 3
    assert Model.model_validate_json(one.model_dump_json()) == one
    assert one.model_dump()["options"] == {"depth": 3, "shortcut": False}
