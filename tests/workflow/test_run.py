"""The start of commands: one that cannot start leaves nothing behind, and whatever was there stays."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from multiprocessing import forkserver
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import wait_until
from PIL import Image
from projects import TEXT, run

from ablate import tracking
from ablate.cli import main
from ablate.errors import StoreError
from ablate.execution import executors
from ablate.execution.executors import server
from ablate.planning import inputs
from ablate.store import layout, study_folder


@pytest.mark.parametrize(
    "given",
    [
        ["--set", "data.name=imagefolder", "--set", "data.root=/nowhere"],
        ["--set", "data.train_size=100000"],
        ["--device", "cuda"],
        ["--set", "model.name=pets:nothing"],
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["run", "lr-find"])
def test_what_could_not_start_leaves_no_store_behind(proj, monkeypatch, command, given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = CliRunner().invoke(main, [command, "pets.toml", "--store", "deep/mlruns", *given])
    assert done.exit_code == 2
    assert [path.name for path in proj.iterdir()] == ["pets.toml"]


@pytest.mark.parametrize("command", ["run", "lr-find"])
def test_a_new_store_in_which_a_folder_of_images_was_decoded_stays(proj, command):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (proj / "imgs" / split / label).mkdir(parents=True)
            Image.new("RGB", (16, 16), "red").save(proj / "imgs" / split / label / "0.png")
    given = ["--set", "data.name=imagefolder", "--set", "data.root=imgs", "--set", "data.train_size=3"]
    for decoding in (True, False):
        done = CliRunner().invoke(main, [command, "pets.toml", *given])
        assert (done.exit_code, "decoding imagefolder" in done.output + done.stderr) == (2, decoding)
        assert "data.train_size must be at most the 2 training images" in done.stderr
        assert layout.is_store(proj / "mlruns")


@pytest.mark.parametrize("command", ["run", "lr-find"])
def test_weights_that_cannot_be_had_are_missed_before_anything_is_decoded(proj, monkeypatch, command):
    monkeypatch.setenv("TORCH_HOME", str(proj.parent))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: refused at once
    monkeypatch.setenv("no_proxy", "")
    net = '{ name = "resnet18", pretrained = true, stem = "imagenet" }'
    done = CliRunner().invoke(main, [command, "pets.toml", "--set", f"model={net}"])
    assert (done.exit_code, "decoding" in done.output + done.stderr) == (2, False), done.output
    assert "model.pretrained needs the weights of resnet18" in done.stderr
    assert not (proj / "mlruns").exists()


def test_a_study_that_could_not_start_leaves_nothing_in_a_store_that_was_there(proj):
    run("pets.toml")
    before = sorted(Path("mlruns").rglob("*"))
    (proj / "other.toml").write_text(TEXT.replace('"pets"', '"other"'))
    done = CliRunner().invoke(
        main, ["run", "other.toml", "--set", "data.name=imagefolder", "--set", "data.root=/nowhere"]
    )
    assert done.exit_code == 2
    assert [path for path in sorted(Path("mlruns").rglob("*")) if path.parent.name != "data"] == before


def fail_in(store, *others):
    """Fail in a store that has just been made, while other studies are held there."""
    for stack, name in others:
        stack.enter_context(study_folder.hold(store, name))
    raise StoreError(str(store.path))


def test_a_store_in_which_something_was_trained_stays_whatever_happens(tmp_path):
    store = layout.open_store(tmp_path / "mlruns")
    with layout.creating(store):
        store.job("a" * 64).path.mkdir()
    with pytest.raises(StoreError), layout.creating(store):
        fail_in(store)
    assert store.job("a" * 64).path.is_dir()


def test_a_new_store_in_which_another_process_works_stays(tmp_path):
    store = layout.open_store(tmp_path / "mlruns")
    with ExitStack() as stack, pytest.raises(StoreError), layout.creating(store):
        fail_in(store, (stack, "other"))
    assert layout.is_store(store.path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own dependencies, at import
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # MLflow leaves its connections to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mlflow_is_imported_while_the_workers_start(proj, monkeypatch):
    loaded, start, load = [], executors.start, tracking.load

    def loads(address):
        loaded.append(threading.current_thread().name)
        load(address)

    def starts(*given):
        wait_until(lambda: loaded)
        assert loaded == ["imports"]
        assert not (proj / "mlruns" / "mlflow.db").exists()  # of a start that fails nothing is left
        return start(*given)

    monkeypatch.setattr(tracking, "load", loads)
    cooled = list[int]()
    monkeypatch.setattr(executors, "warm", lambda *_: lambda: cooled.append(1))
    monkeypatch.setattr(executors, "start", starts)
    sets = ("seeds=1", "training.epochs=1", "data.train_size=20", "model.width=0.125")
    given = [part for one in sets for part in ("--set", one)]
    done = CliRunner().invoke(main, ["run", "pets.toml", *given])
    assert done.exit_code == 0, done.output
    assert not cooled, "the server is ended that workers were forked from"
    done = CliRunner().invoke(main, ["run", "pets.toml", "--set", "name=again", *given])
    assert (done.exit_code, cooled) == (0, [1]), "nothing is to be trained for a new name"


@pytest.mark.parametrize("is_new", [True, False])
def test_imports_of_workers_begin_before_the_plan_and_end_where_nothing_starts(proj, monkeypatch, is_new):
    pids, check = [], inputs.check_images

    def checks(given):
        pids.append(forkserver._forkserver._forkserver_pid)
        check(given)

    if not is_new:  # then all may be done, and a server would import for nobody
        run("pets.toml", begin=False)
    monkeypatch.setattr(inputs, "check_images", checks)
    server.cool()
    done = CliRunner().invoke(main, ["run", "pets.toml", "--set", "data.train_size=100000"])
    assert done.exit_code == 2
    assert [pid is not None for pid in pids] == [is_new]
    assert forkserver._forkserver._forkserver_pid is None
    for pid in filter(None, pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_a_report_needs_in_the_end_is_all_loaded_before():
    code = "import sys; from ablate.report import publish; publish.load(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"plotly.io", "scipy.special"} <= set(done.stdout.split())
