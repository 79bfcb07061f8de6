"""Surgery on every network that is built in or torchvision's, and what is trainable after it."""

import copy
import functools

import pytest
import torch
from patients import SHAPE, built, dropping, images, kinds, modes, original, written_without_norms
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import summary
from ablate.training.surgery import BatchNorm, Convolution, ModelError

SURGERIES = {
    "batch_norm": {"batch_norm": False},
    "conv_dropout": {"conv_dropout": 0.2},
    "head_dropout": {"head_dropout": 0.2},
    "all": {"batch_norm": False, "conv_dropout": 0.2, "head_dropout": 0.2},
}
MODELS = {
    "cnn4": {"name": "cnn4"},
    "resnet18-cifar": {"name": "resnet18", "stem": "cifar"},
    "resnet18-imagenet": {"name": "resnet18", "stem": "imagenet"},
    "resnet_small": {"name": "resnet_small"},
    "resnet9": {"name": "resnet9", "width": 0.25},
    "depthwise_dilated": {"name": "depthwise_dilated"},
    "fusion": {"name": "fusion"},
    "baseline_cnn": {"name": "baseline_cnn"},
}
PLAIN = {name: functools.partial(built, **fields) for name, fields in MODELS.items()}


def test_the_models_of_this_file_are_all_that_are_built_in():
    assert {fields["name"] for fields in MODELS.values()} == {*networks.BUILT_IN, "resnet18"}


