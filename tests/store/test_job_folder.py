"""The folder of a job: whatever kills a writer, readers see old or new files, and whole lines only."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import StoreError, UnwritableError
from ablate.recipe import fields, identity
from ablate.recipe.fields import Data, Recipe, Training
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder
from ablate.study import grid
from ablate.study.grid import Job

DEADLINE = 300.0


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "jobs" / "a")
    made.path.mkdir(parents=True)
    return made


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never came"


def a_job(**data: object) -> Job:
    made = Recipe(data=Data(name="digits", **data), training=Training(precision="fp32"))
    return Job(identity.job_id(made, 3, "f" * 64), made, 3, "f" * 64)


# Whole files

WRITER = """
import sys
from pathlib import Path
from ablate.store import files
for i in range(10**9):
    files.write_json(Path(sys.argv[1]), {"i": i, "all": [i] * 20_000})
    if i == 0:
        print("begun", flush=True)
"""


def test_a_file_is_whole_at_every_look_and_after_the_death_of_its_writer(tmp_path: Path) -> None:
    path, last = tmp_path / "state.json", -1
    for _ in range(4):
        path.unlink(missing_ok=True)
        with child(WRITER, path) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
            for _ in range(30):  # each look: the child is somewhere else in its loop
                content = json.loads(path.read_text())
                assert content["all"] == [content["i"]] * 20_000
            wait_until(lambda: json.loads(path.read_text())["i"] >= 3)
            writer.kill()
            assert writer.wait() == -signal.SIGKILL
        content = files.read_json(path)
        assert content["all"] == [content["i"]] * 20_000
        last = max(last, content["i"])
    assert last >= 3, "the writer was always killed before it overwrote anything"


def test_writing_makes_the_folders_above_and_leaves_nothing_else(tmp_path: Path) -> None:
    files.write(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")
    files.write(tmp_path / "a" / "b" / "c.bin", "Größe")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.bin"]
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == "Größe".encode()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"old": True})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"new": object()})
    assert files.read_json(tmp_path / "x.json") == {"old": True}


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = {"text": "Grüße 🎲\n", "numbers": [1, 0.1, 1e-300, float("inf")], "nothing": None}
    files.write_json(tmp_path / "x.json", content | {"nan": float("nan")})
    read = files.read_json(tmp_path / "x.json")
    nan = read.pop("nan")
    assert read == content
    assert math.isnan(nan)


def test_a_file_that_is_not_there_reads_as_none_and_as_no_lines(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "no" / "x.json") is None
    assert files.lines(tmp_path / "no" / "x.jsonl") == []
    assert list(job_folder.artifacts(tmp_path / "no")) == []


def test_a_file_that_is_no_json_is_an_error_and_not_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StoreError, match=r"x\.json: must be JSON as ablate writes it"):
        files.read_json(tmp_path / "x.json")


# Disks that are full or damaged


@pytest.mark.parametrize(
    ("number", "do"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EROFS, "mount it for writing"),
    ],
)
def test_a_disk_that_takes_nothing_is_a_sentence_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, do: str
) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"old": 1})

    def full(_file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UnwritableError, match=rf"x\.json: cannot be written \(.+\): {do} and run the same again"
    ):
        files.write_json(path, {"new": 2})
    assert [files.read_json(one) for one in tmp_path.iterdir()] == [{"old": 1}]


def test_a_folder_that_may_not_be_written_is_named_by_the_file_and_not_by_its_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.open

    def denied(path: str, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_EXCL:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return plain(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", denied)  # root may write everywhere
    with pytest.raises(PermissionError) as found:
        files.write(tmp_path / "x.json", "new")
    assert found.value.filename == str(tmp_path / "x.json")


def test_what_cannot_be_seen_is_neither_there_nor_missing(tmp_path: Path) -> None:
    assert files.is_there(tmp_path)
    assert not files.is_there(tmp_path / "x")
    (tmp_path / "file").touch()
    assert not files.is_there(tmp_path / "file" / "x")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        files.is_there(tmp_path / "loop")


def test_an_older_file_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    for content in ("1", "2", "3"):
        files.write(tmp_path / "now", content, keep=tmp_path / "before")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"now": "3", "before": "2"}


def test_drafts_of_the_dead_are_swept_away_with_the_checkpoints(folder: Folder) -> None:
    (folder.path / "outcomes" / "x").mkdir(parents=True)
    (folder.path / ".ipynb_checkpoints").mkdir()
    names = [
        ".result.json.1a2b3c4d",
        ".best.pt.1a2b3c4d",
        "checkpoint.pt",
        "previous.pt",
        "outcomes/x/.outcome.json.1a2b3c4d",
    ]
    names += [".failure.json.1a2b3c4d", ".recipe.json.1a2b3c4d"]
    kept = [".mine", "best.pt", "journal.jsonl", "outcomes/x/outcome.json"]
    for name in names + kept:
        (folder.path / name).touch()
    job_folder.sweep(folder)
    assert sorted(
        str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()
    ) == sorted(kept)


def test_lines_behind_a_damaged_one_are_not_believed(folder: Folder) -> None:
    for epoch in (1, 2, 3):
        files.append(folder.journal, {"epoch": epoch})
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole.replace(b'"epoch": 2', b'"epo\0h": ?'))
    assert files.lines(folder.journal) == [{"epoch": 1}]
    job_folder.restore_journal(folder, [{"epoch": 1}, {"epoch": 2}])
    assert files.lines(folder.journal) == [{"epoch": 1}, {"epoch": 2}]


def test_looking_whether_a_job_runs_needs_no_right_to_write_and_disturbs_nobody(folder: Folder) -> None:
    assert not job_folder.is_running(folder)
    with folder.lock():
        (folder.path / "lock").chmod(0o444)
        assert job_folder.is_running(folder)
        assert job_folder.is_running(folder)
    seen = os.open(folder.path / "lock", os.O_RDONLY)
    fcntl.flock(seen, fcntl.LOCK_SH)  # somebody else is looking at this very moment
    assert not job_folder.is_running(folder)
    os.close(seen)


# Lines

APPENDER = """
import sys
from pathlib import Path
from ablate.store import files
for i in range(10**9):
    files.append(Path(sys.argv[1]), {"i": i, "all": "x" * 5_000})
