"""Fixtures of the tests of upkeep."""

import shutil
import subprocess

import pytest


@pytest.fixture
def store(done, tmp_path):
    """Return a finished store of its own, without MLflow's database, which is bound to its path."""
    folder, _ = done
    subprocess.run(["cp", "-r", folder / "store", tmp_path / "store"], check=True)
    shutil.rmtree(tmp_path / "store/artifacts")
    (tmp_path / "store/mlflow.db").unlink()
    return tmp_path / "store"
