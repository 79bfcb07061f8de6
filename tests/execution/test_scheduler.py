"""The queue: what dies is tried again, what raises is not, the others go on, and an interruption ends in good order."""

import json
import math
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from plans import finish, make, read

from ablate.errors import AblateError, UnwritableError
from ablate.execution import scheduler
from ablate.execution.executors.base import ENDS, Event, Executor, Slot, Task
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.scheduler import ATTEMPTS, Budget, Failure, Ledger, Policy
from ablate.hardware import Resources
from ablate.planning.plan import Work
from ablate.recipe.fields import Evaluation
from ablate.store import files, job_folder
from ablate.store.layout import Store
from ablate.store.tasks import Context, TrainTask

DEADLINE = 300.0
JOBS = Path(__file__).parent / "executors"


def work(here: Store, seeds: int) -> tuple[Work, ...]:
    """One job a seed, judged in two ways."""
    return make(read(seeds=seeds, factors={"evaluation": {"mc_dropout": [0, 20]}}), here).work


class Scripted:
    """An executor without processes: `script` says how each attempt at a job ends; a job that is not in it finishes.

    An end `asked` comes only after a request to stop. Every call is noted.
    """

    starts_at_once = True

    def __init__(self, slots: int, script: dict[str, list[str]] | None = None) -> None:
        self.slots = slots
        self.script = {job: deque(ends) for job, ends in (script or {}).items()}
        self.running: dict[str, Task] = {}
        self.calls: list[tuple[str, str]] = []
        self.most = 0
        self.asked = False
        self.news: list[Event] = []

    def resources(self) -> Resources:
        return Resources(self.slots, "cpu", "fp32")

    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        assert self.free() > 0, "there is no slot"
        assert task.id not in self.running, "it runs already"
        self.calls.append(("submit", task.id))
        self.running[task.id] = task
        self.news.append(Event("queued", task.id, ""))
        if self.starts_at_once:
            self.news.append(Event("started", task.id, "s"))
        self.most = max(self.most, len(self.running))

    def events(self, timeout: float) -> list[Event]:
        for job in list(self.running):
            ends = self.script.get(job, deque())
            end = ends[0] if ends else "finished"
            if end == "asked" and not self.asked:
                continue
            if ends:
                ends.popleft()
            del self.running[job]
            kind: Any = "stopped" if end == "asked" else end
            news = [Event("progress", job, "s", {"epoch": 1}), Event(kind, job, "s", error=f"because {end}")]
            return self.told() + news
        return self.told()

    def told(self) -> list[Event]:
        news, self.news = self.news, []
        return news

    def stop(self) -> None:
        self.calls.append(("stop", ""))
        self.asked = True

    def kill(self, task: str) -> None:
        self.calls.append(("kill", task))

    def cancel(self, task: str) -> None:
        self.calls.append(("cancel", task))

    def close(self) -> None:
        self.calls.append(("close", ""))

    def submitted(self) -> list[str]:
        return [job for call, job in self.calls if call == "submit"]


def run(
    todo: tuple[Work, ...], here: Store, executor: Executor, interrupted: Callable[[], bool] = lambda: False, **policy: Any
) -> tuple[Ledger, list[Event]]:
    heard: list[Event] = []
    ledger = scheduler.run(
        scheduler.Listed(todo), here, executor,
        context=Context(git={"commit": "abc"}), interrupted=interrupted, listen=heard.append, policy=Policy(**policy),
    )  # fmt: skip
    return ledger, heard


def ids(todo: tuple[Work, ...]) -> list[str]:
    return [item.job.id for item in todo]


# The usual way


def test_all_work_is_done_in_its_order_over_as_many_slots_as_there_are(here: Store) -> None:
    todo, executor = work(here, 5), Scripted(2)
    ledger, _ = run(todo, here, executor)
    assert executor.submitted() == ids(todo)
    assert sorted(ledger.finished) == sorted(ids(todo))
    assert (executor.most, ledger.failures, ledger.interrupted) == (2, [], False)


def test_no_work_is_no_work(here: Store) -> None:
    executor = Scripted(2)
    assert run((), here, executor) == (Ledger(), [])
    assert executor.calls == []


def test_a_job_is_described_before_it_is_given_out(here: Store) -> None:
    described = []

    class Looking(Scripted):
        def submit(self, task: Task, *, exclusive: bool = False) -> None:
            described.append(files.read_json(here.job(task.id).recipe)["job"])
            super().submit(task, exclusive=exclusive)

    todo = work(here, 3)
    executor = Looking(1)
    run(todo, here, executor)
    assert described == ids(todo) == executor.submitted()


