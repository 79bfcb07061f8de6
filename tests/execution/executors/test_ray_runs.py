"""Runs on a real Ray cluster, one node of which does not see the store, end as those of this machine."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import TINY, start
from ray_nodes import Cluster

from ablate.cli import main
from ablate.errors import AblateError
from ablate.execution import executors
from ablate.execution.executors.base import Options
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is not installed")
STUDY = TINY.replace("epochs = 3", "epochs = 12")  # two cells, two seeds
EPOCHS = 4 * 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can hide a folder from a node")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        cluster = Cluster(Path(folder), "")
        try:
            cluster.add(2, 0)
            cluster.add(2, 0, blind=True)
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return what the study comes to on this machine."""
    folder = tmp_path_factory.mktemp("here")
    run(write(folder), folder / "store", "--jobs", "2")
    return trained(folder / "store")


@pytest.fixture
def place(cluster: Cluster) -> Path:
    """Return a folder that the second node does not see."""
    return Path(tempfile.mkdtemp(dir=cluster.unseen))


def write(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(STUDY)
    return path


def run(study: Path, store: Path, *arguments: str) -> str:
    done = CliRunner().invoke(
        main, ["run", str(study), "--store", str(store), "--device", "cpu", *arguments]
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def trained(store: Path) -> dict[str, object]:
    """Return all that the jobs of a store have found out: everything but times."""
    return {folder.name: _job(Folder(folder)) for folder in sorted((store / "jobs").iterdir())}


def _job(folder: Folder) -> object:
    lines = [(epoch.epoch, epoch.metrics) for epoch in job_folder.read_epochs(folder)]
    ways = [(way.evaluation, way.metrics) for way in job_folder.read_evaluations(folder)]
    return json.dumps([lines, ways]), files.read(folder.weights("last"))


def test_a_study_is_the_same_on_ray_on_a_node_that_sees_the_store_and_on_one_that_does_not(
    cluster: Cluster, place: Path, here: dict[str, object]
) -> None:
    store = place / "ray"
    run(write(place), store, "--executor", "ray", "--jobs", "2")
    assert trained(store) == here
    assert not [path for path in store.iterdir() if ".token" in path.name]
    users = set()
    for folder in (store / "jobs").iterdir():
        assert "attempt 1 on cpu: from epoch 0 of 12" in (folder / "log.txt").read_text()
        assert {"result.json", "model.json", "environment.json"} <= {path.name for path in folder.iterdir()}
        assert not list(folder.glob(".*")) + list(folder.glob("*checkpoint*"))
        users.add(job_folder.read_attempts(Folder(folder))[0].pid)
    assert len(users) == 2  # of both nodes
    assert list((cluster.folder / "cache" / "ablate" / "ray").iterdir()) == []  # used, and cleared


def test_what_the_cluster_can_never_have_is_refused_at_once(cluster: Cluster) -> None:
    for options, says in (
        (Options("cuda"), r"--device cuda: the Ray cluster has no GPU: .* 2 CPUs and 0 GPUs, .* 2 CPUs"),
        (Options("cpu", 5), r"5 jobs at a time \(--jobs\) with 1 CPU each can never run .* has room for 4: "),
        (Options("cpu", threads=3), r"a job with 3 CPUs each can never run on the Ray cluster, .* for 0: "),
    ):
        with pytest.raises(AblateError, match=says):
            executors.resources("ray", options)
    assert executors.resources("ray", Options("cpu")).slots == 4
    assert executors.resources("ray", Options("cpu", threads=2)).slots == 2


def epochs(store: Path) -> int:
    return sum(len(job_folder.read_epochs(Folder(path))) for path in (store / "jobs").glob("*"))


def wait_for(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 180
    while epochs(store) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, epochs(store)
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_coordinator_that_is_ended_leaves_nothing_and_the_next_one_goes_on(
    cluster: Cluster, place: Path, here: dict[str, object], number: signal.Signals
) -> None:
    study, store = write(place), place / "ray"
    arguments = ("run", study, "--store", store, "--device", "cpu", "--executor", "ray", "--jobs", "2")
    with start(*arguments, cwd=place, RAY_ADDRESS=cluster.address) as process:
        wait_for(store, 6, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number), (out, err)
    before = epochs(store)
    assert 6 <= before < EPOCHS
    end = time.monotonic() + 60
    while pids := cluster.actors():
        assert time.monotonic() < end, pids
        time.sleep(0.1)
    run(study, store, "--executor", "ray", "--jobs", "2")
    assert trained(store) == here
    for folder in (store / "jobs").iterdir():
        assert "from epoch 0 of 12" not in (folder / "log.txt").read_text().partition("attempt 2")[2]


def test_a_node_that_is_lost_is_told_in_one_line_and_its_jobs_go_on_elsewhere(
    cluster: Cluster, place: Path, here: dict[str, object]
) -> None:
    store = place / "ray"
    arguments = ("run", write(place), "--store", store, "--device", "cpu", "--executor", "ray", "--jobs", "2")
    with start(*arguments, cwd=place, RAY_ADDRESS=cluster.address) as process:
        wait_for(store, 6, process)
        cluster.lose(1)
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, (out, err)
    assert (out + err).count("is lost, with 1 slot") == 1, (out, err)
    assert "raylet" not in out + err
    assert trained(store) == here
    moved = [path for path in (store / "jobs").iterdir() if "attempt 2" in (path / "log.txt").read_text()]
    assert moved
    for folder in moved:
        assert "from epoch 0 of 12" not in (folder / "log.txt").read_text().partition("attempt 2")[2]
