"""A study against its store: the same cells and jobs for whoever asks, and no job is looked into."""

import sys
from collections import Counter
from dataclasses import replace

import pytest
from searching import put, read, resolve, settled

from ablate.execution.options import Where
from ablate.planning import inputs, job_names, references
from ablate.planning import plan as planning
from ablate.planning.resolve import resolve as resolved
from ablate.planning.resolve import resolve_inputs
from ablate.store import layout, study_folder
from ablate.store.study_folder import Settled
from ablate.study import file as study_file
from ablate.workflow import inspect

TEXT = """
name  = "own"
seeds = 2
recipe.data = { name = "digits", train_size = 60 }
recipe.training = { epochs = 1, precision = "fp32" }

[factors]
model.name = ["cnn4", "nets:small"]
"""


@pytest.fixture
def here(tmp_path):
    return layout.open_store(tmp_path / "store")


@pytest.fixture
def own(tmp_path):
    """Return a study with a network of its own beside it."""
    (tmp_path / "nets.py").write_text("def small(classes, channels, image_size): ...\n")
    (tmp_path / "own.toml").write_text(TEXT)
    return study_file.load(tmp_path / "own.toml")


def ids(of):
    return [job.id for job in of.jobs]


def test_plan_status_references_and_job_names_have_the_same_jobs(own, here):
    layout.create(here)
    known = inputs.read(own, here)
    images = replace(
        inputs.fingerprints(known, known.grid.cells), data={known.grid.cells[0].recipe.data: "f" * 64}
    )
    mine = resolve_inputs(known, images)
    study_folder.keep(here, own, inputs.settle(known, images))
    stored = study_folder.recall(here, "own")
    assert ids(resolved(own, here)) == ids(resolved(stored, here)) == ids(planning.make(mine)) == ids(mine)
    spots = inspect.status(stored, Where(here)).runs
    assert {spot.job for by_seed in spots.values() for spot in by_seed.values()} == set(ids(mine))
    assert set(job_names.read(here).names) == set(ids(mine))
    needs = references.read(here, quick=True)
    assert (needs.unclear, needs.jobs, ids(needs.studies["own"])) == ({}, set(ids(mine)), ids(mine))


def test_other_seeds_are_resolved_instead_of_the_studys_own(own, here):
    assert [job.seed for job in resolved(own, here, seeds=(7, 9)).jobs] == [7, 7, 9, 9]


def test_what_is_identified_once_stays_so_although_the_code_changes(own, here, tmp_path):
    first = resolved(own, here)
    (tmp_path / "nets.py").write_text("def small(classes, channels, image_size): return 1\n")
    again = resolve_inputs(first.inputs, first.fingerprints)
    now = resolve_inputs(first.inputs)
    assert ids(again) == ids(first)
    assert [mine == theirs for mine, theirs in zip(ids(first), ids(now), strict=True)] == [
        True,
        False,
        True,
        False,
    ]


def test_a_network_that_a_search_has_chosen_is_identified_too(here, tmp_path):
    (tmp_path / "nets.py").write_text("def small(classes, channels, image_size): ...\n")
    search = '[search]\ntrials = 1\nspace.model.name = { choices = ["cnn4", "nets:small"] }\n'
    (tmp_path / "own.toml").write_text(TEXT.partition("[factors]")[0] + search)
    study = study_file.load(tmp_path / "own.toml")
    before = resolved(study, here)
    assert [job.pending for job in before.jobs] == [True, True]
    put(here, before.tuning.searches[0], ("complete", 0.9, {"model.name": "nets:small"}))
    after = resolved(study, here)
    assert [(job.recipe.model.name, len(job.code)) for job in after.jobs] == [("nets:small", 64)] * 2


def test_resolving_opens_no_file_of_a_job(here):
    study = read(factors={"augment": {"rotation": [0, 5, 10]}}, seeds=3)
    layout.create(here)
    study_folder.keep(here, study, Settled("fp32"))
    for job in resolved(study, here).jobs:
        here.job(job.id).path.mkdir(parents=True)
        here.job(job.id).result.write_text("not looked at")
    opened, is_on = Counter(), True

    def hear(event, arguments):
        if event == "open" and is_on:
            opened[str(arguments[0])] += 1

    sys.addaudithook(hear)
    assert len(resolved(study, here).jobs) == 9
    is_on = False
    assert [path for path in opened if "/jobs/" in path] == []
    assert opened[str(here.study("x") / "settled.json")] == 1


def test_a_resolved_study_shows_what_its_tuning_has_found(here):
    study = read(
        {
            "space": {"optimizer": {"weight_decay": {"low": 1e-6, "high": 1.0}}},
            "trials": 1,
            "sampler": "random",
        }
    )
    made = resolve(study, here)
    for search in made.searches:
        put(here, search, ("complete", 0.9, {"optimizer.weight_decay": 0.25}))
    assert settled(resolve(study, here))
