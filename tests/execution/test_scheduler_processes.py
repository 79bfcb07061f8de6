"""The scheduler over real processes: deaths, busy slots, and signals to the whole."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import forkserver
from pathlib import Path

import pytest
from jobs import stands_still
from processes import descendants
from scripted import ids, work

from ablate.errors import AblateError
from ablate.execution import scheduler
from ablate.execution.executors import process
from ablate.execution.executors.base import Event, Executor, Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.scheduler import Budget, Policy
from ablate.planning.plan import Work
from ablate.store import files
from ablate.store.layout import Store
from ablate.store.tasks import Context

DEADLINE = 300.0
JOBS = Path(__file__).parent / "executors"


# With real processes


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.syspath_prepend(JOBS)
    with closing(LocalExecutor("jobs:by_role", tuple(Slot(f"cpu:{i}", "cpu") for i in range(2)))) as executor:
        yield executor


def test_real_processes_that_die_are_tried_again_beside_others_that_never_notice(
    here: Store, local: LocalExecutor
) -> None:
    todo = work(here, 7)
    roles = dict(
        zip(
            ids(todo),
            ("ok", "is_killed_twice", "raises", "is_killed", "ok", "leaves", "reports"),
            strict=True,
        )
    )
    heard: list[Event] = []
    for job, role in roles.items():
        files.write(here.job(job).path / "role", role)
    ledger = scheduler.run(
        scheduler.Listed(todo), here, local, context=Context(), interrupted=lambda: False, listen=heard.append
    )
    kinds = {
        failure.job: files.read_json(here.job(failure.job).failure)["kind"] for failure in ledger.failures
    }
    ends = {roles[failure.job]: (kinds[failure.job], failure.error) for failure in ledger.failures}
    assert sorted(roles[job] for job in ledger.finished) == ["is_killed_twice", "ok", "ok", "reports"]
    assert set(ends) == {"raises", "is_killed", "leaves"}
    assert ends["raises"] == ("error", "ValueError: zwölf Äpfel\nund eine Birne 🍐")
    assert ends["leaves"] == ("crash", "the process ended with exit code 3")
    assert ends["is_killed"] == ("crash", "the process was ended by SIGKILL, 10 times")
    lost = {roles[job]: kinds[:-1] for job, kinds in ledger.ends.items() if len(kinds) > 1}
    assert lost == {"is_killed_twice": ["killed"] * 2, "is_killed": ["killed"] * 9, "leaves": ["crashed"] * 2}
    assert sum(event.kind == "started" for event in heard) == 7 + 2 + 9 + 2
    assert local.free() == 2


def test_a_real_job_that_waits_for_a_busy_slot_is_never_stalled_and_costs_no_budget(
    here: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The clock goes on by a minute with each sign of life of the first job.

    Only then may the second one start.
    """
    monkeypatch.syspath_prepend(JOBS)
    first, second = todo = work(here, 2)
    for item, role in ((first, "lives_on"), (second, "reports")):
        files.write(item.folder(here).path / "role", role)
    minutes = 0
    heard: list[Event] = []

    class Crowded(LocalExecutor):
        """Takes two tasks, and has one slot; it is busy until the clock has gone on by three hours."""

        def free(self) -> int:
            return 2 - len({event.task for event in heard})

        def events(self, timeout: float) -> list[Event]:
            nonlocal minutes
            news = super().events(timeout)
            minutes += any(event.kind == "alive" for event in news)
            if minutes == 180:
                (first.folder(here).path / "gate").touch()
            return news

    policy = Policy(stall=600.0, budget=Budget(4 * 3600), clock=lambda: minutes * 60.0)
    monkeypatch.setattr(
        scheduler, "FROZEN", math.inf
    )  # an hour passes between two looks, and nobody was frozen
    with closing(Crowded("jobs:by_role", (Slot("cpu:0", "cpu"),))) as executor:
        ledger = scheduler.run(
            scheduler.Listed(todo),
            here,
            executor,
            context=Context(),
            interrupted=lambda: False,
            listen=heard.append,
            policy=policy,
        )
    assert ledger.ends == {first.id: ["finished"], second.id: ["finished"]}
    assert minutes >= 180
    order = [(event.task, event.kind) for event in heard if event.kind != "progress"]
    assert order == [
        (first.id, "queued"), (first.id, "started"), (second.id, "queued"),
        (first.id, "finished"), (second.id, "started"), (second.id, "finished"),
    ]  # fmt: skip
    # It began when the first job started; on a loaded machine its first sign of life comes with its start.
    assert policy.budget.ends in (4 * 3600, 4 * 3600 + 60)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, new_server: None) -> Iterator[Callable[[int], Executor]]:
    """Return a function that starts so many slots, whose processes cannot be ended while they stand still."""
    monkeypatch.syspath_prepend(JOBS)
    monkeypatch.setattr(process, "GRACE", 0.5)
    from calls import Hanging

    with ExitStack() as started:
        yield lambda slots: started.enter_context(closing(Hanging("jobs:by_role", cpus(slots))))
    for pid in frozen():
        os.kill(pid, signal.SIGKILL)