def test_a_task_says_all_that_a_worker_needs(here: Store) -> None:
    handed: list[Task] = []

    class Looking(Scripted):
        def submit(self, task: Task, *, exclusive: bool = False) -> None:
            handed.append(task)
            super().submit(task, exclusive=exclusive)

    (item,) = work(here, 1)
    run((item,), here, Looking(1))
    assert handed == [
        TrainTask(
            context=Context(git={"commit": "abc"}), folder=here.job(item.job.id).path, job=item.job.id, data=here.data / item.job.data,
            evaluations=(Evaluation(), Evaluation(mc_dropout=20)), trained=False,
        )
    ]  # fmt: skip


def test_a_task_alone_writes_nothing(here: Store) -> None:
    (item,) = work(here, 1)
    item.task(here, Context())
    assert not item.folder(here).path.exists()
    item.prepare(here)
    assert item.folder(here).recipe.exists()


def test_a_job_that_is_only_judged_is_given_out_with_what_is_missing(here: Store) -> None:
    (item,) = work(here, 1)
    finish(here, item.job)
    (judging,) = work(here, 1)
    assert judging.trained
    asked: list[Any] = []

    class Looking(Scripted):
        def submit(self, task: Task, *, exclusive: bool = False) -> None:
            assert isinstance(task, TrainTask)
            asked.extend(evaluation.mc_dropout for evaluation in task.evaluations)
            super().submit(task, exclusive=exclusive)

    ledger, _ = run((judging,), here, Looking(1))
    assert (asked, ledger.finished) == ([0, 20], [item.job.id])


def test_the_listener_hears_every_event_in_order(here: Store) -> None:
    todo = work(here, 3)
    crashing, raising, _ = ids(todo)
    _, heard = run(todo, here, Scripted(1, {crashing: ["crashed", "crashed"], raising: ["failed"]}))
    kinds = {job: [event.kind for event in heard if event.task == job] for job in ids(todo)}
    begin = ["queued", "started", "progress"]
    assert list(kinds.values()) == [
        [*begin, "crashed", *begin, "crashed", *begin, "finished"],
        [*begin, "failed"],
        [*begin, "finished"],
    ]


# Failures


@pytest.mark.parametrize("kind", ["crashed", "killed", "out_of_memory"])
@pytest.mark.parametrize("less", [0, 1, None])
def test_a_job_that_dies_is_tried_again_as_often_as_such_a_death_allows(here: Store, kind: str, less: int | None) -> None:
    most = ATTEMPTS[kind]
    deaths = 0 if less is None else most - less
    todo = work(here, 3)
    first, *rest = ids(todo)
    executor = Scripted(2, {first: [kind] * deaths})
    ledger, _ = run(todo, here, executor)
    assert executor.submitted().count(first) == min(deaths + 1, most)
    assert ledger.ends[first] == [kind] * deaths + ([] if deaths == most else ["finished"])
    ends = ([first], []) if deaths == most else ([], [first])
    assert ([failure.job for failure in ledger.failures], [job for job in ledger.finished if job == first]) == ends
    assert set(rest) <= set(ledger.finished)
    assert executor.submitted()[:3] == ids(todo), "what died waits behind the others"
    assert here.job(first).failure.exists() == (deaths == most)


def test_deaths_from_outside_use_up_no_attempt_of_a_job(here: Store) -> None:
    (item,) = todo = work(here, 1)
    ends = ["killed", "crashed", "killed", "killed", "crashed", "killed", "finished"]
    ledger, _ = run(todo, here, Scripted(1, {item.job.id: ends}))
    assert (ledger.ends[item.job.id], ledger.failures) == (ends, [])


def test_what_ran_out_of_memory_is_tried_alone_and_then_has_failed_with_its_peak(here: Store) -> None:
    requests: list[bool] = []

    class Looking(Scripted):
        def submit(self, task: Task, *, exclusive: bool = False) -> None:
            requests.append(exclusive)
            super().submit(task, exclusive=exclusive)

    first, second = todo = work(here, 2)
    ledger, _ = run(todo, here, Looking(2, {first.job.id: ["out_of_memory"] * 2, second.job.id: ["out_of_memory"]}))
    assert requests == [False, False, True, True]
    assert ledger.finished == [second.job.id]
    assert files.read_json(here.job(first.job.id).failure)["kind"] == "memory"
    assert [failure.error for failure in ledger.failures] == ["out of memory, also alone on its device: because out_of_memory"]
    assert not here.job(second.job.id).failure.exists()