@pytest.mark.parametrize("cut", SURGERIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_network_starts_from_the_same_weights_with_and_without_surgery(name, cut):
    if name in networks.WITHOUT_BATCH_NORM and "batch_norm" in SURGERIES[cut]:
        pytest.skip("has no BatchNorm")
    plain, operated = original(PLAIN[name]).state_dict(), built(**MODELS[name], **SURGERIES[cut]).state_dict()
    common = plain.keys() & operated.keys()
    weights = {key for key in plain if key.endswith("weight") and plain[key].ndim > 1}
    assert weights <= common
    assert all(torch.equal(plain[key], operated[key]) for key in common)
    assert all(not operated[key].any() for key in operated.keys() - plain.keys()), (
        "what is new is a bias of zeros"
    )


@pytest.mark.parametrize("name", MODELS)
def test_building_a_network_is_decided_by_its_seed_and_leaves_the_global_random_numbers_alone(name):
    state = torch.get_rng_state()
    one, same = (models.build(Model(**MODELS[name]), SHAPE, seed=1).state_dict() for _ in range(2))
    other = models.build(Model(**MODELS[name]), SHAPE, seed=2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    weights = [key for key in one if one[key].ndim > 1]
    assert all(not torch.equal(one[key], other[key]) for key in weights)


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (20, 3), (33, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_images_of_every_size_and_channel_count(name, size, channels):
    network = models.build(Model(**MODELS[name]), models.Shape(channels, size, 7), seed=0).eval()
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("cut", SURGERIES)
def test_gradients_reach_the_image_and_every_parameter(network, cut):
    fields = SURGERIES[cut]
    if fields.get("batch_norm") is False:
        surgery.remove_batch_norm(network, images(2))
    if "conv_dropout" in fields:
        surgery.add_conv_dropout(network, 0.2)
    if "head_dropout" in fields:
        surgery.add_head_dropout(network, 0.2)
    x = images().requires_grad_()
    torch.manual_seed(0)
    F.cross_entropy(network(x), torch.arange(4)).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def filled(name, size, *, small_head=False):
    """Build a torchvision network with quickly drawn weights: those of vgg11_bn would take seconds."""
    with summary._WeightsOnMeta():
        network = models.draw(Model(name=name), models.Shape(3, size, 10)).to("meta")
    if small_head:
        network.classifier = nn.Linear(512 * 7 * 7, 10, device="meta")
    network.to_empty(device="cpu")
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, part in network.state_dict().items():
            if key.endswith("running_var"):
                part.uniform_(0.5, 2, generator=draws)
            elif part.is_floating_point():
                part.normal_(
                    0, (2 / max(1, part[0].numel())) ** 0.5 if part.ndim > 1 else 0.3, generator=draws
                )
    return network.eval()


# The network, its image size, whether its three linear layers are replaced by a small one, its BatchNorms,
# its convolutions, its head.
OTHERS = {
    "resnet18": (16, False, 20, 20, "fc"),
    "vgg11_bn": (32, True, 8, 8, "classifier.6"),
    "mobilenet_v2": (32, False, 52, 52, "classifier.1"),
    "densenet121": (32, False, 121, 120, "classifier"),
    "squeezenet1_1": (32, False, 0, 26, "classifier.1"),
    "vit_b_16": (32, False, 0, 1, "heads.head"),
}
WITH_NORMS = [name for name, (_, _, norms, _, _) in OTHERS.items() if norms]


@pytest.mark.parametrize("name", WITH_NORMS)
def test_networks_of_torchvision_compute_without_batch_norm_what_their_own_code_computes_without_it(name):
    size, small, norms, *_ = OTHERS[name]
    network = filled(name, size, small_head=small)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = written_without_norms(lambda: filled(name, size, small_head=small))
    own = {key: part for key, part in network.state_dict().items() if key in expected.state_dict()}
    expected.load_state_dict(own, strict=True)
    assert surgery.remove_batch_norm(network, x) == norms
    with torch.no_grad():
        ours, theirs = network(x), expected(x)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    assert ours.std() > 0


@pytest.mark.parametrize(
    "name", [name for name in networks.BUILT_IN if name not in networks.WITHOUT_BATCH_NORM]
)
def test_built_in_networks_compute_without_batch_norm_what_their_own_code_computes_without_it(name):
    def make():
        return built(name=name, width=0.25).eval()

    network, expected = built(name=name, width=0.25, batch_norm=False).eval(), written_without_norms(make)
    assert not kinds(network, *BatchNorm)
    expected.load_state_dict(
        {key: part for key, part in network.state_dict().items() if key in expected.state_dict()}, strict=True
    )
    assert torch.allclose(network(images()), expected(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_dropout_lands_behind_every_convolution_and_before_the_head_of_torchvision_networks(name):
    size, _, norms, convolutions, head = OTHERS[name]
    with summary._WeightsOnMeta():
        network = models.draw(Model(name=name), models.Shape(3, size, 10)).to("meta")
    own = set(dropping(network))
    x = torch.zeros(2, 3, size, size, device="meta")
    if norms:
        assert surgery.remove_batch_norm(network, x) == norms
    assert surgery.add_conv_dropout(network, 0.1) == convolutions
    surgery.add_head_dropout(network, 0.2)
    added = set(dropping(network)) - own
    assert added == {f"{key}.output_dropout" for key in kinds(network, *Convolution)} | {
        f"{head}.input_dropout"
    }
    assert surgery.head(network)[0] == head
    assert network(x).shape == (2, 10)


def test_the_dropout_of_fusion_lies_between_its_two_linear_layers():
    assert set(dropping(built(name="fusion", head_dropout=0.5))) == {"head.input_dropout"}
    assert built(name="fusion").head.in_features == 256


# What is trainable, and the first names of what then trains.
FREEZING = [
    ("resnet_small", "head", {"head"}),
    ("resnet_small", "layer3", {"layer3", "head"}),
    ("resnet_small", ("layer2.1", "stem"), {"layer2.1", "stem", "head"}),
    ("resnet_small", ("head", "layer1"), {"layer1", "head"}),
    ("cnn4", "block4", {"block4", "head"}),
    ("baseline_cnn", "hidden", {"hidden", "head"}),
    ("fusion", "layer4", {"layer4", "head"}),
]


def trains(key, parts):
    return any(key.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("batch_norm", [True, False], ids=["with norms", "without"])
@pytest.mark.parametrize(("name", "trainable", "parts"), FREEZING)
def test_a_step_changes_the_trainable_parts_and_nothing_else(name, trainable, parts, batch_norm):
    if name in networks.WITHOUT_BATCH_NORM and not batch_norm:
        pytest.skip("has no BatchNorm")
    network = copy.deepcopy(built(name=name, trainable=trainable, batch_norm=batch_norm, conv_dropout=0.1))
    before = {key: part.clone() for key, part in network.state_dict().items()}
    surgery.train(network)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(2):  # the biases given back start at zero, behind dropout: let each get a gradient
        optimizer.zero_grad()
        F.cross_entropy(network(images(16)), torch.arange(16) % 10).backward()
        optimizer.step()
    changed = {key for key, part in network.state_dict().items() if not torch.equal(part, before[key])}
    assert changed == {key for key in before if trains(key, parts)}


def test_without_freezing_everything_trains():
    network = built(name="resnet_small")
    assert all(parameter.requires_grad for parameter in network.parameters())
    surgery.train(network.eval())
    assert all(modes(network).values())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)], ids=["affine", "bare"])
def test_frozen_norms_stay_frozen_through_copies_evaluations_and_training(norm):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)
    )
    surgery.freeze(network, "head")
    network = copy.deepcopy(copy.deepcopy(network).eval())
    surgery.train(network)
    assert modes(network) == {"": True, "0": True, "1": False, "2": True, "3": True, "4": True}
    network(images())
    assert not network[1].running_mean.any()
    assert network[1].num_batches_tracked == 0


def test_the_last_convolution_is_the_head_of_a_network_without_linear_layers():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    surgery.freeze(network, "head")
    assert {key for key, parameter in network.named_parameters() if parameter.requires_grad} == {
        "2.weight",
        "2.bias",
    }
    with pytest.raises(
        ModelError,
        match=r"^model.trainable needs a head, and the network has no linear layer and no convolution$",
    ):
        surgery.freeze(nn.Sequential(nn.ReLU()), "head")


def test_what_the_network_froze_by_itself_stays_frozen():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 10))
    network[1].bias.requires_grad = False
    surgery.freeze(network, "1")
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True]


@pytest.mark.parametrize(
    ("trainable", "said"),
    [
        (
            "layer5",
            (
                "no part layer5 (did you mean layer3 or layer2 or layer1?): take all, head, or parts such as "
                "stem, layer1"
            ),
        ),
        (
            ("layer3", "nonsense"),
            "no part nonsense: take all, head, or parts such as stem, layer1, layer2, layer3, head",
        ),
        ("stem.relu", "nothing to train in its part stem.relu: take all"),
        ("", "no part : take all"),
    ],
)
def test_an_unknown_part_is_refused_with_the_names_there_are(trainable, said):
    with pytest.raises(ModelError) as caught:
        surgery.freeze(built(name="resnet_small"), trainable)
    assert said in str(caught.value)


def test_a_part_that_batch_norm_surgery_emptied_is_no_mistake():
    network = built(name="resnet18", trainable=("bn1", "layer4"), batch_norm=False)
    assert {
        key.split(".")[0] for key, parameter in network.named_parameters() if parameter.requires_grad
    } == {"layer4", "fc"}
