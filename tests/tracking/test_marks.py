"""A run with nothing to do: a mark that MLflow has everything saves its import, else MLflow is asked."""

import shutil
import subprocess
import sys

import pytest
from commands import ablate
from shown import client, runs_of

from ablate.execution.options import Where
from ablate.store import layout
from ablate.tracking import marks
from ablate.workflow import plan as planning
from ablate.workflow import run as workflow


@pytest.fixture
def copied(done, tmp_path):
    """Return the study's file, and a store of one's own."""
    folder, _ = done
    shutil.copytree(folder / "store", tmp_path / "store")
    return folder / "tiny.toml", layout.open_store(tmp_path / "store")


def is_current(study, store, given=None):
    plan = planning.plan(planning.load(str(study), (), store), Where(store))
    return marks.is_current(given, plan.study, workflow._state(plan), store)


@pytest.mark.slow  # a new Python
def test_a_run_with_nothing_to_do_imports_neither_torch_nor_mlflow(done):
    folder, _ = done
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "ablate",
        "run",
        folder / "tiny.toml",
        "--store",
        folder / "store",
    ]
    ablate(
        "run", folder / "tiny.toml", "--store", folder / "store"
    )  # other tests have run other studies in this store
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to train: all 4 jobs are done" in again.stdout
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
    assert "plotly" in imported
    assert not {"torch", "mlflow", "sqlalchemy", "optuna"} & imported


def test_a_mark_is_void_as_soon_as_anything_has_changed(copied, monkeypatch):
    study, store = copied
    assert not is_current(study, store)  # a copy: MLflow's database was made for another path
    plan = planning.plan(planning.load(str(study), (), store), Where(store))

    def keep():
        marks.keep(None, plan.study, workflow._state(plan), store)
        assert is_current(study, store)

    keep()
    assert not is_current(study, store, "http://localhost:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert not is_current(study, store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    store.job(plan.jobs[0].id).result.touch()
    assert not is_current(study, store)
    keep()
    with store.job(plan.jobs[1].id).journal.open("a") as journal:
        journal.write("\n")
    assert not is_current(study, store)
    keep()
    shutil.copy(store.database, store.path / "saved")
    (store.path / "saved").rename(store.database)  # a backup that was put back
    assert not is_current(study, store)
    keep()
    store.database.unlink()
    assert not is_current(study, store)
    store.database.write_bytes(b"")
    keep()
    text = study.read_text().replace("Does it run?", "Does it?")
    (store.path / "other.toml").write_text(text)
    assert not is_current(store.path / "other.toml", store)


@pytest.mark.slow  # MLflow's database is made, and asked three times
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_what_somebody_removes_from_mlflow_comes_back(copied):
    study, store = copied
    store.database.unlink()  # of another path
    assert ablate("run", study, "--store", store.path)[0] == 0
    api = client(store.path)
    first = runs_of(api, "tiny")
    api.delete_run(first[0].info.run_id)
    assert len(runs_of(api, "tiny")) == len(first) - 1
    assert ablate("run", study, "--store", store.path)[0] == 0
    assert len(runs_of(client(store.path), "tiny")) == len(first)
