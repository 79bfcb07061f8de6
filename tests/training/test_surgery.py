"""Surgery changes what it says on any network, and nothing else: no other weight, no mode, no draw of random numbers."""

import copy
import functools
import io
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models import resnet18

from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.training import models, surgery
from ablate.training.models import summary
from ablate.training.surgery import BatchNorm, Convolution, ModelError

SHAPE = models.Shape(channels=3, image_size=16, classes=10)


class PreActivation(nn.Module):
    """A small residual network that normalises before its convolutions (He et al. 2016b)."""

    def __init__(self, *, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1, self.norm2 = norm(8), norm(8)
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(F.relu(self.norm2(x)))
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """A plain network whose activations are no modules, defined in another order than used, one of its convolutions with a bias."""

    def __init__(self, *, norm=nn.BatchNorm2d):
        super().__init__()
        self.norms = nn.ModuleDict({"second": norm(16), "first": norm(8)})
        self.head = nn.Linear(16, 10)
        self.conv3 = nn.Conv2d(16, 16, 1, bias=False)  # no norm follows
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.norms["first"](self.conv1(x)))
        x = F.relu(self.norms["second"](self.conv2(x)))
        return self.head(F.relu(self.conv3(x)).mean((2, 3)))


def nothing(_channels):
    return nn.Identity()


def built(**fields):
    return models.build(Model(**fields), SHAPE, seed=3)


class NoNorm(nn.Identity):
    """Stands where a BatchNorm was asked for, with the attributes that a network initialises."""

    def __init__(self, *_args, **_kwargs):
        super().__init__()
        self.weight, self.bias = torch.zeros(1), torch.zeros(1)


def written_without_norms(make):
    """Build a network whose own code gets no BatchNorm when it asks for one."""
    with mock.patch.object(nn, "BatchNorm2d", NoNorm):
        return make()


