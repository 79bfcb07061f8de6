"""The studies of public projects' claims: each is planned at full size, and a tiny one runs to its end."""

import json
import re
from pathlib import Path

import pytest
import torch
import torchvision
from commands import ablate

from ablate.study import file as study_file

STUDIES = Path(__file__).parents[2] / "studies"
JOBS = {"augmentation": 80, "regularization": 85, "architecture": 45, "transfer": 20, "one_cycle": 30}
TINY = ("data.name=digits", "data.image_size=16", "data.train_size=60", "data.normalize=dataset", "seeds=2",
        "training.batch_size=20")  # fmt: skip
SMALL = ("training.epochs=1", "model.width=0.25")
SETS = {
    "augmentation": (*SMALL, "model.name=cnn4", "design=one_at_a_time"),
    "regularization": (
        *SMALL, "factor.normalization.levels.BatchNorm-50.set.training.epochs=2",
        "factor.normalization.levels.none-80.set.training.epochs=3",
    ),
    "architecture": SMALL,
    "transfer": ("seeds=1", *(f"factor.stage.levels.{stage}.set.training.epochs=1"
                                         for stage in ("head", "partial", "fusion", "deeper"))),
    "one_cycle": SMALL,
}  # fmt: skip


def sets(name):
    return [word for pair in (*TINY, *SETS[name]) for word in ("--set", pair)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "transfer" else ()) for name in JOBS]
)
def test_a_study_can_be_planned_as_its_project_has_it_and_as_small_as_its_head_says(name, tmp_path):
    path = STUDIES / f"{name}.toml"
    code, said, err = ablate("plan", path, "--store", tmp_path / "store", "--json")
    assert code == 0, err
    planned = json.loads(said)
    assert planned["jobs"] == planned["to_train"] == JOBS[name]
    assert planned["unused_factors"] == []
    text = path.read_text()
    assert f"{JOBS[name]} jobs" in text.split("name ")[0], "its costs"
    lines = re.sub(r"\\\n# *", "", text)
    (command,) = re.findall(rf"Small: ablate run studies/{name}.toml (.*)", lines)
    words = [
        quoted or word
        for quoted, word in re.findall(r"'([^']*)'|(\S+)", command)
        if (quoted or word) != "--set"
    ]
    small = study_file.load(path, tuple(words))
    assert small.claims == study_file.load(path).claims
    assert small.seeds == (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("shared") / "store"


@pytest.mark.slow  # two dozen trainings at most, of a moment each
@pytest.mark.parametrize("name", JOBS)
def test_a_tiny_one_runs_to_its_end(name, store, tmp_path):
    given = (STUDIES / f"{name}.toml", "--store", store, *sets(name))
    if name == "transfer":  # weights that were drawn here, as torchvision's file has them
        weights = torchvision.models.get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        network = torchvision.models.resnet18(weights=None)
        torch.save(network.state_dict(), tmp_path / "hub/checkpoints" / weights)
    code, said, err = ablate("run", *given, TORCH_HOME=str(tmp_path))
    assert code == 0, said + err
    code, said, err = ablate("status", *given, "--json", TORCH_HOME=str(tmp_path))
    assert code == 0, err
    told = json.loads(said)["total"]
    assert set(told) <= {"finished", "at_chance", "diverged"}, told
    code, said, err = ablate("report", *given, "--format", "json", TORCH_HOME=str(tmp_path))
    assert code == 0, err
    claims = json.loads(said)["claims"]
    assert len(claims) == len(study_file.load(STUDIES / f"{name}.toml").claims)


def test_every_study_is_in_the_readme_of_the_folder():
    readme = (STUDIES / "README.md").read_text()
    assert [path.name for path in STUDIES.glob("*.toml") if f"`{path.name}`" not in readme] == []
