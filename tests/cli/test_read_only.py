"""A store on a disk that is mounted read-only: what looks says the same, what writes is a sentence."""

from pathlib import Path

import mounts
import pytest
from click.testing import CliRunner

from ablate.cli import main

# Of MLflow's own dependencies, at their first use in a process: else the doctor tells of them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LOOKING = (
    ("status",), ("status", "tiny"), ("status", "tiny", "--json"), ("plan", "tiny"), ("check", "tiny"),
    ("report", "tiny", "--format", "json"),
    ("compare", "tiny", "--cell", "baseline", "--cell", "batch_norm=false"),
    ("explain", "tiny:baseline/0"), ("logs", "tiny:baseline/0"), ("gc", "--dry-run"),
)  # fmt: skip
WRITING = (
    ("run", "tiny"), ("run", "STUDY", "--set", "seeds=3"), ("sync", "tiny"), ("report", "tiny"),
    ("search", "tiny"), ("lr-find", "STUDY"),
)  # fmt: skip


@pytest.fixture(scope="module")
def stores(done, tmp_path_factory):
    """Return a finished store, and the same one where nobody can write."""
    folder = tmp_path_factory.mktemp("read-only")
    with mounts.read_only(done[0] / "store", folder / "store") as closed:
        yield done[0] / "store", closed


def ask(command, store, study=Path()):
    words = [str(study) if word == "STUDY" else word for word in command]
    result = CliRunner().invoke(main, [*words, "--store", str(store)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output.replace(str(store), "STORE")


def test_what_looks_says_the_same_of_a_disk_that_cannot_be_written_to(stores):
    for command in LOOKING:
        assert ask(command, stores[1]) == ask(command, stores[0]), command


def test_a_report_goes_elsewhere(stores, tmp_path):
    for name, store in zip("ab", stores, strict=True):
        code, _ = ask(("report", "tiny", "--out", str(tmp_path / f"{name}.html")), store)
        assert code == 0
        assert (tmp_path / f"{name}.html").stat().st_size > 100_000


def test_the_doctor_says_that_the_disk_cannot_be_written_to(stores):
    code, said = ask(("doctor",), stores[1])
    assert code == 0, said  # a note, as to who may only read
    assert "Read-only file system" in said


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
def test_what_writes_is_a_sentence(stores, done, command):
    code, said = ask(command, stores[1], done[0] / "tiny.toml")
    assert code == 2, said
    assert "Read-only file system" in said
    assert "make room" not in said, "there is no room to be made"
    assert len(said.splitlines()) <= 3, said
