"""What somebody else puts in place of a store's files: no command hangs, breaks, leaks or writes outside."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import planting
import pytest

SECONDS = 3600  # for one kind in place of every file: a bound against hanging


@pytest.fixture(scope="module")
def pristine(shared):
    """Return a store of two small studies, one of them with a range test and a search."""
    return planting.pristine(shared)


@pytest.fixture(scope="module")
def walks(pristine, shared, tmp_path_factory):
    """Plant each kind in place of every file, in two processes; return what they have printed of each."""
    folder, program = tmp_path_factory.mktemp("walks"), Path(planting.__file__)

    def walk(kinds):
        return subprocess.run(
            [sys.executable, program, shared, folder / kinds[0], *kinds],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    said = {kind: [] for kind in planting.KINDS}
    with ThreadPoolExecutor(2) as threads:
        for each in threads.map(walk, (list(said)[::2], list(said)[1::2])):
            for kind, line in map(json.loads, each.stdout.splitlines()):
                said[kind].append(line)
            assert each.returncode == 0, each.stderr
    return said


@pytest.mark.slow
@pytest.mark.parametrize("kind", planting.KINDS)
def test_whatever_is_in_place_of_any_file_every_command_ends_with_a_sentence(pristine, walks, kind):
    *wrong, count = walks[kind]
    assert not wrong, "\n".join(wrong)
    assert count == len(planting.places(pristine, kind))


SAMPLE = [
    ("link", "jobs/*/log.txt", {"status", "report"}),
    ("link", "jobs/*/outcomes/*/misclassified.png", {"own report"}),
    ("pipe", "jobs/*/lock", {"list", "status", "gc"}),
    ("pipe", "studies/tiny/settled.json", {"list", "status", "plan"}),
    ("endless", "jobs/*/journal.jsonl", {"status", "gc"}),
    ("zeros", "jobs/*/result.json", {"plan", "status"}),
    ("linked_folder", "jobs/*/recipe.json", {"status", "gc"}),
    ("linked_folder", "data/*/meta.json", {"plan"}),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own dependencies, at import
@pytest.mark.parametrize(("kind", "pattern", "only"), SAMPLE, ids=[f"{k}-{p}" for k, p, _ in SAMPLE])
def test_a_planted_file_ends_no_command_with_a_traceback(done, tmp_path, monkeypatch, kind, pattern, only):
    monkeypatch.setattr(planting, "commands", lambda *_: {name: COMMANDS[name] for name in sorted(only)})
    pristine = done[0] / "store"
    place = min(pristine.glob(pattern)).relative_to(pristine)
    assert list(planting.tries(kind, pristine, [place], tmp_path / "store")) == []


COMMANDS = {
    "list": ["status"],
    "status": ["status", "tiny"],
    "plan": ["plan", "tiny"],
    "report": ["report", "tiny", "--format", "json"],
    "gc": ["gc", "--dry-run"],
    "own report": ["report", "tiny"],
}


def test_a_link_in_ones_own_study_is_told_by_its_path_and_what_to_do(done, tmp_path):
    shutil.copytree(done[0] / "store", tmp_path / "store")
    path = min((tmp_path / "store").glob("jobs/*/result.json"))
    path.rename(tmp_path / "result.json")
    path.symlink_to(tmp_path / "result.json")
    code, said, wrong = planting.look(["status", "tiny"], tmp_path / "store", tmp_path)
    assert (code, wrong) == (2, "")
    assert said.startswith(f"{path}: is a link, and in a store nothing may be one: remove it (")
