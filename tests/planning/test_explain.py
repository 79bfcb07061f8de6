"""A job is found by what people write, and what makes two jobs two is every field of their identities."""

from typing import Any

import pytest
import record_files
from plans import finish, read

from ablate.errors import AblateError
from ablate.execution import options
from ablate.planning import explain, job_names
from ablate.planning.explain import Compared, Difference, Explained
from ablate.planning.plan import Plan
from ablate.recipe import identity as identities
from ablate.store import files, job_folder, study_folder
from ablate.store.layout import Store
from ablate.store.study_folder import Settled
from ablate.study.file import Study
from ablate.study.grid import Job
from ablate.workflow import inspect
from ablate.workflow import plan as planning

ROTATION = {"augment": {"rotation": [0, 15]}}


def keep(here: Store, loaded: Study, *, trained: bool = True) -> Plan:
    """Leave a study as if it had been run."""
    study_folder.keep(here, loaded, Settled("fp32"))
    made = planning.plan(loaded, options.Where(here))
    for job in made.jobs if trained else ():
        finish(here, job)
    return made


def put(here: Store, job: Job, **changed: Any) -> str:
    """Leave a job that is another one in some part of recipe.json."""
    job_folder.create(here.job(job.id), job)
    content = files.read_json(here.job(job.id).recipe) | changed
    identity = identities.digest(content)
    files.write_json(here.job(identity).recipe, content | {"job": identity})
    return identity


def one(here: Store, text: str) -> Explained:
    found = inspect.explain((text,), options.Where(here))
    assert isinstance(found, Explained)
    return found


def two(here: Store, first: str, second: str) -> dict[str, tuple[str, str]]:
    found = inspect.explain((first, second), options.Where(here))
    assert isinstance(found, Compared)
    return {d.part: (d.first, d.second) for d in found.second.differences}


def refused(here: Store, text: str) -> str:
    with pytest.raises(AblateError) as caught:
        job_names.find(text, job_names.read(here))
    return str(caught.value)


# What people write


def test_a_job_is_found_by_the_beginning_of_its_identity(here: Store) -> None:
    (job, *_) = keep(here, read("mine", factors=ROTATION)).jobs
    for text in (job.id, job.id[:12], job.id[:12].upper()):
        assert job_names.find(text, job_names.read(here)) == job.id


def test_a_job_is_found_by_the_name_of_a_run_also_before_it_is_trained(here: Store) -> None:
    made = keep(here, read("mine", factors=ROTATION), trained=False)
    found = {run.name: job_names.find(f"mine:{run.name}", job_names.read(here)) for run in made.runs}
    assert found == {run.name: run.job_id for run in made.runs}
    assert list(found) == ["baseline/0", "rotation=15/0", "baseline/1", "rotation=15/1"]
    assert job_names.find(made.jobs[1].id[:12], job_names.read(here)) == made.jobs[1].id


def test_a_study_may_have_a_colon_and_a_slash_in_its_name(here: Store) -> None:
    keep(here, read("a", factors=ROTATION, seeds=1))
    other = keep(here, read("a:b/1", factors=ROTATION, seeds=[1]))
    assert job_names.find("a:b/1:rotation=15/1", job_names.read(here)) == other.jobs[1].id


def test_what_names_no_job_is_answered_with_candidates(here: Store) -> None:
    keep(here, read("mine", factors=ROTATION))
    assert "no job in" in refused(here, "0000000000")
    assert 'got "abc"' in refused(here, "abc")
    assert "(did you mean mine:baseline/0?)" in refused(here, "baseline/0")
    assert "(did you mean mine:rotation=15/1?); runs are mine:baseline/0; mine:" in refused(
        here, "mine:rotation=51/1"
    )
    assert '"mien" is not a study in' in refused(here, "mien:baseline/0")
    assert "(did you mean mine?)" in refused(here, "mien:baseline/0")


