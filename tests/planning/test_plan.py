"""What is left to do is exactly what the store does not have: nothing is trained twice or forgotten."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import record_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import IMAGES, STATES, finish, judge, make, put, read

from ablate.recipe import fields, identity
from ablate.recipe.fields import Evaluation
from ablate.store import files, job_folder, layout
from ablate.store.layout import Store
from ablate.study import conditions
from ablate.study.conditions import Expression
from ablate.study.grid import Job

QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.toml"


def ids(jobs: tuple[Job, ...]) -> list[str]:
    return [job.id for job in jobs]


# What is left


def test_an_empty_store_leaves_everything_to_do_seed_after_seed(here: Store) -> None:
    made = make(read(), here)
    assert (len(made.grid.cells), len(made.runs), len(made.jobs)) == (4, 8, 4)
    assert [work.job for work in made.work] == list(made.jobs)
    assert [work.job.seed for work in made.work] == [0, 0, 1, 1]
    assert all(
        work.evaluations == (Evaluation(), Evaluation(mc_dropout=20)) and not work.trained
        for work in made.work
    )
    assert (made.trainings, made.done, made.failed) == (4, 0, ())


def test_a_plan_changes_nothing_in_the_store(here: Store) -> None:
    put(here, make(read(), here).jobs[0], "failed")
    before = {path: path.stat().st_mtime_ns for path in here.path.rglob("*")}
    make(read(), here, retry_failed=True)
    assert {path: path.stat().st_mtime_ns for path in here.path.rglob("*")} == before


def test_a_store_that_is_not_there_is_as_good_as_an_empty_one(tmp_path: Path) -> None:
    assert make(read(), layout.open_store(tmp_path / "nowhere")).trainings == 4
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_trained_and_judged_is_done(here: Store) -> None:
    first, *rest = make(read(), here).jobs
    put(here, first, "judged")
    made = make(read(), here)
    assert [work.job.id for work in made.work] == ids(tuple(rest))
    assert (made.trainings, made.done) == (3, 1)


def test_a_job_that_was_begun_is_trained_on(here: Store) -> None:
    put(here, make(read(), here).jobs[0], "begun")
    made = make(read(), here)
    assert (made.work[0].trained, made.trainings, made.done) == (False, 4, 0)


def test_a_trained_job_is_judged_in_the_ways_that_are_missing_and_not_trained(here: Store) -> None:
    half, none, *_ = make(read(), here).jobs
    put(here, half, "half judged")
    put(here, none, "trained")
    made = make(read(), here)
    assert [work.trained for work in made.work] == [True, True, False, False]
    assert made.work[0].evaluations == (Evaluation(mc_dropout=20),)
    assert made.work[1].evaluations == (Evaluation(), Evaluation(mc_dropout=20))
    assert (made.trainings, made.done) == (2, 0)


def test_a_way_of_evaluating_that_is_added_later_costs_no_training(here: Store) -> None:
    for job in make(read(), here).jobs:
        put(here, job, "judged")
    assert make(read(), here).work == ()
    more = {"augment": {"rotation": [0, 15]}, "evaluation": {"mc_dropout": [0, 20, 50]}}
    made = make(read(factors=more), here)
    assert [work.evaluations for work in made.work] == [(Evaluation(mc_dropout=50),)] * 4
    assert made.trainings == 0


def test_a_job_of_another_study_is_found_and_not_trained_again(here: Store) -> None:
    for job in make(read("one"), here).jobs:
        put(here, job, "judged")
    wider = read("two", seeds=3, factors={"augment": {"rotation": [15, 30]}})
    made = make(wider, here)
    assert (len(made.jobs), made.done, made.trainings) == (6, 2, 4)


def test_cells_that_differ_in_their_evaluation_alone_are_counted_as_free(here: Store) -> None:
    assert make(read(), here).evaluation_only == 2
    assert make(read(factors={"augment": {"rotation": [0, 15]}}), here).evaluation_only == 0


def test_what_is_known_is_never_trained_again(here: Store) -> None:
    """Whatever changes around a job: the study's name, levels, factors, seeds, order."""
    for job in make(read("one"), here).jobs:  # rotation 0 and 15 under seeds 0 and 1
        put(here, job, "judged")
    rotation, dropout = {"rotation": [0, 15]}, {"mc_dropout": [0, 20]}
    for changed, trainings in (
        (read("renamed"), 0),
        (read("one", seeds=4), 4),
        (read("one", seeds=[1, 0]), 0),
        (
            read("one", factors={"augment": {"rotation": [15, 0]}, "evaluation": dropout}),
            0,
        ),  # another baseline
        (
            read("one", factors={"augment": {"rotation": [0, 30]}, "evaluation": dropout}),
            2,
        ),  # a level changed
        (read("one", factors={"augment": {"rotation": [0, 15, 30]}, "evaluation": dropout}), 2),
        (
            read(
                "one",
                factors={"evaluation": dropout, "augment": rotation, "model": {"batch_norm": [True, False]}},
            ),
            4,
        ),  # a factor more
        (read("one", factors={"augment": rotation}), 0),  # and less
        (
            read(
                "one",
                factors={"augment": rotation, "evaluation": {"mc_dropout": [0, 20], "tta": ["none", "flip"]}},
            ),
            0,
        ),
        (read("one", min_effect=0.1, question="?", metric="test/loss"), 0),
        (read("one", design="one_at_a_time"), 0),
    ):
        assert make(changed, here).trainings == trainings, changed.raw


