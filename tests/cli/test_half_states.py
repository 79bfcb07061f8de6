"""Half of what a job or a data set has, as power cuts and full disks leave it: a run mends it."""

import json
import shutil

import pytest
from click.testing import CliRunner
from commands import results
from stores import examine, wrong

from ablate.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def ask(*command):
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


@pytest.mark.slow  # several runs
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_run_mends_what_is_half_there(done, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(done[0] / "store", store)
    shutil.rmtree(store / "artifacts")
    (store / "mlflow.db").unlink()  # it is bound to the path of the other one
    whole = results(store)
    first, second, third, fourth = sorted(path for path in (store / "jobs").iterdir() if len(path.name) == 64)

    (first / "last.pt").unlink()  # a result without its weights, not judged yet
    shutil.rmtree(first / "outcomes")
    (second / "result.json").unlink()  # outcomes without a result
    (third / "attempts.jsonl").unlink()
    shutil.rmtree(third / "outcomes")
    (fourth / "journal.jsonl").write_bytes(
        (fourth / "journal.jsonl").read_bytes().partition(b"\n")[0] + b"\n"
    )
    shutil.rmtree(fourth / "outcomes")
    next(store.glob("data/*/train_labels.npy")).write_bytes(b"")
    next(store.glob("data/index/*.json")).write_bytes(b"")

    before = ask("status", "tiny", "--store", store)
    assert before[0] == 0
    code, said = ask("run", "tiny", "--store", store, "--jobs", "1")
    assert code == 0, said
    now = results(store)
    for path in whole:
        # a commit and a count of attempts may be others; every number is the same
        if path.rpartition("/")[2] not in ("attempts.jsonl",):
            assert now[path] == whole[path], path
    assert wrong(examine(store)) == []
    counts = json.loads(ask("status", "tiny", "--store", store, "--json")[1])["total"]
    assert set(counts) == {"finished"}
