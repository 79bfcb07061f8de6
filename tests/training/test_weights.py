"""Pretrained weights, networks of the user's own, and all of torchvision's."""

import random
import re
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from built_networks import built, refusal, summed

from ablate.errors import DataError
from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import Shape, summary, weights
from ablate.training.surgery import ModelError

# Pretrained weights.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder of pretrained weights, empty, with a network that cannot be reached."""

    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def file_of(cache, name):
    return cache / torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]


def keep(cache, name, change=lambda state: state, **options):
    """Write weights as torchvision's own network has them, and give them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        state = torchvision.models.get_model(name, weights=None, **options).state_dict()
    torch.save(change(state), file_of(cache, name))
    return state


@pytest.mark.parametrize(
    ("name", "head", "options"),
    [
        ("squeezenet1_1", "classifier.1", {}),
        ("shufflenet_v2_x0_5", "fc", {}),
        ("mnasnet0_5", "classifier.1", {}),
        ("resnet18", "fc", {}),
        ("googlenet", "fc", {"init_weights": False, "aux_logits": True}),
    ],
)
def test_pretrained_weights_are_all_there_but_for_a_fresh_head(cache, name, head, options):
    state = keep(cache, name, **options)
    network = built(Shape(3, 32, 7), name=name, stem="imagenet", pretrained=True)
    fresh = models.build(
        Model(name=name, stem="imagenet", pretrained=True), Shape(3, 32, 7), seed=3, pretrained=False
    ).state_dict()
    for key, part in network.state_dict().items():
        ours = key.rpartition(".")[0] == head
        assert torch.equal(part, fresh[key] if ours else state[key]), key
    assert network.get_submodule(head).weight.shape[0] == 7
    assert list(fresh) == list(network.state_dict()), "as a checkpoint needs it"


def test_fusion_starts_from_the_weights_of_resnet18(cache):
    state = keep(cache, "resnet18")
    network = models.build(
        Model(name="fusion", stem="imagenet", pretrained=True, batch_norm=False), Shape(3, 32, 7), seed=3
    )
    assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    plain = models.build(Model(name="fusion", stem="imagenet"), Shape(3, 32, 7), seed=3)
    for part in ("hidden", "head"):
        assert torch.equal(network.get_submodule(part).weight, plain.get_submodule(part).weight)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_a_pretrained_network_sees_grey_images_as_it_sees_them_in_colour(cache, name):
    keep(cache, name)
    model = Model(name=name, stem="imagenet", pretrained=True)
    colour, grey = (models.build(model, Shape(channels, 64, 7), seed=3).eval() for channels in (3, 1))
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(grey(x), colour(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_the_old_names_in_the_weights_of_densenet_are_understood(cache):
    def age(state):
        return {
            key.replace("norm1", "norm.1").replace("conv2", "conv.2"): part for key, part in state.items()
        }

    state = keep(cache, "densenet121", age)
    network = models.build(Model(name="densenet121", pretrained=True), Shape(3, 32, 7), seed=3).state_dict()
    assert all(
        torch.equal(network[key], part) for key, part in state.items() if not key.startswith("classifier")
    )


def test_weights_that_cannot_be_had_are_asked_for_by_file_and_folder(cache):
    with pytest.raises(DataError) as caught:
        models.build(Model(name="squeezenet1_1", pretrained=True), Shape(3, 32, 7), seed=3)
    file = file_of(cache, "squeezenet1_1")
    assert str(caught.value) == (
        f"model.pretrained needs the weights of squeezenet1_1 in {file}, and they could not be had "
        "(URLError: <urlopen error no route "
        f"to host>): run once where the network can be reached, or copy {file.name} to that folder, or set "
        "model.pretrained = false"
    )
    models.build(Model(name="squeezenet1_1", pretrained=True), Shape(3, 32, 7), seed=3, pretrained=False)
    summary.summarise(Model(name="squeezenet1_1", pretrained=True), Shape(3, 32, 7))


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError"),
        (b"<html>not found</html>", "UnpicklingError"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "features.0.bias is not in it"),
        ({"features.0.weight": torch.zeros(2, 2, 3, 3)}, r"RuntimeError: Error\(s\) in loading state_dict"),
        ({}, "features.0.bias|features.0.weight"),
        ({"features.0.weight": Code()}, "UnpicklingError"),
    ],
)
def test_a_file_that_holds_other_things_is_not_taken_nor_run(cache, monkeypatch, content, reason):
    file = file_of(cache, "squeezenet1_1")
    monkeypatch.chdir(cache)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(DataError, match=reason):
        models.build(Model(name="squeezenet1_1", pretrained=True), Shape(3, 32, 7), seed=3)
    assert not Path("ran").exists()


# The user's own.


@pytest.fixture
def mine(tmp_path, monkeypatch, request):
    """Return a function that writes a module of its own name to the import path, and gives that name."""
    name = f"mine_{abs(hash(request.node.nodeid)):x}"
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


NET = """
from torch import nn
def net(*, classes, channels, image_size):
    side = image_size - 2
    body = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(4 * side * side, classes))
"""
DRAWS = """
import random
import numpy as np, torch
from torch import nn
def net(*, classes, channels, image_size):
    layer = nn.Linear(channels * image_size**2, classes)
    nn.init.constant_(layer.weight, random.random() + np.random.rand())
    return nn.Sequential(nn.Flatten(), layer)
