"""The networks by name: what they give, how large they are and how far they see, and every sentence about those that cannot be had."""

import random
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.errors import DataError
from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import Shape, summary, weights
from ablate.training.surgery import ModelError

SMALL = [name for name in networks.BUILT_IN if networks.has_width(name)]


RGB = Shape(3, 32, 10)


def built(shape=RGB, *, seed=3, **fields):
    return models.build(Model(**fields), shape, seed=seed)


def summed(shape=RGB, **fields):
    return summary.summarise(Model(**fields), shape)


def refusal(shape=RGB, **fields):
    """Return the sentence with which a network is refused before anything is trained."""
    with pytest.raises(ModelError) as caught:
        summary.summarise(Model(**fields), shape)
    return str(caught.value)


# What is built in.


def test_the_names_are_those_of_networks_and_of_torchvision():
    assert set(models.MODELS) == {*networks.BUILT_IN, *networks.TORCHVISION}
    assert sorted(networks.TORCHVISION) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_the_networks_said_to_have_no_batch_norm_are_those_without_one():
    assert {name for name in networks.BUILT_IN if summed(name=name).batch_norms == 0} == networks.WITHOUT_BATCH_NORM


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 17, 32, 48])
@pytest.mark.parametrize("name", networks.BUILT_IN)
def test_every_network_gives_a_score_a_class_whatever_the_images(name, size, channels):
    network = built(Shape(channels, size, 7), name=name, width=0.5).eval()
    with torch.no_grad():
        assert network(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", networks.BUILT_IN)
def test_every_network_learns_a_batch_a_little(name):
    network = built(name=name, width=0.5)
    draws = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 3, 32, 32, generator=draws), torch.arange(8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(network(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in network.parameters())
        optimizer.step()
    assert losses[-1] < losses[0] < 10


@pytest.mark.parametrize("name", networks.BUILT_IN)
def test_the_weights_are_decided_by_the_seed(name):
    one, same, other = (built(name=name, width=0.5, seed=seed).state_dict() for seed in (1, 1, 2))
    assert list(one) == list(same) == list(other)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert all(not torch.equal(one[key], other[key]) for key in one if one[key].ndim > 1)


STEMS = ("conv1", "bn1", "relu", "maxpool")
PARTS = {
    "baseline_cnn": ("block1", "block2", "block3", "flatten", "hidden", "relu", "head"),
    "cnn4": ("block1", "block2", "block3", "block4", "flatten", "head"),
    "resnet_small": ("stem", "layer1", "layer2", "layer3", "pool", "flatten", "head"),
    "resnet9": ("stem", "layer1", "layer2", "layer3", "pool", "flatten", "head"),
    "depthwise_dilated": ("stem", *(f"block{number}" for number in range(1, 7)), "pool", "flatten", "head"),
    "fusion": (*STEMS, "layer1", "layer2", "layer3", "layer4", "pool", "hidden", "activation", "head"),
}


@pytest.mark.parametrize("name", networks.BUILT_IN)
def test_the_parts_have_names_to_train_by(name):
    network = built(name=name, width=0.5)
    assert tuple(part for part, _ in network.named_children()) == PARTS[name]
    assert surgery.head(network)[0] == "head"


@pytest.mark.parametrize("name", SMALL)
def test_width_scales_every_layer(name):
    def widths(width):
        network = built(name=name, width=width)
        return [part.out_channels for part in network.modules() if isinstance(part, nn.Conv2d)]

    one = widths(1)
    assert widths(2) == [2 * width for width in one]
    assert widths(0.3) == [round(0.3 * width) for width in one]
    assert set(widths(0.001)) == {1}
    assert summed(name=name, width=2).parameters == sum(part.numel() for part in built(name=name, width=2).parameters())


# Numbers.


def cnn_parameters(channels, *widths, bias):
    """Count 3x3 convolutions behind each other, with a bias or with the two vectors of a norm."""
    pairs = zip((channels, *widths), widths, strict=False)
    return sum(9 * before * after + (after if bias else 2 * after) for before, after in pairs)


PARAMETERS = {
    "baseline_cnn": cnn_parameters(3, 32, 64, 128, bias=True) + (128 * 4 * 4 + 1) * 256 + 257 * 10,
    "cnn4": cnn_parameters(3, 32, 64, 128, 128, bias=False) + (128 * 2 * 2 + 1) * 10,
    "resnet_small": cnn_parameters(3, *[16] * 5, *[32] * 4, *[64] * 4, bias=False) + (16 * 32 + 64) + (32 * 64 + 128) + 65 * 10,
    "resnet9": 6_573_130,
    "fusion": 11_173_962 - 513 * 10 + 769 * 256 + 257 * 10,  # ResNet-18 for CIFAR-10 with another end
}
FIELDS = {"baseline_cnn": 22, "cnn4": 46, "resnet_small": 53, "resnet9": 64, "depthwise_dilated": 69, "fusion": 109}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_counted_by_hand(name):
    counted = summed(name=name)
    assert counted.parameters == counted.trainable_parameters == PARAMETERS[name]
    assert counted.parameters == sum(part.numel() for part in built(name=name).parameters())


def test_the_dilated_network_is_small_and_sees_the_whole_image():
    counted = summed(name="depthwise_dilated")
    assert counted.parameters == sum(part.numel() for part in built(name="depthwise_dilated").parameters()) < 250_000
    assert counted.receptive_field > 44
    assert not any(isinstance(part, (nn.MaxPool2d, nn.AvgPool2d)) for part in built(name="depthwise_dilated").modules())


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields(name):
    assert summed(name=name).receptive_field == FIELDS[name]


@pytest.mark.parametrize("name", SMALL)
def test_the_receptive_field_is_what_gradients_reach(name):
    network = built(Shape(3, 160, 10), name=name, width=0.1, batch_norm=name in networks.WITHOUT_BATCH_NORM)
    for key, part in list(network.named_modules()):
        if isinstance(part, nn.MaxPool2d):  # a maximum passes the gradient of one place alone
            parent, _, child = key.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.AvgPool2d(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    last = []
    end = network.get_submodule("pool" if "pool" in PARTS[name] else "flatten")
    end.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    x = torch.ones(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    network.double()(x)
    middle = last[0].shape[-1] // 2
    last[0][0, 0, middle, middle].backward()
    for axis in (1, 2):
        reached = x.grad[0].abs().sum(tuple({0, 1, 2} - {axis})).nonzero()
        assert reached.max() - reached.min() + 1 == FIELDS[name]


# Araujo et al. 2019, table 1 (alexnet, vgg, inception), the same formula by hand (resnet50 has its stride in the 3x3 convolution, which
# makes 427 of their 483), and none where attention or squeeze-and-excitation bring the whole image in.
PUBLISHED = {
    "resnet18": (11_689_512, 435), "resnet50": (25_557_032, 427), "vgg11": (132_863_336, 150), "vgg16": (138_357_544, 212),
    "alexnet": (61_100_840, 195), "inception_v3": (27_161_264 - 3_326_696, 1311), "convnext_tiny": (28_589_128, 1688),
    "mobilenet_v2": (3_504_872, 491), "efficientnet_b0": (5_288_548, None), "vit_b_16": (86_567_656, None), "swin_t": (28_288_354, None),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_networks_have_the_published_size_and_field(name):
    counted = summed(Shape(3, 224, 1000), name=name, stem="imagenet")
    assert (counted.parameters, counted.receptive_field) == PUBLISHED[name]


def test_multiplications_are_those_of_one_image():
    assert summed(name="baseline_cnn").macs == (
        32 * 32 * 27 * 32 + 16 * 16 * 9 * 32 * 64 + 8 * 8 * 9 * 64 * 128 + 128 * 4 * 4 * 256 + 256 * 10
    )
    assert round(summed(Shape(3, 224, 1000), name="resnet18", stem="imagenet").macs / 1e9, 3) == 1.814
    assert round(summed(Shape(3, 224, 1000), name="vit_b_16").macs / 1e9, 3) == 17.564


def test_the_summary_is_that_of_the_network_after_surgery():
    plain, bare = summed(name="resnet18"), summed(name="resnet18", batch_norm=False)
    assert (plain.batch_norms, bare.batch_norms, plain.convolutions, bare.convolutions) == (20, 0, 20, 20)
    norms = [part for part in built(name="resnet18").modules() if isinstance(part, nn.BatchNorm2d)]
    assert plain.parameters - bare.parameters == sum(norm.num_features for norm in norms), "two vectors go, a bias comes"
    assert summed(name="resnet18", trainable="head").trainable_parameters == 5130
    assert summed(name="resnet18", trainable="head").parameters == plain.parameters


def test_a_summary_leaves_random_numbers_and_settings_alone():
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    summed(name="vit_b_16")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() is fast


class Branches(nn.Module):
    """Two branches of different windows, of which the larger counts, and an average that comes back if `gated`."""

    def __init__(self, *, gated):
        super().__init__()
        self.wide, self.high, self.thin = nn.Conv2d(3, 4, (1, 9), padding=(0, 4)), nn.Conv2d(4, 4, (5, 1)), nn.Conv2d(3, 4, (5, 1))
        self.head, self.gated = nn.Linear(4, 10), gated

    def forward(self, x):
        x = self.high(self.wide(x)) + self.thin(x)
        if self.gated:
            x = x * x.mean((2, 3), keepdim=True)
        return self.head(x.sum(3).sum(2))


@pytest.mark.parametrize(("gated", "field"), [(False, 9), (True, None)])
def test_fields_are_followed_along_each_side_and_through_branches(gated, field):
    network, image = Branches(gated=gated), torch.zeros(1, 3, 16, 16)
    assert summary._pass("it", network, image, 10)[1] == field
    assert network.training, "the mode is given back"


# torchvision.


def test_the_stem_for_small_images_keeps_their_size():
    small, usual = built(name="resnet18").conv1, built(name="resnet18", stem="imagenet").conv1
    assert (small.kernel_size, small.stride, usual.kernel_size, usual.stride) == ((3, 3), (1, 1), (7, 7), (2, 2))
    assert isinstance(built(name="fusion").maxpool, nn.Identity)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "googlenet"])
def test_grey_images_change_the_first_convolution_alone(name):
    colour, grey = (built(Shape(channels, 32, 7), name=name, stem="imagenet").state_dict() for channels in (3, 1))
    first, *others = [key for key in colour if colour[key].shape != grey[key].shape]
    assert not others
    assert grey[first].shape == (len(colour[first]), 1, *colour[first].shape[2:])
    assert all(torch.equal(colour[key], grey[key]) for key in colour if key != first)
    fan_out = grey[first][:, 0].numel()
    assert abs(grey[first].std() / (2 / fan_out) ** 0.5 - 1) < 0.2


def test_googlenet_gives_one_tensor_while_it_trains():
    network = built(Shape(3, 32, 7), name="googlenet")
    assert network.training
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_a_vision_transformer_is_built_for_the_images_or_as_its_weights_are():
    assert summed(Shape(1, 32, 10), name="vit_b_32").macs > 0
    said = refusal(name="vit_b_16", pretrained=True)
    assert said.startswith("vit_b_16 cannot take images of 32 x 32 pixels and 3 channels (Wrong image height! Expected 224 but got 32!)")
    assert summed(Shape(3, 224, 10), name="vit_b_16", pretrained=True).receptive_field is None


# What cannot be had.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "alexnet"}, "alexnet cannot take images of 32 x 32 pixels and 3 channels (Given input size"),
        ({"name": "vit_b_16", "conv_dropout": 0.1, "batch_norm": False}, "model.batch_norm = false has nothing to remove"),
        ({"name": "resnet18", "trainable": "layer9"}, "model.trainable: the network has no part layer9 (did you mean layer4"),
        ({"name": "inception_v3"}, "inception_v3 cannot take images of 32 x 32 pixels"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(fields, said):
    assert refusal(**fields).startswith(said)


def test_what_fits_is_not_complained_about():
    asked = Model(name="squeezenet1_1", conv_dropout=0.1, head_dropout=0.1, trainable="features.12")
    assert summary.summarise(asked, Shape(1, 32, 3)).dropouts > 0


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_that_begin_by_mixing_colours_are_refused_for_grey_images(name):
    assert refusal(Shape(1, 96, 10), name=name, pretrained=True).startswith(f"model.pretrained of {name} needs colour images")
    assert summed(Shape(1, 96, 10), name=name).parameters > 0


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
    fresh = models.build(Model(name=name, stem="imagenet", pretrained=True), Shape(3, 32, 7), seed=3, pretrained=False).state_dict()
    for key, part in network.state_dict().items():
        ours = key.rpartition(".")[0] == head
        assert torch.equal(part, fresh[key] if ours else state[key]), key
    assert network.get_submodule(head).weight.shape[0] == 7
    assert list(fresh) == list(network.state_dict()), "as a checkpoint needs it"


def test_fusion_starts_from_the_weights_of_resnet18(cache):
    state = keep(cache, "resnet18")
    network = models.build(Model(name="fusion", stem="imagenet", pretrained=True, batch_norm=False), Shape(3, 32, 7), seed=3)
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
        return {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): part for key, part in state.items()}

    state = keep(cache, "densenet121", age)
    network = models.build(Model(name="densenet121", pretrained=True), Shape(3, 32, 7), seed=3).state_dict()
    assert all(torch.equal(network[key], part) for key, part in state.items() if not key.startswith("classifier"))


def test_weights_that_cannot_be_had_are_asked_for_by_file_and_folder(cache):
    with pytest.raises(DataError) as caught:
        models.build(Model(name="squeezenet1_1", pretrained=True), Shape(3, 32, 7), seed=3)
    file = file_of(cache, "squeezenet1_1")
    assert str(caught.value) == (
        f"model.pretrained needs the weights of squeezenet1_1 in {file}, and they could not be had (URLError: <urlopen error no route "
        f"to host>): run once where the network can be reached, or copy {file.name} to that folder, or set model.pretrained = false"
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
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * side * side, classes))
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
    one, same, other = (models.build(Model(name=name), Shape(1, 16, 3), seed=seed)[1].weight for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert random.getstate() == before


def test_a_network_of_ones_own_is_one_like_any_other(mine):
    name = f"{mine(NET)}:net"
    network = built(Shape(1, 20, 7), name=name, batch_norm=False, head_dropout=0.5, trainable="head")
    assert network(torch.rand(2, 1, 20, 20)).shape == (2, 7)
    counted = summed(Shape(1, 20, 7), name=name)
    assert (counted.convolutions, counted.batch_norms, counted.receptive_field) == (1, 1, 3)
    assert torch.equal(built(Shape(1, 20, 7), name=name)[3].weight, built(Shape(1, 20, 7), name=name)[3].weight)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there_at_all", " cannot be imported: there is no module not_there_at_all, which {name} imports"),
        ("from torch import not_there", " cannot be imported: ImportError: cannot import name"),
        ("def net(:", " cannot be imported: SyntaxError: "),
        ("net = 3", " must name a function, and there is none called net in "),
        ("", " must name a function, and there is none called net in "),
        ("def net(classes): pass", " must take the arguments classes, channels and image_size, by name, and nothing more: got an"),
        ("def net(classes, channels, image_size, depth): pass", " by name, and nothing more: missing a required argument: 'depth'"),
        ("def net(**_): return 3", " must return a torch.nn.Module, and returned int"),
        ("from torch import nn\ndef net(**_): return nn.Flatten()", ":net must give one score a class, a tensor of shape (1, 10)"),
        ("from torch import nn\ndef net(**_): return nn.Linear(5, 10)", ":net cannot take images of 32 x 32 pixels and 3 channels ("),
    ],
)
def test_each_mistake_in_a_network_of_ones_own_has_its_sentence(mine, text, said):
    name = mine(text)
    sentence = refusal(name=f"{name}:net")
    assert name in sentence
    assert said.format(name=name) in sentence


@pytest.mark.parametrize(("name", "missing"), [("no_such_thing:net", "no_such_thing"), ("torch.no_such:net", "torch.no_such")])
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


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.TORCHVISION)
def test_every_network_of_torchvision_has_its_published_cost_and_fits_small_images_or_says_so(name):
    size = best(name).transforms().crop_size[0]
    counted = summed(Shape(3, size, 1000), name=name, stem="imagenet")
    side_heads = 3_326_696 if name == "inception_v3" else 0
    assert counted.parameters == best(name).meta["num_params"] - side_heads
    assert counted.macs / 1e9 == pytest.approx(best(name).meta["_ops"], abs=6e-4)
    try:
        small = summed(name=name)
    except ModelError as error:
        assert str(error).startswith(f"{name} cannot take images of 32 x 32 pixels and 3 channels (")  # noqa: PT017
    else:
        assert small.macs > 0


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", networks.TORCHVISION)
def test_the_weights_of_every_network_of_torchvision_have_a_place(name, channels):
    aux = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    if aux and channels == 1:
        pytest.skip("refused")
    choice = torchvision.models.get_model_weights(name).DEFAULT
    sized = {"vit": "image_size", "maxvit": "input_size"}.get(name.split("_")[0])
    sides = {sized: choice.meta["min_size"][0] if sized == "image_size" else choice.meta["min_size"]} if sized else {}
    with summary._WeightsOnMeta():
        state = torchvision.models.get_model(name, weights=None, **aux, **sides).to("meta").state_dict()
        model = Model(name=name, stem="imagenet", pretrained=True)
        network = models.draw(model, Shape(channels, 64, 7)).to("meta")
    head = surgery.head(network)[0]
    result = weights._put(network, state, {head})
    assert {key.rpartition(".")[0] for key in result.missing_keys} == {head}
    assert not result.unexpected_keys
