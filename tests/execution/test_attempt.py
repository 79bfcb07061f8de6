"""One job, several machines: leases keep them apart where locks do not reach.

Real trainings in real processes.
"""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from houses import DIGITS, EVERY_DRAW, House, left, run_here

from ablate.execution import worker
from ablate.execution.executors.base import Stopped
from ablate.recipe.fields import Training
from ablate.store import files, job_folder, lease, tasks
from ablate.store.lease import Watch
from ablate.training import data

LONG = EVERY_DRAW.model_copy(update={"training": Training(epochs=30, batch_size=16, precision="fp32")})
PATIENCE = 300.0

MACHINE = """
import json, os, sys
from functools import partial
from pathlib import Path
from filelock import FileLock
from ablate.execution import attempt, worker
from ablate.store import lease, tasks
from ablate.store.job_folder import Folder

name = sys.argv[2]
lease.machine = lambda: name
attempt.Watch = partial(lease.Watch, term=float(sys.argv[3]))
Folder.lock = lambda self: FileLock(self.path.parent / f"lock of {name}")  # locks do not reach other machines
task, out = tasks.read(Path(sys.argv[1]), 0), os.fdopen(os.dup(1), "w")  # a job's own prints go to its log
say = partial(print, file=out, flush=True)
worker.run_job(task, lambda detail: say(json.dumps(detail)) if detail else None, lambda: False)
say(json.dumps({"ended": True}))
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.prepare(DIGITS, tmp_path_factory.mktemp("data")).folder


@contextmanager
def machine(file, name, term):
    """Start a process that trains the job of a task file as on a machine of its own, with short leases."""
    command = [sys.executable, "-c", MACHINE, str(file), name, str(term)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def hear(process, key):
    """Read what a process says until it says this."""
    for line in process.stdout:
        detail = json.loads(line)
        if key in detail:
            return detail
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.slow  # two processes that import torch, one after the other
def test_a_machine_that_freezes_loses_its_job_to_another_one_and_writes_nothing_more(tmp_path, digits):
    """The first one stands still longer than its lease lasts, the second takes over, and then both go on."""
    house = House(tmp_path, digits)
    folder, quiet, file = house.folder("a", LONG), house.folder("quiet", LONG), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder)])
    with machine(file, "one", 3.0) as first:
        hear(first, "epoch")
        first.send_signal(signal.SIGSTOP)
        with machine(file, "two", 3.0) as second:
            assert hear(second, "elsewhere")["elsewhere"].startswith(f"waits for process {first.pid} on ")
            began = hear(second, "epoch")["epoch"]
            first.send_signal(signal.SIGCONT)
            reason = hear(first, "elsewhere")["elsewhere"]  # the second one may have finished by then
            assert reason.startswith(
                (f"waits for process {second.pid} on ", f"trained by process {second.pid}")
            )
            hear(second, "ended")
        hear(first, "ended")
    assert began > 1, "it goes on from the checkpoint of the other"
    assert [line["epoch"] for line in files.lines(folder.journal)] == list(range(1, LONG.training.epochs + 1))
    assert [line["pid"] for line in files.lines(folder.attempts)] == [first.pid, second.pid]
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)
    assert not list(folder.path.glob("lease-*"))


@pytest.mark.slow  # it waits
def test_a_job_of_a_machine_that_is_gone_is_taken_over_after_the_term_of_its_lease(
    tmp_path, digits, monkeypatch
):
    house = House(tmp_path, digits)
    folder, quiet, file = house.folder("a"), house.folder("quiet"), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder)])
    with monkeypatch.context() as there:
        there.setattr(lease, "machine", lambda: "gone/1")
        Watch(folder.path, 1.0).take(has_lock=True)
    assert job_folder.is_running(folder), "so it seems to who looks once"
    with machine(file, "two", 3.0) as second:
        assert "waits for process" in hear(second, "elsewhere")["elsewhere"]
        hear(second, "ended")
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)
    assert not job_folder.is_running(folder)


def test_a_file_system_without_locks_has_the_lease_alone(tmp_path, digits, monkeypatch):
    """No such file system can be mounted here: its answer is that of flock, as filelock passes it on."""
    import errno
    import fcntl

    def refuses(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    house = House(tmp_path, digits)
    folder = house.folder("a")
    monkeypatch.setattr(fcntl, "flock", refuses)
    assert run_here(house.payload(folder))[0] == {"status": "finished"}
    assert not list(folder.path.glob("lease-*"))


def test_a_job_whose_lock_is_held_by_a_process_that_stands_still_is_taken_over_when_its_lease_has_expired(
    tmp_path, digits
):
    """It may not even die, and a lock ends with its process only."""
    house, asked = House(tmp_path, digits), []
    folder = house.folder("a")
    with folder.lock():
        Watch(folder.path, 0.5).take(has_lock=True)  # nobody renews it

        def is_late():
            asked.append(True)
            return len(asked) > 60

        task = house.task(folder)
        assert worker.run_job(task, lambda _: None, is_late) == {"status": "finished"}
    assert not list(folder.path.glob("lease-*"))


def test_a_lock_without_a_lease_is_waited_for(tmp_path, digits):
    """Whoever looks at a job, or removes it, has its lock for a moment."""
    house, asked = House(tmp_path, digits), []
    folder = house.folder("a")
    with folder.lock(), pytest.raises(Stopped):
        worker.run_job(house.task(folder), lambda _: None, lambda: asked.append(True) or len(asked) > 1)
    assert not folder.attempts.exists()


@pytest.mark.slow  # it waits
def test_a_job_that_is_renewed_is_waited_for_longer_than_any_term(tmp_path, digits, monkeypatch):
    house = House(tmp_path, digits)
    folder, file = house.folder("a"), tmp_path / "tasks.jsonl"
    tasks.write(file, [house.task(folder)])
    with monkeypatch.context() as there:
        there.setattr(lease, "machine", lambda: "busy/1")
        busy = Watch(folder.path, 3.0).take(has_lock=True)
    with machine(file, "two", 3.0) as second:
        with lease.renewing(busy):
            hear(second, "elsewhere")
            end = time.monotonic() + PATIENCE
            while json.loads(busy.path.read_bytes())["renewals"] < 2 * lease.RENEWALS:
                assert time.monotonic() < end
                time.sleep(0.1)
            assert not folder.attempts.exists()
        hear(second, "ended")
    assert len(files.lines(folder.attempts)) == 1
