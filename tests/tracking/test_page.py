"""What MLflow's page shows of a study: experiment, origin of the runs, what an older version left."""

import getpass
import json
import shutil
import subprocess

import pytest
from commands import RECIPE, ablate
from mlflow.entities import Metric, Param, RunTag
from shown import client, hidden, history, runs_of

from ablate import tracking
from ablate.execution.options import Where
from ablate.store import files, layout, study_folder
from ablate.tracking.sent import LAYOUT
from ablate.workflow import plan as planning
from ablate.workflow import tracking as tracking_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NEW = ("model/", "memory/")  # metrics
SHARED = "mlflow.sharedViewState.ablate"


@pytest.fixture
def copied(done, tmp_path):
    """Return a copy of the finished store, without its database."""
    folder, _ = done
    shutil.copytree(
        folder / "store", tmp_path / "store", ignore=shutil.ignore_patterns("mlflow.db", "artifacts")
    )
    return layout.open_store(tmp_path / "store")


def sources(held):
    loaded = study_folder.recall(held, "tiny")
    todo = planning.plan(loaded, Where(held, device="cpu"))
    return loaded, tracking.tracked(loaded, todo.runs, held)


def test_the_experiment_is_of_training_and_has_a_view_of_cells_with_the_metric(done):
    folder, _ = done
    tags = client(folder / "store").get_experiment_by_name("tiny").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(tags[SHARED])
    state = json.loads(view["state"])
    assert view["name"] == "cells"
    assert state["selectedColumns"] == ["metrics.`test/accuracy`", "tags.`ablate.cell`", "tags.`ablate.seed`"]
    assert [one["groupByData"] for one in state["groupBy"]["groupByKeys"]] == ["ablate.cell", "ablate.status"]
    kinds = {
        run.data.tags["ablate.kind"]
        for run in runs_of(client(folder / "store"), "tiny", state["searchFilter"])
    }
    assert kinds == {"run"}


def test_the_ui_is_opened_on_each_study(done):
    folder, _ = done
    held = layout.open_store(folder / "store")
    number = client(held.path).get_experiment_by_name("tiny").experiment_id
    _, _, pages = tracking_workflow.ui(Where(held, device="cpu"), "127.0.0.1", 5001)
    view = "runs?workflowType=machine_learning&viewStateShareKey=ablate"
    assert pages == {"tiny": f"http://127.0.0.1:5001/#/experiments/{number}/{view}"}
    _, _, pages = tracking_workflow.ui(Where(held, device="cpu"), "::1", 5001)
    assert pages["tiny"].startswith("http://[::1]:5001/#/")


def test_the_ui_starts_on_a_database_that_cannot_be_read(here):
    here.database.write_text("this is no database")
    command, environment, pages = tracking_workflow.ui(Where(here, device="cpu"), "127.0.0.1", 5001)
    assert command[1:5] == ["-P", "-m", "mlflow", "ui"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{here.database}"
    assert pages == {}


def test_a_run_says_who_trained_what_on_which_images(done):
    folder, _ = done
    run = next(
        run for run in runs_of(client(folder / "store"), "tiny") if run.info.run_name == "batch_norm=false/0"
    )
    tags, job = run.data.tags, folder / "store/jobs" / run.data.tags["ablate.job"]
    environment = files.read_json(job / "environment.json")
    assert (tags["mlflow.user"], tags["mlflow.source.type"]) == (getpass.getuser(), "LOCAL")
    assert tags["mlflow.source.name"] == str(folder / "tiny.toml")
    assert tags.get("mlflow.source.git.commit") == environment["git"].get("commit")
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", environment["data"][:12])
    assert json.loads(given.dataset.profile)["classes"] == 10
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}


def test_a_run_has_its_whole_recipe_as_params_so_that_one_can_filter_over_studies(done):
    folder, _ = done
    api = client(folder / "store")
    number = api.get_experiment_by_name("tiny").experiment_id
    asked = (
        "params.`optimizer.lr` = '0.003'",
        "params.`model.name` = 'cnn4'",
        "params.`training.epochs` = '3'",
        "params.batch_norm = 'true'",
    )
    found = api.search_runs([number], " and ".join(asked))
    assert {run.data.params["training.batch_size"] for run in found} == {"20"}
    assert len(found) == 4
    assert {run.data.params["model.batch_norm"] for run in found} == {"true"}
    assert not any("data.root" in run.data.params or "schedule.gamma" in run.data.params for run in found), (
        "neither paths nor what is idle"
    )