def cpus(count: int) -> tuple[Slot, ...]:
    return tuple(Slot(f"cpu:{i}", "cpu") for i in range(count))


def frozen() -> list[int]:
    """List the processes that stand still below the fork server of this test.

    Others below this process are none of its business: commands of all of pytest's workers may be.
    """
    server = forkserver._forkserver._forkserver_pid
    return [] if server is None else [pid for pid in descendants(server) if stands_still(pid)]


class Clock:
    """A clock that goes on, by a tenth of a second a look, while something holds: machines may be slow."""

    def __init__(self, goes_on: Callable[[], bool]) -> None:
        self.goes_on, self.now = goes_on, 0.0

    def __call__(self) -> float:
        self.now += 0.1 if self.goes_on() else 0.0
        return self.now


def freezing(here: Store, count: int) -> tuple[Work, ...]:
    """Return jobs of which the first stands still at its first attempt."""
    todo = work(here, count)
    for item, role in zip(todo, ["freezes_once", *["ok"] * (count - 1)], strict=True):
        files.write(item.folder(here).path / "role", role)
    return todo


def test_a_job_whose_process_cannot_be_ended_is_tried_again_in_another_slot(
    here: Store, hanging: Callable[[int], Executor]
) -> None:
    heard: list[Event] = []
    todo, executor = freezing(here, 6), hanging(2)

    def is_silent() -> bool:
        return len([event for event in heard if event.kind == "finished"]) == 5

    ledger = scheduler.run(
        scheduler.Listed(todo), here, executor, context=Context(), interrupted=lambda: False,
        listen=heard.append, policy=Policy(stall=1.0, clock=Clock(is_silent)),
    )  # fmt: skip
    assert sorted(ledger.finished) == sorted(ids(todo))
    assert ledger.ends[todo[0].id] == ["stalled", "finished"]
    assert len(frozen()) == 1
    assert executor.resources().slots == 1
    assert len([event for event in heard if "notice" in event.detail]) == 1


def test_a_run_whose_only_process_cannot_be_ended_ends_and_says_why(
    here: Store, hanging: Callable[[int], Executor]
) -> None:
    todo = freezing(here, 3)
    marker = todo[0].folder(here).path / "frozen"
    with pytest.raises(AblateError, match="no slot is left"):
        scheduler.run(
            scheduler.Listed(todo), here, hanging(1), context=Context(), interrupted=lambda: False,
            listen=lambda _: None, policy=Policy(stall=1.0, clock=Clock(marker.exists)),
        )  # fmt: skip
    assert len(frozen()) == 1
    assert ids(work(here, 3)) == ids(todo), "nothing has failed"


