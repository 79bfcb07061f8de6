"""What a recipe stands for is looked up before any training: networks are checked, weights are fetched."""

import json
import subprocess
import sys
import tomllib

import pytest
import torch
import torchvision
from commands import ablate

from ablate.planning import inputs, network_checks
from ablate.recipe import networks
from ablate.recipe.fields import Model
from ablate.store import files, layout
from ablate.study import file as study_file
from ablate.study import grid

PLAIN_NET = """
from torch import nn
def make(classes, channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
"""
NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once, so that nothing is downloaded
OFFLINE = {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": ""}
BASE = """
name  = "networks"
seeds = 1

[recipe]
data = { name = "digits", image_size = 64, train_size = 60 }
augment = { crop = "none", flip = false }
training = { epochs = 1, batch_size = 20, precision = "fp32" }
"""


def plan(tmp_path, text, *options):
    (tmp_path / "nets.toml").write_text(text)
    return ablate("plan", tmp_path / "nets.toml", "--store", tmp_path / "store", *options)


# What is known without building a network


def test_what_is_said_of_a_network_by_its_name():
    stems = {name for name in (*networks.BUILT_IN, *networks.TORCHVISION) if networks.has_stem(name)}
    assert {"fusion", "resnet18", "resnext50_32x4d", "wide_resnet50_2"} <= stems
    assert not stems & {"resnet9", "resnet_small", "cnn4", "vgg11", "regnet_x_8gf"}
    assert not any(networks.has_weights(name) for name in networks.BUILT_IN if name != "fusion")
    assert all(networks.has_weights(name) for name in ("fusion", *networks.TORCHVISION))
    assert [name for name in ("a:b", "a.b:c", "resnet18") if networks.is_own(name)] == ["a:b", "a.b:c"]


@pytest.mark.parametrize(
    ("fields", "certain"),
    [
        ({"name": "cnn4"}, True),
        ({"name": "resnet18", "batch_norm": False, "head_dropout": 0.5}, True),
        ({"name": "fusion", "trainable": "head"}, True),
        ({"name": "resnet18", "trainable": "layer4"}, False),
        ({"name": "cnn4", "trainable": ("block1", "block2")}, False),
        ({"name": "vgg11"}, False),
        ({"name": "mine:net"}, False),
    ],
)
def test_a_network_is_certain_where_only_fields_decide(fields, certain):
    assert networks.is_certain(Model(**fields)) is certain


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in (*networks.BUILT_IN, "resnet18")
        if networks.has_stem(name) or networks.has_width(name)
    ],
)
@pytest.mark.parametrize("size", [16, 17, 64])
def test_a_network_that_is_called_certain_can_be_built(name, size):
    from ablate.training.models import Shape, summary

    for trainable in ("all", "head"):
        fields = {
            "batch_norm": name in networks.WITHOUT_BATCH_NORM,
            "conv_dropout": 0.1,
            "head_dropout": 0.1,
            "trainable": trainable,
        }
        assert summary.summarise(Model(name=name, **fields), Shape(1, size, 2)).trainable_parameters > 0


# Checking

MINE = """
from torch import nn
def few(classes): return nn.Flatten()
def three(**_): return 3
def broken(**_): return {}["layers"]
def good(classes, channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
"""
LEVELS = {
    "fine": ('name = "cnn4"', None),
    "good": ('name = "my_nets:good"', None),
    "part": (
        'name = "resnet18", model.trainable = "layer9"',
        "model.trainable: the network has no part layer9",
    ),
    "bare": ('name = "vgg11", model.batch_norm = false', "model.batch_norm = false has nothing to remove"),
    "bald": ('name = "alexnet", model.batch_norm = false', "model.batch_norm = false has nothing to remove"),
    "small": ('name = "inception_v3"', "inception_v3 cannot take images of 64 x 64 pixels"),
    "nowhere": ('name = "no_such_nets:net"', "there is no module no_such_nets"),
    "absent": ('name = "my_nets:absent"', "there is none called absent"),
    "few": ('name = "my_nets:few"', "my_nets:few must take the arguments classes, channels and image_size"),
    "three": ('name = "my_nets:three"', "must return a torch.nn.Module, and returned int"),
    "broken": ('name = "my_nets:broken"', "KeyError: 'layers'"),
    "raising": ('name = "raising_nets:net"', "NameError: name 'nothing' is not defined"),
}


