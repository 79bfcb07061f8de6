"""The queue: what dies is retried, what raises is not, the others go on, and an interruption ends well."""

from collections.abc import Callable
from typing import Any

import pytest
from plans import finish
from scripted import Scripted, ids, run, work

from ablate.execution.executors.base import Event, Task
from ablate.execution.scheduler import Ledger
from ablate.recipe.fields import Evaluation
from ablate.store import files
from ablate.store.layout import Store
from ablate.store.tasks import Context, TrainTask

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
            context=Context(git={"commit": "abc"}),
            folder=here.job(item.job.id).path,
            job=item.job.id,
            data=here.data / item.job.data,
            evaluations=(Evaluation(), Evaluation(mc_dropout=20)),
            trained=False,
        )
    ]


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
    assert ids(work(here, 4)) == [
        todo[0].job.id,
        todo[2].job.id,
        todo[3].job.id,
    ]  # no files were made: all but what failed


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
