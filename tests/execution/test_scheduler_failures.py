"""Jobs that die, raise, stall, run out of memory or out of time: what is retried, and what is recorded."""

from collections.abc import Callable
from typing import Any

import pytest
from plans import make, read
from scripted import Scripted, ids, run, work

from ablate.errors import AblateError, UnwritableError
from ablate.execution import scheduler
from ablate.execution.executors.base import ENDS, Event, Task
from ablate.execution.scheduler import ATTEMPTS, Budget, Failure
from ablate.hardware import Resources
from ablate.store import files, job_folder
from ablate.store.layout import Store
from ablate.store.tasks import Context

# Failures


@pytest.mark.parametrize("kind", ["crashed", "killed", "out_of_memory"])
@pytest.mark.parametrize("less", [0, 1, None])
def test_a_job_that_dies_is_tried_again_as_often_as_such_a_death_allows(
    here: Store, kind: str, less: int | None
) -> None:
    most = ATTEMPTS[kind]
    deaths = 0 if less is None else most - less
    todo = work(here, 3)
    first, *rest = ids(todo)
    executor = Scripted(2, {first: [kind] * deaths})
    ledger, _ = run(todo, here, executor)
    assert executor.submitted().count(first) == min(deaths + 1, most)
    assert ledger.ends[first] == [kind] * deaths + ([] if deaths == most else ["finished"])
    ends = ([first], []) if deaths == most else ([], [first])
    assert (
        [failure.job for failure in ledger.failures],
        [job for job in ledger.finished if job == first],
    ) == ends
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
    ledger, _ = run(
        todo, here, Looking(2, {first.job.id: ["out_of_memory"] * 2, second.job.id: ["out_of_memory"]})
    )
    assert requests == [False, False, True, True]
    assert ledger.finished == [second.job.id]
    assert files.read_json(here.job(first.job.id).failure)["kind"] == "memory"
    assert [failure.error for failure in ledger.failures] == [
        "out of memory, also alone on its device: because out_of_memory"
    ]
    assert not here.job(second.job.id).failure.exists()


def test_what_ran_out_of_a_gpus_memory_has_it_alone_and_then_leaves_its_images_on_the_host(
    here: Store,
) -> None:
    contexts: list[Context] = []

    class OnGpus(Scripted):
        def resources(self) -> Resources:
            return Resources(2, "cuda", "bf16", jobs_a_device=2, shares_memory=True)

        def submit(self, task: Any, *, exclusive: bool = False) -> None:
            contexts.append(task.context)
            super().submit(task, exclusive=exclusive)

    (item,) = todo = work(here, 1)
    ledger = scheduler.run(
        scheduler.Listed(todo),
        here,
        OnGpus(2, {item.job.id: ["out_of_memory"] * 3}),
        context=Context(study="s", jobs_a_device=2),
        interrupted=lambda: False,
        listen=lambda _: None,
    )
    assert contexts == [
        Context(study="s", jobs_a_device=2),
        Context(study="s", jobs_a_device=1),
        Context(study="s", jobs_a_device=1, streamed=True),
    ]
    assert [failure.error for failure in ledger.failures] == [
        "out of memory, also alone on its device and with its images on the host: because out_of_memory"
    ]


def test_a_run_without_a_slot_ends_and_says_why_and_fails_nothing(here: Store) -> None:
    class Losing(Scripted):
        """Loses its only slot with its first task."""

        lost = False

        def resources(self) -> Resources:
            return Resources(0 if self.lost else 1, "cpu", "fp32")

        def free(self) -> int:
            return 0 if self.lost else super().free()

        def events(self, timeout: float) -> list[Event]:
            self.lost = True
            return super().events(timeout)

    todo = work(here, 3)
    executor = Losing(1, {ids(todo)[0]: ["crashed"]})
    with pytest.raises(AblateError, match="no slot is left"):
        run(todo, here, executor)
    assert executor.submitted() == ids(todo)[:1]
    assert ids(work(here, 3)) == ids(todo)


class Clock:
    """The scheduler's clock: it advances by a hundredth of a second a look, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Silent(Scripted):
    """Says nothing of some jobs until they are killed, the first so many times.

    Of the others it says that they are alive, for ever.
    """

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
def test_a_job_without_a_sign_of_life_is_stopped_and_tried_once_more(
    here: Store, clock: Clock, times: int, ends: list[str]
) -> None:
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


def test_a_folder_that_is_somebody_elses_fails_its_job_alone(
    here: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        scheduler.run(
            Breaking(todo),
            here,
            executor,
            context=Context(),
            interrupted=lambda: False,
            listen=lambda _: None,
        )
    assert executor.running == {}
    assert executor.submitted() == ids(todo)[:2]


def test_a_job_that_has_failed_for_good_is_told_to_listeners_with_its_reason(here: Store) -> None:
    (item,) = todo = work(here, 1)
    _, heard = run(todo, here, Scripted(1, {item.job.id: ["crashed"] * 3}))
    assert [event.kind for event in heard if event.kind in ENDS] == [
        "crashed",
        "crashed",
        "crashed",
        "failed",
    ]


def test_what_is_queued_for_long_is_not_taken_for_stalled_and_is_watched_once_it_has_started(
    here: Store,
) -> None:
    """Of two jobs the second is queued a hundred times as long as a job may be silent, and then is silent."""
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
    ledger, heard = run(
        work(here, 2), here, executor, lambda: time_now > 1000.0, stall=10.0, clock=lambda: time_now
    )
    assert ledger.ends == {first: ["finished"], second: ["stalled"]}
    assert [event.kind for event in heard if event.task == second][:2] == ["queued", "started"]


def test_nothing_starts_that_would_not_end_in_time(here: Store) -> None:
    todo = work(here, 4)
    long = ids(todo)[1]
    executor = Scripted(1)
    ledger, _ = run(
        todo, here, executor, budget=Budget(50), seconds=lambda item: 100.0 if item.id == long else 1.0
    )
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
