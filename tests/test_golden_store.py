"""A store that version 0.1.0 wrote is read, checked, explained, resumed and reported by every later version.

Nothing is trained anew. golden/store.tar.xz holds four studies, whose files are in golden/studies:
`factorial` with an evaluation factor, `tuned` with searches and range tests, `ends` with runs that failed,
diverged and stayed at chance, and `half`, killed with SIGKILL after its third epoch. It was written at commit
f8bde8a, and is without MLflow's database, whose view can be rebuilt. golden/store.json is what that version
reported: the keys that other programs rely on, and the curves.
"""

import json
import shutil
import tarfile

import pytest
from click.testing import CliRunner
from commands import ablate
from golden import GOLDEN, same

from ablate.cli import main
from ablate.execution.options import Where
from ablate.serve import child
from ablate.store import layout

REPORTED = json.loads((GOLDEN / "store.json").read_text(encoding="utf-8"))
HALF = "f5964d7c83d6061bcdff3feb2b5999c08bd39f181093847eff081cd74a088618"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Unpack the store beside its study files."""
    made = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "store.tar.xz") as archive:
        archive.extractall(made, filter="data")
    for path in (GOLDEN / "studies").iterdir():
        if path.is_file():
            shutil.copy(path, made)
    return made


def said(folder, *arguments):
    """Run a command in this process: what it prints. Its exit code must be 0."""
    result = CliRunner().invoke(
        main, [*map(str, arguments), "--store", str(folder / "store")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def only(like, found):
    """Keep of a JSON value the keys that another one has, in lists of tables too."""
    if isinstance(like, dict):
        return {key: only(part, found[key]) for key, part in like.items()}
    if isinstance(like, list) and like and isinstance(like[0], dict):
        return [only(*pair) for pair in zip(like, found, strict=True)]
    return found


@pytest.mark.parametrize("study", REPORTED)
def test_the_report_is_what_it_was(folder, study):
    found = json.loads(said(folder, "report", study, "--format", "json"))
    same(only(REPORTED[study], found), REPORTED[study])


@pytest.mark.parametrize("study", REPORTED)
def test_how_its_questions_stand_is_read_without_the_rest_and_is_the_same(folder, study):
    whole = json.loads(said(folder, "report", study, "--format", "json"))
    stand = child.standing(Where(layout.open_store(folder / "store")), study=study)
    assert stand == {key: whole[key] for key in child.STANDING}


@pytest.mark.parametrize(
    ("study", "jobs", "left"), [("factorial", 4, 0), ("tuned", 8, 0), ("ends", 8, 0), ("half", 2, 2)]
)
def test_no_finished_job_is_trained_anew(folder, study, jobs, left):
    told = said(folder, "plan", folder / f"{study}.toml")
    assert f"{jobs} trainings" in told
    assert ["to", "train", str(left)] in [line.split() for line in told.splitlines()]


def test_doctor_finds_nothing_wrong_but_the_study_that_was_killed(folder):
    told = said(folder, "doctor")
    assert "0 problems, 1 note" in told
    assert "interrupted, with 3 epochs in the journal" in told


def test_a_job_is_explained(folder):
    assert f"{HALF[:12]}  stopped: 3 epochs done" in said(folder, "explain", "half:baseline/0")


def test_the_killed_study_goes_on_from_its_last_epoch(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    journal = tmp_path / "copy" / "store" / "jobs" / HALF / "journal.jsonl"
    before = journal.read_bytes()
    code, out, err = ablate(
        "run", tmp_path / "copy" / "half.toml", "--store", tmp_path / "copy" / "store", "--jobs", "2"
    )
    assert code == 0, out + err
    assert journal.read_bytes().startswith(before)
    assert [json.loads(line)["epoch"] for line in journal.read_text().splitlines()] == list(range(1, 9))
    assert "from epoch 3 of 8" in (journal.parent / "log.txt").read_text()
