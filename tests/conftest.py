"""Fixtures that several files use."""

import gc
import os
import sys
from pathlib import Path

import pytest

# Before torch is imported: tests run three at a time, and processes with a thread for each core slow each
# other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Some machines forbid it, and then every one of hundreds of processes compiles our modules anew, and each
# worker all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import command_client  # noqa: E402
import finished  # noqa: E402
import mlflow_tables  # noqa: E402
from commands import TINY  # noqa: E402
from drivers import Machine  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from ablate import gpus  # noqa: E402
from ablate.cli import group  # noqa: E402
from ablate.store import layout  # noqa: E402

# No example has to be quick: how long one takes says more of what else the machine does than of the code.
settings.register_profile(
    "ablate", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ablate")


LONG = (
    "store/test_power_cuts.py", "cli/test_planted.py", "execution/test_faults.py",
    "execution/executors/test_ray_runs.py", "tracking/test_team.py", "execution/test_search_runs.py",
    "execution/executors/test_slurm_kills.py", "test_gpu_check.py", "training/test_compile.py",
)  # fmt: skip
"""Those of the slow files that take longest: the longest first, or it would be waited for at the end."""


def pytest_configure(config):
    """Let workers take the slow files in the order of the collection, not by their numbers of tests."""
    if config.option.markexpr == "slow":
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    """Put the longest of the slow files first."""
    if config.option.markexpr == "slow":
        ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONG)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


# Commands that run in the process of the tests collect as Python does: what a test leaves open shows in it.
group.SELDOM = gc.get_threshold()


def pytest_collection_finish():
    """Leave what all tests share, some million objects of torch and mlflow, out of each later collection."""
    gc.freeze()


def pytest_unconfigure():
    """Let Python's end find it all."""
    gc.unfreeze()


@pytest.fixture
def study(tmp_path):
    """Return the file of the tiny study."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def machine(tmp_path_factory, monkeypatch):
    """Return this machine with other GPUs, none at first."""
    shared = tmp_path_factory.getbasetemp() / "driver"
    shared.mkdir(exist_ok=True)
    yield Machine(tmp_path_factory.mktemp("machine"), shared, monkeypatch)
    gpus.clear()


@pytest.fixture
def here(tmp_path):
    """Make an empty store."""
    made = layout.open_store(tmp_path / "mlruns")
    layout.create(made)
    return made


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory):
    """Return the folder of what all processes of the tests share, with MLflow's empty database."""
    own = tmp_path_factory.getbasetemp()
    command_client.SERVER.shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    command_client.lend_fork_servers()
    mlflow_tables.share(command_client.SERVER.shared)
    return command_client.SERVER.shared


@pytest.fixture(scope="session")
def done(shared, tmp_path_factory):
    """Return what the tiny study leaves behind: (folder, what it printed). It is run once for all workers."""
    return finished.copy_of(shared, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def quickstart(shared):
    """Return the store of the quickstart, trained in fp32 once for all workers: it is not to be changed."""
    return finished.quickstart(shared)
