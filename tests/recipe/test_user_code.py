"""A network of one's own: identified without running, imported for a study file only, new with its code."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from commands import ablate, attempts
from houses import DIGITS, House, run_here

from ablate.errors import AblateError
from ablate.recipe import identity, user_code
from ablate.recipe.fields import Model, Recipe, Training
from ablate.store import files, job_folder
from ablate.study.grid import Job
from ablate.training import data

RAISES = "raise SystemExit('a module that is looked for must not run')\n"


def put(path, text=RAISES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Finding


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return the folder of a study, and the current one."""
    for name in ("study", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "study", tmp_path / "here"


def find(network, study):
    return user_code.find(network, user_code.folders(str(study)))


def test_a_module_is_found_beside_the_study_then_in_the_current_folder(places):
    study, here = places
    other, file = put(here / "wide_net.py"), put(study / "wide_net.py")
    assert find("wide_net:make", study) == file
    file.unlink()
    assert find("wide_net:make", study) == other


def test_a_module_is_found_in_a_package_and_the_package_itself(places):
    study, _ = places
    package, module = put(study / "my_nets/__init__.py"), put(study / "my_nets/deep/wide.py")
    assert find("my_nets:make", study) == package
    assert find("my_nets.deep.wide:make", study) == module
    assert find("my_nets.wide:make", study) is None
    assert find("my_nets.deep:make", study) is None  # a folder without code


def test_an_installed_module_is_found_unless_one_beside_the_study_has_its_name(places, tmp_path, monkeypatch):
    study, here = places
    installed = put(tmp_path / "site/wide_net.py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find("wide_net:make", study) == installed
    put(here / "wide_net.py")  # others may write there
    assert find("wide_net:make", study) == installed
    file = put(study / "wide_net.py")
    assert find("wide_net:make", study) == file


def test_what_is_found_is_what_is_imported(places, monkeypatch):
    study, here = places
    put(study / "two_of_me.py", "which = 'study'"), put(here / "two_of_me.py", "which = 'here'")
    monkeypatch.setattr(sys, "path", [str(here), str(study), *sys.path])  # as PYTHONPATH may have it
    assert find("two_of_me:which", study) == study / "two_of_me.py"
    user_code.allow("mynet:tiny", user_code.folders(str(study)))
    import two_of_me

    assert two_of_me.which == "study"
    assert sys.path[-1] == str(here)


def test_nothing_is_imported_while_a_module_is_found_and_identified(places):
    study, _ = places
    put(study / "my_nets/__init__.py"), put(study / "my_nets/wide.py")
    assert len(user_code.fingerprint("my_nets.wide:make", user_code.folders(str(study)))) == 64
    assert not {"my_nets", "my_nets.wide"} & set(sys.modules)


def test_the_fingerprint_is_that_of_the_bytes_and_of_nothing_else(places):
    study, here = places
    text = "# été\n" + RAISES
    put(study / "wide_net.py", text), put(here / "deep_net.py", text)
    one, other = (
        user_code.fingerprint(f"{name}:f", user_code.folders(str(study))) for name in ("wide_net", "deep_net")
    )
    assert one == other == hashlib.sha256(text.encode()).hexdigest()
    put(study / "wide_net.py", text + " ")
    assert user_code.fingerprint("wide_net:f", user_code.folders(str(study))) != one


def test_a_module_that_is_not_there_is_named_with_the_places(places):
    study, here = places
    with pytest.raises(AblateError) as caught:
        user_code.fingerprint("no_such_net.at_all:make", user_code.folders(str(study)))
    expected = f"there is no module no_such_net.at_all in {study} or {here}, nor installed: check the name"
    assert str(caught.value) == f'model.name = "no_such_net.at_all:make": {expected}'


# From a study file to a report

STUDY = """
name   = "own"
seeds  = 2
metric = "test/accuracy"

[recipe]
data = { name = "digits", image_size = 16, train_size = 120 }
augment = { crop = "none", flip = false }
training = { epochs = 3, batch_size = 10, precision = "fp32" }
optimizer = { name = "adam", lr = 0.005 }

[factors]
model.name = ["cnn4", "mynet:tiny"]
"""
NET = """
from pathlib import Path
from torch import nn

with Path(__file__).with_name("imported").open("a") as file:
    file.write("once more\\n")

def tiny(*, classes, channels, image_size):
    stem = nn.Conv2d(channels, WIDTH, 3, stride=2)
    return nn.Sequential(stem, nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH * 49, classes))

WIDTH = 8
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the study once: (folder of the study, store, what it printed)."""
    folder, store = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("kept") / "store"
    put(folder / "own.toml", STUDY), put(folder / "mynet.py", NET)
    code, out, err = ablate("run", folder / "own.toml", "--store", store)
    assert (code, err) == (0, ""), out + err
    (folder / "imported").unlink()
    return folder, store, out


@pytest.mark.slow  # a run
def test_a_network_of_ones_own_is_trained_judged_and_compared(ran):
    folder, store, out = ran
    assert "model=mynet:tiny" in out
    recipes = [files.read_json(path) for path in store.glob("jobs/*/recipe.json")]
    code = hashlib.sha256((folder / "mynet.py").read_bytes()).hexdigest()
    assert sorted((one["recipe"]["model"]["name"], one["code"]) for one in recipes) == [
        *[("cnn4", "")] * 2,
        *[("mynet:tiny", code)] * 2,
    ]
    assert len(list(store.glob("jobs/*/outcomes/*/outcome.json"))) == attempts(store) == 4
    sizes = {one["parameters"] for one in map(files.read_json, store.glob("jobs/*/result.json"))}
    assert 8 * 9 + 8 + (8 * 49 + 1) * 10 in sizes


@pytest.mark.slow  # a run
def test_what_the_store_knows_of_it_is_told_by_name_without_its_code(ran):
    folder, store, _ = ran
    code, out, err = ablate("status", "own", "--store", store, "--json")
    assert (code, json.loads(out)["total"]) == (0, {"finished": 4}), err
    code, out, err = ablate("report", "own", "--store", store, "--format", "json")
    assert code == 0, err
    assert [(cell["cell"], cell["n"]) for cell in json.loads(out)["cells"]] == [
        ("baseline", 2),
        ("model=mynet:tiny", 2),
    ]
    assert not (folder / "imported").exists()


@pytest.mark.slow  # a run
def test_a_study_of_the_store_runs_no_code(ran, tmp_path):
    folder, store, _ = ran
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("artifacts", "mlflow.db"))
    for path in (tmp_path / "store/jobs").iterdir():
        shutil.rmtree(path)
    code, out, err = ablate("run", "own", "--store", tmp_path / "store", PYTHONPATH=str(folder))
    assert (code, out) == (2, "")
    assert (
        "own uses your code (mynet:tiny), which is imported only when you give the file, as in ablate plan "
        "own.toml" in err
    )
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "store/jobs").iterdir())
    assert not (folder / "imported").exists()