"""


def test_a_network_of_ones_own_draws_its_weights_from_the_seed_whatever_it_draws_them_with(mine):
    name = f"{mine(DRAWS)}:net"
    before = random.getstate()
    one, same, other = (
        models.build(Model(name=name), Shape(1, 16, 3), seed=seed)[1].weight for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert random.getstate() == before


def test_a_network_of_ones_own_is_one_like_any_other(mine):
    name = f"{mine(NET)}:net"
    network = built(Shape(1, 20, 7), name=name, batch_norm=False, head_dropout=0.5, trainable="head")
    assert network(torch.rand(2, 1, 20, 20)).shape == (2, 7)
    counted = summed(Shape(1, 20, 7), name=name)
    assert (counted.convolutions, counted.batch_norms, counted.receptive_field) == (1, 1, 3)
    assert torch.equal(
        built(Shape(1, 20, 7), name=name)[3].weight, built(Shape(1, 20, 7), name=name)[3].weight
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import not_there_at_all",
            " cannot be imported: there is no module not_there_at_all, which {name} imports",
        ),
        ("from torch import not_there", " cannot be imported: ImportError: cannot import name"),
        ("def net(:", " cannot be imported: SyntaxError: "),
        ("net = 3", " must name a function, and there is none called net in "),
        ("", " must name a function, and there is none called net in "),
        (
            "def net(classes): pass",
            " must take the arguments classes, channels and image_size, by name, and nothing more: got an",
        ),
        (
            "def net(classes, channels, image_size, depth): pass",
            " by name, and nothing more: missing a required argument: 'depth'",
        ),
        ("def net(**_): return 3", " must return a torch.nn.Module, and returned int"),
        (
            "from torch import nn\ndef net(**_): return nn.Flatten()",
            ":net must give one score a class, a tensor of shape (1, 10)",
        ),
        (
            "from torch import nn\ndef net(**_): return nn.Linear(5, 10)",
            ":net cannot take images of 32 x 32 pixels and 3 channels (",
        ),
    ],
)
def test_each_mistake_in_a_network_of_ones_own_has_its_sentence(mine, text, said):
    name = mine(text)
    sentence = refusal(name=f"{name}:net")
    assert name in sentence
    assert said.format(name=name) in sentence


@pytest.mark.parametrize(
    ("name", "missing"), [("no_such_thing:net", "no_such_thing"), ("torch.no_such:net", "torch.no_such")]
)
def test_a_module_that_is_not_there_is_named(name, missing):
    assert refusal(name=name) == f'model.name = "{name}" cannot be imported: there is no module {missing}'


def test_a_mistake_inside_the_function_keeps_its_traceback(mine):
    name = mine("def net(**_): return {}['layers']")
    with pytest.raises(KeyError):
        summary.summarise(Model(name=f"{name}:net"), Shape(3, 32, 10))


# All of torchvision.


def best(name):
    choices = torchvision.models.get_model_weights(name)
    return getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)


LARGER = re.compile(
    r"convnext_[sbl].*|densenet(161|169|201)|efficientnet_(b[1-7]|v2_[ml])|mnasnet(0_75|1_.)|regnet_[xy]_.*gf|"
    r"regnet_[xy]_800mf|resnet(34|101|152)|resnext101.*|shufflenet_v2_x(1_.|2_0)|swin_(v2_)?[sb]|"
    r"vgg1[369](_bn)?|vit_l_.*|wide_resnet101_2"
)
"""Which differ from another one in depth and width alone: small images, and grey ones, go one way."""


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.TORCHVISION)
def test_every_network_of_torchvision_has_its_published_cost_and_fits_small_images_or_says_so(name):
    size = best(name).transforms().crop_size[0]
    counted = summed(Shape(3, size, 1000), name=name, stem="imagenet")
    side_heads = 3_326_696 if name == "inception_v3" else 0
    assert counted.parameters == best(name).meta["num_params"] - side_heads
    assert counted.macs / 1e9 == pytest.approx(best(name).meta["_ops"], abs=6e-4)
    if LARGER.fullmatch(name):
        return
    try:
        small = summed(name=name)
    except ModelError as error:
        assert str(error).startswith(f"{name} cannot take images of 32 x 32 pixels and 3 channels (")  # noqa: PT017
    else:
        assert small.macs > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (name, channels)
        for name in networks.TORCHVISION
        for channels in ((3,) if LARGER.fullmatch(name) else (1, 3))
    ],
)
def test_the_weights_of_every_network_of_torchvision_have_a_place(name, channels):
    aux = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    if aux and channels == 1:
        pytest.skip("refused")
    choice = torchvision.models.get_model_weights(name).DEFAULT
    sized = {"vit": "image_size", "maxvit": "input_size"}.get(name.split("_")[0])
    sides = (
        {sized: choice.meta["min_size"][0] if sized == "image_size" else choice.meta["min_size"]}
        if sized
        else {}
    )
    with summary._WeightsOnMeta():
        state = torchvision.models.get_model(name, weights=None, **aux, **sides).to("meta").state_dict()
        model = Model(name=name, stem="imagenet", pretrained=True)
        network = models.draw(model, Shape(channels, 64, 7)).to("meta")
    head = surgery.head(network)[0]
    result = weights._put(network, state, {head})
    assert {key.rpartition(".")[0] for key in result.missing_keys} == {head}
    assert not result.unexpected_keys
