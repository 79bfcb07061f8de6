"""Journals to MLflow: what the runs of a study look like there, and that MLflow can be lost and rebuilt."""

import html
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from commands import PATIENT, TINY, ablate, failing, start, wait_for
from finished import copy_of
from mlflow import MlflowClient
from mlflow.entities import ViewType
from shown import client, everything, hidden, history, runs_of

from ablate import tracking

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_every_cell_and_seed_is_one_flat_finished_run_with_its_factors_as_params(done):
    folder, _ = done
    found = runs_of(client(folder / "store"), "tiny")
    cells = ("baseline", "mc_dropout=3", "batch_norm=false", "batch_norm=false, mc_dropout=3")
    assert [run.info.run_name for run in found] == sorted(
        f"{cell}/{seed}" for cell in cells for seed in (0, 1)
    )
    by_name = {run.info.run_name: run for run in found}
    assert {run.info.status for run in found} == {"FINISHED"}
    assert all("mlflow.parentRunId" not in run.data.tags for run in found)
    trained = by_name["batch_norm=false/0"]
    assert trained.data.params.items() >= {"batch_norm": "false", "mc_dropout": "0", "seed": "0"}.items()
    tags = by_name["batch_norm=false, mc_dropout=3/0"].data.tags
    assert (tags["ablate.cell"], tags["ablate.seed"], tags["ablate.study"]) == (
        "batch_norm=false, mc_dropout=3",
        "0",
        "tiny",
    )
    assert (tags["ablate.attempt"], tags["ablate.status"]) == ("1", "finished")
    assert tags["ablate.job"] == trained.data.tags["ablate.job"]
    assert len(tags["ablate.job"]) == 64


def test_the_metrics_are_those_of_the_journal_epoch_by_epoch_at_its_times(done):
    folder, _ = done
    api = client(folder / "store")
    for run in runs_of(api, "tiny"):
        journal = folder / "store/jobs" / run.data.tags["ablate.job"] / "journal.jsonl"
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        logged = history(api, run)
        for name in ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy"):
            assert logged[name] == [
                (line["epoch"], line["timestamp"], line["metrics"][name]) for line in lines
            ]
        assert len(logged["test/accuracy"]) == 1
        assert {
            "test/loss",
            "test/calibration_error",
            "test/precision",
            "test/recall",
            "test/f1",
            "time/epoch_seconds",
            "time/train_seconds",
        } <= logged.keys()
        assert run.info.start_time <= lines[0]["timestamp"]
        assert run.info.end_time == logged["test/accuracy"][0][1]


def test_the_artifacts_of_a_run_tell_where_it_came_from_and_what_it_got_wrong(done, tmp_path):
    folder, _ = done
    api = client(folder / "store")
    run = next(run for run in runs_of(api, "tiny") if run.info.run_name == "mc_dropout=3/1")
    names = {item.path for item in api.list_artifacts(run.info.run_id)}
    assert names == {
        "recipe.json", "environment.json", "log.txt", "curves.csv", "confusion_matrix.csv",
        "per_class_accuracy.csv", "misclassified.png", "correct.png", "outcome.json", "model", "model.json",
    }  # fmt: skip

    def read(name):
        return Path(api.download_artifacts(run.info.run_id, name, str(tmp_path))).read_text()

    recipe = json.loads(read("recipe.json"))
    assert recipe["evaluation"]["mc_dropout"] == 3
    assert recipe["model"]["head_dropout"] == 0.2
    environment = json.loads(read("environment.json"))
    assert {"git", "versions", "machine", "data"} <= environment.keys()
    assert "torch" in environment["versions"]
    rows = read("confusion_matrix.csv").splitlines()
    assert len(rows) == 11
    assert sum(int(n) for row in rows[1:] for n in row.split(",")[1:]) == 355


