"""`ablate serve` as its users run it: with real runs, that outlive it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner
from commands import TINY
from kills import STUDY
from servers import Process

from ablate.cli import main
from ablate.serve.process import Child
from ablate.store import layout
from ablate.store import queue as submissions
from ablate.workflow import queue


class Service(Process):
    """A real service on a store, on a free port."""

    def __init__(self, store, *options):
        log = store.path.parent / "service.log"
        log.write_text("")
        command = [sys.executable, "-m", "ablate", "serve", "--store", store.path, "--port", 0, *options]
        super().__init__(command, log)
        self.wait_until(lambda: "serves" in log.read_text())
        self.url = re.search(r"http://\S+/", log.read_text())[0]

    def ask(self, path):
        with urllib.request.urlopen(f"{self.url}api/v1{path}") as answer:
            return json.load(answer)


@pytest.fixture
def store(tmp_path):
    made = layout.open_store(tmp_path / "mlruns")
    yield made
    for entry in queue.entries(made):
        child = Child(submissions.folder(made, entry.id))
        if child.is_alive and child.pid is not None:
            os.killpg(os.getpgid(child.pid), signal.SIGKILL)


@pytest.mark.slow
def test_a_run_outlives_its_service_and_the_next_one_sees_how_it_ends_and_drains_what_runs_then(store):
    first = queue.submit(store, STUDY.format(number=1), sets=("training.epochs=40",))
    second = queue.submit(store, STUDY.format(number=2), sets=("training.epochs=5000",))
    service = Service(store)
    service.wait_until(lambda: list(store.path.glob("jobs/*/journal.jsonl")))
    pid = Child(submissions.folder(store, first.id)).pid
    service.stop()
    assert service.process.returncode == 0
    assert queue.entry(store, first.id).state == "running"
    os.kill(pid, 0)
    service = Service(store, "--drain")
    service.wait_until(lambda: queue.entry(store, first.id).has_ended)
    ended = queue.entry(store, first.id)
    assert (ended.state, ended.exit_code, ended.reason) == ("done", 0, "")
    assert store.report("study 1").exists()
    assert "report: " in submissions.log(store, first.id).read_text()
    service.wait_until(lambda: len(list(store.path.glob("jobs/*/journal.jsonl"))) > 2)
    assert service.ask("/queue")[0]["id"] == second.id
    service.stop()
    assert "waiting until the running epochs have ended" in service.log.read_text()
    drained = queue.entry(store, second.id)
    assert (drained.state, drained.exit_code) == ("waiting", 130)
    assert not Child(submissions.folder(store, second.id)).is_alive


@pytest.mark.slow
def test_without_its_dispatcher_a_service_shows_and_takes_but_runs_nothing(store):
    service = Service(store, "--no-dispatch")
    request = urllib.request.Request(
        f"{service.url}api/v1/queue", TINY.encode(), {"Content-Type": "application/toml"}, method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["state"] == "waiting"
    assert not queue.is_served(store)
    service.stop()
    assert queue.entries(store)[0].state == "waiting"


def call(*arguments):
    result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_a_mistake_is_one_sentence(here, tmp_path):
    store = ("--store", here.path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, error = call(*store, "--port", taken.getsockname()[1])
    assert (code, "cannot be listened on (Address already in use)" in error) == (2, True)
    code, error = call(*store, "--port", 0, "--studies", 1000)
    assert (code, "--studies must be at most" in error) == (2, True)
    code, error = call(*store, "--host", "no.such.host.invalid")
    assert (code, "give another --host" in error) == (2, True)
    code, error = call(*store, "--config", tmp_path / "no.toml")
    assert (code, "cannot be read" in error) == (2, True)


def test_a_second_service_of_a_store_is_told_who_has_it(here):
    from ablate.serve import dispatcher

    with dispatcher.locked(here):
        code, error = call("--store", here.path, "--port", 0)
    assert code == 2
    assert f"is served already by process {os.getpid()} on" in error.replace("its queue is", "is")


def test_beyond_this_machine_a_token_is_needed_and_shown_once(store):
    shown = []
    for _ in range(2):
        command = [sys.executable, "-m", "ablate", "serve", "--store", store.path, "--port", "0"]
        process = subprocess.Popen(
            [*map(str, command), "--host", "0.0.0.0", "--no-dispatch"], stderr=subprocess.PIPE, text=True
        )
        lines = [process.stderr.readline() for _ in range(1 if shown else 2)]
        process.send_signal(signal.SIGINT)
        shown.append("".join(lines) + process.communicate()[1])
    token = (store.path / "token").read_text().strip()
    assert [token in text for text in shown] == [True, False]
    assert (store.path / "token").stat().st_mode & 0o777 == 0o600
