"""The dispatcher: what runs when, how it ends, and that nothing is lost or doubled, whoever dies."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import TINY, failing
from dispatching import Desk

from ablate.errors import StoreError
from ablate.serve import dispatcher
from ablate.serve.shares import Machine
from ablate.store import lease
from ablate.store import queue as submissions
from ablate.workflow import queue


def titled(name):
    return TINY.replace('"tiny"', f'"{name}"')


@pytest.fixture
def desk(here):
    made = Desk(here)
    yield made
    made.close()


@pytest.fixture
def first(desk):
    """Return the id of a submission that runs."""
    identity = desk.submit(TINY)
    desk.begun(identity)
    return identity


def test_submissions_run_one_after_another_in_their_order(desk):
    ids = [desk.submit(titled(name)) for name in "abc"]
    queue.move(desk.store, ids[2], before=ids[0])
    for turn in (ids[2], ids[0], ids[1]):
        desk.begun(turn)
        assert [one for one, state in desk.states().items() if state == "running"] == [turn]
        desk.let_end(turn)
    desk.until(lambda: set(desk.states().values()) == {"done"})
    assert all(desk.ran(one) == ["started"] for one in ids)
    assert queue.entry(desk.store, ids[0]).exit_code == 0


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (0, "done", ""),
        (1, "failed", "some jobs failed"),
        (2, "failed", "ablate run ended with 2: the end"),
        (130, "paused", "interrupted from outside: ablate resume 00001"),
    ],
)
def test_an_exit_code_becomes_a_state_with_a_reason(desk, first, code, state, reason):
    entry = desk.settle(first, code)
    assert (entry.state, entry.exit_code, entry.wish) == (state, code, None)
    assert reason in entry.reason
    assert (entry.ended is not None) == (state != "paused")


def test_what_has_failed_is_tried_again_with_what_has_crashed(desk, first):
    desk.settle(first, 1)
    assert queue.resume(desk.store, first).state == "waiting"
    command = dispatcher.command(desk.store, ["--device", "cpu"])(queue.entry(desk.store, first))
    assert command[-3:] == ["--retry-failed", "--device", "cpu"]


@pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_runs_is_stopped_in_good_order(desk, first, wish, state):
    getattr(queue, wish)(desk.store, first)
    desk.until(lambda: queue.entry(desk.store, first).state == state)
    assert desk.ran(first) == ["started", "stopped"]
    queue.resume(desk.store, first)
    desk.begun(first, times=2)
    assert desk.settle(first).state == "done"


def test_a_withdrawn_wish_starts_what_was_stopped_already_again(desk, first):
    queue.pause(desk.store, first)
    desk.look()
    queue.resume(desk.store, first)
    desk.begun(first, times=2)
    assert desk.ran(first) == ["started", "stopped", "started"]


def test_a_run_whose_process_is_killed_starts_again_but_not_for_ever(here):
    desk = Desk(here, restarts=3)
    identity = desk.submit(TINY)
    for times in range(1, 5):
        desk.begun(identity, times)
        desk.kill(identity)
    desk.until(lambda: queue.entry(here, identity).state == "failed")
    assert queue.entry(here, identity).reason == "its process was killed 4 times"
    desk.close()


def test_another_dispatcher_goes_on_with_what_runs(desk, first):
    desk.restart()
    assert desk.look(first) == "running"
    queue.pause(desk.store, first)
    desk.restart()
    desk.until(lambda: queue.entry(desk.store, first).state == "paused")
    assert desk.ran(first) == ["started", "stopped"]


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (1, "failed"), (130, "running")])
def test_how_a_run_has_ended_is_known_to_a_dispatcher_that_did_not_see_it(desk, first, code, state):
    child = desk.child(first)
    desk.let_end(first, code)
    while child.is_alive:
        pass
    (submissions.folder(desk.store, first) / "go").unlink()
    desk.restart()
    assert desk.look(first) == state  # what was interrupted while nobody looked, as by a shutdown, goes on


def test_a_run_that_was_marked_and_never_started_starts(desk):
    identity = desk.submit(TINY)
    with submissions.changing(desk.store):
        entry = queue.entry(desk.store, identity)
        submissions.write(desk.store, entry.model_copy(update={"state": "running", "attempts": 9}))
    desk.begun(identity)
    assert queue.entry(desk.store, identity).attempts == 9


def test_a_process_whose_shell_is_killed_is_still_the_run(desk, first):
    pid = desk.child(first).pid
    os.kill(os.getpgid(pid), signal.SIGKILL)  # the outer shell leads the group
    desk.restart()
    assert desk.look(first) == "running"
    desk.let_end(first)
    desk.begun(first, times=2)  # nobody has seen how it ended: the same again, which trains nothing twice
    assert desk.settle(first).state == "done"


def test_signals_go_to_no_process_of_another_one(desk, first):
    path = submissions.folder(desk.store, first) / "pid"
    pid = path.read_text()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path.write_text(str(bystander.pid))
    queue.cancel(desk.store, first)
    assert desk.look(first) == "running"
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0
    path.write_text(pid)
    desk.until(lambda: queue.entry(desk.store, first).state == "cancelled")


def test_who_waits_for_another_starts_when_that_is_done_and_is_paused_when_it_never_will_be(desk, first):
    second = desk.submit(titled("b"), after=(first,), priority=5)
    third = desk.submit(titled("c"), after=(second,))
    assert desk.look(second) == "waiting"
    desk.let_end(first)
    desk.begun(second)
    assert desk.look(third) == "waiting"
    desk.settle(second, 2)
    assert desk.look(third) == "paused"
    assert queue.entry(desk.store, third).reason == (
        f"{second}, which it was to wait for, has failed: ablate resume {third} runs it all the same"
    )
    queue.resume(desk.store, third)
    desk.begun(third)


def test_two_studies_at_once_share_the_machine_and_one_study_never_runs_twice_at_once(here):
    desk = Desk(here, studies=2, machine=Machine(("cpu:0", "cpu:1", "cpu:2", "cpu:3")))
    first, again, other, last = (desk.submit(titled(name)) for name in "aabc")
    desk.begun(first)
    desk.begun(other)
    assert list(desk.states().values()).count("running") == 2
    ran = (submissions.folder(here, other) / "ran").read_text()
    assert ran == "started --jobs 2\n"
    assert not {*queue.entry(here, first).slots} & {*queue.entry(here, other).slots}
    desk.settle(other)
    desk.begun(last)
    assert queue.entry(here, again).state == "waiting"
    desk.close()


def test_a_run_that_has_the_whole_machine_keeps_it_under_a_dispatcher_of_more_studies(here):
    machine = Machine(("GPU-a", "GPU-b"), "cuda")
    desk = Desk(here, machine=machine)
    first, second = desk.submit(titled("a")), desk.submit(titled("b"))
    desk.begun(first)
    assert machine.environment(queue.entry(here, first).slots) == {}
    desk.options["studies"] = 2
    desk.restart()
    assert desk.look(second) == "waiting"
    desk.settle(first)
    desk.begun(second)
    assert machine.environment(queue.entry(here, second).slots) == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    desk.close()


def test_the_whole_queue_is_read_only_when_it_may_have_changed(desk, first):
    looks, ended = [], threading.Event()
    desk.dispatcher.tells = looks.append

    class Held:
        def check(self):
            ended.turns = getattr(ended, "turns", 0) + 1
            if ended.turns == 2:
                looks.clear()
                desk.let_end(first)
                while desk.child(first).is_alive:
                    pass
            if ended.turns == 5:
                ended.set()

    desk.dispatcher.run(Held(), ended)
    assert queue.entry(desk.store, first).state == "done"
    assert 1 <= len(looks) < ended.turns - 1


def test_whoever_tells_of_submissions_has_begun_before_one_starts_and_holds_up_none(desk):
    seen = []

    def tells(entries):
        seen.append([entry.state for entry in entries])
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.dispatcher.tells = tells
    assert desk.look(desk.submit(TINY)) == "running"
    assert seen == [["waiting"]]


def test_draining_stops_what_runs_and_leaves_it_waiting(desk, first):
    second = desk.submit(titled("b"))
    desk.dispatcher.drain(threading.Event())
    assert {entry.id: entry.state for entry in queue.entries(desk.store)} == {
        first: "waiting",
        second: "waiting",
    }
    assert desk.ran(first) == ["started", "stopped"]
    desk.restart()
    desk.begun(first, times=2)


def test_a_store_has_one_dispatcher_and_its_lease_ends_with_it(here):
    ended = threading.Event()
    assert not queue.is_served(here)
    with dispatcher.locked(here), dispatcher.leading(here, ended, print) as held:
        assert queue.is_served(here)
        with (
            pytest.raises(StoreError, match=f"served already by process {os.getpid()}"),
            dispatcher.locked(here),
        ):
            pass
        held.check()
    assert not queue.is_served(here)
    assert not list(here.queue.glob("lease-*"))


def test_a_dispatcher_waits_while_another_machine_has_the_queue(here, monkeypatch):
    here.queue.mkdir()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "machine", lambda: "elsewhere")
        assert lease.Watch(here.queue).take(has_lock=True) is not None
    ended, said = threading.Event(), []

    def wait(sentence):
        said.append(sentence)
        ended.set()

    with dispatcher.leading(here, ended, wait) as held:
        assert held is None
    assert "waiting for it" in said[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can hand in as another user")
def test_code_that_another_user_has_handed_in_runs_only_where_the_configuration_allows_it(here, study):
    failing(study)
    study.with_name("broken_net.py").rename(
        study.with_name("their_net.py")
    )  # no module of that name is in yet
    study.write_text(study.read_text().replace("broken_net", "their_net"))
    desk = Desk(here)
    first, second, plain = (
        desk.submit(text, path=study) for text in (study.read_text(), study.read_text(), TINY)
    )
    for one in (first, plain):
        for path in (submissions.folder(here, one), submissions.study_file(here, one)):
            os.chown(path, 1234, 1234)
    assert desk.look(first) == "failed"
    assert (
        "another user has submitted it, with code of his own (their_net:make)"
        in queue.entry(here, first).reason
    )
    desk.begun(second)
    desk.settle(second)
    desk.begun(plain)
    desk.settle(plain)
    desk.options["networks"] = ("their_net:make",)
    desk.restart()
    queue.resume(here, first)
    desk.begun(first)
    desk.close()


def test_a_run_knows_its_page_and_not_the_token_of_the_service(desk, monkeypatch):
    monkeypatch.setenv("ABLATE_TOKEN", "secret")
    desk.options["url"] = "https://here"
    desk.restart()
    identity = desk.submit(TINY)
    desk.begun(identity)
    environment = Path(f"/proc/{desk.child(identity).pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"ABLATE_FOLLOWED=https://here/studies/tiny\0" in environment
    assert b"ABLATE_TOKEN" not in environment
