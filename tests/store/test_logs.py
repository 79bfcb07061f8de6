"""The log of a job, as it is and as it grows: whatever is in it, and whatever happens to its file."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import record_files

from ablate.store import files, job_folder, logs
from ablate.store.job_folder import Folder


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
    assert "".join(logs.read(folder)) == "attempt 1\n\u00e4 \u2713\n50 %\n\ufffd end"


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
            files.write_json(folder.result, record_files.result())
            files.write_json(folder.outcome("a" * 64) / "outcome.json", record_files.evaluation())
            assert until_quiet(told) == ""  # as long as the lock is held
            log.write(b"judged")
    assert "".join(told) == "judged"


def test_a_log_that_is_replaced_or_cut_is_given_from_its_beginning(folder: Folder) -> None:
    folder.log.write_text("the first one\n")
    told = logs.follow(folder, frozenset())
    assert until_quiet(told) == "the first one\n"
    files.write(folder.log, "another file, longer than the first\n")
    assert until_quiet(told) == "another file, longer than the first\n"
    with folder.log.open("w") as log:  # the same file
        log.write("cut\n")
    assert until_quiet(told) == "cut\n"
    folder.log.unlink()
    assert until_quiet(told) == ""
    folder.log.write_text("new\n")
    job_folder.fail(folder, kind="error", error="x")
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
def test_a_job_has_ended_when_nothing_more_will_happen_to_it(
    folder: Folder, status: str, judged: str, failed: bool, ended: bool
) -> None:
    if status:
        files.write_json(folder.result, record_files.result(status))
    for letter in judged:
        files.write_json(folder.outcome(letter * 64) / "outcome.json", record_files.evaluation())
    if failed:
        job_folder.fail(folder, kind="error", error="x")
    evaluations = frozenset({"a" * 64, "b" * 64})
    assert logs.has_ended(folder, evaluations) is ended
    with folder.lock():
        assert not logs.has_ended(folder, evaluations)


ESC = "\x1b"
RAW = {
    "a colour": (f"a{ESC}[1;31mred{ESC}[0m b", "ared b"),
    "a cursor": (f"a{ESC}[2J{ESC}[1;1H{ESC}[?25lb", "ab"),
    "a title": (f"a{ESC}]0;root@host\x07b", "ab"),
    "a title that ends as the standard has it": (f"a{ESC}]2;x{ESC}\\b", "ab"),
    "the clipboard": (f"a{ESC}]52;c;cm0gLXJmIH4K\x07b", "ab"),
    "a link": (f"a{ESC}]8;;http://x{ESC}\\word{ESC}]8;;{ESC}\\b", "awordb"),
    "a device's string": (f'a{ESC}P$q"p{ESC}\\b', "ab"),
    "a character set": (f"a{ESC}(0{ESC}7b", "ab"),
    "one character as introducer": ("a\x9b31mred\x9d0;x\x9cb", "aredb"),
    "other control characters": ("a\x07\x08\x0b\x0c\x7f\x85\u202e\u2028b", "a        b"),
    "lines of Windows": ("a\r\nb\r\n", "a\nb\n"),
    "a progress bar": ("10 %\r50 %\r100 %\n", "10 %\n50 %\n100 %\n"),
    "a title without an end": (f"a{ESC}]0;x\nepoch 2\n", "a0;x\nepoch 2\n"),
    "a sequence at the very end": (f"a{ESC}[3", "a3"),
    "a line of a million": ("x" * 1_000_000 + f"{ESC}[m\n", "x" * 1_000_000 + "\n"),
    "a sequence that is none": (f"a{ESC}[{'1;' * 5000}\n", f"a{'1;' * 5000}\n"),
    "letters and signs": ("\u00e4\u4f60\U0001f600\tb\n", "\u00e4\u4f60\U0001f600\tb\n"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_log_cannot_command_a_terminal(folder: Folder, name: str) -> None:
    raw, cleaned = RAW[name]
    folder.log.write_bytes(raw.encode())
    assert "".join(logs.read(folder)) == cleaned


@pytest.mark.parametrize("name", [name for name, (raw, _) in RAW.items() if len(raw) < 100])
def test_a_log_is_cleaned_wherever_it_is_split(
    monkeypatch: pytest.MonkeyPatch, folder: Folder, name: str
) -> None:
    folder.log.write_bytes(RAW[name][0].encode())
    whole = "".join(logs.read(folder))
    job_folder.fail(folder, kind="error", error="x")
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(logs, "CHUNK", size)
        assert "".join(logs.read(folder)) == whole
        assert "".join(logs.follow(folder, frozenset())) == whole


def test_sequences_without_an_end_are_dropped_from_long_lines_too(folder: Folder) -> None:
    folder.log.write_text(f"{ESC}]\x9d{ESC}P\x9b1" * 300_000)  # each could go on to the end
    assert set("".join(logs.read(folder))) <= set("1 ")