def test_every_network_that_cannot_be_had_is_named_at_once_with_its_file_and_cell(tmp_path):
    (tmp_path / "my_nets.py").write_text(MINE)
    (tmp_path / "raising_nets.py").write_text("nothing\n")
    levels = ",\n".join(
        f'{{ name = "{name}", set = {{ model.{fields} }} }}' for name, (fields, _) in LEVELS.items()
    )
    code, out, err = plan(tmp_path, f'{BASE}\n[[factor]]\nname = "net"\nlevels = [{levels}]\n')
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith(f"{tmp_path / 'nets.toml'}: cell net=")]
    wrong = {name: said for name, (_, said) in LEVELS.items() if said}
    assert len(lines) == len(wrong) == len(err.splitlines())
    for line, (name, said) in zip(lines, wrong.items(), strict=True):
        assert line.startswith(f"{tmp_path / 'nets.toml'}: cell net={name}: ")
        assert said in line


FRESH = """
import sys
from pathlib import Path
from ablate.execution import options
from ablate.store import layout
from ablate.study import file
from ablate.workflow import plan
loaded = file.load(Path(sys.argv[1]))
plan.plan(loaded, options.Where(layout.open_store(Path(sys.argv[2]))), check=True)
print(len({"torch", "torchvision"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("names", "heavy"),
    [
        ('"cnn4", "resnet18", "fusion"', "0"),
        pytest.param('"cnn4", "vgg11_bn"', "2", marks=pytest.mark.slow),  # ten seconds: torch, in a process
    ],
)
def test_torch_is_imported_only_for_networks_that_must_be_built_to_be_checked(tmp_path, names, heavy):
    (tmp_path / "nets.toml").write_text(
        f"{BASE}\n[factors]\nmodel.name = [{names}]\nmodel.trainable = ['all', 'head']\n"
    )
    command = [sys.executable, "-c", FRESH, str(tmp_path / "nets.toml"), str(tmp_path / "store")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == heavy
    assert not (tmp_path / "store").exists()


# Describing


@pytest.mark.slow  # two commands that import torch
def test_plan_describes_every_network(tmp_path):
    text = (
        f'{BASE}\n[factors]\nmodel.name = ["cnn4", "resnet18", "vit_b_16"]\nmodel.trainable = ["all", '
        '"head"]\n'
    )
    code, out, err = plan(tmp_path, text.replace("image_size = 64", "image_size = 32"), "--verbose", "--json")
    assert code == 0, err
    told = json.loads(out)["networks"]
    assert list(told) == [
        f"{name}{frozen}"
        for name in ("cnn4", "resnet18", "vit_b_16")
        for frozen in ("", ', trainable="head"')
    ]
    for name in ("cnn4", "resnet18", "vit_b_16"):
        whole, head = told[name], told[f'{name}, trainable="head"']
        assert whole["trainable_parameters"] == whole["parameters"]
        assert head == whole | {"trainable_parameters": head["trainable_parameters"]}
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 128)
    assert told["cnn4"]["parameters"] == convolutions + 2 * (32 + 64 + 128 + 128) + (128 * 4 + 1) * 10
    assert told['cnn4, trainable="head"']["trainable_parameters"] == (128 * 4 + 1) * 10
    steps = 1 * 32 * 32**2 + 32 * 64 * 16**2 + 64 * 128 * 8**2 + 128 * 128 * 4**2
    assert told["cnn4"]["macs"] == 9 * steps + 128 * 4 * 10
    assert told["vit_b_16"]["receptive_field"] is None
    shown = ablate("plan", tmp_path / "nets.toml", "--store", tmp_path / "store", "--verbose", COLUMNS="200")[
        1
    ]
    assert f"{told['cnn4']['parameters']:,} ({(128 * 4 + 1) * 10:,} trained)" in shown
    assert "whole image" in shown
    assert f"{told['cnn4']['receptive_field']} px" in shown


def test_a_network_for_images_of_two_sizes_is_described_for_each(tmp_path):
    text = (
        BASE.replace("image_size = 64, ", "")
        + 'model.name = "cnn4"\n\n[factors]\ndata.image_size = [16, 32]\n'
    )
    (tmp_path / "nets.toml").write_text(text)
    loaded = study_file.load(tmp_path / "nets.toml")
    known = inputs.read(loaded, layout.open_store(tmp_path / "store"), "cpu")
    told = network_checks.summaries(known, known.grid)
    assert list(told) == ["cnn4, data.image_size=16", "cnn4, data.image_size=32"]
    assert told["cnn4, data.image_size=16"].macs < told["cnn4, data.image_size=32"].macs


def test_a_finished_job_has_the_numbers_of_the_plan(done):
    folder, _ = done
    told = json.loads(ablate("plan", "tiny", "--store", folder / "store", "--verbose", "--json")[1])[
        "networks"
    ]
    found = [files.read_json(path) for path in (folder / "store").glob("jobs/*/model.json")]
    assert len(found) == 4
    for one in found:
        model = Model.model_validate(one.pop("model"))
        assert sum(layer.get("macs", 0) for layer in one.pop("layers")) == one["macs"]
        assert one.pop("image") == [1, 16, 16]
        (label,) = (label for label in told if ("batch_norm=false" in label) is not model.batch_norm)
        assert one == told[label]


# Pretrained weights

STAGES = """
model = { name = "resnet18", pretrained = true, stem = "imagenet" }