def renumber(here: Store, job: Job, version: int, *, trained: bool = True) -> None:
    """Leave a job as another version of the numerics has left it: the same, under another identity."""
    job_folder.create(here.job(job.id), job)
    content = files.read_json(here.job(job.id).recipe) | {"numerics": version}
    here.job(job.id).recipe.unlink()
    folder = here.job(identity.digest([job.id, version]))
    files.write_json(folder.recipe, content)
    if trained:
        files.write_json(folder.result, record_files.result(train_images=900))


def test_a_job_that_another_numerics_version_has_trained_is_trained_again_and_told(here: Store) -> None:
    first, second, third, fourth = make(read(), here).jobs
    for job in (first, second):
        renumber(here, job, 1)
    renumber(here, first, 0)  # twice: it counts once, as the newest
    renumber(here, third, 1, trained=False)
    renumber(here, Job(fourth.id, fourth.recipe, 77, fourth.data), 1)  # nobody asks for that seed
    made = make(read(), here)
    assert (made.trainings, dict(made.renumbered)) == (4, {1: 2})
    (said,) = made.trained_again
    now = identity.NUMERICS
    assert (
        said
        == "2 of the 4 jobs to train were trained under numerics 1 and are trained again: numbers of this "
        f"version ({now}) differ"
    )
    put(here, first, "judged")
    assert dict(make(read(), here).renumbered) == {1: 1}
    for job in (second, third, fourth):
        put(here, job, "judged")
    assert dict(make(read(), here).renumbered) == {}


def test_recipes_that_cannot_be_read_are_no_matter(here: Store) -> None:
    first, second, *_ = make(read(), here).jobs
    renumber(here, first, 1)
    for i, text in enumerate(
        (
            "{",
            "[]",
            '{"numerics": 1}',
            '{"numerics": 1, "seed": 0, "data": "f", "recipe": {"data": {}, "odd": 1}}',
        )
    ):
        files.write(here.job(f"{i:064}").recipe, text)
        if text != "{":  # a result beside a file that is no JSON is a mistake that is told
            files.write(here.job(f"{i:064}").result, "{}")
    renumber(here, second, 1)
    assert dict(make(read(), here).renumbered) == {1: 2}


# What failed


