"""Everything that happens to a run in the real world, done to real ones: after a restart nothing shows.

Kills at any instant, frozen processes, disks that are full or read-only, an MLflow server that dies.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from itertools import product

import mounts
import pytest
from commands import PATIENT, RECIPE, ablate, attempts, results, start, wait_for
from processes import is_alive, kill, workers_of

from ablate.store.files import DRAFT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

EPOCHS, SEEDS = 10, 3
STUDY = f"""
name     = "faulty"
question = "Does it bear everything?"
seeds    = {SEEDS}
metric   = "test/accuracy"

{RECIPE.replace("epochs = 3", f"epochs = {EPOCHS}")}
[factors]
model.batch_norm      = [true, false]
evaluation.mc_dropout = [0, 3]
"""
JOBS = 2 * SEEDS
PHASES = ("training", "checkpoint", "result", "upload")
VICTIMS = ("worker", "coordinator", "both")
KILLS = int(os.environ.get("ABLATE_TEST_KILLS", len(PHASES) * len(VICTIMS)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("faulty") / "faulty.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def undisturbed(study):
    """Run the study once in peace."""
    store = study.parent / "undisturbed"
    code, out, err = ablate("run", study, "--store", store)
    assert (code, err) == (0, ""), out + err
    return store


def said(store):
    """Return the report as programs read it, without times."""
    code, out, err = ablate("report", "faulty", "--store", store, "--format", "json")
    assert code == 0, err
    return re.sub(r'("(?:[a-z_]*seconds|time/\w+|git|generated|epoch_seconds)": )[\d.]+', r"\1 0", out)


def trained(store):
    """Return what the journals say of every job; how often it was tried is no part of it."""
    return {
        name: text
        for name, text in results(store).items()
        if "attempts" not in name and not name.endswith("failure.json")
    }


def shown(store, address=None):
    """Return what MLflow shows of every run, without times and peaks of memory."""
    from mlflow import MlflowClient

    client = MlflowClient(address or f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("faulty").experiment_id
    found = {}
    for run in client.search_runs([experiment], "tags.`ablate.kind` = 'run'", max_results=1000):
        numbers = {
            name: value
            for name, value in run.data.metrics.items()
            if not name.startswith(("time/", "memory/"))
        }
        curve = [
            (point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")
        ]
        name = run.info.run_name
        assert name not in found, f"MLflow shows {name} twice"
        found[name] = (run.info.status, run.data.tags["ablate.status"], numbers, curve)
    return found


def check_whole(store, undisturbed, address=None):
    """See that a store is as an undisturbed one: each job ends once, each run shows once, the same report."""
    assert len(list(store.glob("jobs/*"))) == len(list(store.glob("jobs/*/result.json"))) == JOBS
    for journal in store.glob("jobs/*/journal.jsonl"):
        assert [json.loads(line)["epoch"] for line in journal.read_text().splitlines()] == list(
            range(1, EPOCHS + 1)
        )
    assert trained(store) == trained(undisturbed)
    assert said(store) == said(undisturbed)
    assert shown(store, address) == shown(undisturbed)
    assert not [path for path in store.glob("jobs/**/.*") if DRAFT.fullmatch(path.name)], "drafts are left"


# Kills


def sees(store, phase):
    """Whether a run is in a phase just now: the files of one are there for milliseconds."""
    match phase:
        case "training":
            return any(store.glob("jobs/*/checkpoint.pt"))
        case "checkpoint":
            return any(store.glob("jobs/*/.checkpoint.pt.*"))
        case "result":
            return any(store.glob("jobs/*/.result.json.*")) or any(
                store.glob("jobs/*/outcomes/*/.outcome.json.*")
            )
    return False


def wait_until(store, phase, draw, process):
    """Wait for a phase; False: the run has ended first."""
    before = len(list(store.glob("jobs/*/outcomes/*/outcome.json")))
    while process.poll() is None:
        if phase == "upload":
            if len(list(store.glob("jobs/*/outcomes/*/outcome.json"))) > before:
                time.sleep(draw.uniform(0, 0.05))
                return True
        elif sees(store, phase):
            if phase == "training":
                time.sleep(draw.uniform(0, 0.3))
            return True
        time.sleep(0.0005)
    return False


def wait_until_gone(pids):
    end = time.monotonic() + 300
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, "a worker outlives its coordinator"
        time.sleep(0.02)


def kill_while_it_trains(study, store, plan, draw):
    """Run a study and kill by a plan until either is at its end; return the kills that were made."""
    made, process = [], start("run", study, "--store", store)
    for phase, victim in plan:
        if process.poll() is not None:
            process = start("run", study, "--store", store)
        if not wait_until(store, phase, draw, process):
            break
        workers = workers_of(process.pid)
        if victim != "coordinator" and workers:
            kill(draw.choice(workers))
        if victim != "worker":
            kill(process.pid)
            process.communicate()
            wait_until_gone(workers)
        made.append((phase, victim))
    if process.poll() is None:
        process.communicate(timeout=300)
    return made


def test_kills_of_workers_and_coordinators_in_every_phase_leave_no_trace(study, undisturbed, tmp_path):
    draw, made, stores = random.Random(20), [], []
    each = list(product(PHASES, VICTIMS))
    plan = [each[i * 5 % len(each)] for i in range(KILLS)]  # every one of them, another phase each time
    while (
        len(made) < KILLS
    ):  # a quick machine ends the study between two kills: then another store has the rest
        stores.append(tmp_path / f"store{len(stores)}")
        assert len(stores) < 10 + KILLS, f"studies end before they can be killed: {made}"
        made += kill_while_it_trains(study, stores[-1], plan[len(made) :], draw)
    for store in stores:
        code, out, err = ablate("run", study, "--store", store)
        assert (code, err) == (0, ""), out + err
        check_whole(store, undisturbed)
    before = sum(map(attempts, stores))
    assert before > JOBS * len(stores)
    code, out, _ = ablate("run", study, "--store", stores[-1])
    assert "nothing to train" in out
    assert sum(map(attempts, stores)) == before


# Stopped and frozen


def test_sigterm_puts_everything_away_as_ctrl_c_does(study, undisturbed, tmp_path):
    store = tmp_path / "store"
    process = start("run", study, "--store", store, "--jobs", 1)
    wait_for(lambda: list(store.glob("jobs/*/result.json")), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, ""), out + err
    assert "interrupted: everything finished is kept" in out
    assert "RUNNING" not in {status for status, *_ in shown(store).values()}
    assert ablate("run", study, "--store", store)[0] == 0
    check_whole(store, undisturbed)


def test_a_worker_that_is_frozen_is_ended_and_its_job_tried_again(study, undisturbed, tmp_path):
    store = tmp_path / "store"
    process = start("run", study, "--store", store, "--jobs", 2, "--stall", "20s")
    wait_for(lambda: list(store.glob("jobs/*/checkpoint.pt")), process)
    frozen = workers_of(process.pid)[0]
    os.kill(frozen, signal.SIGSTOP)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out + err
    assert "attempts that were lost: 1 stalled" in out
    assert not is_alive(frozen)
    check_whole(store, undisturbed)


def test_a_coordinator_that_is_frozen_for_longer_than_a_stall_goes_on(study, undisturbed, tmp_path):
    store = tmp_path / "store"
    process = start("run", study, "--store", store, "--stall", "20s")
    wait_for(lambda: list(store.glob("jobs/*/checkpoint.pt")), process)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(22)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), out + err
    assert "attempts that were lost" not in out
    check_whole(store, undisturbed)


# Disks


def test_a_full_disk_stops_everything_with_a_sentence_and_spoils_nothing(study, undisturbed, tmp_path):
    with mounts.small(place := tmp_path / "disk", "200m"):
        store = place / "store"
        process = start("run", study, "--store", store, "--jobs", 1)
        wait_for(lambda: list(store.glob("jobs/*/result.json")), process)
        mounts.fill(place / "filler")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 2, out + err
        assert re.search(
            r"cannot be written \(No space left on device\): make room there and run the same again", err
        )
        assert "Traceback" not in out + err
        code, out, err = ablate("run", study, "--store", store)  # still full
        assert code == 2, out + err
        assert "No space left on device" in err
        assert "Traceback" not in out + err
        assert not list(store.glob("jobs/*/failure.json"))
        (place / "filler").unlink()
        code, out, err = ablate("run", study, "--store", store)
        assert (code, err) == (0, ""), out + err
        check_whole(store, undisturbed)


def test_a_read_only_store_can_be_read_and_a_run_in_it_is_a_sentence(study, undisturbed, tmp_path):
    with mounts.small(place := tmp_path / "disk", "200m"):
        shutil.copytree(undisturbed, place / "store")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        where, job = ("--store", place / "store"), min(path.name for path in undisturbed.glob("jobs/*"))
        for command in (
            ("status", "faulty"),
            ("plan", study),
            ("report", "faulty", "--format", "json"),
            ("logs", job),
        ):
            code, out, err = ablate(*command, *where)
            assert (code, err) == (0, ""), (command, err)
        code, _, err = ablate("report", "faulty", "--out", tmp_path / "page.html", *where)
        assert (code, err) == (0, "")
        for command in (("run", study), ("report", "faulty"), ("sync", "faulty")):
            code, out, err = ablate(*command, *where)
            assert code == 2, (command, out, err)
            assert "Read-only file system" in err
            assert "Traceback" not in out + err


# MLflow's server


@contextmanager
def server(folder, port):
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
    ]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: is_up(port), process)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_an_mlflow_server_that_is_killed_and_comes_back_has_everything_in_the_end(
    study, undisturbed, tmp_path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, address = tmp_path / "store", f"http://127.0.0.1:{port}"
    with server(tmp_path, port):
        where = ("--store", store, "--tracking-uri", address)
        process = start("run", study, *where, "--jobs", 1, "--stall", "1h", **PATIENT)
        wait_for(lambda: list(store.glob("jobs/*/result.json")), process)
    told = ""
    while "does not take runs" not in told:
        told += (line := process.stdout.readline())
        assert line, told
    held = workers_of(process.pid)
    for worker in held:  # a server takes longer to start than the study takes
        os.kill(worker, signal.SIGSTOP)
    with server(tmp_path, port):
        assert process.poll() is None, "the study was done before the server was back"
        for worker in held:
            os.kill(worker, signal.SIGCONT)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, ""), out + err
        assert "training goes on" in told + out
        assert "not up to date" not in out
        check_whole(store, undisturbed, address)
