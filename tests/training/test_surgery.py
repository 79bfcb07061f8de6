"""Surgery changes what it says on any network, and nothing else: no other weight, no mode, no random draw."""

import copy
import io

import pytest
import torch
from patients import Functional, dropping, images, kinds, modes, original, seeded
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ablate.training import surgery
from ablate.training.surgery import BatchNorm, Convolution, ModelError


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
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()), (
        "a hook was left behind"
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_parts_that_were_in_another_mode_than_the_network_keep_it(training):
    network = seeded(Functional).train(training)
    network.conv1.train(not training)
    network.norms.train(not training)
    surgery.remove_batch_norm(network, images(2))
    assert (network.training, network.conv1.training, network.norms.training) == (
        training,
        not training,
        not training,
    )


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
    assert torch.allclose(
        network(images()), F.conv2d(F.conv2d(images(), network.conv1.weight), network.conv2.weight), atol=1e-6
    )


def test_a_linear_layer_before_a_norm_gets_a_bias_of_its_own_size():
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = (
                nn.Linear(16, 5, bias=False),
                nn.BatchNorm1d(48),
            )  # BatchNorm1d reads (B, C, L)

        def forward(self, x):
            return self.norm(self.linear(x.flatten(1, 2)))

    network = Sequences()
    surgery.remove_batch_norm(network, images(2))
    assert network.linear.bias.shape == (5,)
    assert network(images()).shape == (4, 48, 5)


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
    assert torch.allclose(
        dropped[kept].double(), x[kept].double() / (1 - drawn), rtol=1e-2 if layout == "bfloat16" else 1e-6
    )
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
    assert set(dropping(network)) == {
        f"{next(n for n, m in network.named_modules() if m is head)}.input_dropout"
    }
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
    convolutional = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
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


@pytest.mark.parametrize(
    "kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
)
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
        (
            lambda net: surgery.remove_batch_norm(net, images(2)),
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3)),
            "model.batch_norm",
        ),
        (
            lambda net: surgery.remove_batch_norm(net, images(2)),
            lambda: nn.Sequential(nn.GroupNorm(1, 3)),
            "model.batch_norm",
        ),
        (
            lambda net: surgery.add_conv_dropout(net, 0.1),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4)),
            "model.conv_dropout",
        ),
        (
            lambda net: surgery.add_head_dropout(net, 0.1),
            lambda: nn.Sequential(nn.Flatten(), nn.ReLU()),
            "model.head_dropout",
        ),
    ],
)
def test_a_network_with_nothing_to_operate_on_is_refused_by_the_name_of_the_field(operate, patient, field):
    with pytest.raises(ModelError, match=rf"^{field}.* has nothing to "):
        operate(patient())