def bare_resnet18(stem):
    network = resnet18(num_classes=10, norm_layer=nothing)
    if stem == "cifar":
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def seeded(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind()


CNN4_CONVOLUTIONS = {f"block{i}.conv" for i in range(1, 5)}
RESNET_CONVOLUTIONS = {
    "conv1", *(f"layer{i}.{j}.conv{k}" for i in range(1, 5) for j in range(2) for k in (1, 2)),
    *(f"layer{i}.0.downsample.0" for i in range(2, 5)),
}  # fmt: skip
# The network; the same written without BatchNorm; its norms; its convolutions; those whose output a norm reads.
NETWORKS = {
    "cnn4": (
        lambda: built(name="cnn4"), lambda: written_without_norms(lambda: built(name="cnn4")), 4, CNN4_CONVOLUTIONS, CNN4_CONVOLUTIONS,
    ),
    "resnet18-cifar": (
        lambda: built(name="resnet18", stem="cifar"), lambda: bare_resnet18("cifar"), 20, RESNET_CONVOLUTIONS, RESNET_CONVOLUTIONS,
    ),
    "resnet18-imagenet": (
        lambda: built(name="resnet18", stem="imagenet"), lambda: bare_resnet18("imagenet"), 20, RESNET_CONVOLUTIONS, RESNET_CONVOLUTIONS,
    ),
    "pre-activation": (lambda: seeded(PreActivation), lambda: PreActivation(norm=nothing), 2, {"stem", "conv1", "conv2"}, {"stem"}),
    "functional": (lambda: seeded(Functional), lambda: Functional(norm=nothing), 2, {"conv1", "conv2", "conv3"}, {"conv1", "conv2"}),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]


@functools.cache
def original(make):
    """Build a network once: a large one takes longer than a test of it."""
    return make()


@pytest.fixture
def network(case):
    return copy.deepcopy(original(case[0]))


def images(number=4):
    return torch.rand(number, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def kinds(network, *classes):
    return {name: module for name, module in network.named_modules() if isinstance(module, classes)}


def modes(network):
    return {name: module.training for name, module in network.named_modules()}


def test_no_batch_norm_is_left_and_the_number_removed_is_told(case, network):
    assert surgery.remove_batch_norm(network, images(2)) == case[2]
    assert not kinds(network, *BatchNorm)


def test_exactly_the_convolutions_that_fed_a_norm_get_a_bias_of_zeros(case, network):
    before = {name: module.bias for name, module in kinds(network, *Convolution).items()}
    assert set(before) == case[3]
    surgery.remove_batch_norm(network, images(2))
    for name, convolution in kinds(network, *Convolution).items():
        if before[name] is not None:
            assert convolution.bias is before[name], "the bias that was there stays"
        elif name in case[4]:
            assert isinstance(convolution.bias, nn.Parameter)
            assert torch.equal(convolution.bias, torch.zeros(convolution.out_channels))
            assert dict(network.named_parameters())[f"{name}.bias"] is convolution.bias
        else:
            assert convolution.bias is None


def test_without_batch_norm_it_computes_what_the_network_written_without_it_computes(case, network):
    torch.manual_seed(0)
    network(images(32))  # running statistics that differ from those of a fresh norm
    expected = case[1]()
    own = {name: part for name, part in network.state_dict().items() if name in expected.state_dict()}
    expected.load_state_dict(own, strict=True)
    before = network.eval()(images())
    surgery.remove_batch_norm(network, images(2))
    assert torch.allclose(network(images()), expected.eval()(images()), rtol=0, atol=1e-6)
    assert not torch.allclose(network(images()), before, rtol=0, atol=1e-3)


def test_the_bias_that_a_convolution_gets_is_used(case, network):
    surgery.remove_batch_norm(network, images(2))
    before = network(images())
    with torch.no_grad():
        for name in case[4]:
            network.get_submodule(name).bias.add_(0.5)
    assert not torch.allclose(network(images()), before, atol=1e-3)


def test_looking_at_the_network_leaves_statistics_modes_and_random_numbers_as_they_were(case, network):
    norms = kinds(network, *BatchNorm)
    next(iter(norms.values())).eval()  # as somebody does who freezes a part
    statistics = copy.deepcopy({name: norm.state_dict() for name, norm in norms.items()})
    before, state = modes(network), torch.get_rng_state()
    surgery.remove_batch_norm(network, images(2))
    for name, norm in norms.items():
        assert norm.training is before[name]
        assert all(torch.equal(part, statistics[name][key]) for key, part in norm.state_dict().items())
    after = modes(network)
    assert all(after[name] is mode for name, mode in before.items() if name not in norms)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()), "a hook was left behind"


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_parts_that_were_in_another_mode_than_the_network_keep_it(training):
    network = seeded(Functional).train(training)
    network.conv1.train(not training)
    network.norms.train(not training)
    surgery.remove_batch_norm(network, images(2))
    assert (network.training, network.conv1.training, network.norms.training) == (training, not training, not training)


def test_a_norm_under_two_names_or_behind_two_convolutions_is_removed_everywhere():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
            self.norm = self.alias = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.alias(self.conv2(self.norm(self.conv1(x))))

    network = Shared()
    assert surgery.remove_batch_norm(network, images(2)) == 1
    assert not any(isinstance(module, BatchNorm) for module in (network.norm, network.alias))
    assert network.conv1.bias is not None
    assert network.conv2.bias is not None
    assert torch.allclose(network(images()), F.conv2d(F.conv2d(images(), network.conv1.weight), network.conv2.weight), atol=1e-6)


def test_a_linear_layer_before_a_norm_gets_a_bias_of_its_own_size():
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(16, 5, bias=False), nn.BatchNorm1d(48)  # BatchNorm1d reads (B, C, L)

        def forward(self, x):
            return self.norm(self.linear(x.flatten(1, 2)))

    network = Sequences()
    surgery.remove_batch_norm(network, images(2))
    assert network.linear.bias.shape == (5,)
    assert network(images()).shape == (4, 48, 5)


def dropping(network):
    """Return the dropout layers that surgery put into a network."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout)}


def test_dropout_follows_every_convolution(case, network):
    assert surgery.add_conv_dropout(network, 0.3) == len(case[3])
    assert set(dropping(network)) == {f"{name}.output_dropout" for name in case[3]}
    seen = {}

    def keep(name):
        def hook(_module, _inputs, output):
            seen[name] = output.detach().clone()

        return hook

    for name in case[3]:
        network.get_submodule(name).register_forward_hook(keep(name))
    torch.manual_seed(0)
    network(images(32))
    shares = {name: (output == 0).double().mean() for name, output in seen.items()}
    for name, output in seen.items():
        assert abs(shares[name] - 0.3) < 5 * (0.3 * 0.7 / output.numel()) ** 0.5, name


LAYOUTS = {
    "one": lambda: torch.rand(1) + 1,
    "odd": lambda: torch.rand(3, 7, 5, 11) + 1,
    "rows": lambda: torch.rand(257, 33) + 1,
    "channels_last": lambda: (torch.rand(4, 6, 9, 9) + 1).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: (torch.rand(4, 6, 9, 9) + 1).transpose(1, 3),
    "sliced": lambda: (torch.rand(4, 6, 9, 9) + 1)[:, ::2, 1:],
    "empty": lambda: torch.rand(0, 3),
    "bfloat16": lambda: (torch.rand(5, 6, 8) + 1).to(torch.bfloat16),
}


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999999])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_sets_elements_to_zero_or_scales_them_whatever_the_layout(layout, p):
    x = LAYOUTS[layout]()
    before = x.clone()
    torch.manual_seed(0)
    dropped = surgery.QuickDropout(p)(x)
    assert (dropped.shape, dropped.dtype) == (x.shape, x.dtype)
    kept = dropped != 0
    drawn = min(round(p * 65536), 65535) / 65536
    assert torch.allclose(dropped[kept].double(), x[kept].double() / (1 - drawn), rtol=1e-2 if layout == "bfloat16" else 1e-6)
    assert torch.equal(x, before)
    if p == 0:
        assert kept.all()


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_independently_in_every_place_and_keeps_the_mean(p):
    x = torch.ones(64, 8, 16, 16)
    torch.manual_seed(2)
    dropped = surgery.QuickDropout(p)(x)
    zero = (dropped == 0).double()
    sd = (p * (1 - p)) ** 0.5
    assert abs(zero.mean() - p) < 5 * sd / x.numel() ** 0.5 + 1e-5
    assert abs(dropped.double().mean() - 1) < 5 * (p / (1 - p)) ** 0.5 / x.numel() ** 0.5 + 1e-5
    for lag in (1, 2, 3, 4, 5, 16, 256, 2048):
        flat = zero.flatten() - p
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 * sd**2 / (x.numel() - lag) ** 0.5, lag
    for place in range(4):  # four elements come from one number of the generator
        share = zero.flatten()[place::4].mean()
        assert abs(share - p) < 5 * sd / (x.numel() / 4) ** 0.5 + 1e-5


def test_dropout_draws_anew_each_time_from_the_global_generator_alone():
    x = torch.ones(1000)
    layer = surgery.QuickDropout(0.5)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    state = torch.get_rng_state()
    layer.eval()
    assert layer(x) is x or torch.equal(layer(x), x)
    assert torch.equal(torch.get_rng_state(), state), "an evaluation draws nothing"


def test_the_gradient_of_dropout_is_its_mask():
    x = torch.ones(100, requires_grad=True)
    torch.manual_seed(4)
    dropped = surgery.QuickDropout(0.25)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


def test_dropout_is_active_in_training_only(network):
    whole = network.eval()(images())
    surgery.add_conv_dropout(network, 0.3)
    surgery.add_head_dropout(network, 0.3)
    assert modes(network) == dict.fromkeys(modes(network), False), "what is put into a network takes its mode"
    assert torch.equal(network(images()), whole)
    network.train()
    torch.manual_seed(0)
    first, second = network(images()), network(images())
    assert not torch.allclose(first, second)
    assert torch.equal(network.eval()(images()), network(images()))


def test_dropout_renames_no_parameter_and_changes_none(network):
    before = {name: part.clone() for name, part in network.state_dict().items()}
    state = torch.get_rng_state()
    surgery.add_conv_dropout(network, 0.3)
    surgery.add_head_dropout(network, 0.3)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert torch.equal(torch.get_rng_state(), state)


def dropped_output(network):
    """Pass images in training mode under fixed draws of the dropout."""
    torch.manual_seed(5)
    return network.train()(images())


def test_dropout_survives_a_copy_that_is_independent_of_the_original(network):
    surgery.add_conv_dropout(network, 0.3)
    surgery.add_head_dropout(network, 0.3)
    copied = copy.deepcopy(network)
    assert len(dropping(copied)) == len(dropping(network))
    expected = dropped_output(network)
    network.eval()
    assert all(layer.training for layer in dropping(copied).values())
    for layer in dropping(network).values():
        layer.p = 0.0
    assert torch.equal(dropped_output(copied), expected)
    assert not torch.allclose(dropped_output(network), expected)


def test_weights_go_to_a_file_and_back_into_a_network_with_or_without_dropout(case, network):
    surgery.add_conv_dropout(network, 0.3)
    surgery.add_head_dropout(network, 0.3)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    weights = torch.load(file, weights_only=True)
    whole, same = (copy.deepcopy(original(case[0])) for _ in range(2))
    with torch.no_grad():
        for parameter in (*whole.parameters(), *same.parameters()):
            parameter.zero_()
    surgery.add_conv_dropout(same, 0.3)
    surgery.add_head_dropout(same, 0.3)
    same.load_state_dict(weights, strict=True)
    whole.load_state_dict(weights, strict=True)
    assert torch.equal(whole.eval()(images()), network.eval()(images()))
    assert torch.equal(dropped_output(same), dropped_output(network))


def test_head_dropout_drops_what_the_last_linear_layer_reads(network):
    *_, head = kinds(network, nn.Linear).values()
    seen = []
    hook = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    torch.manual_seed(1)
    network.eval()(images(64))
    hook.remove()
    surgery.add_head_dropout(network, 0.25)
    assert set(dropping(network)) == {f"{next(n for n, m in network.named_modules() if m is head)}.input_dropout"}
    dropping(network).popitem()[1].train()
    head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    torch.manual_seed(7)
    network(images(64))
    torch.manual_seed(7)
    assert torch.equal(seen[1], surgery.QuickDropout(0.25)(seen[0]))
    kept = seen[1][seen[0] != 0] != 0
    assert abs(kept.double().mean() - 0.75) < 5 * (0.25 * 0.75 / kept.numel()) ** 0.5


def test_head_dropout_goes_before_the_last_of_several_linear_layers_and_else_before_the_last_convolution():
    two = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 4))
    surgery.add_head_dropout(two, 0.5)
    assert set(dropping(two)) == {"3.input_dropout"}
    convolutional = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    surgery.add_head_dropout(convolutional, 0.5)
    assert set(dropping(convolutional)) == {"2.input_dropout"}
    torch.manual_seed(0)
    assert not torch.equal(convolutional(images()), convolutional(images()))


def test_sampling_switches_dropout_on_and_nothing_else(network):
    surgery.add_conv_dropout(network, 0.3)
    surgery.add_head_dropout(network, 0.3)
    network.eval()
    assert surgery.sample_dropout(network) == len(dropping(network))
    assert {name for name, mode in modes(network).items() if mode} == set(dropping(network))
    statistics = {name: part.clone() for name, part in network.state_dict().items()}
    torch.manual_seed(0)
    assert not torch.allclose(network(images()), network(images()))
    assert all(torch.equal(part, statistics[name]) for name, part in network.state_dict().items())


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_sampling_knows_every_dropout_of_torch(kind):
    network = nn.Sequential(nn.Linear(2, 2), kind(0.5), nn.BatchNorm1d(2)).eval()
    assert surgery.sample_dropout(network) == 1
    assert [module.training for module in network] == [False, True, False]


def test_sampling_a_network_without_dropout_says_so_and_changes_nothing(network):
    network.eval()
    assert surgery.sample_dropout(network) == 0
    assert not any(modes(network).values())


@pytest.mark.parametrize(
    ("operate", "patient", "field"),
    [
        (lambda net: surgery.remove_batch_norm(net, images(2)), lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), "model.batch_norm"),
        (lambda net: surgery.remove_batch_norm(net, images(2)), lambda: nn.Sequential(nn.GroupNorm(1, 3)), "model.batch_norm"),
        (lambda net: surgery.add_conv_dropout(net, 0.1), lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), "model.conv_dropout"),
        (lambda net: surgery.add_head_dropout(net, 0.1), lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), "model.head_dropout"),
    ],
)
def test_a_network_with_nothing_to_operate_on_is_refused_by_the_name_of_the_field(operate, patient, field):
    with pytest.raises(ModelError, match=rf"^{field}.* has nothing to "):
        operate(patient())


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
    assert all(not operated[key].any() for key in operated.keys() - plain.keys()), "what is new is a bias of zeros"


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
    """Build a torchvision network without drawing its weights as it would, then fill it quickly: vgg11_bn would take seconds."""
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
                part.normal_(0, (2 / max(1, part[0].numel())) ** 0.5 if part.ndim > 1 else 0.3, generator=draws)
    return network.eval()


# The network, its image size, whether its three linear layers are replaced by a small one, its BatchNorms, its convolutions, its head.
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


@pytest.mark.parametrize("name", [name for name in networks.BUILT_IN if name not in networks.WITHOUT_BATCH_NORM])
def test_built_in_networks_compute_without_batch_norm_what_their_own_code_computes_without_it(name):
    def make():
        return built(name=name, width=0.25).eval()

    network, expected = built(name=name, width=0.25, batch_norm=False).eval(), written_without_norms(make)
    assert not kinds(network, *BatchNorm)
    expected.load_state_dict({key: part for key, part in network.state_dict().items() if key in expected.state_dict()}, strict=True)
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
    assert added == {f"{key}.output_dropout" for key in kinds(network, *Convolution)} | {f"{head}.input_dropout"}
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
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    surgery.freeze(network, "head")
    network = copy.deepcopy(copy.deepcopy(network).eval())
    surgery.train(network)
    assert modes(network) == {"": True, "0": True, "1": False, "2": True, "3": True, "4": True}
    network(images())
    assert not network[1].running_mean.any()
    assert network[1].num_batches_tracked == 0


def test_the_last_convolution_is_the_head_of_a_network_without_linear_layers():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    surgery.freeze(network, "head")
    assert {key for key, parameter in network.named_parameters() if parameter.requires_grad} == {"2.weight", "2.bias"}
    with pytest.raises(ModelError, match=r"^model.trainable needs a head, and the network has no linear layer and no convolution$"):
        surgery.freeze(nn.Sequential(nn.ReLU()), "head")


def test_what_the_network_froze_by_itself_stays_frozen():
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 10))
    network[1].bias.requires_grad = False
    surgery.freeze(network, "1")
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True]


@pytest.mark.parametrize(
    ("trainable", "said"),
    [
        ("layer5", "no part layer5 (did you mean layer3 or layer2 or layer1?): take all, head, or parts such as stem, layer1"),
        (("layer3", "nonsense"), "no part nonsense: take all, head, or parts such as stem, layer1, layer2, layer3, head"),
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
    assert {key.split(".")[0] for key, parameter in network.named_parameters() if parameter.requires_grad} == {"layer4", "fc"}
