"""A team's server of MLflow on a real PostgreSQL: several coordinators, outages, lost answers, passwords."""

import http.client
import json
import os
import signal
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import servers
from commands import PATIENT, RECIPE, ablate, start, wait_for, wait_until
from mlflow import MlflowClient
from shown import history, runs_of
from tracked import begun, read

from ablate import tracking
from ablate.tracking import writer as writers

pytestmark = [
    pytest.mark.slow,  # servers, and studies of 24 jobs
    pytest.mark.skipif(servers.programs() is None, reason="needs PostgreSQL's initdb and postgres"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # MLflow leaves its connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NETWORK = '"cnn4", width = 0.25, head_dropout = 0.2'
assert NETWORK in RECIPE
SHORT = RECIPE.replace("epochs = 3", "epochs = 2").replace("train_size = 300", "train_size = 200")
SHORT = SHORT.replace(NETWORK, '"held_net:make"')
MANY = f"""
name  = "shared"
seeds = 6
{SHORT.replace('adam", lr = 0.003', 'adam"')}
[factors]
optimizer.lr = [0.003, 0.002, 0.001, 0.0005]
"""
HELD = """
import os, time
from torch import nn

class Held(nn.Sequential):
    steps = 0
    def forward(self, x):
        self.steps += self.training
        while self.steps > 12 and os.path.exists(os.environ["HOLD"]):  # in the second epoch
            time.sleep(0.01)
        return super().forward(x)

def make(classes, channels, image_size):
    return Held(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
"""
SEARCHES = f"""
name  = "one"
seeds = 1
{SHORT}
[factors]
training.label_smoothing = [0.0, 0.1]
[search]
trials  = 6
per     = "study"
sampler = "random"
pruner  = "none"
space.optimizer.lr = {{ low = 1e-4, high = 1e-2, log = true }}
"""


@pytest.fixture(scope="module")
def postgres():
    server = servers.Postgres()
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    started = servers.MlflowServer(postgres.address("mlflow"), tmp_path_factory.mktemp("team"))
    yield started
    started.kill()


def count(pattern, *stores):
    return sum(len(list(store.glob(pattern))) for store in stores)


def names_of(address, store):
    """Return the name of the experiment that a store's study has."""
    ours = f"tags.`ablate.store` = '{(store / 'id').read_text()}'"
    return [experiment.name for experiment in MlflowClient(address).search_experiments(filter_string=ours)]


def test_two_users_upload_every_run_once_while_server_and_database_are_restarted(postgres, server, tmp_path):
    study, stores = tmp_path / "shared.toml", (tmp_path / "first", tmp_path / "second")
    study.write_text(MANY)
    study.with_name("held_net.py").write_text(HELD)
    hold = tmp_path / "hold"  # while it is there, all training waits: a server may take a minute to start
    hold.touch()
    variables = {"MLFLOW_TRACKING_URI": server.address, "HOLD": str(hold), **PATIENT}
    both = [start("run", study, "--store", store, "--jobs", 1, **variables) for store in stores]
    ended = "jobs/*/outcomes/*/outcome.json"

    def wait_for_more(jobs):
        before = min(count(ended, store) for store in stores)
        wait_for(lambda: min(count(ended, store) for store in stores) >= before + jobs, both[0])

    wait_for(lambda: all(count("jobs/*/attempts.jsonl", store) for store in stores), both[0])
    hold.unlink()
    wait_for_more(3)
    server.kill()  # the server alone, then the database below it as well
    wait_for_more(2)  # training goes on
    hold.touch()
    postgres.server.kill()
    postgres.start()
    server.start()
    hold.unlink()
    wait_for_more(2)
    postgres.server.kill()  # below a server that lives on
    wait_for_more(2)
    hold.touch()
    postgres.start()
    hold.unlink()
    for process in both:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        assert "not up to date" not in out
        assert out.count("does not take runs") == 1, out
        assert servers.PASSWORD not in out + err
    names = [name for store in stores for name in names_of(server.address, store)]
    first, second = sorted(names, key=len)
    assert first == "shared"
    assert second in [f"shared ({(store / 'id').read_text()[:8]})" for store in stores]
    api = MlflowClient(server.address)
    for store in stores:
        (name,) = names_of(server.address, store)
        runs = runs_of(api, name)
        assert len(runs) == len({run.info.run_name for run in runs}) == 24
        for run in runs:
            assert run.info.status == "FINISHED"
            check_against_journal(api, run, store)
        assert len(runs_of(api, name, "tags.`ablate.kind` = 'study'")) == 1


def check_against_journal(api, run, store):
    folder = store / "jobs" / run.data.tags["ablate.job"]
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    logged = history(api, run)
    for name in ("train/loss", "validation/accuracy"):
        assert logged[name] == [(line["epoch"], line["timestamp"], line["metrics"][name]) for line in lines]
    (outcome,) = folder.glob("outcomes/*/outcome.json")
    assert [value for _, _, value in logged["test/accuracy"]] == [
        json.loads(outcome.read_text())["metrics"]["test/accuracy"]
    ]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert {"recipe.json", "outcome.json"} <= {item.path for item in api.list_artifacts(run.info.run_id)}


@contextmanager
def losing(target, *, late):
    """Forward requests, and lose the answer to the first one that makes a run.

    `late`: that request even reaches the server only after the second one has been answered.
    """
    lost = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_making = self.path.endswith("/runs/create")
            if is_making and not lost:
                lost.append(body)
                if not late:
                    self.forward(body)
                self.close_connection = True
                return
            response = self.forward(body)
            if is_making and late and len(lost) == 1:
                lost.append(body)
                self.forward(lost[0])
            content = response.read()
            self.send_response(response.status)
            self.send_header("Content-Type", response.getheader("Content-Type"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def forward(self, body):
            connection = http.client.HTTPConnection(target.removeprefix("http://"), timeout=60)
            kept = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            connection.request(self.command, self.path, body, kept)
            return connection.getresponse()

        def log_message(self, *_):
            pass

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 (the library's names)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}", lost
        proxy.shutdown()


@pytest.mark.parametrize("late", [False, True])
def test_a_run_whose_answer_was_lost_is_there_once(server, here, monkeypatch, late):
    monkeypatch.setattr(writers, "PAUSE", 0.2)
    monkeypatch.setattr(writers, "PATIENCE", 60.0)
    study = read(f"lost {late}")
    runs, heard = begun(here, study), []
    sources = tracking.tracked(study, runs, here)
    with losing(server.address, late=late) as (address, lost):
        writer = tracking.Writer(address, study, sources, here, heard.append)
        for _ in range(3):
            for run in runs:
                writer.touch(run.job_id)
        wait_until_taken(server.address, study, len(runs))
        assert (writer.close().late, len(lost)) == (0, 2 if late else 1)
    assert len(heard) == 1
    shown = runs_of(MlflowClient(server.address), study.name)
    assert [run.info.run_name for run in shown] == sorted(run.name for run in runs)
    assert tracking.compare(server.address, study, sources, here) == []


def wait_until_taken(address, study, runs):
    api = MlflowClient(address)
    wait_until(lambda: api.get_experiment_by_name(study.name) and len(runs_of(api, study.name)) >= runs)


def test_two_coordinators_share_a_search_in_postgresql_and_no_password_is_written(postgres, tmp_path):
    store = tmp_path / "store"
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(SEARCHES.replace('"one"', f'"{name}"'))
    (tmp_path / "held_net.py").write_text(HELD)
    hold = tmp_path / "hold"
    servers_of = {
        "MLFLOW_TRACKING_URI": postgres.address("mlflow"),
        "ABLATE_OPTUNA_STORAGE": postgres.address("optuna"),
        **PATIENT,
        "HOLD": str(hold),
    }
    first = start("run", tmp_path / "one.toml", "--store", store, "--jobs", 1, **servers_of)
    wait_for(lambda: count("jobs/*/result.json", store) >= 1, first)
    hold.touch()
    second = start("run", tmp_path / "two.toml", "--store", store, "--jobs", 1, **servers_of)
    printed = []
    while "is run by another study: waiting for it" not in (line := second.stdout.readline()):
        printed.append(line)
        assert second.poll() is None, (printed, second.communicate())
    os.killpg(first.pid, signal.SIGKILL)
    hold.unlink()
    text = "".join([*first.communicate(), *printed, *second.communicate(timeout=600)])
    assert second.returncode == 0, text
    code, out, err = ablate("run", tmp_path / "one.toml", "--store", store, **servers_of)
    assert code == 0, out + err
    assert "not up to date" not in text + out
    (trials,) = store.glob("searches/*/trials.json")
    rows = json.loads(trials.read_text())["trials"]
    assert [(row["number"], row["state"]) for row in rows] == [(number, "complete") for number in range(6)]
    assert not list(store.glob("searches/*/optuna.jsonl"))
    with closing(postgres.connect("optuna")) as connection:
        states = connection.execute("select number, state from trials order by number").fetchall()
    assert states == [(number, "COMPLETE") for number in range(6)]
    api = MlflowClient(postgres.address("mlflow").replace("postgresql:", "postgresql+psycopg:"))
    for name in ("one", "two"):
        assert len(runs_of(api, name, "tags.`ablate.kind` = 'trial'")) == 6
        assert len(runs_of(api, name)) == 2
    everywhere = [text, out, err, postgres.dump()]
    everywhere += [path.read_bytes().decode("latin-1") for path in store.rglob("*") if path.is_file()]
    assert not [part[:200] for part in everywhere if servers.PASSWORD in part]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f":{servers.PASSWORD}@", f":{servers.PASSWORD}x@"),
        ("127.0.0.1", "no-such-host.invalid"),
        ("/mlflow", "/nothing"),
        ("127.0.0.1:", "127.0.0.1:port"),
    ],
)
def test_what_a_database_refuses_is_a_sentence_without_its_password(postgres, done, before, after):
    folder, _ = done
    address = postgres.address("mlflow").replace(before, after)
    code, out, err = ablate("sync", "tiny", "--store", folder / "store", "--tracking-uri", address)
    assert (code, out) == (2, "")
    assert "does not take the runs: " in err
    assert "Traceback" not in err
    assert servers.PASSWORD not in err


def test_optuna_is_refused_by_a_database_in_a_sentence_without_its_password(postgres, tmp_path):
    study = tmp_path / "one.toml"
    study.write_text(SEARCHES)
    study.with_name("held_net.py").write_text(HELD)
    address = postgres.address("nothing")
    code, out, err = ablate("search", study, "--store", tmp_path / "store", "--optuna-storage", address)
    assert code == 2, out + err
    assert "Optuna's storage cannot be opened: " in err
    assert servers.PASSWORD not in out + err
