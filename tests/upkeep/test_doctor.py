"""`ablate doctor`: one thing of a real store is broken at a time, and it is named, and nothing else is."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from commands import TINY, ablate
from filelock import FileLock
from mlflow import MlflowClient
from stores import DEAD, change, examine, job, other_job, wrong

from ablate.cli import main
from ablate.execution import options
from ablate.planning import references
from ablate.store import layout
from ablate.upkeep import doctor
from ablate.workflow import plan as planning
from ablate.workflow import tracking as tracking_workflow
from ablate.workflow import upkeep

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def flip(path):
    """Change a byte of the data of a file, far from both its ends."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_checkpoint(store):
    shutil.copy(job(store) / "last.pt", job(store) / "checkpoint.pt")
    flip(job(store) / "checkpoint.pt")


def spoil_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], "{torn\n", *lines[2:]]))


def tear_line(path):
    with path.open("a") as file:
        file.write('{"epoch": 4')


def search_without_jobs(store):
    (store / "searches/x").mkdir(parents=True)
    row = {
        "number": 0,
        "params": {},
        "jobs": {"7": "a" * 64},
        "value": 0.5,
        "state": "complete",
        "started": 1,
        "ended": 2,
    }
    (store / "searches/x/trials.json").write_text(json.dumps({"trials": [row]}))


def outcome(store):
    return min(job(store).glob("outcomes/*/outcome.json"))