class Clock:
    """The scheduler's clock, which goes on by the hundredth of a second that each look takes, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Silent(Scripted):
    """Says nothing of some jobs until they are killed, the first so many times; of the others it says that they are alive, for ever."""

    def __init__(self, slots: int, silent: dict[str, int], clock: Clock) -> None:
        super().__init__(slots)
        self.silent, self.clock = silent, clock
        self.looks = 0

    def events(self, timeout: float) -> list[Event]:
        self.clock.now += 0.01
        self.looks += 1
        if self.news:
            return self.told()
        for job in list(self.running):
            if self.silent.get(job, 0):
                if ("kill", job) in self.calls:
                    self.calls.remove(("kill", job))
                    self.silent[job] -= 1
                    del self.running[job]
                    return [Event("killed", job, "s", error="because of us")]
            elif job in self.silent:
                return super().events(timeout)
            elif self.looks < 60:
                return [Event("alive", job, "s")]
            else:
                return super().events(timeout)
        return []


@pytest.mark.parametrize(("times", "ends"), [(1, ["stalled", "finished"]), (2, ["stalled", "stalled"])])
def test_a_job_without_a_sign_of_life_is_stopped_and_tried_once_more(here: Store, clock: Clock, times: int, ends: list[str]) -> None:
    (item,) = todo = work(here, 1)
    ledger, _ = run(todo, here, Silent(1, {item.job.id: times}, clock), stall=0.1, clock=clock.monotonic)
    assert ledger.ends == {item.job.id: ends}
    if times == 2:
        assert files.read_json(here.job(item.job.id).failure)["kind"] == "stall"
        assert "no sign of life for 0 s, 2 times" in ledger.failures[0].error


def test_a_sign_of_life_is_enough_and_nobody_else_hears_of_it(here: Store, clock: Clock) -> None:
    (item,) = todo = work(here, 1)
    executor = Silent(1, {}, clock)
    ledger, heard = run(todo, here, executor, stall=0.1, clock=clock.monotonic)  # 60 looks of 0.01 s
    assert ledger.ends == {item.job.id: ["finished"]}
    assert "alive" not in {event.kind for event in heard}


def test_the_first_failure_stops_everything_if_that_is_asked_for(here: Store) -> None:
    todo = work(here, 6)
    executor = Scripted(2, {ids(todo)[0]: ["failed"], ids(todo)[1]: ["asked"]})
    ledger, _ = run(todo, here, executor, fail_fast=True)
    assert executor.submitted() == ids(todo)[:2]
    assert ("stop", "") in executor.calls
    assert (ledger.finished, [failure.job for failure in ledger.failures]) == ([], ids(todo)[:1])
    assert "--fail-fast" in ledger.halted
    assert ids(work(here, 6)) == ids(todo)[1:]


def test_a_disk_that_is_full_puts_everything_away_and_fails_nothing(here: Store) -> None:
    todo = work(here, 6)
    executor = Scripted(2, {ids(todo)[0]: ["unwritable"], ids(todo)[1]: ["asked"]})
    with pytest.raises(UnwritableError, match="because unwritable"):
        run(todo, here, executor)
    assert executor.submitted() == ids(todo)[:2]
    assert ("stop", "") in executor.calls
    assert executor.running == {}
    assert ids(work(here, 6)) == ids(todo)


def test_a_folder_that_is_somebody_elses_fails_its_job_alone(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = work(here, 3)
    theirs = here.job(ids(todo)[1])
    create, fail = job_folder.create, job_folder.fail

    def refusing(call: Callable[..., None]) -> Callable[..., None]:
        def refuses(folder: job_folder.Folder, *given: Any, **named: Any) -> None:
            if folder == theirs:
                raise PermissionError(13, "Permission denied", str(folder.path))
            call(folder, *given, **named)

        return refuses

    monkeypatch.setattr(job_folder, "create", refusing(create))
    monkeypatch.setattr(job_folder, "fail", refusing(fail))
    ledger, _ = run(todo, here, Scripted(1))
    assert sorted(ledger.finished) == sorted({*ids(todo)} - {theirs.path.name})
    assert [failure.error for failure in ledger.failures] == [f"{theirs.path}: Permission denied"]


def test_a_source_that_cannot_go_on_is_said_once_all_is_put_away(here: Store) -> None:
    todo = work(here, 3)

    class Breaking(scheduler.Listed):
        def ended(self, task: str, kind: Any) -> None:
            raise AblateError("its memory is gone")

    executor = Scripted(2, {ids(todo)[1]: ["asked"]})
    with pytest.raises(AblateError, match="its memory is gone"):
        scheduler.run(Breaking(todo), here, executor, context=Context(), interrupted=lambda: False, listen=lambda _: None)
    assert executor.running == {}
    assert executor.submitted() == ids(todo)[:2]


def test_a_job_that_has_failed_for_good_is_told_to_listeners_with_its_reason(here: Store) -> None:
    (item,) = todo = work(here, 1)
    _, heard = run(todo, here, Scripted(1, {item.job.id: ["crashed"] * 3}))
    assert [event.kind for event in heard if event.kind in ENDS] == ["crashed", "crashed", "crashed", "failed"]


def test_what_is_queued_for_long_is_not_taken_for_stalled_and_is_watched_once_it_has_started(here: Store) -> None:
    """Of two jobs the second is queued for a hundred times as long as a job may be silent, and then is silent."""
    first, second = ids(work(here, 2))
    time_now = 0.0

    class Crowded(Scripted):
        """Has one slot, and takes more tasks than that."""

        starts_at_once = False

        def free(self) -> int:
            return 2 - len(self.running)

        def events(self, timeout: float) -> list[Event]:
            nonlocal time_now
            time_now += 1.0
            if time_now == 1.0:
                return [*self.told(), Event("started", first, "s")]
            if time_now < 1000.0:
                return [Event("alive", first, "s")]
            if time_now == 1000.0:
                del self.running[first]
                return [Event("finished", first, "s"), Event("started", second, "s")]
            if ("kill", second) not in self.calls:
                return []
            del self.running[second]
            return [Event("killed", second, "s", error="because of us")]

    executor = Crowded(1)
    ledger, heard = run(work(here, 2), here, executor, lambda: time_now > 1000.0, stall=10.0, clock=lambda: time_now)
    assert ledger.ends == {first: ["finished"], second: ["stalled"]}
    assert [event.kind for event in heard if event.task == second][:2] == ["queued", "started"]


def test_nothing_starts_that_would_not_end_in_time(here: Store) -> None:
    todo = work(here, 4)
    long = ids(todo)[1]
    executor = Scripted(1)
    ledger, _ = run(todo, here, executor, budget=Budget(50), seconds=lambda item: 100.0 if item.id == long else 1.0)
    assert executor.submitted() == [job for job in ids(todo) if job != long], "what is shorter still goes"
    assert (ledger.late, ledger.halted, ledger.failures) == (True, "", [])
    assert ids(work(here, 4)) == ids(todo)


def test_what_died_is_not_tried_again_when_there_is_no_time_left_for_it(here: Store) -> None:
    (item,) = todo = work(here, 1)
    took = iter([0.0, 100.0])
    executor = Scripted(1, {item.job.id: ["killed"]})
    ledger, _ = run(todo, here, executor, budget=Budget(50), seconds=lambda _: next(took))
    assert (executor.submitted(), ledger.late, ledger.failures) == ([item.job.id], True, [])


def test_what_still_runs_when_the_time_is_up_is_put_away(here: Store, clock: Clock) -> None:
    (item,) = todo = work(here, 1)

    class Passing(Scripted):
        def events(self, timeout: float) -> list[Event]:
            clock.now += timeout
            return super().events(timeout)

    executor = Passing(1, {item.job.id: ["asked"]})
    ledger, _ = run(todo, here, executor, budget=Budget(0.3), clock=clock.monotonic)
    assert ledger.ends == {item.job.id: ["stopped"]}
    assert (ledger.late, ledger.interrupted, ledger.failures) == (True, False, [])


def test_a_job_that_dies_for_good_leaves_its_reason_and_the_place_of_its_log(here: Store) -> None:
    (item,) = todo = work(here, 1)
    folder = here.job(item.job.id)
    folder.path.mkdir(parents=True)
    for attempt in (1, 2, 3):
        files.append(folder.attempts, {"attempt": attempt})
    ledger, _ = run(todo, here, Scripted(1, {item.job.id: ["crashed"] * 3}))
    assert ledger.failures == [Failure(item.job.id, "because crashed", str(folder.log))]
    found = files.read_json(folder.failure)
    assert (found["kind"], found["error"]) == ("crash", "because crashed")


def test_a_job_that_raises_is_not_tried_again_and_the_others_go_on(here: Store) -> None:
    todo = work(here, 4)
    bad = todo[1].job.id
    executor = Scripted(2, {bad: ["failed"]})
    ledger, _ = run(todo, here, executor)
    assert executor.submitted() == ids(todo)
    assert ledger.failures == [Failure(bad, "because failed", str(here.job(bad).log))]
    assert files.read_json(here.job(bad).failure)["kind"] == "error"
    assert sorted(ledger.finished) == sorted(set(ids(todo)) - {bad})


def test_what_a_worker_has_recorded_of_its_failure_is_kept(here: Store) -> None:
    class Recording(Scripted):
        def submit(self, task: Task, *, exclusive: bool = False) -> None:
            job_folder.fail(here.job(task.id), kind="error", error="as the worker saw it")
            super().submit(task, exclusive=exclusive)

    (item,) = todo = work(here, 1)
    ledger, _ = run(todo, here, Recording(1, {item.job.id: ["failed"]}))
    assert files.read_json(here.job(item.job.id).failure)["error"] == "as the worker saw it"
    assert [failure.error for failure in ledger.failures] == ["because failed"]


def test_a_job_that_another_process_has_taken_up_by_now_is_not_recorded_as_failed(here: Store) -> None:
    (item,) = todo = work(here, 1)
    folder = here.job(item.job.id)
    item.prepare(here)
    with folder.lock():
        ledger, _ = run(todo, here, Scripted(1, {item.job.id: ["crashed"] * 3}))
    assert [failure.job for failure in ledger.failures] == [item.job.id]
    assert not folder.failure.exists()


def test_a_failed_job_is_left_out_of_the_next_plan_and_in_when_asked_for(here: Store) -> None:
    todo = work(here, 2)
    bad = todo[0].job.id
    run(todo, here, Scripted(1, {bad: ["failed"]}))
    assert ids(work(here, 2)) == [todo[1].job.id]
    loaded = read(seeds=2, factors={"evaluation": {"mc_dropout": [0, 20]}})
    assert ids(make(loaded, here, retry_failed=True).work) == ids(todo)


# Interruptions


def after(calls: int) -> Callable[[], bool]:
    """Be interrupted at a look."""
    looks = iter(range(10**9))
    return lambda: next(looks) >= calls


def test_an_interruption_starts_nothing_new_and_asks_what_runs_to_stop_once(here: Store) -> None:
    todo = work(here, 6)
    executor = Scripted(2, {job: ["asked"] for job in ids(todo)[1:]})  # the first finishes, the others wait
    ledger, heard = run(todo, here, executor, after(3))
    assert ledger.interrupted
    assert ledger.finished == ids(todo)[:1]
    assert ledger.failures == []
    assert executor.submitted() == ids(todo)[:3]
    assert executor.calls.count(("stop", "")) == 1
    assert executor.running == {}
    assert [event.task for event in heard if event.kind == "stopped"] == ids(todo)[1:3]


def test_what_was_stopped_is_no_failure_and_is_in_the_next_plan(here: Store) -> None:
    todo = work(here, 3)
    ledger, _ = run(todo, here, Scripted(1, {ids(todo)[0]: ["asked"]}), after(1))
    assert (ledger.finished, ledger.failures) == ([], [])
    assert ids(work(here, 3)) == ids(todo)


def test_what_ends_otherwise_after_an_interruption_is_what_it_became(here: Store) -> None:
    todo = work(here, 4)
    finishes, raises, dies, _ = ids(todo)

    class Deaf(Scripted):
        def events(self, timeout: float) -> list[Event]:
            return super().events(timeout) if self.asked else []

    ledger, _ = run(todo, here, Deaf(3, {raises: ["failed"], dies: ["crashed"]}), after(1))
    assert ledger.interrupted
    assert ledger.finished == [finishes]
    assert [failure.job for failure in ledger.failures] == [raises]
    assert ids(work(here, 4)) == [todo[0].job.id, todo[2].job.id, todo[3].job.id]  # no files were made: all but what failed


def test_an_interruption_before_anything_ran_runs_nothing(here: Store) -> None:
    executor = Scripted(2)
    ledger, heard = run(work(here, 2), here, executor, lambda: True)
    assert (ledger.interrupted, ledger.finished, heard, executor.submitted()) == (True, [], [], [])


def test_a_second_interruption_comes_through(here: Store) -> None:
    looks = iter([False, True])

    def twice() -> bool:
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    class Deaf(Scripted):
        def events(self, timeout: float) -> list[Event]:
            return []

    with pytest.raises(KeyboardInterrupt):
        run(work(here, 2), here, Deaf(1), twice)


# With real processes


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.syspath_prepend(JOBS)
    with closing(LocalExecutor("jobs:by_role", tuple(Slot(f"cpu:{i}", "cpu") for i in range(2)))) as executor:
        yield executor


def test_real_processes_that_die_are_tried_again_beside_others_that_never_notice(here: Store, local: LocalExecutor) -> None:
    todo = work(here, 7)
    roles = dict(zip(ids(todo), ("ok", "is_killed_twice", "raises", "is_killed", "ok", "leaves", "reports"), strict=True))
    heard: list[Event] = []
    for job, role in roles.items():
        files.write(here.job(job).path / "role", role)
    ledger = scheduler.run(scheduler.Listed(todo), here, local, context=Context(), interrupted=lambda: False, listen=heard.append)
    kinds = {failure.job: files.read_json(here.job(failure.job).failure)["kind"] for failure in ledger.failures}
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
    """The clock goes on by a minute with each sign of life of the first job; only then may the second one start."""
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
    monkeypatch.setattr(scheduler, "FROZEN", math.inf)  # an hour passes between two looks, and nobody was frozen
    with closing(Crowded("jobs:by_role", (Slot("cpu:0", "cpu"),))) as executor:
        ledger = scheduler.run(
            scheduler.Listed(todo), here, executor, context=Context(), interrupted=lambda: False, listen=heard.append, policy=policy
        )
    assert ledger.ends == {first.id: ["finished"], second.id: ["finished"]}
    assert minutes >= 180
    order = [(event.task, event.kind) for event in heard if event.kind != "progress"]
    assert order == [
        (first.id, "queued"), (first.id, "started"), (second.id, "queued"),
        (first.id, "finished"), (second.id, "started"), (second.id, "finished"),
    ]  # fmt: skip
    assert policy.budget.ends == 4 * 3600, "it began when the first job started"


COORDINATOR = """
import json, sys
from pathlib import Path
from ablate.execution import scheduler
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.store import files, layout
from ablate.store.tasks import Context
from ablate.execution.interruption import Interruption
from plans import make, read

