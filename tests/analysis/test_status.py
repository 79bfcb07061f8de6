"""The progress of a study, read from journals alone: counts by cell, running epochs, what failed and why."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import record_files
from plans import finish, make, read
from statuses import judge, shown, status

from ablate import descriptors
from ablate.analysis import status as standing
from ablate.analysis.status import Free, Queued, Spot, Status
from ablate.errors import AblateError
from ablate.execution.executors.mailbox import Mailbox
from ablate.execution.options import Where
from ablate.planning.plan import Plan
from ablate.recipe.fields import Evaluation
from ablate.serve.board import Board
from ablate.store import files, job_folder, study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study.grid import Job
from ablate.workflow import answers, inspect

ROTATION = {"augment": {"rotation": [0, 15]}}
CONSTANT = "at chance level: test accuracy 0.5000, and all 20 test images got the same answer, a"


def whole(made: Plan, here: Store) -> Status:
    return standing.of(made.study.name, made.runs, made.tuning, here)


def attempt(here: Store, job: Job, *studies: str | None) -> None:
    """Leave the lines of attempts; of an older version where there is no study."""
    for number, name in enumerate(studies, start=1):
        files.append(
            here.job(job.id).attempts,
            record_files.attempt(number) | ({} if name is None else {"study": name}),
        )


def epochs(here: Store, job: Job, count: int, seconds: float) -> None:
    for epoch in range(1, count + 1):
        files.append(here.job(job.id).journal, record_files.epoch(epoch, seconds=seconds))


def test_a_study_that_was_never_run_is_missing_altogether(here: Store) -> None:
    found = status(make(read(factors=ROTATION), here), here)
    assert found.cells == {"baseline": {"not_run": 2}, "rotation=15": {"not_run": 2}}
    assert found.total == {"not_run": 4}
    assert (found.running, found.broken) == ((), ())


def test_every_run_is_counted_once_under_its_cell(here: Store) -> None:
    made = make(read(seeds=3, factors=ROTATION), here)
    done, at_chance, diverged, failed, begun, _ = made.jobs  # baseline and rotation=15 of seeds 0, 1, 2
    finish(here, done)
    judge(here, done)
    finish(here, at_chance)
    judge(here, at_chance, "at_chance", "at chance level")
    finish(here, diverged, status="diverged")
    job_folder.create(here.job(failed.id), failed)
    job_folder.fail(here.job(failed.id), kind="error", error="ValueError: x")
    job_folder.create(here.job(begun.id), begun)
    found = status(made, here)
    assert found.cells == {
        "baseline": {"finished": 1, "diverged": 1, "not_run": 1},
        "rotation=15": {"at_chance": 1, "crashed": 1, "not_run": 1},
    }
    assert found.total == {"finished": 1, "diverged": 1, "not_run": 2, "at_chance": 1, "crashed": 1}


def test_what_runs_is_shown_with_its_epoch_as_long_as_its_process_holds_it(here: Store) -> None:
    made = make(read(factors=ROTATION), here)
    first, second, third, _ = made.jobs
    with ExitStack() as held:
        for job in (first, second, third):
            job_folder.create(here.job(job.id), job)
        for job in (first, second):
            held.enter_context(here.job(job.id).lock())
        for epoch in (1, 2, 3):
            files.append(here.job(first.id).journal, record_files.epoch(epoch))
        files.append(here.job(third.id).journal, record_files.epoch(7))  # begun, and held by nobody
        found = status(made, here)
        assert [(one.run, one.epoch, one.epochs) for one in found.running] == [
            ("baseline/0", 3, 10),
            ("rotation=15/0", 0, 10),
        ]
        assert found.total == {"running": 2, "stopped": 1, "not_run": 1}
    assert status(made, here).running == ()


def test_a_job_that_two_cells_share_runs_once(here: Store) -> None:
    made = make(read(seeds=1), here)
    assert len(made.runs) == 2 * len(made.jobs)
    job_folder.create(here.job(made.jobs[0].id), made.jobs[0])
    with here.job(made.jobs[0].id).lock():
        found = status(made, here)
    assert found.total == {"running": 2, "not_run": 2}
    assert [one.run for one in found.running] == ["baseline/0"]


def test_what_failed_is_shown_with_its_reason_and_log(here: Store) -> None:
    made = make(read(seeds=2, factors=ROTATION), here)
    crashed, diverged, at_chance, broken = made.jobs
    for job in (crashed, diverged, at_chance):
        job_folder.create(here.job(job.id), job)
        here.job(job.id).log.write_text("...")
    job_folder.fail(here.job(crashed.id), kind="crash", error="the process was ended by SIGKILL")
    finish(here, diverged, status="diverged")
    result = files.read_json(here.job(diverged.id).result)
    files.write_json(
        here.job(diverged.id).result, result | {"reason": "the training loss was nan in epoch 1"}
    )
    finish(here, at_chance)
    judge(here, at_chance, "at_chance")
    job_folder.fail(here.job(broken.id), kind="error", error="ValueError: before the log was opened")
    log = {job.id: str(here.job(job.id).log) for job in made.jobs}
    assert [(b.run, b.status, b.reason, b.log) for b in status(made, here).broken] == [
        ("baseline/0", "crashed", "the process was ended by SIGKILL", log[crashed.id]),
        ("rotation=15/0", "diverged", "the training loss was nan in epoch 1", log[diverged.id]),
        ("baseline/1", "at_chance", CONSTANT, log[at_chance.id]),
        ("rotation=15/1", "crashed", "ValueError: before the log was opened", ""),
    ]


def test_a_job_whose_judging_failed_counts_as_failed_where_that_way_is_missing(here: Store) -> None:
    made = make(read(seeds=1), here)
    job = made.jobs[0]
    finish(here, job)
    judge(here, job)
    job_folder.fail(here.job(job.id), kind="error", error="MemoryError")
    found = status(made, here)
    assert found.cells["baseline"] == {"finished": 1}
    assert found.cells["mc_dropout=20"] == {"crashed": 1}


def test_a_failed_job_that_is_tried_again_is_running_and_not_broken(here: Store) -> None:
    made = make(read(seeds=1, factors=ROTATION), here)
    folder = here.job(made.jobs[0].id)
    job_folder.create(folder, made.jobs[0])
    with folder.lock():  # the worker has taken the failure away
        found = status(made, here)
    assert (found.total, found.broken) == ({"running": 1, "not_run": 1}, ())


# Single runs


def test_each_run_has_what_became_of_it_and_its_job(here: Store) -> None:
    made = make(read(seeds=2, factors=ROTATION), here)
    finish(here, made.jobs[0])
    judge(here, made.jobs[0])
    jobs = [job.id for job in made.jobs]
    assert status(made, here).runs == {
        "baseline": {0: Spot("finished", jobs[0]), 1: Spot("not_run", jobs[2])},
        "rotation=15": {0: Spot("not_run", jobs[1]), 1: Spot("not_run", jobs[3])},
    }


def test_the_last_line_of_the_log_is_shown_beside_the_reason(here: Store) -> None:
    made = make(read(seeds=2, factors=ROTATION), here)
    said = {
        b"Traceback\n  File x\nMemoryError: 3 GB\n\n  \n": "MemoryError: 3 GB",
        b"no end of line": "no end of line",
        b"\xff\xfe broken\n": "\ufffd\ufffd broken",
        b"90 %\r\x1b[2K\x1b[31mred" + b"x" * 1000: " [2K [31mred" + "x" * 488,
    }
    for job, text in zip(made.jobs, said, strict=True):
        job_folder.create(here.job(job.id), job)
        here.job(job.id).log.write_bytes(b"x" * 100_000 + b"\n" + text if text else b"")
        job_folder.fail(here.job(job.id), kind="crash", error="killed by SIGKILL")
    found = status(made, here)
    assert [one.last_line for one in found.broken] == list(said.values())
    text = shown(found)
    assert (
        f"crashed  {made.jobs[0].id[:12]}  baseline/0: killed by SIGKILL\n  last line: MemoryError: 3 GB\n "
        f" log: {here.path}" in text
    )


def test_what_runs_ends_after_its_epochs_at_their_mean_time(here: Store) -> None:
    made = make(read(factors=ROTATION), here)
    first, second, *_ = made.jobs
    with ExitStack() as held:
        for job in (first, second):
            job_folder.create(here.job(job.id), job)
            held.enter_context(here.job(job.id).lock())
        for epoch, seconds in ((1, 2.0), (2, 4.0)):
            files.append(here.job(first.id).journal, record_files.epoch(epoch, seconds=seconds))
        found = status(made, here)
        assert [(one.job, one.seconds_left) for one in found.running] == [
            (first.id, 8 * 3.0),
            (second.id, None),
        ]
        text = shown(found)
    assert f"running  {first.id[:12]}  baseline/0  epoch 2/10, about 24 s left" in text
    assert f"running  {second.id[:12]}  rotation=15/0  starting\n" in text


def test_a_job_that_is_only_judged_now_says_so(here: Store) -> None:
    made = make(read(seeds=1, factors=ROTATION), here)
    finish(here, made.jobs[0])
    epochs(here, made.jobs[0], 7, 2.0)  # of 10: stopped early
    with here.job(made.jobs[0].id).lock():
        found = status(made, here)
        assert [(one.evaluating, one.seconds_left) for one in found.running] == [(True, 0.0)]
        assert "baseline     evaluating" in shown(found)
    assert status(made, here).total == {"not_run": 2}


# The time that is left


def test_the_study_ends_when_as_many_jobs_as_now_have_done_the_rest(here: Store) -> None:
    made = make(read(seeds=3, factors=ROTATION), here)
    done, also, first, second, *_ = made.jobs
    for job, seconds in ((done, 2.0), (also, 4.0)):
        finish(here, job, epoch_seconds=seconds)
        judge(here, job)
        epochs(here, job, 10, seconds)
    with ExitStack() as held:
        for job in (first, second):
            job_folder.create(here.job(job.id), job)
            held.enter_context(here.job(job.id).lock())
        epochs(here, first, 5, 2.0)
        found = status(made, here)
        # 5 x 2 s of the first, 10 x 4 s of the second, which has no epoch yet, 10 x 2 s and 10 x 4 s of those
        # that wait; two at a time
        assert found.seconds_left == pytest.approx((10 + 40 + 20 + 40) / 2)
        assert "about 55 s left" in shown(found).splitlines()[3]
    assert status(made, here).seconds_left is None  # nobody trains


def test_what_cannot_be_known_is_not_said(here: Store) -> None:
    networks = [
        {
            "name": "network",
            "levels": [{"name": name, "set": {"model.name": name}} for name in ("cnn4", "resnet9")],
        }
    ]
    made = make(read(seeds=1, factors={}, factor=networks), here)
    job_folder.create(here.job(made.jobs[0].id), made.jobs[0])
    with here.job(made.jobs[0].id).lock():
        assert status(made, here).seconds_left is None  # no epoch has ended anywhere
        epochs(here, made.jobs[0], 5, 2.0)
        assert status(made, here).seconds_left is None  # nor of the other network
        finish(here, made.jobs[1])
        judge(here, made.jobs[1])
        assert status(made, here).seconds_left == pytest.approx(10.0)


# What came for free


def test_runs_that_share_a_training_or_have_another_studys_came_for_free(here: Store) -> None:
    made = make(read("mine", seeds=3), here)  # 6 jobs, 12 runs
    evaluations = (Evaluation(), Evaluation(mc_dropout=20))
    own, theirs, ours_in_the_end, old, twice, _ = made.jobs
    for job in (own, theirs, ours_in_the_end, old, twice):
        finish(here, job)
        for evaluation in evaluations:
            judge(here, job, evaluation=evaluation)
    attempt(here, own, "mine")
    attempt(here, theirs, "theirs")
    attempt(here, ours_in_the_end, "theirs", "mine")
    attempt(here, old, None)
    attempt(here, twice, "third", "theirs")
    found = whole(made, here)
    assert found.free == Free(runs=7, of=10, shared=5, other_studies={"theirs": 2})
    assert (
        "7 of 10 runs for free: 5 share another cell's training, 2 were trained by another study (theirs)"
        in shown(found)
    )


def test_a_study_that_trained_all_of_its_runs_got_nothing_for_free(here: Store) -> None:
    made = make(read("mine", factors=ROTATION), here)
    for job in made.jobs:
        finish(here, job)
        judge(here, job)
        attempt(here, job, "mine")
    found = whole(made, here)
    assert found.free == Free(0, 4, 0, {})
    assert "free" not in shown(found)


# How it is shown


def test_a_column_for_each_seed_where_they_are_few(here: Store) -> None:
    made = make(read(seeds=10, factors=ROTATION), here)
    finish(here, made.jobs[0])
    judge(here, made.jobs[0])
    finish(here, made.jobs[3], status="diverged")
    lines = shown(status(made, here)).splitlines()
    assert lines[0].split() == ["cell", *(word for seed in range(10) for word in ("seed", str(seed)))]
    assert lines[1].split() == ["baseline", "done", *["not", "run"] * 9]
    assert lines[2].split() == ["rotation=15", "not", "run", "diverged", *["not", "run"] * 8]
    assert lines[3] == "20 runs: 1 done, 1 diverged, 18 not run"


def test_counts_where_the_seeds_are_many_or_the_terminal_is_narrow(here: Store) -> None:
    many = make(read(seeds=11, factors=ROTATION), here)
    assert shown(status(many, here)).splitlines()[0].split() == ["cell", "not", "run"]
    few = status(make(read(seeds=9, factors=ROTATION), here), here)
    assert shown(few, terminal=True, width=200).splitlines()[0].split()[:2] == ["cell", "seed"]
    assert shown(few, terminal=True, width=60).splitlines()[0].split() == ["cell", "not", "run"]


def test_names_are_no_markup(here: Store) -> None:
    factor = [
        {
            "name": "x",
            "levels": [
                {"name": name, "set": {"augment.rotation": i}} for i, name in enumerate(("[red]a", "[/red]b"))
            ],
        }
    ]
    made = make(read(factor=factor, factors={}), here)
    job_folder.create(here.job(made.jobs[1].id), made.jobs[1])
    job_folder.fail(here.job(made.jobs[1].id), kind="error", error="[/bold] [red]x")
    text = shown(status(made, here))
    assert "x=[/red]b/0: [/bold] [red]x" in text


def test_nobody_who_trains_is_said(here: Store) -> None:
    made = make(read("mine", factors=ROTATION), here)
    assert "nothing of it runs now" in shown(whole(made, here))
    with study_folder.hold(here, "mine"):
        found = whole(made, here)
        assert (found.being_run, found.moves) == (True, True)
        assert "nothing of it runs now" not in shown(found)


def test_what_a_cluster_s_queue_has_is_part_of_it_wherever_it_is_shown(here: Store) -> None:
    study = read("mine", factors=ROTATION)
    study_folder.keep(here, study, Settled("fp32"))
    board, where = Board(here, "mine"), Where(here)
    assert (inspect.status(study, where).queued, board.look().queued) == (None, None)
    mailbox = Mailbox(here.mailbox("mine"))
    mailbox.make()
    first, _ = [mailbox.post(number, task, {"id": task}) for number, task in enumerate("ab")]
    mailbox.claim(first, "1_0.0")
    now = inspect.status(study, where)
    assert now.queued == board.look().queued == Queued(1, 1, mailbox.name)
    assert answers.plain(now)["queued"] == {"running": 1, "waiting": 1, "name": mailbox.name}
    text = shown(now)
    assert f"left to Slurm: 1 job on its nodes, 1 in its queue, by squeue --name={mailbox.name}" in text
    assert "nothing of it runs now" not in text
    mailbox.clear()
    assert board.look().queued is None


# Watching


def test_watching_tells_changes_and_ends_when_nothing_moves() -> None:
    still = Status({}, {"not_run": 2}, (), ())
    moving = replace(still, being_run=True)
    told: Iterator[Status] = iter(
        [moving, moving, replace(moving, total={"finished": 1}), replace(still, total={"finished": 2})]
    )
    assert [one.total for one in standing.follow(lambda: next(told), every=0)] == [
        {"not_run": 2},
        {"finished": 1},
        {"finished": 2},
    ]


def test_watching_looks_again_before_a_store_that_cannot_be_read_is_a_mistake() -> None:
    found: list[Status | None] = [None, None, None, Status({}, {}, (), (), being_run=True), *[None] * 4]

    def look() -> Status:
        if (now := found.pop(0)) is None:
            raise ValueError("half a file")
        return now

    told = standing.follow(look, every=0)
    assert next(told).being_run
    with pytest.raises(AblateError, match="ablate doctor"):
        next(told)
    assert found == []


def test_looking_opens_each_file_of_a_job_at_most_twice(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {"augment": {"rotation": [0, 5, 10]}, "evaluation": {"mc_dropout": [0, 20]}}
    made = make(read("mine", seeds=4, factors=levels), here)
    for job in made.jobs:
        finish(here, job)
        epochs(here, job, 10, 0.5)
        attempt(here, job, "mine")
        judge(here, job)
        judge(here, job, evaluation=Evaluation(mc_dropout=20))
    made, opened = make(read("mine", seeds=4, factors=levels), here), Counter[str]()
    plain = descriptors.open_entry

    def counting(path: Path, *arguments: Any) -> int:
        opened[str(path)] += 1
        return plain(path, *arguments)

    monkeypatch.setattr(descriptors, "open_entry", counting)  # what opens every file of a store
    found = whole(made, here)
    assert found.total == {"finished": 24}
    assert {path for path in opened if path.endswith("result.json")} == {
        str(here.job(job.id).result) for job in made.jobs
    }
    assert max(count for path, count in opened.items() if "/jobs/" in path) <= 2


def test_looking_changes_nothing_and_stands_in_nobodys_way(here: Store) -> None:
    made = make(read("mine", factors=ROTATION), here)
    finish(here, made.jobs[0])
    job_folder.create(here.job(made.jobs[1].id), made.jobs[1])
    with here.job(made.jobs[1].id).lock():
        before = {path: path.stat().st_mtime_ns for path in here.path.rglob("*")}
        whole(made, here)
        assert {path: path.stat().st_mtime_ns for path in here.path.rglob("*")} == before
    lock = here.job(made.jobs[1].id).path / "lock"
    with lock.open() as first, lock.open():
        fcntl.flock(first, fcntl.LOCK_SH)  # as another `ablate status` has it for an instant
        assert whole(made, here).running == ()


def test_jobs_that_come_and_go_while_they_are_read_are_no_matter(here: Store) -> None:
    made = make(read("mine", seeds=5), here)
    for job in made.jobs:
        finish(here, job)
        judge(here, job)
        here.job(job.id).log.write_text("x")
        attempt(here, job, "mine")
        (here.job(job.id).path / "lock").touch()
    kept = here.path.parent / "kept"
    shutil.copytree(here.path / "jobs", kept)
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            for job in made.jobs:
                shutil.rmtree(here.job(job.id).path, ignore_errors=True)
                shutil.copytree(kept / job.id, kept / "draft")
                (kept / "draft").rename(here.job(job.id).path)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(60):
            found = whole(make(read("mine", seeds=5), here), here)
            assert sum(found.total.values()) == len(made.runs)
    finally:
        over.set()
        thread.join()


FRESH = """
import json, sys
from pathlib import Path
from ablate.cli.status import show_status
from ablate.execution import options
from ablate.store import layout
from ablate.workflow import argument, inspect
where = options.Where(layout.open_store(Path(sys.argv[1])))
found = inspect.status(argument.load("mine", (), where.store), where)
inspect.explain(("mine:baseline/0",), where)
print(json.dumps({"runs": sum(found.total.values()), "modules": sorted(sys.modules)}))
"""


def test_looking_in_a_fresh_process_imports_no_heavy_library(here: Store) -> None:
    study_folder.keep(here, read("mine"), study_folder.Settled("fp32"))
    out = subprocess.run(
        [sys.executable, "-c", FRESH, str(here.path)], capture_output=True, text=True, check=True
    ).stdout
    told = json.loads(out)
    assert told["runs"] == 8
    assert not {"torch", "torchvision", "mlflow", "plotly", "pandas", "optuna", "scipy", "sklearn"} & set(
        told["modules"]
    )
