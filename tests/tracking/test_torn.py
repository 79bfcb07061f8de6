"""What MLflow gets of a store that has lost files, or has some that are not ours: everything else."""

import json
import shutil
from pathlib import Path

import pytest
from shown import client, runs_of

from ablate import tracking
from ablate.errors import StoreError
from ablate.execution.options import Where
from ablate.store import layout, study_folder
from ablate.tracking.sender import Sender, sync
from ablate.workflow import plan as planning

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GOLDEN = Path(__file__).parents[1] / "golden/finished"


@pytest.fixture
def store(tmp_path):
    """Return a finished store whose lists of attempts are lost."""
    shutil.copytree(GOLDEN, tmp_path / "store")
    return layout.open_store(tmp_path / "store")


@pytest.fixture
def study(store):
    return study_folder.recall(store, "tiny")


@pytest.fixture
def sources(store, study):
    every = tracking.tracked(study, planning.plan(study, Where(store, device="cpu")).runs, store)
    return [source for source in every if source.folder.journal.exists()]


def ends(store):
    return {
        run.info.run_name: (run.info.status, run.info.end_time) for run in runs_of(client(store.path), "tiny")
    }


def test_a_run_whose_attempts_are_lost_is_shown(store, study, sources):
    assert not list(store.path.glob("jobs/*/attempts.jsonl"))
    for source in sources:
        (record,) = source.records(closing=True, is_done=lambda *_: False)
        first, *_ = record.lines[""]
        assert 0 < record.started < first.timestamp < record.state.ended
        assert (record.state.status, record.attempts) == ("FINISHED", 1)


def trained_again(source):
    """Move all that a job has written to a later time, as a training of the same job would."""
    later = 3_600_000
    paths = [source.folder.journal, source.folder.result, source.outcome / "outcome.json"]
    for path in paths:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        moved = [line | {"timestamp": line["timestamp"] + later} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in moved))
    return later


def test_what_is_not_ours_or_trained_again_is_no_other_runs_matter(store, study, sources):
    address = tracking.uri(store, None)
    spoilt, half, anew, *_ = {source.job: source for source in sources}.values()
    for path in spoilt.folder.path.glob("outcomes/*/outcome.json"):
        path.write_text("[]")
    half.folder.result.unlink()  # the outcomes are still there
    with pytest.raises(StoreError, match=f"{spoilt.folder.path}.+must be JSON as ablate writes it"):
        sync(address, study, sources, store)
    shown = ends(store)
    for source in sources:
        if source.job == spoilt.job:
            assert source.run.name not in shown
        else:
            status = "KILLED" if source.job == half.job else "FINISHED"
            assert shown[source.run.name][0] == status, source.run.name

    later = trained_again(anew)
    Sender(address, study, store, None).send(anew, closing=True)
    now = ends(store)
    assert now[anew.run.name] == ("FINISHED", shown[anew.run.name][1] + later)
    assert tracking.compare(address, study, [anew], store) == []