def test_a_beginning_of_several_jobs_names_them(here: Store) -> None:
    made = keep(here, read("mine", factors=ROTATION))
    content = files.read_json(here.job(made.jobs[0].id).recipe)
    twins = [made.jobs[0].id[:6] + letter * 58 for letter in "ab"]
    for twin in twins:
        files.write_json(here.job(twin).recipe, content)
    said = refused(here, made.jobs[0].id[:6])
    assert said.startswith(f"JOB: 3 jobs begin with {made.jobs[0].id[:6]}, give more digits: ")
    assert all(twin[:12] in said for twin in twins)
    assert f"{made.jobs[0].id[:12]} (mine:baseline/0)" in said


def test_a_study_that_cannot_be_read_hides_no_other(here: Store) -> None:
    made = keep(here, read("mine", factors=ROTATION))
    keep(here, read("older", factors=ROTATION))
    path = here.study("older") / "study.json"
    path.write_text(path.read_text().replace("rotation", "rotatoin"))
    assert job_names.find("mine:baseline/0", job_names.read(here)) == made.jobs[0].id
    assert "rotatoin" in refused(here, "older:baseline/0")


@pytest.mark.parametrize("text", ["mine:baseline", "mine:rotation=15", "mine:baseline/"])
def test_a_cell_without_a_seed_is_told_to_add_one(here: Store, text: str) -> None:
    keep(here, read("mine", factors=ROTATION))
    assert refused(here, text).endswith(
        f"a cell of mine, with a job for each seed: add a seed, such as {text.rstrip('/')}/0"
    )


# Two jobs


def test_two_jobs_differ_in_the_fields_that_differ(here: Store) -> None:
    keep(here, read("mine", factors={"augment": {"rotation": [0, 15], "crop": ["random_crop", "none"]}}))
    assert two(here, "mine:baseline/0", "mine:rotation=15/0") == {"augment.rotation": ("0.0", "15.0")}
    assert two(here, "mine:baseline/0", "mine:crop=none/1") == {
        "seed": ("0", "1"),
        "augment.crop": ('"random_crop"', '"none"'),
    }


def test_a_field_that_matters_in_one_job_only_counts_where_it_is_not_as_usual(here: Store) -> None:
    levels = [
        {"name": "off", "set": {"augment.rotation": 0}},
        {"name": "on", "set": {"augment.rotation": 9, "augment.interpolation": "nearest"}},
    ]
    keep(here, read("mine", factors={}, factor=[{"name": "turned", "levels": levels}]))
    found = two(here, "mine:baseline/0", "mine:turned=on/0")
    assert found == {
        "augment.rotation": ("0.0", "9.0"),
        "augment.interpolation": (explain.INACTIVE, '"nearest"'),
    }


def test_what_lies_outside_of_the_recipe_is_told(here: Store) -> None:
    (job, *_) = keep(here, read("mine", factors=ROTATION)).jobs
    other = put(here, job, seed=9, data="a" * 64, code="b" * 64, numerics=1)
    assert two(here, other, job.id) == {
        "seed": ("9", "0"),
        "data": (f"images {'a' * 12}", f"images {job.data.rsplit(' ')[-1][:12]}, not decoded yet"),
        "code or weights": ("b" * 12, "none"),
        "numerics": ("1", str(identities.NUMERICS)),
    }


def test_every_difference_of_two_identities_is_told_and_nothing_else(here: Store) -> None:
    """Two jobs of a study have the same identity exactly where nothing is told."""
    made = keep(
        here, read("mine", factors={"augment": {"rotation": [0, 15]}, "evaluation": {"mc_dropout": [0, 20]}})
    )
    known = job_names.read(here)
    for first in made.runs:
        for second in made.runs:
            compared = explain.compare(first.job_id, second.job_id, known)
            assert bool(compared.second.differences) == (first.job_id != second.job_id)
    assert two(here, "mine:baseline/0", "mine:mc_dropout=20/0") == {}


