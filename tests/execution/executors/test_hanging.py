"""Processes that stand still, amid a message or for good: they cost a slot at most, and nobody waits."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from calls import (
    DEADLINE,
    Hanging,
    cpus,
    ended,
    hear,
    is_alive,
    kinds,
    pids,
    run_all,
    running,
    task,
    the,
    wait_until_gone,
)
from jobs import stands_still, wait_for

from ablate.execution.executors import process, server
from ablate.execution.executors.base import Event, Slot
from ablate.execution.executors.local import LocalExecutor

GIVEN_UP = r"cannot be ended: it hangs in a driver or a file system"


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 1.0)


@pytest.fixture
def freeze() -> Iterator:
    """Return a function that makes processes stand still until the test has ended."""
    frozen: set[int] = set()

    def stand_still(processes: set[int]) -> None:
        frozen.update(processes)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda pid=pid: stands_still(pid))

    yield stand_still
    for pid in filter(is_alive, frozen):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    with closing(Hanging("jobs:run", cpus(2))) as executor:
        yield executor


def notices(heard: list[Event]) -> list[str]:
    return [event.detail["notice"] for event in heard if "notice" in event.detail]


def test_a_process_that_cannot_be_ended_costs_its_slot_and_the_others_go_on(hanging: Hanging, freeze) -> None:
    hanging.submit(task("a", "stops_when_asked"))
    processes = pids(hear(hanging, running(1)))
    freeze(processes)
    hanging.kill("a")
    heard = hear(hanging, ended(1))
    (pid,) = processes
    why = f"process {pid} {GIVEN_UP}"
    assert notices(heard) == [f"the slot cpu:0 is given up: its {why}"]
    assert (the(heard, "crashed").task, the(heard, "crashed").error) == ("a", f"its {why}")
    assert heard[-1].kind == "crashed", "nothing is heard of a task after its end"
    assert (hanging.free(), hanging.resources().slots) == (1, 1)
    heard = run_all(hanging, [task("b", "ok"), task("c", "is_killed"), task("d", "ok")])
    assert [kinds(heard, name)[-1] for name in "bcd"] == ["finished", "killed", "finished"]
    assert is_alive(pid), "nothing ended it: only so is this test true"
    os.kill(pid, signal.SIGKILL)  # what hung has come back
    hear(hanging, lambda _: hanging.free() == 2)
    assert hanging.resources().slots == 2


def test_without_a_slot_nothing_starts_and_what_is_queued_can_be_withdrawn(hanging: Hanging, freeze) -> None:
    for name in ("a", "b"):
        hanging.submit(task(name, "stops_when_asked"))
    freeze(pids(hear(hanging, running(2))))
    hanging.kill("a")
    hanging.kill("b")
    hear(hanging, ended(2))
    assert (hanging.free(), hanging.resources().slots) == (0, 0)
    hanging.submit(task("c", "ok"))
    hanging.submit(task("d", "ok"), exclusive=True)
    assert {event.kind for event in hanging.events(0.1)} == {"queued"}
    hanging.stop()
    assert sorted((event.task, event.kind) for event in hear(hanging, ended(2))) == [
        ("c", "stopped"),
        ("d", "stopped"),
    ]


def test_an_idle_process_that_hangs_is_given_up_for_the_task_that_wants_to_be_alone(
    hanging: Hanging, freeze, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        hanging.submit(task(name, "waits_for_gate", gate=str(tmp_path / "gate")))
    hear(hanging, running(2))
    (tmp_path / "gate").touch()
    hear(hanging, ended(2))
    freeze({hanging._workers[1].process.pid})
    hanging.submit(task("alone", "ok"), exclusive=True)
    heard = hear(hanging, ended(1))
    assert kinds(heard, "alone")[-1] == "finished"
    assert len(notices(heard)) == 1
    assert hanging.free() == 1


def test_what_hangs_on_a_device_is_avoided_by_the_task_that_wants_one_alone(freeze) -> None:
    slots = tuple(Slot(f"cuda:{i}", "cuda") for i in (0, 0, 1))
    with closing(Hanging("jobs:run", slots)) as executor:
        executor.submit(task("a", "stops_when_asked"))
        freeze(pids(hear(executor, running(1))))
        executor.kill("a")
        hear(executor, ended(1))
        executor.submit(task("alone", "ok"), exclusive=True)
        assert the(hear(executor, ended(1)), "finished").slot == "cuda:1"


def test_a_process_that_lacked_memory_and_cannot_be_ended_is_told_before_the_end_of_its_task(
    monkeypatch: pytest.MonkeyPatch, freeze
) -> None:
    with closing(Hanging("jobs:run", cpus(2))) as executor:
        # one that only ignores the signal ends itself once its pipe is closed, and its slot comes back
        monkeypatch.setattr(executor.process, "kill", lambda process: freeze({process.pid}))
        executor.submit(task("a", "lacks_memory"))
        heard = hear(executor, ended(1))
        assert [event.kind for event in heard][-2:] == ["progress", "out_of_memory"]
        assert (len(notices(heard)), executor.resources().slots) == (1, 1)


def test_a_process_that_freezes_amid_a_message_is_ended_and_freezes_nobody(freeze, tmp_path: Path) -> None:
    with closing(LocalExecutor("jobs:run", cpus(1))) as executor:
        executor.submit(task("a", "freezes_amid_a_message", gate=str(tmp_path / "gate")))
        (pid,) = pids(hear(executor, running(1)))
        watchdog = threading.Timer(DEADLINE, os.kill, (pid, signal.SIGKILL))
        watchdog.start()
        (tmp_path / "gate").touch()
        wait_for(lambda: stands_still(pid))
        assert hear(executor, ended(1))[-1].kind == "killed"
        assert watchdog.is_alive(), "its end was waited for"
        watchdog.cancel()
        assert kinds(run_all(executor, [task("b", "ok")]), "b")[-1] == "finished"


def test_a_task_that_a_frozen_process_does_not_take_is_tried_elsewhere(freeze) -> None:
    with closing(LocalExecutor("jobs:run", cpus(1))) as executor:
        old = pids(run_all(executor, [task("a", "ok")]))
        freeze(old)
        watchdog = threading.Timer(DEADLINE, os.kill, (*old, signal.SIGKILL))
        watchdog.start()
        executor.submit(task("b", "reports", times=0, says="x" * 5_000_000))
        assert hear(executor, ended(1))[-1].kind == "killed"
        assert watchdog.is_alive(), "its end was waited for"
        watchdog.cancel()
        wait_until_gone(old)
        assert kinds(run_all(executor, [task("b", "ok")]), "b")[-1] == "finished"


def test_a_server_that_does_not_answer_is_no_reason_to_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def start(self) -> None:
            threading.Event().wait(DEADLINE)

    monkeypatch.setattr(server, "ANSWER", 0.1)
    with pytest.raises(RuntimeError, match="has not answered for 0 s"):
        server.start(Silent(), {})