"""


def test_lines_come_back_in_order(folder: Folder) -> None:
    for i in range(3):
        files.append(folder.journal, {"epoch": i, "note": "über\nzwei Zeilen"})
        assert files.lines(folder.journal) == [
            {"epoch": j, "note": "über\nzwei Zeilen"} for j in range(i + 1)
        ]


def test_a_torn_last_line_is_not_a_line_and_the_next_one_mends_it(folder: Folder) -> None:
    files.append(folder.journal, {"epoch": 1})
    whole = folder.journal.read_bytes()
    for cut in range(1, len(whole)):
        folder.journal.write_bytes(whole + whole[:cut])
        assert files.lines(folder.journal) == [{"epoch": 1}]
        files.append(folder.journal, {"epoch": 2})
        assert files.lines(folder.journal) == [{"epoch": 1}, {"epoch": 2}]
        assert folder.journal.read_bytes().count(b"\n") == 2


def test_a_file_of_nothing_but_a_torn_line_starts_anew(folder: Folder) -> None:
    folder.journal.write_bytes(b'{"epo')
    assert files.lines(folder.journal) == []
    files.append(folder.journal, {"epoch": 1})
    assert folder.journal.read_bytes() == b'{"epoch": 1}\n'


def test_an_appender_that_is_killed_leaves_whole_lines_in_order(folder: Folder) -> None:
    for _ in range(4):
        before = len(files.lines(folder.journal))
        with child(APPENDER, folder.journal) as appender:
            wait_until(lambda before=before: len(files.lines(folder.journal)) >= before + 5)
            appender.kill()
        numbers = [line["i"] for line in files.lines(folder.journal)[before:]]
        assert numbers == list(range(len(numbers)))
    files.append(folder.journal, {"i": -1})
    assert files.lines(folder.journal)[-1] == {"i": -1}


@settings(max_examples=50, deadline=None)
@given(text=st.text(), cut=st.integers(min_value=0, max_value=40))
def test_no_text_in_a_line_can_break_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, cut: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    files.append(path, {"text": text})
    with path.open("ab") as file:
        file.write(path.read_bytes()[:-1][:cut])
    files.append(path, {"text": text, "second": True})
    assert files.lines(path) == [{"text": text}, {"text": text, "second": True}]


def test_a_journal_is_made_to_say_what_the_checkpoint_remembers(folder: Folder) -> None:
    history = [
        {"epoch": 1, "metrics": {"train/loss": 0.1}},
        {"epoch": 2, "metrics": {"train/loss": float("inf")}},
    ]
    for there in ([], history[:1], [*history, {"epoch": 3, "metrics": {}}]):
        files.write(folder.journal, "".join(json.dumps(line) + "\n" for line in there) + '{"torn')
        job_folder.restore_journal(folder, history)
        assert files.lines(folder.journal) == history


def test_a_journal_that_says_it_already_is_not_touched(folder: Folder) -> None:
    files.append(folder.journal, {"epoch": 1})
    before = folder.journal.stat()
    job_folder.restore_journal(folder, [{"epoch": 1}])
    after = folder.journal.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# What is trained


def test_a_job_is_described_once_and_again_changes_nothing(folder: Folder) -> None:
    job = a_job()
    job_folder.create(folder, job)
    before = folder.recipe.stat()
    job_folder.create(folder, job)
    assert (folder.recipe.stat().st_ino, folder.recipe.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )


def test_whoever_creates_a_job_sweeps_what_the_killed_left_of_it_unless_somebody_runs_it(
    folder: Folder,
) -> None:
    job, names = (
        a_job(),
        (".recipe.json.1a2b3c4d", ".failure.json.1a2b3c4d", "outcomes/x/.outcome.json.1a2b3c4d"),
    )
    (folder.path / "outcomes" / "x").mkdir(parents=True)

    def left() -> list[str]:
        return [name for name in names if (folder.path / name).exists()]

    for is_described in (False, True):  # killed before the description was there, and after
        for name in names:
            (folder.path / name).touch()
        assert folder.recipe.exists() == is_described
        job_folder.create(folder, job)
        assert (left(), folder.recipe.exists()) == ([], True)
    for name in names:
        (folder.path / name).touch()
    with child(HOLDER, folder.path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        job_folder.create(folder, job)
        assert left() == list(names)
    job_folder.create(folder, job)
    assert left() == []


def test_two_coordinators_that_create_a_job_at_once_write_one_description(folder: Folder) -> None:
    """The second one waits for whoever holds the folder, until there is a description."""
    job = a_job()
    with ThreadPoolExecutor(4) as threads, folder.lock():
        waiting = [threads.submit(job_folder.create, folder, job) for _ in range(4)]
        assert not wait(waiting, timeout=0.5).done
        (folder.path / ".recipe.json.1a2b3c4d").touch()
        folder.recipe.write_text("{}")  # the holder is done
        assert not wait(waiting, timeout=DEADLINE).not_done
    assert folder.recipe.read_text() == "{}"


def test_a_death_is_recorded_unless_the_worker_has_done_so_or_another_one_runs(folder: Folder) -> None:
    with child(HOLDER, folder.path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        job_folder.fail_for_the_dead(folder, kind="crash", error="it runs by now")
        assert not folder.failure.exists()
    job_folder.fail_for_the_dead(folder, kind="crash", error="first")
    job_folder.fail_for_the_dead(folder, kind="stall", error="second")
    assert files.read_json(folder.failure)["error"] == "first"


def test_a_description_gives_back_the_identity_and_names_no_path_and_no_evaluation(folder: Folder) -> None:
    job = a_job(root="/home/somebody/secret")
    job_folder.create(folder, job)
    assert "somebody" not in folder.recipe.read_text()
    content = files.read_json(folder.recipe)
    assert "evaluation" not in content["recipe"]
    again = Recipe.model_validate(content["recipe"])
    assert identity.job_id(again, content["seed"], content["data"]) == job.id == content["job"]


def test_jobs_that_differ_in_their_evaluation_alone_have_one_description(folder: Folder) -> None:
    job = a_job()
    job_folder.create(folder, job)
    first = folder.recipe.read_bytes()
    folder.recipe.unlink()
    judged = job.recipe.model_copy(update={"evaluation": fields.Evaluation(mc_dropout=7)})
    job_folder.create(folder, grid.Job(job.id, judged, job.seed, job.data))
    assert folder.recipe.read_bytes() == first


def test_a_failure_is_recorded_with_its_kind_and_time(folder: Folder) -> None:
    before = time.time()
    job_folder.fail(folder, kind="crash", error="SIGKILL")
    found = files.read_json(folder.failure)
    assert (found["kind"], found["error"]) == ("crash", "SIGKILL")
    assert before - 1 <= found["timestamp"] / 1000 <= time.time() + 1


def test_ways_of_evaluating_have_folders_of_their_own_without_drafts(folder: Folder) -> None:
    first, second = (
        folder.outcome(identity.evaluation_id(Recipe(evaluation=fields.Evaluation(tta=tta))))
        for tta in ("none", "flip")
    )
    assert first != second
    files.write_json(first / "outcome.json", {})
    files.write(first / "misclassified.png", b"")
    (first / ".outcome.json.123").touch()
    assert [path.name for path in job_folder.artifacts(first)] == ["misclassified.png", "outcome.json"]


# Who runs

HOLDER = """
import sys
from pathlib import Path
from ablate.store.job_folder import Folder
with Folder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_job_is_running_while_another_process_holds_its_lock_and_not_after_its_death(
    folder: Folder,
) -> None:
    assert not job_folder.is_running(folder)
    with child(HOLDER, folder.path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert job_folder.is_running(folder)
        assert job_folder.is_running(folder)
        holder.kill()
        holder.wait()
        assert not job_folder.is_running(folder)
    assert not job_folder.is_running(folder)


def test_asking_who_runs_takes_no_lock_and_makes_no_file(folder: Folder) -> None:
    assert not job_folder.is_running(folder)
    assert list(folder.path.iterdir()) == []
    with folder.lock():
        pass
    assert not job_folder.is_running(folder)
    with folder.lock().acquire(timeout=0):
        pass


def test_a_job_that_has_no_folder_does_not_run(tmp_path: Path) -> None:
    assert not job_folder.is_running(Folder(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_whatever_byte_of_a_zip_file_is_damaged_it_is_told_and_never_raised(tmp_path: Path) -> None:
    path, data = tmp_path / "checkpoint.pt", bytes(range(64))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", data)
    whole = path.read_bytes()
    assert files.damage(path) == ""
    at = whole.index(data)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        said = files.damage(path)
        assert said or not at <= i < at + len(data), f"byte {i} of the data"
    path.write_bytes(whole[:-1])
    assert files.damage(path, deep=False) == "is cut off, or no file of torch"
