"""Each job's folder is read once, by as few system calls as it has files."""

import os
import statistics

import pytest

from ablate.analysis import outcomes
from ablate.planning.resolve import resolve
from ablate.store import layout, study_folder

FOLDER = 3  # opens of the way to a job's folder
STATE = 4  # its lock, its listing for leases, result.json, failure.json, which is not there
OUTCOME = 3  # outcomes, the folder of one, outcome.json
REST = 2  # journal.jsonl, environment.json


@pytest.fixture
def finished(done):
    """Return the tiny study, resolved in the store that its run has left."""
    store = layout.open_store(done[0] / "store")
    return resolve(study_folder.recall(store, "tiny"), store)


@pytest.fixture
def opens(monkeypatch):
    """Return the names that are opened from here on."""
    names = []
    opening = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *options, **more: names.append(str(path)) or opening(path, *options, **more)
    )
    return names


@pytest.mark.parametrize(("whole", "job"), [(True, FOLDER + STATE + REST), (False, FOLDER + STATE)])
def test_a_job_is_read_with_few_opens(finished, opens, whole, job):
    read = outcomes.read(finished.runs, finished.store, whole=whole)
    assert {outcome.status for outcome in read} == {"finished"}
    assert len(finished.runs) > len(finished.jobs)  # some share a job, which is read once
    assert len(opens) <= job * len(finished.jobs) + OUTCOME * len(finished.runs)
    assert ("journal.jsonl" in opens) is whole


def test_what_is_left_out_changes_no_state_and_no_metric(finished):
    whole, short = (outcomes.read(finished.runs, finished.store, whole=whole) for whole in (True, False))
    assert [(o.run, o.status, o.metrics) for o in whole] == [(o.run, o.status, o.metrics) for o in short]
    assert all(o.lines and o.environment and o.log and o.picture for o in whole)
    assert not any(o.lines or o.environment or o.log or o.picture for o in short)


def test_what_follows_from_a_confusion_matrix_is_there_whatever_was_written(finished):
    for outcome in outcomes.read(finished.runs, finished.store, whole=False):
        assert outcome.metrics["test/recall"] == pytest.approx(
            statistics.mean(v for name, v in outcome.metrics.items() if name.startswith("test/accuracy/"))
        )
        assert 0 < outcome.metrics["test/f1"] < 1
        written = finished.store.job(outcome.run.job_id).path.glob("outcomes/*/outcome.json")
        assert all("test/f1" not in path.read_text() for path in written)


def test_jobs_of_one_commit_share_an_environment(finished):
    read = outcomes.read(finished.runs, finished.store)
    contents = {(finished.store.job(o.run.job_id).environment).read_bytes() for o in read}
    assert len({id(o.environment) for o in read}) == len(contents)
