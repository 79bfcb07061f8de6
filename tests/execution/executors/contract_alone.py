"""The part of the contract that is about tasks that want the memory of their slot for themselves."""

from pathlib import Path

import pytest
from calls import TERMINAL, ended, hear, kinds, pids, running, task, the, wait_until_gone
from promises import Promising, Start, promised

from ablate.execution.executors.base import Slot


class Alone(Promising):
    """The tests of `exclusive`."""

    @promised("memory")
    def test_a_task_that_wants_to_be_alone_waits_for_those_beside_it_and_keeps_others_out(
        self, start: Start, tmp_path: Path
    ) -> None:
        executor = start(3)
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "a")))
        executor.submit(task("b", "waits_for_gate", gate=str(tmp_path / "b")), exclusive=True)
        assert executor.free() == 0
        before = hear(executor, running(1)) + executor.events(0.3)
        assert kinds(before, "b") == ["queued"]
        (tmp_path / "a").touch()
        heard = hear(executor, running(1))
        assert kinds(before + heard, "b") == ["queued", "started", "progress"]
        assert executor.free() == 0
        (tmp_path / "b").touch()
        assert the(hear(executor, ended(1)), "finished").task == "b"
        assert executor.free() == 3

    @promised("memory", "here", "warm")
    def test_a_task_that_is_alone_has_no_idle_process_beside_it(self, start: Start, tmp_path: Path) -> None:
        executor = start(3)

        def warm(name: str) -> set[int]:
            """Run a task in every slot at once; return their processes, idle then."""
            for i in range(3):
                executor.submit(task(f"{name} {i}", "waits_for_gate", gate=str(tmp_path / name)))
            processes = pids(hear(executor, running(3)))
            (tmp_path / name).touch()
            hear(executor, ended(3))
            return processes

        before = warm("before")
        assert len(before) == 3
        executor.submit(task("alone", "waits_for_gate", gate=str(tmp_path / "gate")), exclusive=True)
        (there,) = pids(hear(executor, running(1)))
        wait_until_gone(before - {there})
        assert executor.free() == 0
        (tmp_path / "gate").touch()
        hear(executor, ended(1))
        assert executor.free() == 3
        assert len(warm("after")) == 3

    @promised("memory", "names")
    def test_a_task_is_alone_on_its_device_and_the_other_devices_go_on(
        self, start: Start, tmp_path: Path
    ) -> None:
        executor = start(tuple(Slot(f"cuda:{i}", "cuda") for i in (0, 0, 1, 1)))
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "a")))
        executor.submit(task("b", "waits_for_gate", gate=str(tmp_path / "b")), exclusive=True)
        heard = hear(executor, running(2))
        assert {event.task: event.slot for event in heard if event.slot} == {"a": "cuda:0", "b": "cuda:1"}
        assert executor.free() == 1
        executor.submit(task("c", "ok"))
        assert the(hear(executor, ended(1)), "finished").slot == "cuda:0"
        for name in ("a", "b"):
            (tmp_path / name).touch()
        hear(executor, ended(2))
        assert executor.free() == 4

    @promised("memory")
    @pytest.mark.parametrize(
        ("call", "kind"), [("cancel", "stopped"), ("kill", "killed"), ("stop", "stopped")]
    )
    def test_a_task_that_still_waits_to_be_alone_can_be_ended(
        self, start: Start, tmp_path: Path, call: str, kind: str
    ) -> None:
        executor = start(2)
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "a")))
        hear(executor, running(1))
        executor.submit(task("b", "waits_for_gate", gate=str(tmp_path / "b")), exclusive=True)
        getattr(executor, call)(*(() if call == "stop" else ("b",)))
        heard = hear(executor, ended(1))
        assert [(event.task, event.kind) for event in heard if event.kind in TERMINAL] == [("b", kind)]
        assert executor.free() == 1
        (tmp_path / "a").touch()
        assert the(hear(executor, ended(1)), "finished").task == "a"

    @promised("memory", "signals")
    def test_the_death_of_a_task_that_was_alone_opens_its_device_again(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("a", "is_killed"), exclusive=True)
        assert hear(executor, ended(1))[-1].kind == "killed"
        assert executor.free() == 2