if __name__ == "__main__":
    here = layout.open_store(Path(sys.argv[1]))
    todo = make(read(seeds=6, factors={"evaluation": {"mc_dropout": [0, 20]}}), here).work
    for item in todo:
        files.write(item.folder(here).path / "role", sys.argv[2])
    executor = LocalExecutor("jobs:by_role", tuple(Slot(f"cpu:{i}", "cpu") for i in range(2)))
    with Interruption() as interruption:
        try:
            ledger = scheduler.run(
                scheduler.Listed(todo), here, executor, context=Context(), interrupted=interruption.asked,
                listen=lambda e: print(e.kind, flush=True),
            )
            print(json.dumps({"interrupted": ledger.interrupted, "finished": len(ledger.finished), "failures": len(ledger.failures)}))
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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_puts_real_work_away_and_starts_no_more(tmp_path: Path, number: signal.Signals) -> None:
    with coordinator(tmp_path, "stops_when_asked") as process:
        heard_until(process, "progress", 2)
        process.send_signal(number)
        out, _ = process.communicate(timeout=DEADLINE)
        *events, told = out.splitlines()
        assert events == ["stopped", "stopped"]
        assert json.loads(told) == {"interrupted": True, "finished": 0, "failures": 0}
        assert process.returncode == 0


def test_a_second_signal_ends_at_once_what_ignores_the_first(tmp_path: Path) -> None:
    with coordinator(tmp_path, "ignores_stop") as process:
        heard_until(process, "progress", 2)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=DEADLINE)
        assert out == "at once\n"
        assert process.returncode == 0


def test_ctrl_c_is_heard_even_if_the_shell_had_it_ignored(tmp_path: Path) -> None:
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # what a shell without job control does for `command &`
    with coordinator(tmp_path, "stops_when_asked", shell=background) as process:
        heard_until(process, "progress", 2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
        assert json.loads(out.splitlines()[-1])["interrupted"] is True