def test_a_run_has_the_size_of_its_network_and_its_memory_as_metrics(done):
    folder, _ = done
    api = client(folder / "store")
    for run in runs_of(api, "tiny"):
        job = folder / "store/jobs" / run.data.tags["ablate.job"]
        model, result = files.read_json(job / "model.json"), files.read_json(job / "result.json")
        assert run.data.metrics["model/parameters"] == model["parameters"] > 1000
        assert run.data.metrics["model/macs"] == model["macs"] > 1000
        assert run.data.metrics["memory/peak_bytes"] == result["peak_memory"] > 1e7
        assert {
            step for name in ("model/macs", "memory/peak_bytes") for step, _, _ in history(api, run)[name]
        } == {0}


@pytest.mark.slow  # a run of its own
def test_a_study_in_a_repository_names_its_commit(study, tmp_path, monkeypatch):
    as_somebody = ["git", "-C", tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run([*as_somebody, "commit", "-qm", "first", "--allow-empty"], check=True)
    commit = subprocess.run(
        [*as_somebody, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    study.write_text(f'name = "vary"\nseeds = 1\n{RECIPE}[factors]\nschedule.name = ["constant", "cosine"]\n')
    monkeypatch.chdir(tmp_path)
    code, out, err = ablate("run", study, "--store", tmp_path / "store", "--set", "training.epochs=1")
    assert code == 0, out + err
    runs = runs_of(client(tmp_path / "store"), "vary")
    assert {run.data.tags["mlflow.source.git.commit"] for run in runs} == {commit}
    assert {run.data.params["schedule"] for run in runs} == {"constant", "cosine"}
    assert not any("name" in run.data.params for run in runs)


def test_runs_of_an_older_version_get_what_they_lack_and_stay_the_same_runs(done, copied):
    folder, _ = done
    api, old_tags = client(folder / "store"), ("ablate.attempt", "ablate.stale", "ablate.layout")
    shown = [
        (
            run.data.tags["ablate.key"],
            {
                k: v
                for k, v in run.data.tags.items()
                if (k.startswith("ablate.") or k == "mlflow.runName") and k not in old_tags
            },
            {k: v for k, v in run.data.params.items() if "." not in k},
            [
                Metric(k, v, at, step)
                for k, points in history(api, run).items()
                for step, at, v in points
                if not k.startswith(NEW)
            ],
            run.info.start_time, run.info.end_time,
        )
        for run in runs_of(api, "tiny")
    ]  # fmt: skip
    loaded, own = sources(copied)
    address = tracking.uri(copied, None)
    old = client(copied.path)
    old.create_experiment("make the database")
    place = copied.artifacts / copied.study("tiny").name
    number = old.create_experiment("tiny", artifact_location=place.as_uri())
    ids = {}
    for key, tags, params, metrics, start, end in shown:
        run = old.create_run(number, start_time=start, tags=tags)
        given = [Param(*one) for one in params.items()]
        old.log_batch(run.info.run_id, metrics=metrics, params=given, tags=[RunTag("ablate.attempt", "1")])
        old.set_terminated(run.info.run_id, "FINISHED", end)
        ids[key] = run.info.run_id
    (said,) = tracking.compare(address, loaded, own, copied)
    assert said.startswith("shown by MLflow as an older version of ablate did: 8 runs (")
    tracking.Writer(address, loaded, own, copied, print).close()  # as the next run does
    assert tracking.compare(address, loaded, own, copied) == []
    runs = runs_of(old, "tiny")
    assert {run.data.tags["ablate.key"]: run.info.run_id for run in runs} == ids
    assert {run.data.tags["ablate.layout"] for run in runs} == {LAYOUT}
    assert [(r.data.params, r.data.metrics) for r in runs] == [
        (r.data.params, r.data.metrics) for r in runs_of(api, "tiny")
    ]
    assert [history(old, run) for run in runs] == [history(api, run) for run in runs_of(api, "tiny")]
    assert all(run.inputs.dataset_inputs for run in runs)
    assert hidden(old, "tiny") == []


def test_a_job_that_was_trained_again_replaces_what_mlflow_shows_of_it(copied):
    loaded, own = sources(copied)
    address = tracking.uri(copied, None)
    tracking.sync(address, loaded, own, copied)
    before = {run.data.tags["ablate.key"]: run.info.run_id for run in runs_of(client(copied.path), "tiny")}
    job = own[0].folder
    lines = files.lines(job.journal)  # as if trained once more: the same values, at other times
    later = "".join(
        json.dumps({**line, "timestamp": line["timestamp"] + 10_000, "seconds": 9.0}) + "\n" for line in lines
    )
    files.write(job.journal, later)
    (said,) = tracking.compare(address, loaded, own, copied)
    assert "other metrics" in said
    tracking.sync(address, loaded, own, copied)
    assert tracking.compare(address, loaded, own, copied) == []
    after = {run.data.tags["ablate.key"]: run.info.run_id for run in runs_of(client(copied.path), "tiny")}
    assert after.keys() == before.keys()
    changed = {key for key, run in after.items() if before[key] != run}
    assert changed == {one.key for one in own if one.job == own[0].job}
