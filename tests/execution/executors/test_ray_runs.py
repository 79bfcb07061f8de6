"""Runs on a real Ray cluster, one node of which does not see the store, end as those of this machine."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from click.testing import CliRunner
from commands import TINY, start
from ray_nodes import NEEDS_RAY, Cluster

from ablate.cli import main
from ablate.errors import AblateError
from ablate.execution import executors
from ablate.execution.executors import ray_host
from ablate.execution.executors.base import Options
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder

pytestmark = [pytest.mark.slow, NEEDS_RAY]
# two cells, two seeds; jobs that take seconds
STUDY = TINY.replace("epochs = 3", "epochs = 12").replace("width = 0.25", "width = 1.0")
EPOCHS = 4 * 12
CAN_HIDE = os.geteuid() == 0 and shutil.which("unshare") is not None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        cluster = Cluster(Path(folder), "")
        try:
            cluster.add(2, 0)
            cluster.add(2, 0, blind=CAN_HIDE)
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
    """Return a folder that the second node does not see, if that can be brought about."""
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


@pytest.mark.skipif(not CAN_HIDE, reason="only root can hide a folder from a node")
def test_a_study_is_the_same_on_ray_on_a_node_that_sees_the_store_and_on_one_that_does_not(
    cluster: Cluster, place: Path, here: dict[str, object]
) -> None:
    store = place / "ray"
    run(write(place), store, "--executor", "ray", "--jobs", "2")
    assert trained(store) == here
    assert not [path for path in store.rglob("*") if ".token" in path.name]
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


def each(store: Path) -> dict[str, int]:
    """Count the epochs of each job in its journal."""
    return {path.name: len(job_folder.read_epochs(Folder(path))) for path in (store / "jobs").glob("*")}


def epochs(store: Path) -> int:
    return sum(each(store).values())


def begun(store: Path, name: str) -> list[int]:
    """Return after which epoch each attempt at a job has begun."""
    log = (store / "jobs" / name / "log.txt").read_text()
    return [
        int(number) for number in re.findall(r"^attempt \d+ on cpu: from epoch (\d+) of", log, re.MULTILINE)
    ]


def wait_for(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while epochs(store) < count and process.poll() != 0:
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
    before = each(store)
    assert 6 <= sum(before.values()) < EPOCHS
    end = time.monotonic() + 300
    while pids := cluster.actors():
        assert time.monotonic() < end, pids
        time.sleep(0.1)
    run(study, store, "--executor", "ray", "--jobs", "2")
    assert trained(store) == here
    for name, count in before.items():  # what was here is not trained again
        assert count == 12 or begun(store, name)[-1] >= count, name


def is_halfway(cluster: Cluster, node: int, store: Path, name: str) -> bool:
    """Whether a job is trained on a node, and an epoch of it has come here."""
    there, folder = cluster.below(cluster.nodes[node].pid), Folder(store / "jobs" / name)
    attempts = job_folder.read_attempts(folder)
    return 1 <= each(store)[name] <= 6 and bool(attempts) and attempts[-1].pid in there


def test_a_node_that_is_lost_is_told_in_one_line_and_its_jobs_go_on_elsewhere(
    cluster: Cluster, place: Path, here: dict[str, object]
) -> None:
    store = place / "ray"
    arguments = ("run", write(place), "--store", store, "--device", "cpu", "--executor", "ray", "--jobs", "2")
    with start(*arguments, cwd=place, RAY_ADDRESS=cluster.address) as process:
        while not (halfway := [n for n in each(store) if is_halfway(cluster, 1, store, n)]):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        cluster.lose(1)
        out, err = process.communicate(timeout=400)
    assert process.returncode == 0, (out, err)
    told = [line for line in (out + err).splitlines() if "of the Ray cluster" in line]
    assert 1 <= len(told) <= 2, told  # it does not answer; and, if the run lasts so long, it is lost
    assert all("/0 killed: " in line or "/1 killed: " in line for line in told[:1]), told
    assert "raylet" not in out + err
    assert trained(store) == here
    first, second, *_ = begun(store, halfway[0])
    assert (first, second >= 1) == (0, True)


def test_a_node_that_was_lost_just_now_is_left_out(cluster: Cluster) -> None:
    added = cluster.add(2, 0)
    before = executors.resources("ray", Options("cpu")).slots
    cluster.lose(added)
    assert executors.resources("ray", Options("cpu")).slots == before - 2


@pytest.mark.parametrize("is_python_at_fault", [True, False])
def test_a_node_that_cannot_answer_is_an_error_with_advice_where_its_python_is_at_fault(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, is_python_at_fault: bool
) -> None:
    def look(_device: str) -> str:
        if is_python_at_fault:
            raise ImportError("No module named 'ablate'")
        os._exit(1)

    monkeypatch.setattr(ray_host, "look", look)
    with pytest.raises(AblateError, match="a node of the Ray cluster, cannot run ablate") as caught:
        executors.resources("ray", Options("cpu"))
    advice = ": install it in the Python that runs Ray there"
    assert str(caught.value).endswith(advice) == is_python_at_fault


def test_random_kills_cost_attempts_and_nothing_else(cluster: Cluster, place: Path) -> None:
    text, draws = STUDY.replace("seeds      = 2", "seeds      = 6"), random.Random(16)
    (study := place / "tiny.toml").write_text(text)
    run(study, place / "here", "--jobs", "2")
    added = cluster.add(2, 0)
    store = place / "ray"
    arguments = ("run", study, "--store", store, "--device", "cpu", "--executor", "ray", "--jobs", "2")
    kills, process = Counter[str](), start(*arguments, cwd=place, RAY_ADDRESS=cluster.address)
    for victim in (
        "worker",
        "actor",
        "worker",
        "coordinator",
        "actor",
        "worker",
        "raylet",
        "worker",
        "actor",
    ):
        wait_for(store, epochs(store) + draws.randint(1, 6), process)
        if process.poll() is not None:
            break
        hosts = cluster.hosts()
        match victim:
            case "coordinator":
                process.kill()
                process.communicate()
                process = start(*arguments, cwd=place, RAY_ADDRESS=cluster.address)
            case "raylet":
                cluster.lose(added)
            case _ if hosts:
                host = draws.choice(hosts)
                processes.kill(host if victim == "actor" else draws.choice(cluster.below(host)))
        kills[victim] += 1
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, (out, err)
    assert kills.total() >= 6, kills
    assert trained(store) == trained(place / "here")
    assert len(trained(store)) == 12
