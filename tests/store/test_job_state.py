"""The one answer to what state a job is in."""

from pathlib import Path

import pytest
import record_files

from ablate.errors import StoreError
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder
from ablate.store.job_state import state


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "job").mkdir()
    return Folder(tmp_path / "job")


def begin(folder: Folder) -> None:
    files.append(folder.attempts, record_files.attempt())


def end(folder: Folder, status: str = "finished") -> None:
    begin(folder)
    files.write_json(folder.result, record_files.result(status))


def fail(folder: Folder) -> None:
    job_folder.fail(folder, kind="error", error="x")


def test_a_job_goes_through_its_stages(folder: Folder) -> None:
    assert state(folder).stage() == "not_run"
    with folder.lock():
        begin(folder)
        assert state(folder).stage() == "running"
    assert state(folder).stage() == "stopped"
    fail(folder)
    assert state(folder).stage() == "crashed"
    with folder.lock():  # another attempt: it forgets the failure as soon as it has begun
        assert (state(folder).stage(), state(folder).failure) == ("running", None)
    end(folder)
    assert state(folder).stage() == "crashed"  # while it was evaluated
    folder.failure.unlink()
    assert state(folder).stage() == "trained"
    assert state(folder).stage(is_evaluated=True) == "evaluated"


@pytest.mark.parametrize("is_evaluated", [False, True])
def test_a_diverged_training_is_the_end_whatever_else_there_is(folder: Folder, is_evaluated: bool) -> None:
    end(folder, "diverged")
    fail(folder)
    with folder.lock():
        assert state(folder).stage(is_evaluated=is_evaluated) == "diverged"
    assert not state(folder).is_trained


def test_what_is_evaluated_in_one_way_is_so_while_it_is_evaluated_in_another_or_that_failed(
    folder: Folder,
) -> None:
    end(folder)
    with folder.lock():
        assert state(folder).stage(is_evaluated=True) == "evaluated"
        assert state(folder).stage() == "running"
    fail(folder)
    assert state(folder).stage(is_evaluated=True) == "evaluated"


def test_a_journal_alone_is_a_beginning(folder: Folder) -> None:
    files.append(folder.journal, record_files.epoch(1))
    assert state(folder).stage() == "stopped"


def test_looking_makes_nothing_and_needs_no_folder(tmp_path: Path) -> None:
    assert state(Folder(tmp_path / "nowhere")).stage() == "not_run"
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_result_is_a_sentence_and_no_state(folder: Folder) -> None:
    folder.result.write_text('{"status": "finished"}')
    with pytest.raises(StoreError, match="ablate doctor says what to do"):
        state(folder)