ROWS = {
    "a result that is no JSON": (
        lambda s: cut(job(s) / "result.json"),
        {("json", "problem")},
        "result.json is no JSON",
    ),
    "a link among the files of a job": (
        lambda s: [(job(s) / "log.txt").unlink(), (job(s) / "log.txt").symlink_to("/etc/hostname")],
        {("regular", "problem")},
        "is a link, and in a store nothing may be one",
    ),
    "a pipe among the images": (
        lambda s: os.mkfifo(s / "data" / "pipe"),
        {("regular", "problem")},
        "is a pipe, and must be a regular file",
    ),
    "a file without an end": (
        lambda s: os.truncate(job(s) / "environment.json", 1 << 30),
        {("regular", "problem")},
        "is far larger than any such file that ablate writes, 67 MB",
    ),
    "a recipe without its data": (
        lambda s: (job(s) / "recipe.json").write_text('{"job": 1}'),
        {("json", "problem")},
        "has no seed, data",
    ),
    "an outcome that is a list": (
        lambda s: outcome(s).write_text("[]"),
        {("json", "problem")},
        "outcome.json is not what ablate writes there",
    ),
    "trials that are none": (
        lambda s: [search_without_jobs(s), (s / "searches/x/trials.json").write_text('{"trials": [1]}')],
        {("json", "problem")},
        "trials.json is not what ablate writes there",
    ),
    "a line amid a journal": (
        lambda s: spoil_line(job(s) / "journal.jsonl"),
        {("lines", "problem")},
        "the first is line 2",
    ),
    "a torn last line": (
        lambda s: tear_line(job(s) / "attempts.jsonl"),
        {("lines", "note")},
        "counts as none",
    ),
    "a checkpoint with a wrong bit": (
        spoil_checkpoint,
        {("weights", "problem")},
        "checkpoint.pt does not agree with its checksums",
    ),
    "weights that are cut off": (
        lambda s: cut(job(s) / "best.pt"),
        {("weights", "problem")},
        "best.pt is cut off",
    ),
    "a result without weights": (
        lambda s: (job(s) / "last.pt").unlink(),
        {("results", "problem")},
        "a result and no weights",
    ),
    "a journal that is too short": (
        lambda s: (job(s) / "journal.jsonl").write_text(
            (job(s) / "journal.jsonl").read_text().splitlines(keepends=True)[0]
        ),
        {("results", "problem")},
        "a result of 3 epochs, and 1 of them in its journal",
    ),
    "images that are cut off": (
        lambda s: cut(min(s.glob("data/*/test_images.npy"))),
        {("images", "problem")},
        "decoded images are cut off",
    ),
    "a job of another seed": (
        lambda s: change(job(s) / "recipe.json", seed=5),
        {("identity", "problem")},
        "not what its folder is named",
    ),
    "a job of older numerics": (
        lambda s: change(job(s) / "recipe.json", numerics=1),
        {("identity", "note")},
        "trained under numerics 1",
    ),
    "a recipe of a later version": (
        lambda s: change(job(s) / "recipe.json", recipe={"data": {"name": "x", "colour": 1}}),
        {("identity", "problem")},
        "cannot train",
    ),
    "an outcome of other passes": (
        lambda s: change(outcome(s), evaluation={"mc_dropout": 9}),
        {("outcomes", "problem")},
        "another way",
    ),
    "a study of a later version": (
        lambda s: change(s / "studies/tiny/study.json", study={"name": "tiny", "colours": 3}),
        {("studies", "problem")},
        "colours",
    ),
    "a study that was never settled": (
        lambda s: (s / "studies/tiny/settled.json").unlink(),
        {("studies", "problem")},
        "in which prec",
    ),
    "a study in another folder": (
        lambda s: shutil.copytree(s / "studies/tiny", s / "studies/big"),
        {("studies", "problem")},
        'another study than the "tiny"',
    ),
    "a search whose jobs are gone": (
        search_without_jobs,
        {("trials", "note")},
        "the folders of 1 job of its trials are gone",
    ),
    "a draft of a dead process": (
        lambda s: (job(s) / f".last.pt.{DEAD}").write_text("x"),
        {("drafts", "note")},
        "drafts of killed",
    ),
    "a removal that was cut short": (
        lambda s: (s / "jobs/.abc.gone").mkdir(),
        {("drafts", "note")},
        "removal was cut short",
    ),
    "a job that no study needs": (other_job, {("unneeded", "note")}, "last run: 1 of 5"),
    "a result without recipe": (
        lambda s: (job(s) / "recipe.json").unlink(),
        {("unneeded", "problem")},
        "a result and no recipe.json",
    ),
    "a job that was never begun": (
        lambda s: (s / "jobs" / ("e" * 64)).mkdir(),
        {("unneeded", "note")},
        "never begun",
    ),
    "a folder that is no job": (lambda s: (s / "jobs/mine").mkdir(), {("unneeded", "note")}, "that is none"),
    "a store without its studies": (
        lambda s: shutil.rmtree(s / "studies/tiny"),
        {("unneeded", "note")},
        "last run: 4 of 4",
    ),
    "an interrupted job": (
        lambda s: (job(s) / "result.json").unlink(),
        {("interrupted", "note")},
        "with 3 epochs in the journal",
    ),
    "a spoilt database": (
        lambda s: (s / "mlflow.db").write_bytes(b"no database" * 500),
        {("database", "problem")},
        "is spoilt",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_is_broken_is_named_and_nothing_else_is(store, name):
    harm, expected, words = ROWS[name]
    harm(store)
    found = wrong(examine(store))
    assert {(one.check, one.severity) for one in found} == expected, found
    assert words in " ".join(one.says for one in found)
    assert all(one.do for one in found if one.severity == "problem")


def follow(store, one):
    """Do what the doctor advises, word by word; give whether a study has to be run then."""
    at, do = store / one.where, one.do
    job = store.joinpath(*(store / one.where).relative_to(store).parts[:2])
    if do.startswith("ablate "):
        command = shlex.split(do.partition(" removes")[0])[1:]
        answer = CliRunner().invoke(main, [*command, "--yes"] if command[0] == "gc" else command)
        assert answer.exit_code == 0, answer.output
    elif do.startswith("remove its folder"):
        shutil.rmtree(job)
    elif do == "remove it" or do.startswith(("remove it (", "remove that file")):
        at.unlink(missing_ok=True)
    elif do.startswith("remove that folder"):
        shutil.rmtree(at)
    elif do.startswith("remove the folder of that study"):
        shutil.rmtree(job)
    elif do.startswith("remove the bad lines of that file"):
        at.write_text(
            "".join(line for line in at.read_text().splitlines(keepends=True) if "torn" not in line)
        )
    elif do.startswith("remove mlflow.db, and run "):
        (store / "mlflow.db").unlink()
        answer = CliRunner().invoke(
            main, [*shlex.split(do.partition("run ")[2].partition(" STUDY")[0])[1:], "tiny"]
        )
        assert answer.exit_code == 0, answer.output
    elif do.startswith(
        (
            "put it elsewhere",
            "give the folder its old name, or remove it",
            "use the version that wrote it, or remove its folder",
        )
    ):
        shutil.rmtree(job)
    elif do.startswith(("run its study again", "run a study in this store")):
        return True
    else:
        raise AssertionError(do)
    return "run its study" in do


def test_a_job_that_no_study_needs_is_not_to_be_run_again(store):
    (other_job(store) / "result.json").unlink()
    (store / "jobs" / ("e" * 64)).mkdir()
    found = wrong(examine(store))
    assert {one.check for one in found} == {"interrupted", "unneeded"}
    assert all("gc" in one.do and "run its study" not in one.do for one in found)
    shutil.rmtree(store / "studies/tiny")
    assert {one.do for one in wrong(examine(store)) if one.check == "interrupted"} == {"remove its folder"}


RETRAINED = {  # what the doctor advises of these ends with a run
    name for name in ROWS
    if name not in (
        "a checkpoint with a wrong bit", "a job of older numerics",
        "a recipe of a later version", "a study in another folder",
        "a search whose jobs are gone", "a draft of a dead process",
        "a removal that was cut short", "a job that no study needs",
        "a job that was never begun", "a folder that is no job", "a torn last line",
    )
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in RETRAINED else []) for name in ROWS]
)
def test_what_the_doctor_advises_mends(store, tmp_path, name):
    if name == "a job of older numerics":  # a real one has a name of its own, too
        change(other_job(store) / "recipe.json", numerics=1)
    else:
        ROWS[name][0](store)
    found = wrong(examine(store))
    assert found
    (tmp_path / "tiny.toml").write_text(TINY)
    asked = [follow(store, one) for one in found if one.do]  # all of it
    if any(asked):
        code, out, err = ablate("run", tmp_path / "tiny.toml", "--store", store)
        assert code == 0, out + err
    left = wrong(examine(store))
    assert [one for one in left if one.do] == []
    assert {one.says for one in left} <= {one.says for one in found}  # what needs nothing to be done


