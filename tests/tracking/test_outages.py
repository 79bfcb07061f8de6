"""MLflow's server away, hanging, slow or refusing.

Coordinators killed: what the writer does, and that training never waits.
"""

import json
import os
import shutil
import signal
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from commands import RECIPE, ablate, attempts, start, wait_for, wait_until
from shown import client, everything, history, runs_of
from tracked import begun, read

from ablate import tracking
from ablate.store import files, layout
from ablate.tracking.sender import Sender

WAITING = f"""
name  = "tiny"
seeds = 1
{RECIPE.replace('"cnn4", width = 0.25, head_dropout = 0.2', '"waiting_net:make"')}
[factors]
optimizer.lr = [0.003, 0.001]
""".replace('adam", lr = 0.003', 'adam"')
WAITS = """
import os, time
from torch import nn

class Waits(nn.Sequential):
    steps = 0
    def forward(self, x):
        self.steps += self.training
        while self.steps > 20 and not os.path.exists(os.environ["GATE"]):  # in the second epoch
            time.sleep(0.01)
        return super().forward(x)

def make(classes, channels, image_size):
    return Waits(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
"""
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a store with a database, for studies of different names."""
    held = layout.open_store(tmp_path_factory.mktemp("outages") / "store")
    layout.create(held)
    tracking.sync(tracking.uri(held, None), read("first"), (), held)
    return held


@contextmanager
def hanging():
    """Accept connections and never answer; give the address, and the connections so far."""
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:

        def accept():
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", held
        server.shutdown(socket.SHUT_RDWR)
    for one in held:
        one.close()


@contextmanager
def refusing(code):
    """Answer every request with an error; give the address, and the requests so far."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(code)

        do_POST = do_GET  # noqa: N815 (the library's name)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def writer(address, loaded, sources, held, heard):
    return tracking.Writer(address, loaded, sources, held, heard.append)


def statuses(store, name):
    """Return the status of each run that MLflow has by now."""
    if not (store / "mlflow.db").exists() or client(store).get_experiment_by_name(name) is None:
        return {}
    return {run.info.run_name: run.info.status for run in runs_of(client(store), name)}


def test_what_nobody_trains_is_ended_by_the_next_start_and_runs_again_when_it_is_taken_up(shared):
    loaded, heard = read("killed"), []
    runs = begun(shared, loaded)
    sources, address = tracking.tracked(loaded, runs, shared), tracking.uri(shared, None)
    first = writer(address, loaded, sources, shared, heard)
    for run in runs:
        first.touch(run.job_id)
    wait_until(
        lambda: (
            len(statuses(shared.path, loaded.name)) == 4
            and set(statuses(shared.path, loaded.name).values()) == {"RUNNING"}
        )
    )
    first.abandon()  # as by a kill: nothing is sent any more, and a run may have been half sent
    first.close()
    first._thread.join()
    with shared.job(runs[0].job_id).lock():  # another coordinator trains this one
        second = writer(address, loaded, sources, shared, heard)
        ended = {run.name: "RUNNING" if run is runs[0] else "KILLED" for run in runs}
        wait_until(lambda: statuses(shared.path, loaded.name) == ended)
        second.touch(runs[1].job_id)
        wait_until(lambda: statuses(shared.path, loaded.name) == ended | {runs[1].name: "RUNNING"})
        assert second.close().late == 0
    assert statuses(shared.path, loaded.name) == ended
    assert heard == []


def test_runs_of_the_grid_are_ended_while_the_stage_before_it_goes_on(shared):
    loaded = read("staged")
    runs = begun(shared, loaded)
    sources, address = tracking.tracked(loaded, runs, shared), tracking.uri(shared, None)
    with shared.job(runs[0].job_id).lock(), shared.job(runs[1].job_id).lock():
        tracking.sync(address, loaded, sources, shared)  # as by a command that was killed
    with shared.job(runs[0].job_id).lock():
        sender = Sender(address, loaded, shared, None)
        sender._runs()
    assert sorted(statuses(shared.path, loaded.name).values()) == ["KILLED", "KILLED", "KILLED", "RUNNING"]
    assert statuses(shared.path, loaded.name)[runs[0].name] == "RUNNING"


