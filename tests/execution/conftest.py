"""Real workers for the tests of single jobs."""

from collections.abc import Iterator
from contextlib import closing
from multiprocessing import forkserver, util
from pathlib import Path

import command_client
import pytest
from houses import DIGITS, House

from ablate.execution.crew import PRELOAD
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.training import data


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.prepare(DIGITS, tmp_path_factory.mktemp("data")).folder


@pytest.fixture
def house(tmp_path: Path, digits: Path) -> House:
    return House(tmp_path, digits)


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """Begin with a fork server that imports torch, and end with none: other tests want a quick one."""
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


@pytest.fixture
def new_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a fork server that has imported nothing but what it is told to, and takes seconds to do so."""
    forkserver._forkserver._stop()
    monkeypatch.setattr(util, "spawnv_passfds", command_client.SPAWN)
    yield
    forkserver._forkserver._stop()


@pytest.fixture
def workers() -> Iterator[LocalExecutor]:
    slots = tuple(Slot(f"cpu:{i}", "cpu", {"CUDA_VISIBLE_DEVICES": ""}) for i in range(2))
    with closing(LocalExecutor("trainings:run", slots, ("ablate.execution.worker", *PRELOAD))) as executor:
        yield executor
