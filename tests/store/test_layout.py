"""A store: any name is found again, git ignores its files, and one process at a time runs a study."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.errors import StoreError
from ablate.execution.options import Where
from ablate.recipe import fields
from ablate.recipe import identity as identities
from ablate.recipe.fields import Data
from ablate.store import files as store_files
from ablate.store import layout, study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study import file as study_file
from ablate.study.file import Study
from ablate.workflow import inspect

HOSTILE = (
    "<script>alert(1)</script>", "a/b", "../../etc/passwd", "/", "..", ".", "...", "-rf", "~", "$HOME",
    "a\\b", "a%2Fb", "a%b", "%2E", "it's", '"quoted"', "Grüße", "试验", "🎲", " ", " a ", "a\nb", "a\0b", "*",
    "?", "con", "study.json", ".gitignore", "a" * 100, "a" * 99, "ü" * 100, "ü" * 99 + "u", "🎲" * 100,
    "🎲" * 99 + "!", "." * 100, "/" * 100,
)  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Store:
    new = layout.open_store(tmp_path / "mlruns")
    layout.create(new)
    return new


def read(name: str, **raw: Any) -> Study:
    return study_file.check(
        {"name": name, "seeds": 2, "factors": {"augment": {"rotation": [0, 15]}}} | raw,
        "studies/x.toml",
        "# as written",
    )


def git(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", folder, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


# Making one


def test_naming_a_store_makes_nothing(tmp_path: Path) -> None:
    named = layout.open_store(tmp_path / "mlruns")
    assert study_folder.names(named) == []
    assert study_folder.settled(named, "x") == Settled()
    assert list(tmp_path.iterdir()) == []


def test_a_store_keeps_its_path_when_the_process_changes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here, home = layout.open_store(Path("mlruns")), layout.open_store(Path("~/mlruns"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (here.path, home.path) == (tmp_path / "mlruns", tmp_path / "home" / "mlruns")


def test_git_sees_nothing_of_a_store(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    made = layout.open_store(tmp_path / "deep" / "my results")
    layout.create(made)
    study_folder.keep(made, read("x"), Settled("fp32"))
    store_files.write_json(made.job("a" * 64).result, {})
    made.database.touch()
    made.report("x").touch()
    (tmp_path / "train.py").touch()
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == "?? train.py\n"
    files = [path for path in made.path.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert git(tmp_path, "check-ignore", *map(str, files)).splitlines() == [f"{path}" for path in files]


def test_the_gitignore_is_the_one_of_the_source_folder_and_a_changed_one_is_left_alone(made: Store) -> None:
    ignore = made.path / ".gitignore"
    assert ignore.read_text() == (Path(__file__).parents[2] / "mlruns.gitignore").read_text()
    ignore.write_text("# mine\n")
    layout.create(made)
    assert ignore.read_text() == "# mine\n"


def test_making_a_store_again_loses_nothing(made: Store) -> None:
    study_folder.keep(made, read("x"), Settled("fp32"))
    layout.create(made)
    assert study_folder.names(made) == ["x"]


@contextmanager
def powerless(folder: Path, mode: int = 0o500) -> Iterator[None]:
    """Take the right to write away, from root too."""
    folder.chmod(mode)
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_store_that_cannot_be_written_to_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    made = layout.open_store(tmp_path / "mlruns")
    with powerless(tmp_path), pytest.raises(StoreError) as caught:
        layout.create(made)
    reason = "a store must be a folder that can be written to (Permission denied)"
    assert str(caught.value) == f"{made.path}: {reason}: choose another with --store DIR"


@pytest.mark.parametrize("path", ["file", "file/mlruns", "file/deep/mlruns"])
def test_a_file_in_the_way_of_a_store_is_a_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"must be a folder that can be written to \((File exists|Not a directory)\)"
    ):
        layout.create(layout.open_store(tmp_path / path))


NAMER = """
import sys
from pathlib import Path
from ablate.store import layout
here = layout.open_store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(layout.identity(here))
"""


@pytest.mark.slow  # several processes
def test_a_store_has_one_identity_even_if_several_processes_ask_first_at_once(
    made: Store, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", NAMER, str(made.path)]
        asking = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(6)
        ]
        for process in asking:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in asking:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = {process.communicate(timeout=300)[0].strip() for process in asking}
    assert told == {layout.identity(made)}
    other = layout.open_store(tmp_path / "other")
    layout.create(other)
    assert layout.identity(other) not in told


# Studies as last run


def test_a_study_comes_back_as_it_was_kept(made: Store) -> None:
    checked, settled = read("x", question="Größer?"), Settled("bf16", {"key": "f" * 64})
    study_folder.keep(made, checked, settled)
    assert study_file.to_json(study_folder.recall(made, "x")) == study_file.to_json(checked)
    assert study_folder.settled(made, "x") == settled


def test_a_study_is_as_it_was_kept_last(made: Store) -> None:
    study_folder.keep(made, read("x", seeds=2), Settled("fp32"))
    study_folder.keep(made, read("x", seeds=7), Settled("bf16"))
    assert (len(study_folder.recall(made, "x").seeds), study_folder.settled(made, "x").precision) == (
        7,
        "bf16",
    )
    assert study_folder.names(made) == ["x"]


def test_what_a_study_has_settled_is_known_though_the_study_itself_is_no_longer_valid(made: Store) -> None:
    study_folder.keep(made, read("x"), Settled("bf16"))
    (made.study("x") / "study.json").write_text('{"source": "x.toml", "text": "", "study": {"name": 3}}')
    assert study_folder.settled(made, "x").precision == "bf16"


def test_a_study_that_was_never_run_is_a_sentence_that_names_those_that_were(made: Store) -> None:
    with pytest.raises(StoreError, match="studies there: none yet"):
        study_folder.recall(made, "typo")
    for name in ("b", "a/x"):
        study_folder.keep(made, read(name), Settled("fp32"))
    with pytest.raises(
        StoreError, match=f'"typo" is neither a study file nor a study in {made.path}; studies there: a/x, b$'
    ):
        study_folder.recall(made, "typo")


def test_a_study_whose_keeping_was_cut_off_by_a_kill_was_never_run(made: Store) -> None:
    study_folder.keep(made, read("x"), Settled("fp32"))
    (made.study("x") / "study.json").unlink()
    with pytest.raises(StoreError, match="studies there: none yet"):
        study_folder.recall(made, "x")
    assert study_folder.names(made) == []


def spoil_permission(path: Path) -> None:
    path.chmod(0)


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "what", "reason"),
    [
        (spoil_permission, "study.json", "Permission denied"),
        (spoil_permission, "settled.json", "Permission denied"),
        (spoil_permission, "", "Permission denied"),
        (spoil_folder, "study.json", "is a folder, and must be a file: move it elsewhere"),
    ],
)
def test_a_study_that_cannot_be_read_is_listed_beside_the_others(
    spoil: Callable[[Path], None], what: str, reason: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody but its user in
        made = layout.open_store(Path(folder) / "mlruns")
        for name in ("x", "theirs"):
            study_folder.keep(made, read(name), Settled("fp32"))
        spoil(made.study("theirs") / what)
        with powerless(Path(folder), 0o755):
            theirs, mine = inspect.studies(Where(made, device="cpu"))
        made.study("theirs").chmod(0o700)
    assert (mine.study, mine.unreadable, sum(mine.total.values())) == ("x", "", 4)
    assert theirs.study == "theirs"
    assert theirs.unreadable.endswith(reason)


def test_no_name_escapes_the_store_or_meets_another_and_each_comes_back(made: Store) -> None:
    for name in HOSTILE:
        study_folder.keep(made, read(name, question=name), Settled("fp32"))
        made.report(name).write_text(name)
    assert study_folder.names(made) == sorted(HOSTILE)
    folders = {made.study(name).resolve() for name in HOSTILE}
    assert len(folders) == len(HOSTILE)
    assert {folder.parent for folder in folders} == {(made.path / "studies").resolve()}
    for name in HOSTILE:
        found = study_folder.recall(made, name)
        assert (found.name, found.question, made.report(name).read_text()) == (name, name, name)


@given(st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100))
def test_any_two_names_have_two_folders_that_any_file_system_can_hold(first: str, second: str) -> None:
    here = Store(Path("/store"))
    one, other = here.study(first), here.study(second)
    assert (one == other) == (first == second)
    assert one.parent == Path("/store/studies")
    assert one.name not in ("", ".", "..")
    assert len(os.fsencode(one.name)) <= 255
    assert one.name.isascii()


def test_two_sections_of_data_have_one_key_where_their_images_are_the_same() -> None:
    digits = Data(name="digits", image_size=16)
    assert study_folder.data_key(digits) == study_folder.data_key(
        digits.model_copy(update={"train_size": 10, "validation": 3})
    )
    others = [
        Data(name="digits", image_size=32),
        Data(name="mnist", image_size=16),
        digits.model_copy(update={"root": "/x"}),
    ]
    assert len({study_folder.data_key(data) for data in [digits, *others]}) == 4


@pytest.mark.parametrize("kept", ["", "x' or tags.a != '", "0" * 31, "../../x"])
def test_an_identity_that_is_none_is_asked_of_nobody(made: Store, kept: str) -> None:
    (made.path / "id").write_text(kept)
    with pytest.raises(StoreError, match="must be 32 hex digits, as ablate writes it, and is not"):
        layout.identity(made)


def test_a_job_has_a_folder_by_its_whole_identity(made: Store) -> None:
    identity = identities.job_id(fields.Recipe(training=fields.Training(precision="fp32")), 0, "f" * 64)
    assert made.job(identity).path == made.path / "jobs" / identity


# One process at a time

HOLDER = """
import sys
from pathlib import Path
from ablate.store import layout, study_folder
with study_folder.hold(layout.open_store(Path(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(made: Store, name: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(made.path), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_told_who_runs_the_study(made: Store) -> None:
    with holder(made, "a/b") as other:
        with pytest.raises(StoreError) as caught, study_folder.hold(made, "a/b"):
            pass
        host = os.uname().nodename
        assert (
            str(caught.value)
            == f'study "a/b" is being run by process {other.pid} on {host}: wait for it, with --wait, or '
            "stop it first"
        )
        with study_folder.hold(made, "a"):  # another study of the same store
            pass


def test_a_holder_that_was_killed_lets_go(made: Store) -> None:
    with holder(made, "x") as other:
        other.kill()
        assert other.wait() == -signal.SIGKILL
        with study_folder.hold(made, "x"):
            assert json.loads((made.study("x") / "holder.json").read_text())["pid"] == os.getpid()


def test_a_study_is_free_after_its_run_and_after_a_run_that_raised(made: Store) -> None:
    with study_folder.hold(made, "x"):
        pass
    with pytest.raises(ZeroDivisionError), study_folder.hold(made, "x"):
        raise ZeroDivisionError
    with holder(made, "x"):
        pass