def test_a_run_that_a_late_answer_has_made_twice_is_kept_once(shared):
    loaded = read("twice")
    runs = begun(shared, loaded)
    address = tracking.uri(shared, None)
    sender = Sender(address, loaded, shared, None)
    for _ in range(2):
        sender._known = {}  # nothing has arrived, as far as it knows
        for one in tracking.tracked(loaded, runs, shared):
            sender.send(one, closing=False)
    assert len(runs_of(client(shared.path), "twice")) == 8
    tracking.sync(address, loaded, tracking.tracked(loaded, runs, shared), shared)
    assert statuses(shared.path, loaded.name) == {run.name: "KILLED" for run in runs}
    assert len(runs_of(client(shared.path), "twice")) == 4


def test_epochs_that_were_trained_anew_replace_those_that_are_lost(shared):
    loaded, heard = read("set back"), []
    runs = begun(shared, loaded)[:1]
    sources, address, folder = (
        tracking.tracked(loaded, runs, shared),
        tracking.uri(shared, None),
        shared.job(runs[0].job_id),
    )

    def train(*epochs):
        lines = [
            {"epoch": n, "timestamp": at, "seconds": 1.0, "metrics": {"train/loss": 1 / n}}
            for n, at in epochs
        ]
        files.write(folder.journal, "".join(json.dumps(line) + "\n" for line in lines))

    def shown():
        api = client(shared.path)
        return [history(api, run).get("train/loss") for run in runs_of(api, "set back")]

    train((1, 1100), (2, 1200))
    tracking.sync(address, loaded, sources, shared)
    assert shown() == [[(1, 1100, 1.0), (2, 1200, 0.5)]]
    files.append(folder.attempts, {"number": 2, "timestamp": 1300})
    train((1, 1100))  # the checkpoint of the second epoch was torn
    one = writer(address, loaded, sources, shared, heard)
    one.touch(runs[0].job_id)
    wait_until(lambda: shown() == [[(1, 1100, 1.0)]])
    train((1, 1100), (2, 1400))
    one.touch(runs[0].job_id)
    assert (one.close().late, heard) == (0, [])
    assert shown() == [[(1, 1100, 1.0), (2, 1400, 0.5)]]


@pytest.mark.parametrize("code", [401, 403, 500])
def test_a_server_that_refuses_is_told_once_and_nothing_is_lost(shared, code):
    loaded, heard = read(f"refused {code}"), []
    runs = begun(shared, loaded)
    with refusing(code) as (address, asked):
        one = writer(address, loaded, tracking.tracked(loaded, runs, shared), shared, heard)
        for _ in range(3):
            for run in runs:
                one.touch(run.job_id)
        wait_until(lambda: heard)
        report = one.close()
    assert report.late == len(runs) == 4
    assert report.error
    assert [text for text in heard if "does not take runs" in text] == heard[:1]
    assert len(asked) <= 6


@pytest.mark.slow  # seconds
def test_at_the_end_a_server_that_hangs_gets_one_request_and_an_interruption_ends_even_that(
    shared, monkeypatch
):
    loaded, heard = read("hanging"), []
    runs = begun(shared, loaded)
    sources = tracking.tracked(loaded, runs, shared)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    monkeypatch.setattr("ablate.tracking.writer.PATIENCE", 0.5)  # that is said well before the 4 s
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with hanging() as (address, held):
        one = writer(address, loaded, sources, shared, heard)
        wait_until(lambda: held)
        report = one.close()
        assert (report.late, len(held)) == (4, 1)
        assert "timed out" in report.error
        assert "waiting for MLflow" in heard[0]
        assert "does not take runs" in heard[1]
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
        one = writer(address, loaded, sources, shared, heard)
        wait_until(lambda: len(held) == 2)
        assert one.close(lambda: True) == tracking.Report(4, "interrupted")


