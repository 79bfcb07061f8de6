"""Leases: one owner at a time, also among machines whose clocks and locks know nothing of each other."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import mounts
import pytest

from ablate.store import lease as leases
from ablate.store.lease import LeaseLostError, Watch

TERM = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def of_another_machine(folder, monkeypatch, term=TERM):
    """Take the lease of a folder as another machine does."""
    with monkeypatch.context() as there:
        there.setattr(leases, "machine", lambda: "other/1")
        return Watch(folder, term).take(has_lock=True)


def test_a_lease_is_one_file_that_goes_with_its_owner(tmp_path):
    lease = Watch(tmp_path).take(has_lock=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-1"]
    content = json.loads(lease.path.read_bytes())
    assert (content["machine"], content["term"], content["renewals"]) == (leases.machine(), leases.TERM, 0)
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_for_which_the_disk_has_no_room_is_not_left_behind(tmp_path):
    with mounts.small(tmp_path / "disk", "64k"):
        folder, filler = tmp_path / "disk" / "job", tmp_path / "disk" / "filler"
        folder.mkdir()
        mounts.fill(filler)
        with pytest.raises(OSError, match="No space left"):
            Watch(folder).take(has_lock=True)
        assert list(folder.iterdir()) == []
        filler.unlink()
        assert Watch(folder).take(has_lock=True).number == 1


def test_a_renewal_changes_the_content_and_not_its_length(tmp_path):
    lease = Watch(tmp_path).take(has_lock=True)
    seen = set()
    for _ in range(3):
        seen.add(lease.path.read_bytes())
        lease.renew()
    assert len(seen) == 3
    assert {len(content) for content in seen} == {leases.LENGTH}


def test_a_lease_that_is_renewed_is_never_taken_however_long_one_waits(tmp_path, monkeypatch):
    clock, lease = Clock(), of_another_machine(tmp_path, monkeypatch)
    watch = Watch(tmp_path, clock=clock)
    for _ in range(100):
        assert watch.take(has_lock=True) is None
        clock.now += TERM - 1
        lease.renew()
    assert watch.owner["machine"] == "other/1"


def test_a_lease_that_was_not_renewed_for_its_term_is_taken_over_and_its_owner_notices(tmp_path, monkeypatch):
    clock, lease = Clock(), of_another_machine(tmp_path, monkeypatch)
    watch = Watch(tmp_path, clock=clock)
    assert watch.take(has_lock=True) is None
    clock.now += TERM - 0.001
    assert watch.take(has_lock=True) is None
    clock.now += 0.001
    mine = watch.take(has_lock=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-2"]
    for look in (lease.check, lease.renew):
        with pytest.raises(LeaseLostError):
            look()
    lease.release()
    mine.check()
    assert [path.name for path in tmp_path.iterdir()] == ["lease-2"], "the other one has taken nothing away"


def test_an_owner_that_comes_back_between_the_two_steps_of_a_take_over_has_lost(tmp_path, monkeypatch):
    lease = of_another_machine(tmp_path, monkeypatch)
    (tmp_path / "lease-2").touch()  # made, and the older one not yet removed
    with pytest.raises(LeaseLostError):
        lease.renew()


def test_the_clock_of_the_owner_is_of_no_matter(tmp_path, monkeypatch):
    """The file says that it was written in 1970, or in a hundred years.

    What counts is how long it was seen unchanged.
    """
    import os

    clock, lease = Clock(), of_another_machine(tmp_path, monkeypatch)
    watch = Watch(tmp_path, clock=clock)
    for year in (0.0, 4e9):
        os.utime(lease.path, (year, year))
        assert watch.take(has_lock=True) is None
        clock.now += TERM / 4
    clock.now += TERM
    assert watch.take(has_lock=True) is not None


def test_a_lease_of_this_machine_whose_lock_is_free_is_that_of_a_dead_process(tmp_path):
    dead = Watch(tmp_path).take(has_lock=True)
    assert Watch(tmp_path, clock=Clock()).take(has_lock=False) is None, "without locks that cannot be known"
    assert Watch(tmp_path, clock=Clock()).take(has_lock=True) is not None
    with pytest.raises(LeaseLostError):
        dead.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"machine": "other/1"}'])
def test_a_lease_whose_owner_died_over_its_first_line_runs_out_too(tmp_path, content):
    clock = Clock()
    (tmp_path / "lease-7").write_bytes(content)
    watch = Watch(tmp_path, clock=clock)
    assert watch.take(has_lock=True) is None
    clock.now += leases.TERM
    assert watch.take(has_lock=True).number == 8


def test_it_is_renewed_in_the_background_until_it_ends_or_is_lost(tmp_path, monkeypatch):
    lease = Watch(tmp_path, term=0.05 * leases.RENEWALS).take(has_lock=True)
    with leases.renewing(lease):
        while json.loads(lease.path.read_bytes())["renewals"] < 3:
            pass
        (tmp_path / "lease-2").touch()
        while not lease.is_lost:
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["lease-2"]
    assert "lease" not in {thread.name for thread in threading.enumerate()}


def test_a_lease_that_goes_while_it_is_read_is_looked_for_again(tmp_path, monkeypatch):
    """Between the list and the read another process takes over: then there is a lease, and not none."""
    of_another_machine(tmp_path, monkeypatch)
    numbers = leases._numbers

    def and_then(folder):
        listed = numbers(folder)
        if listed == [1]:
            (tmp_path / "lease-1").rename(tmp_path / "lease-2")
        return listed

    monkeypatch.setattr(leases, "_numbers", and_then)
    assert Watch(tmp_path).take(has_lock=True) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lease-2"]


RACE = """
import sys, time
from pathlib import Path
from ablate.store import lease as leases
leases.machine = lambda: sys.argv[2]
watch = leases.Watch(Path(sys.argv[1]), clock=lambda: clock)
clock = 0.0
watch.take(has_lock=True)
clock = 1e9
print("ready", flush=True)
sys.stdin.readline()
print(watch.take(has_lock=True) is not None, flush=True)
"""


@pytest.mark.slow  # many processes
@pytest.mark.parametrize("is_lapsed", [False, True])
def test_of_many_processes_that_want_a_lease_one_gets_it(tmp_path, monkeypatch, is_lapsed):
    for round_ in range(5):
        folder = tmp_path / str(round_)
        folder.mkdir()
        if is_lapsed:
            of_another_machine(folder, monkeypatch)
        script = RACE if is_lapsed else RACE.replace("watch.take(has_lock=True)\nclock", "clock")
        command = [sys.executable, "-c", script, str(folder)]
        racers = [
            subprocess.Popen([*command, f"m{i}/1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for i in range(4)
        ]
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        answers = [racer.communicate()[0].strip() for racer in racers]
        assert sorted(answers) == ["False", "False", "False", "True"]
        assert [path.name for path in folder.iterdir()] == ["lease-2" if is_lapsed else "lease-1"]


def test_who_looks_once_sees_the_lease_of_another_machine_and_writes_nothing(tmp_path, monkeypatch):
    import os

    assert not leases.is_held_elsewhere(tmp_path)
    assert not leases.is_held_elsewhere(tmp_path / "nowhere")
    mine = Watch(tmp_path).take(has_lock=True)
    assert not leases.is_held_elsewhere(tmp_path), "the lock says more of this machine"
    mine.release()
    other = of_another_machine(tmp_path, monkeypatch)
    before = [(path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir()]
    assert leases.is_held_elsewhere(tmp_path)
    assert [(path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir()] == before
    os.utime(other.path, (0, 0))
    assert not leases.is_held_elsewhere(tmp_path)


def test_the_name_of_this_machine_is_always_the_same():
    program = "from ablate.store import lease; print(lease.machine())"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.home()
    ).stdout
    assert said.strip() == leases.machine()
