"""Studies that run on Slurm: the same numbers as here, whatever becomes of the process that started them."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import jobs
import pytest
from commands import ablate, attempts, results, start, wait_for

from ablate.cli.progress import Terminal
from ablate.cli.terminal import console

SLURM = ("--executor", "slurm", "--slurm", "time=30", "--set", "seeds=1")  # two jobs


def ended(process):
    """Return the exit code of a process and what it printed."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def jobs_of(cluster):
    """Return the numbers of all arrays that Slurm knows, and how many elements run or wait."""
    lines = cluster.run("squeue", "-h", "-r", "--states=all", "-o", "%F %T").splitlines()
    alive = sum(line.split()[1] in ("PENDING", "RUNNING") for line in lines)
    return {line.split()[0] for line in lines}, alive


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_followed_and_trains_as_here(cluster, study, done, tmp_path):
    store = tmp_path / "mlruns"
    before, _ = jobs_of(cluster)
    killed = start("run", study, "--store", store, *SLURM)
    wait_for(lambda: attempts(store), killed)
    killed.kill()
    killed.communicate()
    arrays, _ = jobs_of(cluster)
    code, out = ended(start("run", study, "--store", store, *SLURM))
    assert code == 0, out
    assert len(arrays - before) == 1
    jobs.wait_for(lambda: jobs_of(cluster)[1] == 0)  # at once, or soon where all had ended before
    assert jobs_of(cluster)[0] - before == arrays - before  # Slurm forgets earlier ones after a while
    assert attempts(store) == 2
    here = results(done[0] / "store")
    there = results(store)
    assert there
    assert there == {name: here[name] for name in there}
    assert "left to Slurm" not in ablate("status", "tiny", "--store", store)[1]


@pytest.mark.slow
def test_what_is_detached_is_followed_and_ctrl_c_asks_whether_it_goes_on(cluster, study, tmp_path):
    store = tmp_path / "mlruns"
    long = ("run", study, "--store", store, "--set", "training.epochs=3000", *SLURM)
    before, _ = jobs_of(cluster)
    code, out = ended(start(*long, "--detach"))
    assert (code, "2 jobs left to Slurm" in out) == (0, True), out
    assert "left to Slurm: " in ablate("status", "tiny", "--store", store)[1]
    queued = json.loads(ablate("status", "tiny", "--store", store, "--json")[1])["queued"]
    assert queued["running"] + queued["waiting"] == 2
    arrays, alive = jobs_of(cluster)
    assert (len(arrays - before), alive) == (1, 2)
    for answer, goes_on in (("", True), ("c", False)):
        code, out = in_terminal(*long, answer=answer, begun=store)
        assert code == 130, out
        assert "of an earlier command: it is followed" in out
        assert ("2 jobs left to Slurm" in out, "everything finished is kept" in out) == (goes_on, not goes_on)
        now, alive = jobs_of(cluster)
        assert (now - before, alive) == (arrays - before, 2 * goes_on)
    assert attempts(store) == 2
    assert json.loads(ablate("status", "tiny", "--store", store, "--json")[1])["queued"] is None
    assert "left to Slurm" not in ablate("status", "tiny", "--store", store)[1]


def test_without_a_terminal_nobody_is_asked_and_the_array_goes_on():
    assert Terminal(console()).leaves()


def in_terminal(*arguments, answer, begun):
    """Run a command in a terminal, interrupt it once jobs train, and answer its question."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ablate", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"COLUMNS": "200", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    shown, sent, end = b"", 0, time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < end, shown.decode()
        try:
            shown += os.read(ours, 1 << 16)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            break
        if sent == 0 and b"epoch" in shown and attempts(begun):
            process.send_signal(signal.SIGINT)
            sent = 1
        if sent == 1 and b"(leave)" in shown:
            os.write(ours, answer.encode() + b"\n")
            sent = 2
    try:
        while text := os.read(ours, 1 << 16):
            shown += text
    except OSError:
        pass
    os.close(ours)
    return process.wait(300), shown.decode(errors="replace")


def test_options_that_do_not_fit_together_are_sentences(study, tmp_path):
    text = (
        study.read_text() + "\n[search]\ntrials = 2\nspace = { optimizer.lr = { low = 0.001, high = 0.1 } }\n"
    )
    searching = tmp_path / "searching.toml"
    searching.write_text(text.replace('"tiny"', '"searching"'))
    store = ("--store", tmp_path / "mlruns")
    code, _, err = ablate("run", searching, *store, "--executor", "slurm", "--detach")
    assert (code, "--detach cannot be used with [search]" in err) == (2, True), err
    code, _, err = ablate("run", study, *store, "--slurm", "time=10")
    assert (code, "--executor local does not know --slurm: leave it out" in err) == (2, True), err
    code, _, err = ablate("run", study, *store, "--detach")
    assert (code, "--executor local does not know --detach: leave it out" in err) == (2, True), err
    assert not (tmp_path / "mlruns").exists()