def test_a_run_that_mlflow_never_takes_holds_up_no_other(shared, monkeypatch):
    loaded, heard = read("one bad"), []
    runs = begun(shared, loaded)
    sources = tracking.tracked(loaded, runs, shared)
    send = Sender.send

    def picky(self, source, **how):
        if source.key in (sources[0].key, sources[2].key):
            raise ValueError("not this one")
        send(self, source, **how)

    monkeypatch.setattr(Sender, "send", picky)
    report = writer(tracking.uri(shared, None), loaded, sources, shared, heard).close()
    assert (report.late, report.error) == (2, "not this one")
    assert set(statuses(shared.path, loaded.name)) == {runs[1].name, runs[3].name}


@pytest.mark.slow  # a run of a study, against a server that lets it wait
def test_a_server_that_hangs_delays_nothing_but_its_own_runs(study, tmp_path):
    store = tmp_path / "store"
    with hanging() as (address, held):
        secret = address.replace("//", "//someone:secret@")
        code, out, err = ablate(
            "run", study, "--store", store, "--tracking-uri", secret, MLFLOW_HTTP_REQUEST_TIMEOUT="4"
        )
        assert held
    assert (code, err) == (0, ""), out + err
    assert attempts(store) == len(list(store.glob("jobs/*/result.json"))) == 4
    assert len(list(store.glob("jobs/*/outcomes/*/outcome.json"))) == 8
    assert out.count("does not take runs") == 1
    assert "ablate sync sends what is missing" in out
    assert "secret" not in out
    assert ablate("sync", study, "--store", store)[0] == 0
    assert set(statuses(store, "tiny").values()) == {"FINISHED"}
    assert len(statuses(store, "tiny")) == 8


@pytest.mark.slow  # a run of a study
def test_a_second_ctrl_c_ends_at_once_though_the_server_hangs(study, tmp_path):
    store = tmp_path / "store"
    with hanging() as (address, held):
        long = ("--set", "training.epochs=1000")
        process = start(
            "run",
            study,
            "--store",
            store,
            "--tracking-uri",
            address,
            *long,
            MLFLOW_HTTP_REQUEST_TIMEOUT="600",
        )
        try:
            wait_for(lambda: held and list(store.glob("jobs/*/journal.jsonl")), process)
            process.send_signal(signal.SIGINT)
            while "stopping when the running epochs have ended" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=300)  # the server would be waited for ten minutes
        finally:
            process.kill()
    assert process.returncode == 130, out + err
    assert "interrupted" in out + err
    assert "Traceback" not in out + err
    assert len(held) == 1


@pytest.mark.slow  # several runs of a study
def test_after_a_kill_the_next_start_ends_what_it_does_not_take_up_and_a_rebuilt_database_is_equal(
    study, tmp_path
):
    store, copy, gate = tmp_path / "store", tmp_path / "copy", tmp_path / "gate"
    study.write_text(WAITING)
    study.with_name("waiting_net.py").write_text(WAITS)
    both = {"baseline/0": "RUNNING", "lr=0.001/0": "RUNNING"}
    process = start("run", study, "--store", store, "--jobs", "2", GATE=str(gate))
    wait_for(lambda: statuses(store, "tiny") == both, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert statuses(store, "tiny") == both
    again = start("run", study, "--store", store, "--jobs", "1", GATE=str(gate))
    wait_for(
        lambda: statuses(store, "tiny") == both | {"lr=0.001/0": "KILLED"}, again
    )  # one slot takes up one of them
    gate.touch()
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err
    api = client(store)
    for run in runs_of(api, "tiny"):
        assert (run.info.status, run.data.tags["ablate.attempt"]) == ("FINISHED", "2")
        assert [step for step, _, _ in history(api, run)["train/loss"]] == [1, 2, 3]  # no epoch twice
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("mlflow.db", "artifacts", "*lock"))
    code, out, err = ablate("sync", study, "--store", copy)
    assert code == 0, out + err
    before = everything(store, "tiny")
    assert len(before) == 3
    assert everything(copy, "tiny") == before