COORDINATOR = """
import json, sys
from pathlib import Path
from ablate.execution import scheduler
from ablate.execution.executors import process
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.scheduler import Policy
from ablate.store import files, layout
from ablate.store.tasks import Context
from ablate.execution.interruption import Interruption
from plans import make, read

if __name__ == "__main__":
    here = layout.open_store(Path(sys.argv[1]))
    todo = make(read(seeds=6, factors={"evaluation": {"mc_dropout": [0, 20]}}), here).work
    for item in todo:
        files.write(item.folder(here).path / "role", sys.argv[2])
    kind, policy = LocalExecutor, Policy()
    if sys.argv[2] == "first_freezes":
        from calls import Hanging as kind
        process.GRACE = 0.5
        def clock(now=[0.0]):  # a look at a time, once a process stands still: machines may be slow
            now[0] += 0.01 if (here.job("x").path.parent / "frozen").exists() else 0.0
            return now[0]
        policy = Policy(stall=3.0, clock=clock)
    executor = kind("jobs:by_role", tuple(Slot(f"cpu:{i}", "cpu") for i in range(2)))
    with Interruption() as interruption:
        try:
            ledger = scheduler.run(
                scheduler.Listed(todo), here, executor, context=Context(), interrupted=interruption.asked,
                listen=lambda e: print(e.kind, flush=True), policy=policy,
            )
            counts = {"finished": len(ledger.finished), "failures": len(ledger.failures)}
            print(json.dumps({"interrupted": ledger.interrupted} | counts))
        except KeyboardInterrupt:
            print("at once")
        finally:
            executor.close()
"""


@contextmanager
def coordinator(tmp_path: Path, role: str, *, shell: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "coordinator.py").write_text(COORDINATOR)
    command = [*shell, sys.executable, str(tmp_path / "coordinator.py"), str(tmp_path / "mlruns"), role]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(JOBS), *sys.path])}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard_until(process: subprocess.Popen[str], kind: str, times: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.strip() == kind
        if times == 0:
            return
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_one_signal_puts_real_work_away_and_starts_no_more(tmp_path: Path, number: signal.Signals) -> None:
    with coordinator(tmp_path, "stops_when_asked") as process:
        heard_until(process, "progress", 2)
        process.send_signal(number)
        out, _ = process.communicate(timeout=DEADLINE)
        *events, told = out.splitlines()
        assert events == ["stopped", "stopped"]
        assert json.loads(told) == {"interrupted": True, "finished": 0, "failures": 0}
        assert process.returncode == 0


def test_ctrl_c_does_not_wait_for_a_process_that_cannot_be_ended_nor_does_the_interpreter(
    tmp_path: Path,
) -> None:
    with coordinator(tmp_path, "first_freezes") as process:
        hanging = []
        try:
            heard_until(process, "crashed", 1)
            hanging = [pid for pid in descendants(process.pid) if stands_still(pid)]
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
            assert [stands_still(pid) for pid in hanging] == [True]
        finally:
            for pid in hanging:
                os.kill(pid, signal.SIGKILL)  # or it would keep our end of its output open
        assert process.stdout is not None
        *events, told = process.stdout.read().splitlines()
        assert set(events) <= {"queued", "stopped"}
        assert json.loads(told) == {"interrupted": True, "finished": 0, "failures": 0}


@pytest.mark.slow  # a process that imports torch
def test_a_second_signal_ends_at_once_what_ignores_the_first(tmp_path: Path) -> None:
    with coordinator(tmp_path, "ignores_stop") as process:
        heard_until(process, "progress", 2)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=DEADLINE)
        assert out == "at once\n"
        assert process.returncode == 0


@pytest.mark.slow  # a process that imports torch
def test_ctrl_c_is_heard_even_if_the_shell_had_it_ignored(tmp_path: Path) -> None:
    background = (
        "sh",
        "-c",
        'trap "" INT; exec "$@"',
        "sh",
    )  # what a shell without job control does for `command &`
    with coordinator(tmp_path, "stops_when_asked", shell=background) as process:
        heard_until(process, "progress", 2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
        assert json.loads(out.splitlines()[-1])["interrupted"] is True
