"""The doctor reads the store's own database without MLflow's objects, and sees what MLflow shows."""

import math
import sqlite3
from contextlib import closing

import pytest
from finished import copy_of

from ablate.planning.resolve import resolve
from ablate.store import layout, study_folder
from ablate.tracking import addresses, audit, client, experiment, sent, tables
from ablate.workflow.tracking import sources_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def finished(shared, tmp_path):
    """Return the tiny study, resolved in a copy of the store that its run has left."""
    store = layout.open_store(copy_of(shared, tmp_path)[0] / "store")
    return resolve(study_folder.recall(store, "tiny"), store)


def change(store, command):
    with closing(sqlite3.connect(store.database)) as opened, opened:
        opened.execute(command)


def test_the_tables_hold_what_mlflow_shows(finished):
    store = finished.store
    connected = client.connect(addresses.own(store))
    number = connected.get_experiment_by_name("tiny").experiment_id
    some = next(iter(client.search(connected, number, "tags.`ablate.kind` = 'run'"))).info.run_id
    connected.log_metric(some, "odd", math.inf)
    connected.log_metric(some, "odder", math.nan)
    connected.delete_run(
        connected.create_run(number, tags={"ablate.store": layout.identity(store)}).info.run_id
    )
    condition = f"tags.`ablate.store` = '{layout.identity(store)}'"
    theirs = {run.info.run_id: sent.read(run) for run in client.search(connected, number, condition)}
    ours = {run.run_id: run for run in tables.runs(store.database, number, layout.identity(store))}
    assert math.isnan(ours[some].metrics.pop("odder"))
    assert math.isnan(theirs[some].metrics.pop("odder"))
    for run in theirs.values():
        run.has_images = False  # not asked for
    assert ours == theirs
    assert len(ours) > len(finished.runs)  # the study's own is there, too


def test_a_comparison_asks_mlflow_for_no_run(finished, monkeypatch):
    asked = []
    monkeypatch.setattr(client, "search", lambda *_, **__: asked.append(1) or iter(()))
    address, sources = addresses.own(finished.store), sources_of(finished, whole=True)
    assert audit.compare(address, finished.study, sources, finished.store) == []
    assert not asked
    change(finished.store, "UPDATE runs SET status = 'KILLED' WHERE status = 'FINISHED'")
    assert len(audit.compare(address, finished.study, sources, finished.store)) == 1


def test_other_tables_are_left_to_mlflow(finished, monkeypatch):
    asked, search = [], client.search
    monkeypatch.setattr(client, "search", lambda *some, **more: asked.append(1) or search(*some, **more))
    monkeypatch.setattr(tables, "OURS", "SELECT run_uuid FROM of_a_later_version WHERE ? = ?")
    there = experiment.shown(addresses.own(finished.store), finished.study, finished.store)
    assert asked
    assert len(there) == len(finished.runs)