def test_a_recipe_of_another_version_is_told_as_it_stands(here: Store) -> None:
    (job, *_) = keep(here, read("mine", factors=ROTATION)).jobs
    content = files.read_json(here.job(job.id).recipe)["recipe"]
    other = put(here, job, numerics=1, recipe=content | {"augment": content["augment"] | {"sharpen": 3}})
    found = two(here, other, job.id)
    assert found["augment.sharpen"] == ("3", explain.INACTIVE)
    assert found["numerics"] == ("1", str(identities.NUMERICS))


# One job


def test_a_job_is_told_with_what_makes_it_and_who_needs_it(here: Store) -> None:
    made = keep(here, read("mine"))
    keep(here, read("other", seeds=1))
    found = one(here, "mine:rotation=15/0")
    assert (found.job, found.status) == (made.jobs[1].id, "trained")
    assert found.runs == tuple(
        f"{name}:rotation=15{more}/0" for name in ("mine", "other") for more in ("", ", mc_dropout=20")
    )
    assert found.parts["augment.rotation"] == "15.0"
    assert found.parts["seed"] == "0"
    assert found.parts["numerics"] == str(identities.NUMERICS)
    assert "augment.flip" not in found.parts  # as usual
    assert found.other_seeds == {1: made.jobs[3].id}


def test_why_a_job_is_trained_again_is_seen_in_what_is_nearest(here: Store) -> None:
    made = keep(here, read("mine", factors=ROTATION), trained=False)
    old = put(here, made.jobs[0], numerics=1)
    images = put(here, made.jobs[0], data="a" * 64)
    here.job(made.jobs[0].id).recipe.unlink()
    found = one(here, "mine:baseline/0")
    assert found.status == "not run"
    assert {near.job for near in found.nearest[:2]} == {
        old,
        images,
    }  # before the other cells, of which one field differs, too
    said = {near.job: near.differences for near in found.nearest}
    assert said[old] == (Difference("numerics", "1", str(identities.NUMERICS)),)
    assert [d.part for d in said[images]] == ["data"]
    assert [d.part for d in said[made.jobs[1].id]] == ["augment.rotation"]


@pytest.mark.parametrize("state", ["crashed", "diverged", "stopped", "running", "not run"])
def test_a_job_is_told_with_what_became_of_it(here: Store, state: str) -> None:
    (job, *_) = keep(here, read("mine", factors=ROTATION), trained=False).jobs
    folder = here.job(job.id)
    job_folder.create(folder, job)
    if state != "not run":
        files.append(folder.attempts, record_files.attempt())
        files.append(folder.journal, record_files.epoch(1))
    if state == "crashed":
        job_folder.fail(folder, kind="error", error="ValueError: x")
    if state == "diverged":
        finish(here, job, status="diverged")
    if state == "running":
        with folder.lock():
            found = one(here, job.id[:12])
    else:
        found = one(here, job.id[:12])
    assert found.status == state
    assert found.reason == {
        "crashed": "ValueError: x",
        "stopped": "1 epoch done",
        "running": "1 epoch done",
    }.get(state, "")


@pytest.mark.parametrize("spoilt", ["{", "[]", "{}", '{"seed": 0, "data": 1, "numerics": 2, "recipe": 3}'])
def test_a_spoilt_recipe_is_a_sentence_and_hides_no_other_job(here: Store, spoilt: str) -> None:
    made = keep(here, read("mine", factors=ROTATION))
    here.job(made.jobs[0].id).recipe.write_text(spoilt)
    with pytest.raises(AblateError, match=r"recipe\.json: must be "):
        one(here, made.jobs[0].id)
    assert one(here, made.jobs[1].id).nearest


def test_a_job_that_waits_for_its_tuning_says_so_and_is_near_nothing(here: Store) -> None:
    keep(here, read("mine", factors=ROTATION))
    found = {
        "training": {"epochs": 10},
        "optimizer": {"lr": "find"},
        "data": {"name": "digits", "train_size": 1000},
        "model": {"name": "cnn4"},
    }
    keep(here, read("tuned", factors=ROTATION, recipe=found), trained=False)
    assert one(here, "tuned:baseline/0").status == "not known yet"
    assert all(not near.runs[0].startswith("tuned:") for near in one(here, "mine:baseline/0").nearest)
