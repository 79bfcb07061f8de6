"""What every executor must do, whatever it places its tasks on: a subclass of `Contract` for each."""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import TERMINAL, cpus, ended, hear, kinds, pids, run_all, running, task, the, wait_until_gone
from contract_alone import Alone
from promises import Start, promised

from ablate.execution.executors.base import Executor, Slot


class Contract(Alone, ABC):
    """The tests of one executor; its subclass says how it is made, and which promises it cannot keep."""

    @abstractmethod
    def build(self, slots: tuple[Slot, ...]) -> Executor:
        """Make an executor that calls `jobs:run` in this folder.

        Without the promise of names, only the number of slots and their device count.
        """

    @pytest.fixture
    def start(self) -> Iterator[Start]:
        made: list[Executor] = []

        def start(slots: int | tuple[Slot, ...] = 1) -> Executor:
            made.append(self.build(cpus(slots) if isinstance(slots, int) else slots))
            return made[-1]

        yield start
        for executor in made:
            executor.close()

    # One task

    @promised("streams")
    def test_a_task_starts_reports_in_order_and_finishes(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "reports", times=200)])
        assert [event.kind for event in heard] == ["queued", "started", *["progress"] * 200, "finished"]
        assert [event.detail["i"] for event in heard[2:-1]] == list(range(200))
        slot = "cpu:0" if "names" in self.promises else heard[1].slot
        assert [(event.task, event.slot) for event in heard] == [("a", ""), *[("a", slot)] * 202]

    def test_a_payload_and_a_result_travel_unchanged(self, start: Start) -> None:
        payload = {
            "text": "Grüße, 世界 🎲 \0 \ud800",
            "numbers": [1, 2.5, -0.0, 1e-300, float("inf")],
            "nothing": None,
            "deep": {"a": [{}]},
        }
        heard = run_all(start(), [task("ä/🎲", "ok", **payload)])
        assert the(heard, "finished").detail["payload"] == {"do": "ok", "device": "cpu"} | payload
        assert {event.task for event in heard} == {"ä/🎲"}

    def test_progress_may_be_unicode(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "reports", times=1, says="naïve 試 \n🎲")])
        assert the(heard, "progress").detail["says"] == "naïve 試 \n🎲"

    def test_a_payload_and_a_result_may_be_megabytes(self, start: Start) -> None:
        heard = run_all(
            start(),
            [task("in", "reports", times=0, says="x" * 3_000_000), task("out", "big", size=1_000_000)],
        )
        assert kinds(heard, "in") == ["queued", "started", "finished"]
        assert [
            len(event.detail["text"]) for event in heard if event.task == "out" and event.kind == "finished"
        ] == [1_000_000]

    @promised("names")
    def test_a_task_learns_the_device_of_its_slot(self, start: Start) -> None:
        heard = run_all(start((Slot("cuda:7", "cuda"),)), [task("a", "ok")])
        assert the(heard, "finished").detail["payload"]["device"] == "cuda"
        assert the(heard, "finished").slot == "cuda:7"

    @promised("names", "environment")
    def test_a_task_sees_the_environment_of_its_slot(self, start: Start, tmp_path: Path) -> None:
        slots = tuple(
            Slot(f"cuda:{i}", "cuda", {"CUDA_VISIBLE_DEVICES": str(i), "OMP_NUM_THREADS": f"{i + 3}"})
            for i in range(2)
        )
        names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"]
        executor = start(slots)
        for name in ("a", "b"):
            executor.submit(task(name, "environment", names=names, gate=str(tmp_path / "gate")))
        hear(executor, running(2))
        (tmp_path / "gate").touch()
        heard = hear(executor, ended(2))
        seen = {event.slot: event.detail for event in heard if event.kind == "finished"}
        assert seen == {slot.name: dict(slot.environment) for slot in slots}

    # Ends that nobody wants

    def test_an_exception_is_told_as_its_type_and_message(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "raises")])
        assert [event.kind for event in heard] == ["queued", "started", "failed"]
        assert the(heard, "failed").error == "ValueError: zwölf Äpfel\nund eine Birne 🍐"

    @pytest.mark.parametrize(
        ("do", "says"), [("segfaults", "SIGSEGV"), ("leaves", "exit code 3"), ("exits", "exit code 4")]
    )
    def test_the_death_of_a_process_is_told_with_its_cause(self, start: Start, do: str, says: str) -> None:
        heard = run_all(start(), [task("a", do)])
        assert [event.kind for event in heard] == ["queued", "started", "crashed"]
        assert says in the(heard, "crashed").error

    def test_a_request_to_end_that_goes_to_all_processes_is_left_to_the_coordinator(
        self, start: Start
    ) -> None:
        heard = run_all(start(), [task(name, "is_sent", signal=name) for name in ("SIGINT", "SIGTERM")])
        assert [event.kind for event in heard if event.kind in TERMINAL] == ["finished", "finished"]

    @promised("signals")
    @pytest.mark.parametrize("name", ["SIGKILL", "SIGHUP"])
    def test_a_death_that_somebody_else_has_brought_about_is_told_apart(
        self, start: Start, name: str
    ) -> None:
        heard = run_all(start(), [task("a", "is_sent", signal=name)])
        assert [event.kind for event in heard] == ["queued", "started", "killed"]
        assert name in the(heard, "killed").error

    def test_a_want_of_memory_is_told_with_what_there_was_and_the_next_task_has_a_new_process(
        self, start: Start
    ) -> None:
        heard = run_all(start(), [task("a", "lacks_memory"), task("b", "cannot_allocate"), task("c", "ok")])
        ends = {event.task: (event.kind, event.error) for event in heard if event.kind in TERMINAL}
        assert ends["a"] == ("out_of_memory", "8 GiB, and 7.5 were used")
        assert ends["b"][0] == "out_of_memory"
        assert ends["c"][0] == "finished"
        assert len(pids(heard)) == 2

    def test_a_process_that_can_run_nothing_more_has_crashed_and_the_next_task_has_a_new_one(
        self, start: Start
    ) -> None:
        heard = run_all(start(), [task("a", "loses_device"), *(task(name, "ok") for name in "bcd")])
        ends = {event.task: (event.kind, event.error) for event in heard if event.kind in TERMINAL}
        assert ends.pop("a") == ("crashed", "AcceleratorError: CUDA error: device-side assert triggered")
        assert ends == dict.fromkeys("bcd", ("finished", ""))
        lost, after = (
            pids([event for event in heard if event.kind == kind]) for kind in ("progress", "finished")
        )
        assert after
        assert not lost & after

    def test_a_store_that_cannot_be_written_is_no_fault_of_the_task(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "cannot_write")])
        assert (heard[-1].kind, heard[-1].error) == ("unwritable", "the disk is full: make room")

    def test_a_sign_of_life_is_no_progress(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "lives")])
        assert [(event.kind, event.detail) for event in heard] == [
            ("queued", {}),
            ("started", {}),
            ("alive", {}),
            ("finished", {}),
        ]

    @promised("streams")
    def test_what_a_process_said_before_its_death_is_heard_first(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "talks_and_dies")])
        assert [event.kind for event in heard] == ["queued", "started", *["progress"] * 100, "crashed"]

    @promised("signals")
    def test_a_slot_goes_on_after_a_death_and_after_an_exception(self, start: Start) -> None:
        heard = run_all(
            start(), [task("a", "is_killed"), task("b", "raises"), task("c", "leaves"), task("d", "ok")]
        )
        ends = {event.task: event.kind for event in heard if event.kind in TERMINAL}
        assert ends == {"a": "killed", "b": "failed", "c": "crashed", "d": "finished"}

    @promised("signals")
    def test_a_death_leaves_the_other_tasks_alone(self, start: Start, tmp_path: Path) -> None:
        executor = start(3)
        for name in ("left", "right"):
            executor.submit(task(name, "waits_for_gate", gate=str(tmp_path / "gate")))
        before = hear(executor, running(2))
        died = run_all(executor, [task(f"dies {i}", "is_killed") for i in range(3)])
        assert [event.kind for event in died if event.kind in TERMINAL] == ["killed"] * 3
        (tmp_path / "gate").touch()
        after = hear(executor, ended(2))
        assert {event.task for event in after if event.kind == "finished"} == {"left", "right"}
        assert pids(after) == pids(before)

    # Slots

    @promised("signals")
    def test_free_counts_the_slots_without_a_task(self, start: Start, tmp_path: Path) -> None:
        executor, free = start(2), []
        free.append(executor.free())
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "gate")))
        free.append(executor.free())
        executor.submit(task("b", "is_killed"))
        free.append(executor.free())
        heard = hear(executor, ended(1))
        assert the(heard, "killed").task == "b"
        free.append(executor.free())
        (tmp_path / "gate").touch()
        hear(executor, ended(1))
        free.append(executor.free())
        assert free == [2, 1, 0, 1, 2]

    @promised("signals")
    def test_many_tasks_over_few_slots_each_end_exactly_once(self, start: Start) -> None:
        expected = {
            "ok": "finished",
            "raises": "failed",
            "is_killed": "killed",
            "leaves": "crashed",
            "talks_and_dies": "crashed",
        }
        often = ["ok"] * 6 + list(expected)
        tasks = [task(f"{i} {do}", do) for i, do in enumerate(often * 4)]
        heard = run_all(start(3), tasks)
        for one in tasks:
            assert kinds(heard, one.id)[:2] == ["queued", "started"], one
            assert [kind for kind in kinds(heard, one.id) if kind != "progress"][2:] == [
                expected[one.values["do"]]
            ], one
        busy: Counter[str] = Counter()
        for event in (event for event in heard if event.kind != "queued"):
            busy[event.slot] += (event.kind == "started") - (event.kind in TERMINAL)
            assert busy[event.slot] in (0, 1), f"two tasks at once in {event.slot}"
        # Slots of a cluster that come up late may find nothing left to do.
        assert set(busy) <= {"cpu:0", "cpu:1", "cpu:2"} or "names" not in self.promises

    def test_more_tasks_than_slots_are_queued_and_start_in_their_order(
        self, start: Start, tmp_path: Path
    ) -> None:
        executor = start()
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "gate")))
        executor.submit(task("b", "ok"))
        executor.submit(task("c", "ok"))
        heard = hear(executor, running(1)) + executor.events(0.3)
        assert (kinds(heard, "b"), kinds(heard, "c"), executor.free()) == (["queued"], ["queued"], 0)
        (tmp_path / "gate").touch()
        heard += hear(executor, ended(3))
        started = [event.task for event in heard if event.kind == "started"]
        assert started == [event.task for event in heard if event.kind == "finished"] == ["a", "b", "c"]

    @pytest.mark.parametrize(("call", "kind"), [("cancel", "stopped"), ("kill", "killed")])
    def test_a_queued_task_can_be_ended_and_never_starts(
        self, start: Start, tmp_path: Path, call: str, kind: str
    ) -> None:
        executor = start()
        executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "gate")))
        executor.submit(task("b", "ok"))
        executor.submit(task("c", "ok"))
        getattr(executor, call)("b")
        (tmp_path / "gate").touch()
        heard = hear(executor, ended(3))
        assert (kinds(heard, "b"), kinds(heard, "c")) == (["queued", kind], ["queued", "started", "finished"])

    @promised("names", "memory")
    def test_its_resources_are_its_slots_and_what_they_share(self, start: Start) -> None:
        cpu, gpus = (
            start(2).resources(),
            start(tuple(Slot(f"cuda:{i}", "cuda") for i in (0, 0, 1))).resources(),
        )
        assert (cpu.slots, cpu.device, cpu.shares_memory, cpu.jobs_a_device) == (2, "cpu", True, 1)
        assert (gpus.slots, gpus.device, gpus.shares_memory, gpus.jobs_a_device) == (3, "cuda", True, 2)
        assert {cpu.precision, gpus.precision} <= {"fp32", "bf16"}
        assert not start(1).resources().shares_memory
        assert cpu.shares_store == gpus.shares_store

    def test_nothing_to_hear_is_no_news(self, start: Start) -> None:
        assert start().events(0.0) == []

    # Stopping

    def test_a_task_that_is_asked_to_stop_and_does_is_stopped(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("a", "stops_when_asked"))
        executor.submit(task("b", "stops_when_asked"))
        hear(executor, running(2))
        executor.stop()
        heard = hear(executor, ended(2))
        assert sorted((event.task, event.kind) for event in heard) == [("a", "stopped"), ("b", "stopped")]
        assert executor.free() == 2

    def test_a_request_to_stop_reaches_a_task_that_has_not_begun(self, start: Start) -> None:
        executor = start()
        executor.submit(task("a", "stops_when_asked"))
        executor.stop()
        assert the(hear(executor, ended(1)), "stopped").task == "a"

    def test_a_task_that_ends_otherwise_when_asked_to_stop_is_what_it_became(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("a", "finishes_when_asked"))
        executor.submit(task("b", "dies_when_asked"))
        hear(executor, running(2))
        executor.stop()
        heard = hear(executor, ended(2))
        assert sorted((event.task, event.kind) for event in heard) == [("a", "finished"), ("b", "crashed")]
        assert the(heard, "finished").detail == {"finished": "anyway"}

    def test_a_request_to_stop_is_not_for_the_next_task(self, start: Start) -> None:
        executor = start()
        executor.stop()  # nobody runs: nobody is asked
        assert the(run_all(executor, [task("a", "was_asked")]), "finished").detail == {"asked": False}
        executor.submit(task("b", "stops_when_asked"))
        hear(executor, running(1))
        executor.stop()
        executor.stop()  # asking twice does no harm
        hear(executor, ended(1))
        assert the(run_all(executor, [task("c", "was_asked")]), "finished").detail == {"asked": False}

    def test_one_task_can_be_cancelled_and_the_others_go_on(self, start: Start) -> None:
        executor = start(3)
        for name in ("a", "b", "c"):
            executor.submit(task(name, "stops_when_asked"))
        hear(executor, running(3))
        executor.cancel("b")
        heard = hear(executor, ended(1))
        heard += executor.events(0.5)
        assert [(event.task, event.kind) for event in heard] == [("b", "stopped")]
        assert executor.free() == 1
        executor.stop()
        assert sorted((event.task, event.kind) for event in hear(executor, ended(2))) == [
            ("a", "stopped"),
            ("c", "stopped"),
        ]

    def test_a_task_can_be_cancelled_before_it_has_begun(self, start: Start) -> None:
        executor = start()
        executor.submit(task("a", "stops_when_asked"))
        executor.cancel("a")
        assert the(hear(executor, ended(1)), "stopped").task == "a"

    def test_cancelling_what_has_ended_or_never_was_is_of_no_effect(self, start: Start) -> None:
        executor = start()
        run_all(executor, [task("a", "ok")])
        executor.cancel("a")
        executor.cancel("nobody")
        assert executor.events(0.1) == []
        assert the(run_all(executor, [task("b", "was_asked")]), "finished").detail == {"asked": False}

    def test_a_cancelled_task_that_ends_otherwise_is_what_it_became_and_the_next_one_is_not_asked(
        self, start: Start
    ) -> None:
        executor = start()
        executor.submit(task("a", "finishes_when_asked"))
        hear(executor, running(1))
        executor.cancel("a")
        executor.cancel("a")
        assert the(hear(executor, ended(1)), "finished").detail == {"finished": "anyway"}
        assert the(run_all(executor, [task("b", "was_asked")]), "finished").detail == {"asked": False}

    @promised("here")
    def test_a_task_that_ignores_the_request_runs_on_and_close_ends_it(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("deaf", "ignores_stop"))
        executor.submit(task("good", "stops_when_asked"))
        heard = hear(executor, running(2))
        executor.stop()
        heard += hear(executor, ended(1))
        assert kinds(heard, "good") == ["queued", "started", "progress", "stopped"]
        assert kinds(heard, "deaf") == ["queued", "started", "progress"]
        executor.close()
        wait_until_gone(pids(heard))

    @promised("here", "warm")
    def test_close_leaves_no_process_and_may_come_twice(self, start: Start) -> None:
        executor = start(2)
        idle = pids(run_all(executor, [task("a", "ok")]))
        executor.submit(task("b", "stops_when_asked"))
        busy = pids(hear(executor, running(1)))
        executor.close()
        wait_until_gone(idle | busy)
        executor.close()

    @promised("here", "signals")
    def test_a_process_killed_from_outside_is_the_end_of_its_task_alone(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("a", "stops_when_asked"))
        victims = pids(hear(executor, running(1)))
        executor.submit(task("b", "stops_when_asked"))
        hear(executor, running(1))
        os.kill(*victims, signal.SIGKILL)
        heard = hear(executor, ended(1))
        assert the(heard, "killed").task == "a"
        executor.stop()
        assert the(hear(executor, ended(1)), "stopped").task == "b"

    # Killing

    @promised("here")
    def test_one_task_can_be_killed_whatever_it_does_and_the_others_go_on(self, start: Start) -> None:
        executor = start(3)
        for name, do in (("deaf", "ignores_stop"), ("frozen", "ignores_stop"), ("good", "stops_when_asked")):
            executor.submit(task(name, do))
        heard = hear(executor, running(3))
        (frozen,) = {
            event.detail["pid"] for event in heard if event.task == "frozen" and event.kind == "progress"
        }
        os.kill(frozen, signal.SIGSTOP)
        executor.kill("deaf")
        executor.kill("frozen")
        heard += hear(executor, ended(2))
        assert sorted((event.task, event.kind) for event in heard if event.kind in TERMINAL) == [
            ("deaf", "killed"),
            ("frozen", "killed"),
        ]
        assert executor.free() == 2
        executor.stop()
        assert the(hear(executor, ended(1)), "stopped").task == "good"

    def test_killing_what_has_ended_and_was_not_heard_yet_costs_the_next_task_nothing(
        self, start: Start
    ) -> None:
        executor = start()
        executor.submit(task("a", "reports", times=1, says=""))
        time.sleep(1.0)  # it ends, and nobody listens
        executor.kill("a")
        assert hear(executor, ended(1))[-1].kind in ("finished", "killed")
        assert kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]

    @promised("warm")
    def test_killing_what_has_ended_or_never_was_is_of_no_effect(self, start: Start) -> None:
        executor = start()
        before = pids(run_all(executor, [task("a", "ok")]))
        executor.kill("a")
        executor.kill("nobody")
        assert executor.events(0.1) == []
        assert pids(run_all(executor, [task("b", "ok")])) == before
