"""How far a study is, read from journals alone: counts for each cell, the epoch of what runs, and what failed and why."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_plan import finish, make, read

from ablate import journal, recipe, runs, store
from ablate.grid import Job
from ablate.plan import Plan
from ablate.recipe import Evaluation
from ablate.status import Status, summarise
from ablate.store import Store

ROTATION = {"augment": {"rotation": [0, 15]}}


@pytest.fixture
def here(tmp_path: Path) -> Store:
    made = store.open_store(tmp_path / "mlruns")
    store.create(made)
    return made


def status(made: Plan, here: Store) -> Status:
    return summarise(runs.read(made.runs, here))


def judge(here: Store, job: Job, status: str = "finished", reason: str = "", evaluation: Evaluation | None = None) -> None:
    judged = job.recipe.model_copy(update={"evaluation": evaluation or Evaluation()})
    content: dict[str, Any] = {"status": status, "reason": reason, "metrics": {"test/accuracy": 0.9}, "classes": ["0"], "confusion": [[1]]}
    journal.write_json(here.job(job.id).outcome(recipe.evaluation_id(judged)) / "outcome.json", content)


def test_a_study_that_was_never_run_is_missing_altogether(here: Store) -> None:
    found = status(make(read(factors=ROTATION), here), here)
    assert found.cells == {"baseline": {"missing": 2}, "rotation=15": {"missing": 2}}
    assert found.total == {"missing": 4}
    assert (found.running, found.broken) == ((), ())


def test_every_run_is_counted_once_under_its_cell(here: Store) -> None:
    made = make(read(seeds=3, factors=ROTATION), here)
    done, at_chance, diverged, failed, begun, _ = made.jobs  # baseline and rotation=15 of seeds 0, 1, 2
    finish(here, done)
    judge(here, done)
    finish(here, at_chance)
    judge(here, at_chance, "at_chance", "at chance level")
    finish(here, diverged, status="diverged")
    journal.create(here.job(failed.id), failed)
    journal.fail(here.job(failed.id), kind="error", error="ValueError: x")
    journal.create(here.job(begun.id), begun)
    found = status(made, here)
    assert found.cells == {
        "baseline": {"finished": 1, "diverged": 1, "missing": 1},
        "rotation=15": {"at_chance": 1, "failed": 1, "missing": 1},
    }
    assert found.total == {"finished": 1, "diverged": 1, "missing": 2, "at_chance": 1, "failed": 1}


def test_what_runs_is_shown_with_its_epoch_as_long_as_its_process_holds_it(here: Store) -> None:
    made = make(read(factors=ROTATION), here)
    first, second, third, _ = made.jobs
    with ExitStack() as held:
        for job in (first, second, third):
            journal.create(here.job(job.id), job)
        for job in (first, second):
            held.enter_context(here.job(job.id).lock())
        for epoch in (1, 2, 3):
            journal.append(here.job(first.id).journal, {"epoch": epoch, "metrics": {}})
        journal.append(here.job(third.id).journal, {"epoch": 7, "metrics": {}})  # begun, and held by nobody
        found = status(made, here)
        assert [(one.run, one.epoch, one.epochs) for one in found.running] == [("baseline/0", 3, 10), ("rotation=15/0", 0, 10)]
        assert found.total == {"running": 2, "missing": 2}
    assert status(made, here).running == ()


def test_a_job_that_two_cells_share_runs_once(here: Store) -> None:
    made = make(read(seeds=1), here)
    assert len(made.runs) == 2 * len(made.jobs)
    journal.create(here.job(made.jobs[0].id), made.jobs[0])
    with here.job(made.jobs[0].id).lock():
        found = status(made, here)
    assert found.total == {"running": 2, "missing": 2}
    assert [one.run for one in found.running] == ["baseline/0"]


def test_what_failed_is_shown_with_its_reason_and_log(here: Store) -> None:
    made = make(read(seeds=2, factors=ROTATION), here)
    crashed, diverged, at_chance, broken = made.jobs
    for job in (crashed, diverged, at_chance):
        journal.create(here.job(job.id), job)
        here.job(job.id).log.write_text("...")
    journal.fail(here.job(crashed.id), kind="crash", error="the process was ended by SIGKILL")
    finish(here, diverged, status="diverged")
    result = journal.read_json(here.job(diverged.id).result)
    journal.write_json(here.job(diverged.id).result, result | {"reason": "the training loss was nan in epoch 1"})
    finish(here, at_chance)
    judge(here, at_chance, "at_chance", "at chance level: 0.1")
    journal.fail(here.job(broken.id), kind="error", error="ValueError: before the log was opened")
    log = {job.id: str(here.job(job.id).log) for job in made.jobs}
    assert [(b.run, b.status, b.reason, b.log) for b in status(made, here).broken] == [
        ("baseline/0", "failed", "the process was ended by SIGKILL", log[crashed.id]),
        ("rotation=15/0", "diverged", "the training loss was nan in epoch 1", log[diverged.id]),
        ("baseline/1", "at_chance", "at chance level: 0.1", log[at_chance.id]),
        ("rotation=15/1", "failed", "ValueError: before the log was opened", ""),
    ]


def test_a_job_whose_judging_failed_counts_as_failed_where_that_way_is_missing(here: Store) -> None:
    made = make(read(seeds=1), here)
    job = made.jobs[0]
    finish(here, job)
    judge(here, job)
    journal.fail(here.job(job.id), kind="error", error="MemoryError")
    found = status(made, here)
    assert found.cells["baseline"] == {"finished": 1}
    assert found.cells["mc_dropout=20"] == {"failed": 1}


def test_a_failed_job_that_is_tried_again_is_running_and_not_broken(here: Store) -> None:
    made = make(read(seeds=1, factors=ROTATION), here)
    folder = here.job(made.jobs[0].id)
    journal.create(folder, made.jobs[0])
    with folder.lock():  # the worker has taken the failure away
        found = status(made, here)
    assert (found.total, found.broken) == ({"running": 1, "missing": 1}, ())