def test_a_failed_job_is_left_alone_unless_asked_for(here: Store) -> None:
    first, second, *_ = make(read(), here).jobs
    put(here, first, "failed")
    put(here, second, "failed judging")
    made = make(read(), here)
    assert ids(made.failed) == [first.id, second.id]
    assert (len(made.work), made.trainings, made.done) == (2, 2, 0)
    again = make(read(), here, retry_failed=True)
    assert [(work.job.id, work.trained) for work in again.work[:2]] == [(first.id, False), (second.id, True)]
    assert (again.failed, again.trainings, again.done) == ((), 3, 0)


def test_a_diverged_job_is_done_and_never_tried_again(here: Store) -> None:
    first, *_ = make(read(), here).jobs
    put(here, first, "diverged")
    for options in ({}, {"retry_failed": True}):
        made = make(read(), here, **options)
        assert first.id not in [work.job.id for work in made.work]
        assert (made.done, made.failed) == (1, ())


def test_a_failure_that_was_mended_since_is_none(here: Store) -> None:
    put(here, make(read(), here).jobs[0], "mended")
    assert (make(read(), here).done, make(read(), here).failed) == (1, ())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(st.sampled_from(STATES), min_size=4, max_size=4), retry=st.booleans())
def test_the_counts_add_up_in_every_store(
    tmp_path_factory: pytest.TempPathFactory, states: list[str], retry: bool
) -> None:
    here = layout.open_store(tmp_path_factory.mktemp("store"))
    for job, state in zip(make(read(), here).jobs, states, strict=True):
        put(here, job, state)
    made, count = make(read(), here, retry_failed=retry), Counter(states)
    failed = count["failed"] + count["failed judging"]
    assert made.done == count["judged"] + count["mended"] + count["diverged"]
    assert len(made.failed) == (0 if retry else failed)
    assert made.trainings == count["missing"] + count["begun"] + (count["failed"] if retry else 0)
    assert made.done + len(made.work) + len(made.failed) == len(made.jobs) == 4
    assert made.cost is not None or made.trainings == 0
    assert made.cost is None or made.work


# What it costs


def test_without_finished_jobs_the_cost_is_a_guess(here: Store) -> None:
    cost = make(read(), here).cost
    assert cost is not None
    assert cost.seconds > 0
    assert "guess" in cost.basis


def test_a_guess_grows_with_epochs_seeds_and_images(here: Store) -> None:
    def seconds(**raw: Any) -> float:
        cost = make(read(**raw), here).cost
        assert cost is not None
        return cost.seconds

    def with_recipe(**sections: dict[str, Any]) -> dict[str, Any]:
        base = {
            "data": {"name": "digits", "train_size": IMAGES, "validation": 100},
            "model": {"name": "cnn4", "head_dropout": 0.5},
        }
        return {"recipe": base | {"training": {"epochs": 10}} | sections}

    base = seconds()
    assert seconds(seeds=6) == pytest.approx(3 * base)
    assert seconds(**with_recipe(training={"epochs": 30})) == pytest.approx(3 * base)
    assert seconds(
        **with_recipe(data={"name": "digits", "train_size": 3 * IMAGES, "validation": 300})
    ) == pytest.approx(3 * base)
    assert seconds(
        **with_recipe(data={"name": "digits", "train_size": IMAGES, "validation": 0.1})
    ) == pytest.approx(base)
    assert seconds(**with_recipe(model={"name": "resnet18", "head_dropout": 0.5})) > 3 * base


def test_with_finished_jobs_the_cost_is_reckoned_by_their_median_speed(here: Store) -> None:
    jobs = make(read(seeds=5), here).jobs
    for job, seconds in zip(jobs, (1.0, 3.0, 300.0), strict=False):
        finish(here, job, epoch_seconds=seconds)
        judge(here, job, Evaluation(), Evaluation(mc_dropout=20))
    cost = make(read(seeds=5), here).cost
    assert cost is not None
    # jobs x (epochs x images, at 300 a second, and a plain pass, and 20 of MC dropout)
    assert cost.seconds == pytest.approx(7 * (10 * 900 / (900 / 3.0) + 0.5 + 10))
    assert "finished jobs" in cost.basis