def test_one_study_run_holds_the_report_and_the_verdicts(done):
    folder, out = done
    api = client(folder / "store")
    (run,) = runs_of(api, "tiny", "tags.`ablate.kind` = 'study'")
    names = {item.path for item in api.list_artifacts(run.info.run_id)}
    assert names == {"report.html", "report.md", "findings.json", "effects.csv", "cells.csv", "study.json"}
    assert run.info.status == "FINISHED"
    sentence = next(line for line in out.splitlines() if "batch_norm" in line and "seeds" in line)
    assert sentence in html.unescape(run.data.tags["mlflow.note.content"])


@pytest.mark.slow  # two runs, and a sync
def test_a_lost_database_is_rebuilt_run_for_run_and_metric_for_metric(shared, tmp_path):
    folder, _ = copy_of(shared, tmp_path)  # of which no other test has told MLflow anything
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", folder / "store", store], check=True)
    (store / "mlflow.db").unlink()
    shutil.rmtree(store / "artifacts")
    code, out, err = ablate("sync", "tiny", "--store", store)
    assert code == 0, err
    assert "MLflow has the 8 runs" in out
    first, rebuilt = everything(folder / "store", "tiny"), everything(store, "tiny")
    assert len(first) == 9  # and the study's own
    assert rebuilt == first


def test_sending_twice_changes_nothing(done):
    folder, _ = done
    before = everything(folder / "store", "tiny")
    assert ablate("sync", "tiny", "--store", folder / "store")[0] == 0
    assert everything(folder / "store", "tiny") == before


@pytest.mark.slow  # several runs of a study
def test_runs_that_the_study_no_longer_has_are_hidden_until_it_has_them_again(study, tmp_path):
    store = tmp_path / "store"
    short = ("--set", "training.epochs=1", "--set", "seeds=1")
    assert ablate("run", study, "--store", store, *short)[0] == 0
    study.write_text(TINY.replace("lr = 0.003", "lr = 0.002"))
    assert ablate("run", study, "--store", store, *short)[0] == 0
    before, out_of_sight = runs_of(client(store), "tiny"), hidden(client(store), "tiny")
    assert len(before) == len(out_of_sight) == 4
    assert {run.data.tags["ablate.stale"] for run in out_of_sight} == {"true"}
    study.write_text(TINY)
    assert ablate("run", study, "--store", store, *short)[0] == 0
    again = runs_of(client(store), "tiny")
    assert {run.info.run_id for run in again} == {run.info.run_id for run in out_of_sight}
    assert not any("ablate.stale" in run.data.tags for run in again)
    assert {run.info.run_id for run in hidden(client(store), "tiny")} == {run.info.run_id for run in before}


@pytest.mark.slow  # ten seconds each
@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a/b", "..", 'a "b" c', "Größe=1 %"])
def test_a_study_may_have_any_name(study, tmp_path, name):
    study.write_text(TINY.replace('"tiny"', json.dumps(name, ensure_ascii=False)))
    store = tmp_path / "store"
    code, out, err = ablate("run", study, "--store", store, "--set", "training.epochs=1", "--set", "seeds=1")
    assert code == 0, out + err
    assert "not up to date" not in out
    assert len(runs_of(client(store), name)) == 4
    assert ablate("status", name, "--store", store)[0] == 0


@pytest.mark.slow  # two more runs of a study
def test_an_experiment_deleted_in_the_page_is_brought_back(study, tmp_path):
    store = tmp_path / "store"
    short = ("--set", "training.epochs=1", "--set", "seeds=1")
    assert ablate("run", study, "--store", store, *short)[0] == 0
    api = client(store)
    api.delete_experiment(api.get_experiment_by_name("tiny").experiment_id)
    assert ablate("sync", study, "--store", store, *short)[0] == 0
    assert api.get_experiment_by_name("tiny").lifecycle_stage == "active"
    assert api.search_experiments(view_type=ViewType.DELETED_ONLY) == []


