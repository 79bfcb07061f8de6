"""The networks by name: their outputs, sizes and receptive fields, and the message for each refused one."""

import pytest
import torch
import torchvision
from built_networks import built, refusal, summed
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import Shape, summary

SMALL = [name for name in networks.BUILT_IN if networks.has_width(name)]


# What is built in.


def test_the_names_are_those_of_networks_and_of_torchvision():
    assert set(models.MODELS) == {*networks.BUILT_IN, *networks.TORCHVISION}
    assert sorted(networks.TORCHVISION) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_the_networks_said_to_have_no_batch_norm_are_those_without_one():
    assert {
        name for name in networks.BUILT_IN if summed(name=name).batch_norms == 0
    } == networks.WITHOUT_BATCH_NORM


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 17, 32, 48])
@pytest.mark.parametrize("name", networks.BUILT_IN)
def test_every_network_gives_a_score_a_class_whatever_the_images(name, size, channels):
    network = built(Shape(channels, size, 7), name=name, width=0.5).eval()
    with torch.no_grad():
        assert network(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "fusion" else ()) for name in networks.BUILT_IN],
)
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
        assert all(
            parameter.grad is not None and torch.isfinite(parameter.grad).all()
            for parameter in network.parameters()
        )
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
    assert summed(name=name, width=2).parameters == sum(
        part.numel() for part in built(name=name, width=2).parameters()
    )


# Numbers.


def cnn_parameters(channels, *widths, bias):
    """Count 3x3 convolutions behind each other, with a bias or with the two vectors of a norm."""
    pairs = zip((channels, *widths), widths, strict=False)
    return sum(9 * before * after + (after if bias else 2 * after) for before, after in pairs)


PARAMETERS = {
    "baseline_cnn": cnn_parameters(3, 32, 64, 128, bias=True) + (128 * 4 * 4 + 1) * 256 + 257 * 10,
    "cnn4": cnn_parameters(3, 32, 64, 128, 128, bias=False) + (128 * 2 * 2 + 1) * 10,
    "resnet_small": cnn_parameters(3, *[16] * 5, *[32] * 4, *[64] * 4, bias=False)
    + (16 * 32 + 64)
    + (32 * 64 + 128)
    + 65 * 10,
    "resnet9": 6_573_130,
    "fusion": 11_173_962 - 513 * 10 + 769 * 256 + 257 * 10,  # ResNet-18 for CIFAR-10 with another end
}
FIELDS = {
    "baseline_cnn": 22,
    "cnn4": 46,
    "resnet_small": 53,
    "resnet9": 64,
    "depthwise_dilated": 69,
    "fusion": 109,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_counted_by_hand(name):
    counted = summed(name=name)
    assert counted.parameters == counted.trainable_parameters == PARAMETERS[name]
    assert counted.parameters == sum(part.numel() for part in built(name=name).parameters())


def test_the_dilated_network_is_small_and_sees_the_whole_image():
    counted = summed(name="depthwise_dilated")
    assert (
        counted.parameters
        == sum(part.numel() for part in built(name="depthwise_dilated").parameters())
        < 250_000
    )
    assert counted.receptive_field > 44
    assert not any(
        isinstance(part, (nn.MaxPool2d, nn.AvgPool2d)) for part in built(name="depthwise_dilated").modules()
    )


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


# Araujo et al. 2019, table 1 (alexnet, vgg, inception), the same formula by hand (resnet50 has its stride in
# the 3x3 convolution, which makes 427 of their 483), and none where attention or squeeze-and-excitation bring
# the whole image in.
PUBLISHED = {
    "resnet18": (11_689_512, 435),
    "resnet50": (25_557_032, 427),
    "vgg11": (132_863_336, 150),
    "vgg16": (138_357_544, 212),
    "alexnet": (61_100_840, 195),
    "inception_v3": (27_161_264 - 3_326_696, 1311),
    "convnext_tiny": (28_589_128, 1688),
    "mobilenet_v2": (3_504_872, 491),
    "efficientnet_b0": (5_288_548, None),
    "vit_b_16": (86_567_656, None),
    "swin_t": (28_288_354, None),
}


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
    assert plain.parameters - bare.parameters == sum(norm.num_features for norm in norms), (
        "two vectors go, a bias comes"
    )
    assert summed(name="resnet18", trainable="head").trainable_parameters == 5130
    assert summed(name="resnet18", trainable="head").parameters == plain.parameters


def test_a_summary_leaves_random_numbers_and_settings_alone():
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    summed(name="vit_b_16")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() is fast


class Branches(nn.Module):
    """Two branches of different windows (the larger counts), and an average that comes back if `gated`."""

    def __init__(self, *, gated):
        super().__init__()
        self.wide, self.high, self.thin = (
            nn.Conv2d(3, 4, (1, 9), padding=(0, 4)),
            nn.Conv2d(4, 4, (5, 1)),
            nn.Conv2d(3, 4, (5, 1)),
        )
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
    assert (small.kernel_size, small.stride, usual.kernel_size, usual.stride) == (
        (3, 3),
        (1, 1),
        (7, 7),
        (2, 2),
    )
    assert isinstance(built(name="fusion").maxpool, nn.Identity)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121", "googlenet"],
)
def test_grey_images_change_the_first_convolution_alone(name):
    colour, grey = (
        built(Shape(channels, 32, 7), name=name, stem="imagenet").state_dict() for channels in (3, 1)
    )
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
    assert said.startswith(
        "vit_b_16 cannot take images of 32 x 32 pixels and 3 channels (Wrong image height! Expected 224 "
        "but got 32!)"
    )
    assert summed(Shape(3, 224, 10), name="vit_b_16", pretrained=True).receptive_field is None


# What cannot be had.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"name": "alexnet"},
            "alexnet cannot take images of 32 x 32 pixels and 3 channels (Given input size",
        ),
        (
            {"name": "vit_b_16", "conv_dropout": 0.1, "batch_norm": False},
            "model.batch_norm = false has nothing to remove",
        ),
        (
            {"name": "resnet18", "trainable": "layer9"},
            "model.trainable: the network has no part layer9 (did you mean layer4",
        ),
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
    assert refusal(Shape(1, 96, 10), name=name, pretrained=True).startswith(
        f"model.pretrained of {name} needs colour images"
    )
    assert summed(Shape(1, 96, 10), name=name).parameters > 0
