"""`ablate status`, `logs` and `explain` as users call them, on a finished study and on a running one."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from commands import TINY, ablate, start, wait_for

from ablate.cli import main
from ablate.recipe import identity
from ablate.store import files, job_folder, layout, study_folder
from ablate.study import file as study_file


@pytest.fixture
def copied(done, tmp_path):
    """Return a store of one's own, and the study's file."""
    folder, _ = done
    shutil.copytree(folder / "store", tmp_path / "store")
    return folder / "tiny.toml", tmp_path / "store"


def answer(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


# While it runs


@pytest.mark.slow  # a training long enough to be watched
def test_a_running_study_is_watched_and_its_log_followed_to_the_end(study, tmp_path):
    store = tmp_path / "store"
    run = start(
        "run", study, "--store", store, "--set", "seeds=1", "--set", "training.epochs=12", "--jobs", 1
    )
    wait_for(lambda: any(path.stat().st_size for path in store.glob("jobs/*/journal.jsonl")), run)
    os.killpg(run.pid, signal.SIGSTOP)  # in the midst of its first job, until everybody watches
    try:
        # It is trained after the first one, so that there is no log yet.
        second = start("logs", "tiny:batch_norm=false/0", "--store", store, "-f")
        table = start("status", "tiny", "--store", store, "--watch")
        lines = start("status", "tiny", "--store", store, "--watch", "--json")
        assert all(select.select([watching.stdout], [], [], 120)[0] for watching in (table, lines))
    finally:
        os.killpg(run.pid, signal.SIGCONT)
    code, _, err = answer(run)
    assert (code, err) == (0, "")
    code, out, err = answer(second)
    (log,) = [path for path in store.glob("jobs/*/log.txt") if path.read_text() == out]
    assert (code, out.count("attempt 1"), out.count("\nepoch "), out.count("\nevaluated ")) == (0, 1, 12, 2)
    assert "Traceback" not in err
    code, out, err = answer(table)
    assert (code, err) == (0, "")
    drawn = out.split("\n\n")
    assert len(drawn) == len(set(drawn)) > 1
    assert "4 runs: 4 done" in drawn[-1]
    assert any("running" in one and "epoch" in one for one in drawn)
    code, out, _ = answer(lines)
    told = [json.loads(line) for line in out.splitlines()]
    assert [one["being_run"] for one in told] == [*[True] * (len(told) - 1), False]
    assert told[-1]["total"] == {"finished": 4}
    running = [one for status in told for one in status["running"]]
    assert {one["job"] for one in running} <= {path.parent.name for path in store.glob("jobs/*/log.txt")}
    assert log.parent.name in {spot["job"] for spot in told[-1]["runs"]["batch_norm=false"].values()}


def test_ctrl_c_ends_the_watching_without_a_word(copied):
    study, path = copied
    store = layout.open_store(path)
    with study_folder.hold(store, "tiny"):
        watching = start("status", study, "--store", path, "--watch", PYTHONUNBUFFERED="1")
        shown = [watching.stdout.readline() for _ in range(7)]  # all that it has to say
        watching.send_signal(signal.SIGINT)
        code, out, err = answer(watching)
    assert (code, out, err) == (0, "", "")
    assert shown[5:] == ["8 runs: 8 done\n", "4 of 8 runs for free: 4 share another cell's training\n"]


@pytest.fixture
def grown(copied):
    """Return a store whose study asks for a third seed, which was not trained."""
    study, path = copied
    store = layout.open_store(path)
    study_folder.keep(store, study_file.load(study, ("seeds=3",)), study_folder.settled(store, "tiny"))
    return store


def test_a_log_is_followed_from_before_it_exists_until_its_job_has_failed(grown):
    following = start("logs", "tiny:baseline/2", "--store", grown.path, "-f")
    assert following.stderr.readline() == "no log yet: waiting\n"
    job = json.loads(ablate("explain", "tiny:baseline/2", "--store", grown.path, "--json")[1])["job"]
    folder = grown.job(job)
    folder.path.mkdir()
    with folder.lock():
        folder.log.write_text("attempt 1\n")
        assert following.stdout.readline() == "attempt 1\n"
        with folder.log.open("a") as log:
            log.write("ValueError: x\n")
        job_folder.fail(folder, kind="error", error="ValueError: x")
        time.sleep(0.5)
        assert following.poll() is None  # its process has not let go yet
    assert answer(following) == (0, "ValueError: x\n", "")


def test_ctrl_c_ends_the_following_with_130(grown):
    path = grown.path
    code, _, err = ablate("logs", "tiny:baseline/2", "--store", path)
    assert code == 2
    assert "(tiny:baseline/2) has no log: it was not started yet" in err
    following = start("logs", "tiny:baseline/2", "--store", path, "-f")
    assert following.stderr.readline() == "no log yet: waiting\n"
    following.send_signal(signal.SIGINT)
    code, out, err = answer(following)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_a_terminal_is_drawn_anew_and_left_whole(copied):
    study, path = copied
    here, there = pty.openpty()
    command = [sys.executable, "-m", "ablate", "status", str(study), "--store", str(path), "--watch"]
    process = subprocess.Popen(
        command, stdout=there, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(there)
    drawn = b""
    try:
        while part := os.read(here, 4096):
            drawn += part
    except OSError:  # the other end is closed
        pass
    os.close(here)
    assert (process.wait(10), process.stderr.read()) == (0, b"")
    process.stderr.close()
    text = drawn.decode()
    assert "baseline" in text
    assert "8 runs: 8 done" in text
    assert "\x1b[?25h" in text  # the cursor is back


# What is there


def test_status_shows_every_run_and_what_came_for_free(done, tmp_path):
    folder, _ = done
    other = tmp_path / "other.toml"
    other.write_text(TINY.replace('"tiny"', '"other"'))
    own = ablate("status", folder / "tiny.toml", "--store", folder / "store")[1]
    assert own.splitlines()[0].split() == ["cell", "seed", "0", "seed", "1"]
    assert own.splitlines()[1].split() == ["baseline", "done", "done"]
    assert own.splitlines()[5:] == ["8 runs: 8 done", "4 of 8 runs for free: 4 share another cell's training"]
    free = json.loads(ablate("status", other, "--store", folder / "store", "--json")[1])["free"]
    assert free == {"runs": 8, "of": 8, "shared": 4, "other_studies": {"tiny": 4}}


def test_two_runs_are_told_apart(done):
    folder, _ = done
    where = ("--store", folder / "store")
    code, out, err = ablate("explain", "tiny:baseline/0", "tiny:batch_norm=false/1", *where, COLUMNS="200")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["seed", "0", "1"] in rows
    assert ["model.batch_norm", "true", "false"] in rows
    code, out, _ = ablate("explain", "tiny:baseline/0", "tiny:mc_dropout=3/0", *where)
    assert code == 0
    assert out.startswith("both are the same job, ")


def test_one_job_is_told_by_its_identity_and_by_its_run(done):
    folder, _ = done
    where = ("--store", folder / "store")
    found = json.loads(ablate("explain", "tiny:baseline/0", *where, "--json")[1])
    assert found["status"] == "trained"
    # Other tests run other studies in this store.
    assert {"tiny:baseline/0", "tiny:mc_dropout=3/0"} <= set(found["runs"])
    out = ablate("explain", found["job"][:8], *where, COLUMNS="200")[1]
    assert out.startswith(f"{found['job'][:12]}  trained\n")
    assert "model.batch_norm false -> true" in out
    assert (
        ablate("logs", found["job"][:8], *where)[1]
        == (folder / "store" / "jobs" / found["job"] / "log.txt").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("logs", "tiny:baselin/0"), "(did you mean tiny:baseline/0?)"),
        (("logs", "xyz"), "JOB must be a beginning of a job's identity, of at least 4 hex digits, or a run"),
        (("explain", "tiny:baseline/0", "ffffffffffffffff"), "begins with ffffffffffffffff"),
        (("explain", "a", "b", "c"), "explain takes one job or two, got 3"),
        (("status", "nobody", "--watch"), '"nobody" is neither a study file nor a study in'),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(done, arguments, sentence):
    folder, _ = done
    code, out, err = ablate(*arguments, "--store", folder / "store")
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def renumbered(path):
    """Make a job one of an older version; give what is to be said of it."""
    store = layout.open_store(path)
    job = json.loads(ablate("explain", "tiny:baseline/0", "--store", path, "--json")[1])["job"]
    old = store.job(identity.digest("an older version"))
    store.job(job).path.rename(old.path)
    files.write_json(old.recipe, files.read_json(old.recipe) | {"numerics": 1})
    return (
        "1 of the 1 jobs to train was trained under numerics 1 and is trained again: numbers of this "
        f"version ({identity.NUMERICS}) differ"
    )


def test_plan_and_explain_say_what_another_numerics_version_has_trained(copied):
    study, path = copied
    said = renumbered(path)
    plan = json.loads(ablate("plan", study, "--store", path, "--json")[1])
    assert (plan["to_train"], plan["trained_under_other_numerics"]) == (1, {"1": 1})
    assert said in ablate("plan", study, "--store", path, COLUMNS="200")[1]
    out = ablate("explain", "tiny:baseline/0", "--store", path, COLUMNS="200")[1].splitlines()
    assert out[0].endswith("not run")
    assert out[out.index("nearest other jobs, and what is different here:") + 1].endswith(
        f"  numerics 1 -> {identity.NUMERICS}"
    )


@pytest.mark.slow  # a training
def test_a_run_says_what_it_trains_again(copied):
    study, path = copied
    said = renumbered(path)
    code, out, err = ablate("run", study, "--store", path)
    assert (code, err) == (0, "")
    assert out.index(said) < out.index("training 1 job on")


HOSTILE = (
    TINY.replace('"tiny"', r'"ti\u001b]0;owned\u0007ny"')
    .replace("Does it run?", r"Does\u009b31m it?")
    .replace('text   = "BatchNorm helps"', r'text   = "Batch\u001b[2JNorm"')
    + r"""