@pytest.mark.slow  # several runs of a study
def test_a_store_that_was_copied_does_not_write_into_the_old_one(done, tmp_path):
    folder, _ = done
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", folder / "store", store], check=True)
    (next(store.glob("jobs/*/outcomes/*")) / "outcome.json").unlink()
    code, out, err = ablate("run", "tiny", "--store", store)
    assert code == 0, out + err
    assert "delete its mlflow.db and run ablate sync" in out
    (store / "mlflow.db").unlink()
    assert ablate("sync", "tiny", "--store", store)[0] == 0
    locations = {run.info.artifact_uri for run in runs_of(client(store), "tiny")}
    assert all(where.startswith(store.as_uri()) for where in locations)


def test_syncing_with_a_server_that_is_away_is_a_sentence(done):
    folder, _ = done
    code, out, err = ablate(
        "sync", "tiny", "--store", folder / "store", "--tracking-uri", "http://someone:secret@127.0.0.1:9"
    )
    assert (code, out) == (2, "")
    assert err.startswith("MLflow at http://someone:***@127.0.0.1:9 does not take the runs: ")
    assert "secret" not in err
    assert "Traceback" not in err


@pytest.mark.slow  # a network of one's own: every command imports torch
def test_a_failed_run_sent_twice_keeps_its_end(study, tmp_path):
    failing(study)
    store = tmp_path / "store"
    assert ablate("run", study, "--store", store, "--set", "training.epochs=1", "--set", "seeds=1")[0] == 1
    before = everything(store, "tiny")
    assert sorted(run[1] for run in before) == [
        "FAILED",
        "FAILED",
        "FINISHED",
        "FINISHED",
        "FINISHED",
    ]  # the last is the study's own
    assert ablate("sync", "tiny", "--store", store)[0] == 0
    assert everything(store, "tiny") == before


@pytest.mark.slow  # the server takes ten seconds to start
def test_a_real_server_takes_the_same_runs_and_the_ui_serves_them(done, study, tmp_path, unused_port):
    folder, _ = done
    server = start("ui", "--store", folder / "store", "--port", unused_port)
    address = f"http://127.0.0.1:{unused_port}"

    def answers():
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=1).status == 200
        except OSError:
            return False

    try:
        wait_for(answers, server)
        api = MlflowClient(address)
        run = runs_of(api, "tiny")[0]
        assert run.info.status == "FINISHED"
        assert (
            b"\x89PNG"
            in urllib.request.urlopen(
                f"{address}/get-artifact?path=misclassified.png&run_uuid={run.info.run_id}"
            ).read()[:8]
        )
        study.write_text(TINY.replace('"tiny"', '"remote"'))
        code, out, err = ablate(
            "run", study, "--store", tmp_path / "store", MLFLOW_TRACKING_URI=address, **PATIENT
        )
        assert code == 0, out + err
        assert "not up to date" not in out
        remote, local = runs_of(api, "remote"), runs_of(client(folder / "store"), "tiny")
        assert [run.info.run_name for run in remote] == [run.info.run_name for run in local]
        assert [run.data.metrics["test/accuracy"] for run in remote] == [
            run.data.metrics["test/accuracy"] for run in local
        ]
    finally:
        server.terminate()
        server.communicate(timeout=300)


@pytest.fixture
def unused_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_password_in_an_address_is_never_shown():
    assert tracking.public("https://me:secret@host:5000/x") == "https://me:***@host:5000/x"
    assert tracking.public("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    for secret in (
        "https://s3cret@host/x", "postgresql://me:s3cret/s3cret@host/db", "https://me:s3cret@s3cret@host", "https://h/x?password=s3cret&a=1",
        "mysql://h/db?user=me&api_key=s3cret",
    ):  # fmt: skip
        assert "s3cret" not in tracking.public(f"cannot reach {secret}: refused")
    assert (
        tracking.public("write to me@example.org, not to https://host/x")
        == "write to me@example.org, not to https://host/x"
    )


def test_importing_the_writer_imports_no_mlflow():
    code = "import sys; import ablate.tracking; assert 'mlflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