@pytest.mark.slow  # trainings
def test_a_job_that_is_trained_again_is_brought_up_to_date_in_mlflow(store, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    where = options.Where(layout.open_store(store))
    tracking_workflow.sync(planning.load("tiny", (), where.store), where)
    shutil.rmtree(job(store))
    code, out, err = ablate("run", tmp_path / "tiny.toml", "--store", store)
    assert code == 0, out + err
    for one in wrong(upkeep.examine(where)):
        assert one.check == "mlflow"
        follow(store, one)
    assert wrong(upkeep.examine(where)) == []


@pytest.mark.slow  # trainings
def test_a_search_that_gets_more_trials_is_brought_up_to_date_in_mlflow(tmp_path):
    (tmp_path / "tiny.toml").write_text(
        TINY + "\n[search]\ntrials = 2\nspace.optimizer.lr = { low = 1e-3, high = 1e-2, log = true }\n"
    )
    where = options.Where(layout.open_store(tmp_path / "store"))
    for trials in (2, 3):
        arguments = ("--set", f"search.trials={trials}", "--set", "seeds=1", "--set", "training.epochs=1")
        code, out, err = ablate("run", tmp_path / "tiny.toml", "--store", tmp_path / "store", *arguments)
        assert code == 0, out + err
    # More trials may find another rate, and then nobody needs the jobs of the one before: that is none of
    # MLflow's matters.
    for one in (one for one in wrong(upkeep.examine(where)) if one.check == "mlflow"):
        follow(tmp_path / "store", one)
    assert {one.check for one in wrong(upkeep.examine(where))} <= {"unneeded"}


def test_every_check_has_a_row_here():
    elsewhere = {
        "versions",
        "device",
        "locks",
        "room",
        "readable",
        "held",
        "mlflow",
    }  # of the machine, users, or what happens meanwhile
    assert {check for _, expected, _ in ROWS.values() for check, _ in expected} | elsewhere == {
        *doctor.ALWAYS,
        *doctor.CHECKS,
    }


def test_wrong_bits_of_weights_are_found_by_a_deep_look_only(store):
    flip(job(store) / "last.pt")
    assert wrong(examine(store)) == []
    assert [(one.check, one.where) for one in wrong(examine(store, deep=True))] == [
        ("weights", f"jobs/{job(store).name}/last.pt")
    ]


def test_what_a_process_holds_is_said_and_is_no_problem(store):
    with FileLock(job(store) / "lock"), FileLock(store / "studies/tiny/lock"):
        found = [one for one in examine(store) if one.check == "held"]
    assert [one.severity for one in found] == ["ok", "ok"]
    assert 'study "tiny" by process' in found[0].says
    assert f"job {job(store).name[:12]}" in found[1].says


def test_a_draft_of_a_living_process_is_left_alone_for_an_hour(store):
    draft = job(store) / f".best.pt.{os.getpid()}"
    draft.write_text("")
    assert wrong(examine(store)) == []
    os.utime(draft, (0, 0))
    assert [one.check for one in wrong(examine(store))] == ["drafts"]


@pytest.mark.parametrize("tag", ["12345678", "0badcafe", "abcdefab"])
def test_a_draft_that_is_named_by_chance_is_left_alone_for_an_hour(store, tag):
    draft = job(store) / f".result.json.{tag}"
    draft.write_text("")
    assert wrong(examine(store)) == []
    os.utime(draft, (0, 0))
    assert [one.check for one in wrong(examine(store))] == ["drafts"]


def test_a_store_that_is_not_there_is_a_note_beside_versions_and_device(tmp_path):
    found = examine(tmp_path / "nowhere")
    assert {one.check for one in found} >= {"versions", "device"}
    assert [(one.check, one.severity) for one in wrong(found)] == [("store", "note")]


def test_a_check_that_stumbles_keeps_no_other_from_being_asked(store, monkeypatch):
    monkeypatch.setattr(references, "read", lambda *_, **__: {}["gone"])
    found = examine(store)
    assert {one.check for one in found} == {*doctor.ALWAYS, *doctor.CHECKS}
    assert {one.check for one in wrong(found)} == {"studies", "unneeded", "mlflow"}


def test_mlflow_is_compared_run_for_run(done, tmp_path, monkeypatch):
    folder, _ = done
    for name in ("moved", "store"):
        subprocess.run(["cp", "-r", folder / "store", tmp_path / name], check=True)
    moved = upkeep.examine(options.Where(layout.open_store(tmp_path / "moved")))
    assert ["remove mlflow.db, and run" in one.do for one in wrong(moved)] == [
        True
    ]  # the database was made for another path
    store = tmp_path / "store"
    (store / "mlflow.db").unlink()
    where = options.Where(layout.open_store(store))
    assert wrong(upkeep.examine(where)) == []
    assert not (store / "mlflow.db").exists()
    tracking_workflow.sync(planning.load("tiny", (), where.store), where)
    assert wrong(upkeep.examine(where)) == []
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    runs = client.search_runs(
        [client.get_experiment_by_name("tiny").experiment_id], "tags.`ablate.kind` = 'run'"
    )
    client.delete_run(runs[0].info.run_id)
    client.update_run(runs[1].info.run_id, status="RUNNING")
    client.log_metric(runs[2].info.run_id, "test/accuracy", 0.123, step=99)
    client.update_run(runs[3].info.run_id, status="FAILED")
    found = wrong(upkeep.examine(where))
    assert {(one.check, one.do, one.says) for one in found} == {
        ("mlflow", f"ablate sync --store {store} tiny", f"{words}: 1 run ({runs[i].info.run_name})")
        for i, words in enumerate(
            (
                "missing in MLflow",
                "RUNNING in MLflow, and trained by no process",
                "other metrics in MLflow than in the journals",
                "FAILED in MLflow, and FINISHED here",
            )
        )
    }
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = options.Where(where.store, "http://someone:secret@127.0.0.1:9")
    assert [("does not answer" in one.says, "secret" in str(one)) for one in wrong(upkeep.examine(away))] == [
        (True, False)
    ]


@pytest.mark.slow  # a new Python
def test_the_command_changes_nothing_needs_no_torch_and_ends_with_0_or_1(done, store):
    folder, _ = done
    before = {
        path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*") if path.name != "mlflow.db"
    }
    script = (
        "import sys\nfrom ablate.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in "
        "sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "doctor", "--json", "--store", folder / "store"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "False\n"), told.stdout
    assert {one["severity"] for one in json.loads(told.stdout)} == {"ok"}
    assert {
        path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*") if path.name != "mlflow.db"
    } == before
    (job(store) / "last.pt").unlink()
    code, out, err = ablate("doctor", "--store", store)
    assert (code, err) == (1, "")
    assert "a job has a result and no weights" in out
    assert "-> remove its folder, and run its study again" in out
    assert out.endswith("1 problem, 0 notes\n")


def test_a_store_that_can_only_be_read_is_checked_all_the_same(store):
    drop = (
        [shutil.which("setpriv"), "--bounding-set=-dac_override,-dac_read_search,-fowner"]
        if os.getuid() == 0
        else []
    )
    if None in drop:
        pytest.skip("root writes everywhere, and setpriv is not there to take that from it")
    subprocess.run(["chmod", "-R", "a-w", store], check=True)
    try:
        command = [*drop, sys.executable, "-m", "ablate", "doctor", "--json", "--store", store]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["chmod", "-R", "u+w", store], check=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert [one["check"] for one in json.loads(told.stdout) if one["severity"] != "ok"] == ["locks"]
