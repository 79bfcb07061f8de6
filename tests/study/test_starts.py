"""Levels that start from the weights of another: which jobs they make, and what is wrong in a file."""

from typing import Any

import pytest
from resolving import fingerprints

from ablate.errors import StudyError
from ablate.recipe import identity
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.file import Study
from ablate.study.grid import Job, Run

STAGES = [
    {"name": "head", "set": {"model": {"trainable": "head"}}},
    {"name": "all", "start": "head", "set": {"optimizer": {"lr": 0.01}}},
    {"name": "again", "start": "all", "set": {"optimizer": {"lr": 0.001}}},
]


def read(levels: list[dict[str, Any]] = STAGES, **raw: Any) -> Study:
    factor = {"name": "stage", "levels": levels}
    return study_file.check({"name": "x", "seeds": 2, "factor": [factor]} | raw, "x.toml")


def made(study: Study) -> tuple[dict[str, Run], dict[str, Job]]:
    """Return the runs by name, and the jobs by id."""
    cells = grid.expand(study, precision="fp32")
    runs, jobs = grid.runs_and_jobs(cells, study.seeds, fingerprints(cells))
    return {run.name: run for run in runs}, {job.id: job for job in jobs}


def mistakes(**raw: Any) -> list[str]:
    with pytest.raises(StudyError) as caught:
        made(read(**raw))
    return list(caught.value.mistakes)


def test_a_job_names_the_one_that_it_starts_from_under_the_same_seed():
    runs, jobs = made(read())
    for seed in (0, 1):
        head, every, again = (
            jobs[runs[f"{label}/{seed}"].job_id] for label in ("baseline", "stage=all", "stage=again")
        )
        assert (head.start, every.start, again.start) == ("", head.id, every.id)
        assert runs[f"stage=again/{seed}"].start == every.id
        assert every.id == identity.job_id(every.recipe, seed, every.data, every.code, head.id)


def test_a_start_is_in_the_identity_and_nothing_else_changes_with_it():
    plain = [{key: part for key, part in level.items() if key != "start"} for level in STAGES]
    (with_start, jobs), (without, _) = made(read()), made(read(plain))
    changed = {name for name, run in with_start.items() if run.job_id != without[name].job_id}
    assert changed == {"stage=all/0", "stage=all/1", "stage=again/0", "stage=again/1"}
    other_head = [
        STAGES[0] | {"set": {"model": {"trainable": "head"}, "training": {"epochs": 3}}},
        *STAGES[1:],
    ]
    moved = made(read(other_head))[0]
    assert all(moved[name].job_id != run.job_id for name, run in with_start.items()), "a start of a start"
    assert len(jobs) == 6


def test_other_factors_are_at_the_same_levels_in_the_cell_before_and_evaluations_share_its_job():
    factors = {"augment": {"rotation": [0, 15]}, "evaluation": {"tta": ["none", "flip"]}}
    runs, jobs = made(read(factors=factors))
    assert len(jobs) == 3 * 2 * 2
    every = runs["rotation=15, tta=flip, stage=all/1"]
    assert every.start == runs["rotation=15, tta=flip/1"].job_id == runs["rotation=15/1"].job_id
    assert every.job_id == runs["rotation=15, stage=all/1"].job_id
    alone = made(read(factors=factors, design="one_at_a_time"))[0]
    assert alone["stage=all/0"].start == alone["baseline/0"].job_id


HEAD = "x.toml: factor[0].levels"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            {"levels": [STAGES[0], STAGES[1] | {"start": "haed"}]},
            (
                f'{HEAD}[1].start: "haed" is not another level of this factor (did you mean head?); '
                "known are head"
            ),
        ),
        (
            {"levels": [STAGES[0], STAGES[1] | {"start": "all"}]},
            f'{HEAD}[1].start: "all" is not another level of this factor; known are head',
        ),
        (
            {"levels": [STAGES[0] | {"start": "all"}, STAGES[1]]},
            f"{HEAD}: start from each other in a circle (head -> all -> head)",
        ),
        (
            {"search": {"trials": 3, "space": {"training": {"batch_size": {"choices": [16, 32]}}}}},
            (
                "x.toml: factor stage: has levels with a start, which must be known beforehand: "
                'leave out [search] and optimizer.lr = "find"'
            ),
        ),
        (
            {
                "exclude": [{"if": 'model.trainable == "head"', "why": "it is dull"}],
                "levels": [STAGES[1] | {"name": "none", "start": ""}, *STAGES[:2]],
            },
            "x.toml: cell stage=all: starts from the weights of a cell that is excluded: exclude it as well",
        ),
    ],
    ids=("unknown", "itself", "circle", "search", "excluded"),
)
def test_what_cannot_be_started_from_is_told(raw, said):
    assert said in mistakes(**raw)


def test_one_factor_alone_has_starts():
    second = {"name": "other", "levels": [level | {"set": {"training": {"epochs": i + 1}}}
                                          for i, level in enumerate(STAGES)]}  # fmt: skip
    first = {"name": "stage", "levels": STAGES}
    assert mistakes(factor=[first, second]) == [
        "x.toml: factor other: has levels with a start, as stage has: one factor may"
    ]
