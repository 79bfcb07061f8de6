"""A device is tried before it gets a task, by a function that fails as CUDA does."""

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
from calls import ended, hear, kinds, pids, run_all, running, task, the, wait_until_gone

from ablate.errors import AblateError
from ablate.execution.executors.base import Event, Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.executors.server import BAD_STARTS


def start(count: int, passes: Path, device: str = "cuda") -> LocalExecutor:
    """Start executors whose first device does what a file says, and whose others fail."""
    files = [str(passes), *[os.devnull] * (count - 1)]
    slots = tuple(Slot(f"{device}:{i}", device, {"PASSES": file}) for i, file in enumerate(files))
    return LocalExecutor("jobs:run", slots, preflight="jobs:as_cuda_fails")


def test_a_device_that_fails_ends_the_run_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passes").write_text("passes\n")
    with (
        closing(start(2, tmp_path / "passes")) as executor,
        pytest.raises(AblateError, match=r"^cuda:1: torch has no kernels for cuda, or use --device cpu$"),
    ):
        hear(executor, ended(1))
    assert capfd.readouterr().err == ""


def test_a_device_that_was_usable_is_tried_again_before_the_run_ends(tmp_path: Path) -> None:
    passes = tmp_path / "passes"
    passes.write_text("passes\n")
    with closing(start(1, passes)) as executor:
        (pid,) = pids(run_all(executor, [task("a", "ok")]))
        os.kill(pid, signal.SIGKILL)
        wait_until_gone({pid})
        passes.write_text("")
        starts: set[int | None] = set()

        def never(_heard: list[Event]) -> bool:
            starts.update(worker.process.pid for worker in executor._workers)
            return False

        with pytest.raises(AblateError, match=r"^cuda:0: torch has no kernels"):
            hear(executor, never)
        assert len(starts - {pid}) == BAD_STARTS


def test_a_device_that_is_lost_costs_its_slot_and_the_others_go_on(tmp_path: Path) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    for file in files:
        file.write_text("passes\n")
    slots = tuple(Slot(f"cuda:{i}", "cuda", {"PASSES": str(file)}) for i, file in enumerate(files))
    with closing(LocalExecutor("jobs:run", slots, preflight="jobs:as_cuda_fails")) as executor:
        hear(executor, lambda _: all(worker.ready for worker in executor._workers))
        executor.submit(task("long", "stops_when_asked"))
        hear(executor, running(1))
        (idle,) = [worker for worker in executor._workers if worker.task is None]
        os.kill(idle.process.pid or 0, signal.SIGKILL)
        heard = hear(executor, lambda heard: any("notice" in event.detail for event in heard))
        notice = "is given up: torch has no kernels for cuda"
        assert [event.task for event in heard if notice in event.detail.get("notice", "")] == ["long"]
        assert executor.resources().slots == 1
        executor.stop()
        assert the(hear(executor, ended(1)), "stopped").task == "long"
        assert kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]


def test_a_device_that_works_again_goes_on(tmp_path: Path) -> None:
    passes = tmp_path / "passes"
    passes.write_text("passes\n")
    with closing(start(1, passes)) as executor:
        (pid,) = pids(run_all(executor, [task("a", "ok")]))
        passes.write_text("\n\npasses\n")  # fails twice
        os.kill(pid, signal.SIGKILL)
        hear(executor, lambda _: passes.read_text() == "" and any(w.ready for w in executor._workers))
        assert kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]


def test_a_cpu_is_not_tried(tmp_path: Path) -> None:
    with closing(start(1, tmp_path / "passes", "cpu")) as executor:
        assert kinds(run_all(executor, [task("a", "ok")]), "a") == ["queued", "started", "finished"]