@pytest.mark.slow
def test_other_code_is_trained_anew_and_everything_else_is_kept(ran, tmp_path):
    _, store, _ = ran

    def left(text, name):
        put(tmp_path / name / "own.toml", STUDY), put(tmp_path / name / "mynet.py", text)
        code, out, err = ablate("plan", tmp_path / name / "own.toml", "--store", store, "--json", "--verbose")
        assert code == 0, err
        told = json.loads(out)
        return told["done"], told["to_train"], told["networks"]["mynet:tiny"]["parameters"], told["notes"]

    assert left(NET, "elsewhere") == (4, 0, 8 * 10 + (8 * 49 + 1) * 10, [])  # where it lies is not what it is
    why = ["2 jobs were trained with another mynet.py the last time"]
    assert left(NET.replace("WIDTH = 8", "WIDTH = 16"), "wider") == (2, 2, 16 * 10 + (16 * 49 + 1) * 10, why)


@pytest.mark.slow  # a run
def test_a_report_by_file_does_without_code_that_is_gone(ran, tmp_path):
    _, store, _ = ran
    put(tmp_path / "own.toml", STUDY)
    code, out, err = ablate("status", tmp_path / "own.toml", "--store", store, "--json")
    assert (code, err.count("\n")) == (0, 1)
    assert "which is another file and has its own images or networks beside it" in err
    assert json.loads(out)["total"] == {"finished": 4}


def test_a_mistake_in_the_code_is_a_sentence_before_anything_is_trained(tmp_path):
    put(tmp_path / "own.toml", STUDY), put(tmp_path / "mynet.py", NET.replace("nn.ReLU()", "nn.ReUL()"))
    code, out, err = ablate("run", tmp_path / "own.toml", "--store", tmp_path / "store")
    assert code == 2
    assert f"{tmp_path / 'own.toml'}: cell model=mynet:tiny: mynet:tiny" in err
    assert "has no attribute 'ReUL'" in err
    assert f"{tmp_path / 'mynet.py'}, line 10" in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.glob("store/jobs/*"))


# In a worker


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a builder of a job's task with a network of one's own, and the network's file."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net_of_a_job", raising=False)
    file = put(tmp_path / "code" / "net_of_a_job.py", NET)
    house = House(tmp_path, data.prepare(DIGITS, tmp_path / "data").folder)
    made = Recipe(
        data=DIGITS,
        model=Model(name="net_of_a_job:tiny"),
        training=Training(epochs=1, batch_size=16, precision="fp32"),
    )
    code = user_code.fingerprint(made.model.name, (str(file.parent),))
    folder = job_folder.Folder(tmp_path / "job")
    job_folder.create(
        folder, Job(identity.job_id(made, 0, house.digits.name, code), made, 0, house.digits.name, code)
    )
    return lambda code: house.task(folder, code=code).to_json(), file


def test_a_worker_runs_the_code_that_the_job_was_made_with(job):
    task, file = job
    assert run_here(task((str(file.parent),)))[0] == {"status": "finished"}
    assert file.with_name("imported").exists()


def test_a_worker_runs_no_code_for_a_job_that_comes_from_a_store_nor_other_code(job):
    task, file = job
    with pytest.raises(
        AblateError, match="is imported for a study file only, and this job comes from a store"
    ):
        run_here(task(None))
    file.write_text(NET + "# changed\n")
    with pytest.raises(AblateError, match="has changed since the run was started: run the study again"):
        run_here(task((str(file.parent),)))
    assert not file.with_name("imported").exists()
    assert "AblateError" in files.read_json(Path(task(None)["folder"]) / "failure.json")["error"]