[[factor]]
name   = "fac\u001b]0;owned\u0007tor"
levels = [
    { name = "on\u001b[2J", set = {} },
    { name = "off\u009b2J", set = { training.label_smoothing = 0.1 } },
]
"""
)


@pytest.mark.parametrize(
    "command",
    [
        ("plan",),
        ("plan", "--cells"),
        ("status",),
        ("status", "--json"),
        ("check",),
        ("check", "--json"),
        ("report", "--format", "json"),
    ],
    ids=" ".join,
)
def test_names_and_words_of_a_study_cannot_command_a_terminal(tmp_path, command):
    (tmp_path / "hostile.toml").write_text(HOSTILE)
    answer = CliRunner().invoke(
        main, [*command, str(tmp_path / "hostile.toml"), "--store", str(tmp_path / "store")]
    )
    assert answer.exit_code == (3 if command[0] == "check" else 0), answer.output
    assert answer.stdout
    assert [letter for letter in answer.output if not letter.isprintable() and letter != "\n"] == []


def test_what_a_shared_store_says_of_a_run_cannot_command_a_terminal(copied):
    _, path = copied
    job = min(path.glob("jobs/[0-9a-f]*"))
    (path / "jobs" / "x\x1b]0;owned\x07").mkdir()
    (path / "jobs" / "x\x1b]0;owned\x07" / "recipe.json").write_text("{}")
    job_folder.fail(
        layout.open_store(path).job(job.name), kind="error", error="Value\x1b]0;owned\x07Error\x9b2J"
    )
    (job / "result.json").unlink()
    (job / "log.txt").write_text("a\x1b]0;owned\x07b\n")
    lock = path / "studies/tiny"
    with study_folder.hold(layout.open_store(path), "tiny"):
        files.write_json(lock / "holder.json", {"pid": 1, "host": "h\x1b]0;owned\x07ost"})
        for command in (
            ("status", "tiny"),
            ("explain", job.name[:8]),
            ("logs", job.name[:8]),
            ("doctor",),
            ("gc", "--dry-run"),
            ("sync", "tiny"),
        ):
            answer = CliRunner().invoke(main, [*command, "--store", str(path)])
            assert answer.output
            assert [
                letter for letter in answer.output if not letter.isprintable() and letter != "\n"
            ] == [], command