def test_a_network_that_was_never_trained_here_is_guessed(here: Store) -> None:
    finish(here, make(read(), here).jobs[0])
    both = {"augment": {"rotation": [0, 15]}, "model": {"batch_norm": [True, False]}}
    cost = make(read(factors=both), here).cost
    assert cost is not None
    assert "guess" in cost.basis


def test_the_images_of_a_decoded_set_are_counted_from_it(here: Store) -> None:
    def seconds() -> float:
        loaded = read(
            recipe={
                "data": {"name": "digits", "validation": 0},
                "model": {"name": "cnn4", "head_dropout": 0.5},
            }
        )
        cost = make(loaded, here).cost
        assert cost is not None
        return cost.seconds

    undecoded = seconds()
    files.write_json(here.data / ("f" * 64) / "meta.json", record_files.images(500, 0))
    assert seconds() == pytest.approx(undecoded * 500 / 1442)  # as many as there are digits


def test_judging_on_many_images_takes_its_time_too(here: Store) -> None:
    def seconds(test: int) -> float:
        files.write_json(here.data / ("f" * 64) / "meta.json", record_files.images(500, test))
        cost = make(read(), here).cost
        assert cost is not None
        return cost.seconds

    assert seconds(2000) - seconds(1000) == pytest.approx(seconds(1000) - seconds(0))
    assert seconds(1000) - seconds(0) == pytest.approx(
        4 * 21 * 1000 / (3 * 1050)
    )  # jobs x passes x images, three times as fast


def test_a_spoilt_file_of_another_job_is_no_matter_here(here: Store) -> None:
    finish(here, make(read("other", factors={"augment": {"flip": [True, False]}}), here).jobs[-1])
    for content in ("", "[]", '{"metrics": 3}'):
        next((here.path / "jobs").glob("*/result.json")).write_text(content)
        assert make(read(), here).cost is not None


# Only some of it


def only(text: str) -> Expression:
    condition, wrong = conditions.parse(text, fields.fields())
    assert wrong == []
    return condition


def test_only_the_work_of_cells_that_are_asked_for_is_planned_and_the_rest_is_counted(here: Store) -> None:
    made = make(read(), here, only=only("augment.rotation == 15"))
    assert [item.job.recipe.augment.rotation for item in made.work] == [15, 15]
    assert (len(made.jobs), made.trainings, made.left_out, made.done) == (4, 2, 2, 0)
    assert len(made.runs) == 8, "the study stays the whole one"


def test_of_a_job_that_cells_share_only_what_is_asked_for_is_judged(here: Store) -> None:
    made = make(read(), here, only=only("evaluation.mc_dropout > 0"))
    assert {item.evaluations for item in made.work} == {(Evaluation(mc_dropout=20),)}
    first, second, *_ = made.jobs
    put(here, first, "half judged")
    put(here, second, "judged")
    made = make(read(), here, only=only("evaluation.mc_dropout == 0"))
    assert (made.left_out, made.done, len(made.work)) == (1, 1, 2)
    assert first not in [item.job for item in made.work]


# A plan is quick

FRESH = """
import json, sys
from pathlib import Path
from ablate.execution import options
from ablate.store import layout
from ablate.study import file
from ablate.workflow import plan
loaded = file.load(Path(sys.argv[1]))
made = plan.plan(loaded, options.Where(layout.open_store(Path(sys.argv[2]))))
print(json.dumps({"trainings": made.trainings, "modules": sorted(sys.modules)}))
"""


def test_a_plan_in_a_fresh_process_imports_no_heavy_library(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FRESH, str(QUICKSTART), str(tmp_path)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["trainings"] == 24
    assert "ablate.planning.plan" in told["modules"]
    assert not {"torch", "torchvision", "mlflow", "plotly", "pandas", "optuna", "scipy", "sklearn"} & set(
        told["modules"]
    )
