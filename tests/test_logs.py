"""The log of a job, as it is and as it grows: whatever lies in it, and whatever becomes of its file meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ablate import journal, logs
from ablate.journal import Folder


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "EVERY", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "job")
    made.path.mkdir()
    return made


def until_quiet(told: Iterator[str]) -> str:
    """Read what is new."""
    found = ""
    while part := next(told):
        found += part
    return found


def test_a_log_is_given_as_it_is_and_what_is_no_text_is_replaced(folder: Folder) -> None:
    folder.log.write_bytes("attempt 1\n\u00e4 \u2713\r50 %\r".encode() + b"\xff end")
    assert "".join(logs.read(folder)) == "attempt 1\n\u00e4 \u2713\r50 %\r\ufffd end"


def test_a_log_is_followed_from_before_it_exists_to_the_end_of_its_job(folder: Folder) -> None:
    told = logs.follow(folder, frozenset({"a" * 64}))
    assert until_quiet(told) == ""
    with ExitStack() as held:
        held.enter_context(folder.lock())
        assert until_quiet(told) == ""
        with folder.log.open("ab", buffering=0) as log:
            log.write(b"epoch 1\n")
            assert until_quiet(told) == "epoch 1\n"
            log.write(b"\xe2\x9c")  # half a letter
            assert until_quiet(told) == ""
            log.write(b"\x93 epoch 2\n")
            assert until_quiet(told) == "\u2713 epoch 2\n"
            journal.write_json(folder.result, {"status": "finished"})
            journal.write_json(folder.outcome("a" * 64) / "outcome.json", {})
            assert until_quiet(told) == ""  # as long as the lock is held
            log.write(b"judged")
    assert "".join(told) == "judged"


def test_a_log_that_is_replaced_or_cut_is_given_from_its_beginning(folder: Folder) -> None:
    folder.log.write_text("the first one\n")
    told = logs.follow(folder, frozenset())
    assert until_quiet(told) == "the first one\n"
    journal.write(folder.log, "another file, longer than the first\n")
    assert until_quiet(told) == "another file, longer than the first\n"
    with folder.log.open("w") as log:  # the same file
        log.write("cut\n")
    assert until_quiet(told) == "cut\n"
    folder.log.unlink()
    assert until_quiet(told) == ""
    folder.log.write_text("new\n")
    journal.fail(folder, kind="error", error="x")
    assert "".join(told) == "new\n"


@pytest.mark.parametrize(
    ("status", "judged", "failed", "ended"),
    [
        ("", "", False, False),
        ("finished", "a", False, False),
        ("finished", "ab", False, True),
        ("diverged", "", False, True),
        ("", "", True, True),
        ("finished", "a", True, True),
    ],
)
def test_a_job_has_ended_when_nothing_more_will_happen_to_it(folder: Folder, status: str, judged: str, failed: bool, ended: bool) -> None:
    if status:
        journal.write_json(folder.result, {"status": status})
    for letter in judged:
        journal.write_json(folder.outcome(letter * 64) / "outcome.json", {})
    if failed:
        journal.fail(folder, kind="error", error="x")
    evaluations = frozenset({"a" * 64, "b" * 64})
    assert logs.has_ended(folder, evaluations) is ended
    with folder.lock():
        assert not logs.has_ended(folder, evaluations)