[[factor]]
name   = "stage"
levels = [ { name = "frozen",  set = { model.trainable = "head" } },
           { name = "partial", set = { model.trainable = ["head", "layer4"] } } ]
"""
STAGED = BASE.replace("image_size = 64", "image_size = 16") + STAGES


@pytest.mark.slow  # 15 s: two trainings of ResNet-18
def test_pretrained_weights_are_trained_where_the_recipe_says_and_frozen_elsewhere(tmp_path):
    torch.manual_seed(5)
    file = torchvision.models.resnet18(num_classes=1000).state_dict()
    kept = (
        tmp_path
        / "hub"
        / "checkpoints"
        / torchvision.models.get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
    )
    kept.parent.mkdir(parents=True)
    torch.save(file, kept)
    (tmp_path / "staged.toml").write_text(STAGED)
    code, out, err = ablate(
        "run", tmp_path / "staged.toml", "--store", tmp_path / "store", TORCH_HOME=str(tmp_path), **OFFLINE
    )
    assert code == 0, out + err
    changed = {}
    for path in (tmp_path / "store").glob("jobs/*/last.pt"):
        trained = torch.load(path, weights_only=True)
        parts = files.read_json(path.with_name("recipe.json"))["recipe"]["model"]["trainable"]
        expected = file | {"conv1.weight": file["conv1.weight"].sum(1, keepdim=True)}  # for grey images
        differ = {
            key
            for key in trained
            if not torch.equal(trained[key], expected[key]) and not key.startswith("fc.")
        }
        changed["head" if parts == "head" else "layer4"] = differ
        assert set(trained) == set(file)
        assert trained["fc.weight"].shape == (10, 512)
    layer = {key for key in file if key.startswith("layer4.")}
    assert changed == {"head": set(), "layer4": layer}


def test_without_weights_and_network_nothing_is_begun(tmp_path):
    (tmp_path / "staged.toml").write_text(STAGED)
    code, out, err = ablate(
        "run", tmp_path / "staged.toml", "--store", tmp_path / "store", TORCH_HOME=str(tmp_path), **OFFLINE
    )
    assert code == 2
    assert f"model.pretrained needs the weights of resnet18 in {tmp_path}/hub/checkpoints/resnet18-" in err
    assert "set model.pretrained = false" in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.glob("store/jobs/*/attempts.jsonl"))


MISTAKES = {
    "exits": ("mynet:make", "import sys; sys.exit()", "raised SystemExit"),
    "random": ("random:make", "def make(**_): ...", "has the name of another module"),
    "no dropout": (
        "mynet:make",
        PLAIN_NET,
        "evaluation.mc_dropout has nothing to sample: mynet:make has no dropout",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_network_of_ones_own_that_will_not_do_is_a_sentence(mistake, tmp_path):
    name, text, said = MISTAKES[mistake]
    (tmp_path / f"{name.partition(':')[0]}.py").write_text(text)
    code, out, err = plan(tmp_path, BASE + f'model.name = "{name}"\nevaluation.mc_dropout = 3\n')
    assert (code, "Traceback" in err) == (2, False), out + err
    assert said in err


def test_a_normalisation_for_other_channels_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "grey.toml").write_text(
        BASE.replace("train_size = 60", 'train_size = 60, normalize = "imagenet"')
    )
    code, _, err = ablate("run", tmp_path / "grey.toml", "--store", tmp_path / "store")
    assert code == 2
    assert "data.normalize has 3 channels, and the images of digits have 1" in err
    assert not list((tmp_path / "store").glob("jobs/*"))


def test_mc_dropout_is_a_choice_for_networks_that_bring_their_own_dropout():
    ways = "[factors]\nevaluation.mc_dropout = [0, 20]\n"
    cells = {
        name: len(
            grid.expand(
                study_file.check(tomllib.loads(BASE + f'model.name = "{name}"\n' + ways), "s"),
                precision="fp32",
            ).cells
        )
        for name in ("vgg11", "mine:net", "resnet18", "cnn4")
    }
    assert cells == {"vgg11": 2, "mine:net": 2, "resnet18": 1, "cnn4": 1}


def test_pretrained_weights_are_part_of_the_identity(tmp_path):
    text = (
        BASE
        + 'model = { name = "resnet18", stem = "imagenet" }\n[factors]\nmodel.pretrained = [true, false]\n'
    )
    known = inputs.read(study_file.check(tomllib.loads(text), "s"), layout.open_store(tmp_path), "cpu")
    identified = inputs.fingerprints(known, known.grid.cells)
    codes = [identified.of(cell.recipe)[1] for cell in known.grid.cells]
    assert codes == ["resnet18-f37072fd.pth", ""]
