"""A study becomes cells, runs and jobs: the same ones always, each once, and each with a name of its own.

`python tests/test_grid.py` writes tests/golden/job_ids.json anew.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resolving import fingerprints

from ablate.errors import StudyError
from ablate.recipe import fields, identity
from ablate.recipe.fields import Data, MeanStd, Recipe
from ablate.recipe.identity import digest
from ablate.study import file as study_file
from ablate.study import grid, idle_factors
from ablate.study.file import Study
from ablate.study.grid import Fingerprints, Grid, Job, Run

HERE = Path(__file__).parents[1]
GOLDEN = HERE / "golden" / "job_ids.json"
FILES = sorted((HERE.parent / "studies").glob("*.toml"))


def expand(loaded: Study) -> Grid:
    return grid.expand(loaded, precision="fp32")


def runs_and_jobs(loaded: Study) -> tuple[tuple[Run, ...], tuple[Job, ...]]:
    cells = expand(loaded)
    return grid.runs_and_jobs(cells, loaded.seeds, fingerprints(cells))


def own(cells: Grid, identify: Callable[[Data], str]) -> Fingerprints:
    """Return fingerprints that differ where the images do."""
    return Fingerprints({cell.recipe.data: identify(cell.recipe.data) for cell in cells.cells})


def read(**raw: Any) -> Study:
    return study_file.check({"name": "x", "seeds": 2} | raw, "x.toml")


def labels(loaded: Study) -> list[str]:
    return [cell.label for cell in expand(loaded).cells]


def mistakes(loaded: Study) -> list[str]:
    with pytest.raises(StudyError) as caught:
        expand(loaded)
    return list(caught.value.mistakes)


# Identities


def summary(path: Path) -> dict[str, Any]:
    loaded = study_file.load(path)
    jobs = runs_and_jobs(loaded)[1]
    ids = sorted(job.id for job in jobs)
    return {"cells": len(expand(loaded).cells), "jobs": len(jobs), "ids": digest(ids), "first": jobs[0].id}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_study_keeps_its_jobs(path):
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert summary(path) == kept.get(path.name), (
        "finished runs would be trained again; if that is meant: python tests/test_grid.py"
    )


def test_no_job_is_kept_of_a_study_that_is_gone():
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == {path.name for path in FILES}


# Small studies, worked out by hand

CROP = {"crop": ["random_crop", "none"]}


def test_a_factorial_is_every_combination_and_one_at_a_time_is_each_level_alone():
    factors = {"augment": CROP | {"rotation": [0, 15, 30]}, "model": {"batch_norm": [True, False]}}
    assert len(labels(read(factors=factors))) == 12
    assert labels(read(factors=factors, design="one_at_a_time")) == [
        "baseline",
        "crop=none",
        "rotation=15",
        "rotation=30",
        "batch_norm=false",
    ]


def test_a_study_without_factors_is_its_baseline():
    assert labels(read()) == ["baseline"]
    assert labels(read(design="one_at_a_time")) == ["baseline"]


def test_evaluation_never_costs_a_second_training():
    loaded = read(
        factors={
            "evaluation": {"mc_dropout": [0, 20], "tta": ["none", "flip"]},
            "model": {"conv_dropout": [0.1, 0.2]},
        }
    )
    runs, jobs = runs_and_jobs(loaded)
    assert (len(runs), len(jobs)) == (2 * 8, 2 * 2)
    assert [run.name for run in runs[:3]] == ["baseline/0", "conv_dropout=0.2/0", "tta=flip/0"]


def test_whole_repetitions_come_first():
    runs, jobs = runs_and_jobs(read(factors={"augment": CROP}, seeds=[3, 1]))
    assert [run.name for run in runs] == ["baseline/3", "crop=none/3", "baseline/1", "crop=none/1"]
    assert [(job.seed, job.recipe.augment.crop) for job in jobs] == [
        (3, "random_crop"),
        (3, "none"),
        (1, "random_crop"),
        (1, "none"),
    ]


def test_a_factor_that_cannot_matter_vanishes_and_its_cells_are_one():
    cells = expand(read(factors={"augment": CROP | {"padding": [4, 2, 0]}}))
    assert [(cell.label, dict(cell.levels)) for cell in cells.cells] == [
        ("baseline", {"augment.crop": "random_crop", "augment.padding": "4"}),
        ("padding=2", {"augment.crop": "random_crop", "augment.padding": "2"}),
        ("padding=0", {"augment.crop": "random_crop", "augment.padding": "0"}),
        ("crop=none", {"augment.crop": "none"}),
    ]
    assert (cells.merged, cells.unused) == (2, ())


def test_a_factor_whose_when_is_false_vanishes_and_its_cells_are_one():
    factor = {"name": "evaluation.mc_dropout", "levels": [0, 20], "when": "model.conv_dropout > 0"}
    cells = expand(read(factors={"model": {"conv_dropout": [0.0, 0.1]}}, factor=[factor]))
    assert [(cell.label, cell.levels.get("evaluation.mc_dropout")) for cell in cells.cells] == [
        ("baseline", None),
        ("conv_dropout=0.1", "0"),
        ("conv_dropout=0.1, mc_dropout=20", "20"),
    ]
    assert (cells.merged, cells.unused) == (1, ())


def test_a_factor_that_is_used_nowhere_is_told():
    factor = {"name": "evaluation.mc_dropout", "levels": [0, 20], "when": "model.conv_dropout > 0"}
    assert expand(read(factor=[factor])).unused == ("evaluation.mc_dropout",)


@pytest.mark.parametrize(("path", "levels", "fixed", "said"), [
    ("schedule.gamma", [0.1, 0.5], {}, ('gamma belongs to schedule.name = "step", and every cell has '
                                       '"one_cycle": it changes nothing')),
    ("optimizer.momentum", [0.9, 0.0], {"optimizer": {"name": "adam"}}, ('belongs to optimizer.name = '
                                                                        '"sgd", and every cell has "adam"')),
    ("model.width", [1, 2], {"model": {"name": "mynet:net"}}, 'every cell has "mynet:net"'),
    ("model.stem", ["cifar", "imagenet"], {"model": {"name": "cnn4"}}, 'every cell has "cnn4"'),
    ("augment.padding", [4, 2], {"augment": {"crop": "none"}}, ('belongs to augment.crop = "random_crop", '
                                                               'and every cell has "none"')),
    ("evaluation.mc_dropout", [0, 20], {"model": {"name": "cnn4"}}, ("belongs to model.conv_dropout above 0 "
                                                                    "or model.head_dropout above 0")),
])  # fmt: skip
def test_a_factor_that_changes_nothing_is_refused_with_what_it_belongs_to(path, levels, fixed, said):
    section, name = path.split(".")
    loaded = read(recipe=fixed, factors={section: {name: levels}})
    with pytest.raises(StudyError) as caught:
        idle_factors.check(loaded, expand(loaded))
    (mistake,) = caught.value.mistakes
    assert said in mistake


@pytest.mark.parametrize("more", [{}, {"when": "model.batch_norm == true"}], ids=str)
def test_a_factor_whose_levels_set_nothing_is_refused(more):
    levels = [{"name": "a", "set": {}}, {"name": "b", "set": {}}]
    with pytest.raises(StudyError) as caught:
        read(factor=[{"name": "net", "levels": levels, **more}], factors={"augment": {"rotation": [0, 15]}})
    assert list(caught.value.mistakes) == ["x.toml: factor net: its levels set no field: it changes nothing"]
    turned = [{"name": "a", "set": {}}, {"name": "b", "set": {"augment": {"rotation": 15}}}]
    some = read(factor=[{"name": "net", "levels": turned}])
    idle_factors.check(some, expand(some))


def test_a_factor_that_matters_somewhere_or_under_a_condition_is_none_that_changes_nothing():
    some = read(factors={"schedule": {"name": ["one_cycle", "step"], "gamma": [0.1, 0.5]}})
    never = read(
        factor=[{"name": "evaluation.mc_dropout", "levels": [0, 20], "when": "model.conv_dropout > 0"}]
    )
    for loaded in (some, never):
        idle_factors.check(loaded, expand(loaded))


def test_every_field_that_may_not_matter_says_what_it_belongs_to():
    assert fields.BELONGS.keys() == fields.ACTIVE.keys()


def test_a_condition_may_ask_for_a_factor_that_stands_below_it():
    above = {"name": "model.conv_dropout", "levels": [0.1, 0.2], "when": "model.batch_norm == false"}
    below = {"name": "model.batch_norm", "levels": [True, False], "when": "optimizer.lr < 1"}
    for factor in ([above, below], [below, above]):
        cells = expand(read(factor=factor)).cells
        assert [cell.recipe.model.conv_dropout for cell in cells] == [0.0, 0.1, 0.2]


def test_a_condition_does_not_see_a_level_that_has_vanished():
    factor = {"name": "model.conv_dropout", "levels": [0.1, 0.2], "when": "augment.padding > 0"}
    cells = expand(read(factors={"augment": CROP | {"padding": [4, 0]}}, factor=[factor]))
    assert [cell.label for cell in cells.cells if cell.recipe.augment.crop == "none"] == [
        "crop=none",
        "crop=none, conv_dropout=0.2",
    ]


def test_a_condition_that_decides_whether_what_it_asks_for_matters_is_refused():
    factor = {
        "name": "augment.crop",
        "levels": ["none", "random_resized_crop"],
        "when": "augment.padding > 5",
    }
    assert mistakes(read(factors={"augment": {"padding": [8, 2]}}, factor=[factor])) == [
        (
            "x.toml: factor augment.padding: a when that asks for it decides whether it matters at all: ask "
            "for another"
        )
    ]


def test_excluded_cells_are_told_with_their_reason():
    excludes = [
        {"if": "augment.crop == 'none' and augment.rotation > 0", "why": "blurs"},
        {"if": "augment.rotation == 30", "why": "too far"},
    ]
    cells = expand(read(factors={"augment": CROP | {"rotation": [0, 15, 30]}}, exclude=excludes))
    assert [cell.label for cell in cells.cells] == ["baseline", "rotation=15", "crop=none"]
    assert [(exclusion.why, exclusion.labels) for exclusion in cells.excluded] == [
        ("too far", ("rotation=30",)),
        ("blurs", ("crop=none, rotation=15", "crop=none, rotation=30")),
    ]


def test_a_cell_that_is_excluded_in_many_combinations_is_told_once():
    excludes = [{"if": "augment.crop == 'none'", "why": "overfits"}]
    (exclusion,) = expand(read(factors={"augment": CROP | {"padding": [4, 2, 0]}}, exclude=excludes)).excluded
    assert exclusion.labels == ("crop=none",)


def test_the_baseline_cannot_be_excluded():
    assert mistakes(
        read(factors={"augment": CROP}, exclude=[{"if": "augment.crop == 'random_crop'", "why": "no"}])
    ) == [
        (
            "x.toml: exclude: leaves out the baseline, which every cell is compared with: change the first "
            "levels or the condition"
        )
    ]


def test_every_cell_whose_fields_do_not_go_together_is_told():
    factors = {
        "data": {"validation": [0.1, 0]},
        "evaluation": {"select": ["last", "best_validation"]},
        "training": {"early_stopping": ["none", 3]},
    }
    needs = "needs validation images, and data.validation is 0: set data.validation, such as 0.1"
    assert mistakes(read(factors=factors)) == [
        f"x.toml: cell validation=0, early_stopping=3: training.early_stopping {needs}",
        f'x.toml: cell validation=0, select=best_validation: evaluation.select = "best_validation" {needs}',
        (
            "x.toml: cell validation=0, select=best_validation, early_stopping=3: evaluation.select = "
            f'"best_validation" {needs}'
        ),
    ]
    assert mistakes(read(recipe={"data": {"name": "imagefolder"}}))[0].startswith(
        "x.toml: cell baseline: root must name the folder"
    )


@pytest.mark.parametrize(("design", "count"), [("factorial", 101 * 100), ("one_at_a_time", 1 + 10_001)])
def test_more_than_ten_thousand_cells_are_refused(design, count):
    epochs = range(1, 102 if design == "factorial" else 10_003)
    decay = {"optimizer": {"weight_decay": [i / 100 for i in range(100)]}} if design == "factorial" else {}
    assert mistakes(read(factors={"training": {"epochs": list(epochs)}} | decay, design=design)) == [
        (
            f"x.toml: factors: make {count:,} cells, and at most 10,000 are allowed: take fewer levels, or "
            'design = "one_at_a_time"'
        )
    ]


@pytest.mark.slow  # seconds
def test_ten_thousand_cells_are_allowed():
    assert len(expand(read(factors={"training": {"epochs": list(range(1, 10_001))}})).cells) == 10_000


def test_labels_that_cannot_be_told_apart_are_refused():
    def named(name: str, *levels: str) -> dict[str, Any]:
        lr = {"a": 0.2, "b": 0.3}[name]
        path = {"a": "optimizer.lr", "b": "optimizer.weight_decay"}[name]
        return {
            "name": name,
            "levels": [{"name": level, "set": {path: lr + i / 10}} for i, level in enumerate(levels)],
        }

    loaded = read(factor=[named("a", "x", "y", "y, b=z"), named("b", "x", "z")])
    assert mistakes(loaded) == [
        "x.toml: cell a=y, b=z: two different cells would have this name: give their levels other names"
    ]


def test_the_path_of_a_field_is_left_out_of_a_label_where_one_can_tell():
    lr = {
        "name": "lr 0.5",
        "levels": [{"name": "no", "set": {}}, {"name": "yes", "set": {"optimizer": {"lr": 0.5}}}],
    }
    factors = {"data": {"name": ["cifar10", "svhn"]}, "optimizer": {"name": ["sgd", "adam"]}, "augment": CROP}
    assert labels(read(factors=factors, factor=[lr], design="one_at_a_time")) == [
        *("baseline", "data=svhn", "optimizer=adam", "crop=none", "lr 0.5=yes"),
    ]


@pytest.mark.parametrize(
    ("factors", "short"),
    [
        (["schedule.name"], ["schedule"]),
        (["model.name", "data.name", "optimizer.lr"], ["model", "data", "lr"]),
        (["schedule.name", "schedule"], ["schedule.name", "schedule"]),
        (["augment.crop", "crop"], ["augment.crop", "crop"]),
        (["model.name", "my.model"], ["model.name", "my.model"]),
        (["augment.rotation", "name"], ["rotation", "name"]),
    ],
)
def test_a_field_called_name_is_told_by_its_section_and_no_two_factors_are_called_alike(factors, short):
    assert grid.short_names(factors) == dict(zip(factors, short, strict=True))


def test_precision_is_settled_before_cells_are_told_apart():
    loaded = read(factors={"training": {"precision": ["auto", "bf16", "fp32"]}})
    assert [(cell.label, cell.recipe.training.precision) for cell in expand(loaded).cells] == [
        ("baseline", "fp32"),
        ("precision=bf16", "bf16"),
    ]
    assert [cell.recipe.training.precision for cell in grid.expand(loaded, precision="bf16").cells] == [
        "bf16",
        "fp32",
    ]


def test_a_recipe_of_a_cell_can_be_given_as_a_table():
    (_, cell) = expand(
        read(factors={"data": {"normalize": ["dataset", {"mean": [0.5], "std": [0.25]}]}})
    ).cells
    assert (cell.label, cell.recipe.data.normalize) == (
        'normalize={"mean": [0.5], "std": [0.25]}',
        MeanStd(mean=(0.5,), std=(0.25,)),
    )


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({path.name: summary(path) for path in FILES}, indent=1) + "\n", encoding="utf-8"
    )


STUDY = {
    "name": "x", "seeds": 50, "recipe": {"model": {"name": "cnn4"}},
    "factors": {"augment": {"rotation": [0, 15]}},
}  # fmt: skip


OPTIONS = {"options": {"depth": [2, 3]}}


def test_an_option_is_a_factor_that_vanishes_where_a_network_has_no_such_argument():
    both = read(factors={"model": {"name": ["resnet_small", "cnn4"]} | OPTIONS})
    assert labels(both) == ["baseline", "depth=3", "model=cnn4"]
    (deeper,) = [cell for cell in expand(both).cells if cell.label == "depth=3"]
    assert deeper.recipe.model.options.given == {"depth": 3}
    assert identity.canonical(deeper.recipe)["model"] == {"name": "resnet_small", "options": {"depth": 3}}
    assert fields.value(deeper.recipe, "model.options.depth") == 3
    when = {"name": "augment.rotation", "levels": [0, 15], "when": "model.options.depth == 3"}
    asking = read(factors={"model": OPTIONS}, factor=[when], recipe={"model": {"name": "resnet_small"}})
    assert labels(asking) == ["baseline", "depth=3", "depth=3, rotation=15"]


def test_an_option_that_no_network_of_the_study_takes_is_a_mistake_and_so_is_one_of_the_recipe():
    deep = {"options": {"depht": [2, 3]}}
    study = read(factors={"model": deep}, recipe={"model": {"name": "resnet_small"}})
    with pytest.raises(StudyError) as caught:
        idle_factors.check(study, expand(study))
    assert caught.value.mistakes == (
        (
            "x.toml: factors.model.options.depht: no network of the study takes it (did you mean depth?): "
            "the networks are resnet_small, whose options are depth, shortcut"
        ),
    )
    base = read(recipe={"model": {"name": "cnn4", "options": {"depth": 3}}}, factors={"augment": CROP})
    assert mistakes(base)[0].endswith("model.options.depth: cnn4 takes first_pool, norm")
    twice = {"recipe": {"model": {"options": {"depth": 3}}}, "factors": {"model": OPTIONS}}
    with pytest.raises(StudyError, match=r"model\.options\.depth: is also in \[recipe\]"):
        read(**twice)


def test_a_recipe_is_brought_to_its_canonical_form_once_for_all_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brought: list[Recipe] = []
    canonical = identity.canonical
    checked = study_file.check(STUDY, "x.toml")
    expanded = expand(checked)

    def counted(recipe: Recipe, *, evaluation: bool = True) -> dict[str, Any]:
        brought.append(recipe)
        return canonical(recipe, evaluation=evaluation)

    monkeypatch.setattr(identity, "canonical", counted)
    runs, jobs = grid.runs_and_jobs(expanded, checked.seeds, fingerprints(expanded))
    assert len(brought) == len(expanded.cells)
    assert len(runs) == len(jobs) == 50 * len(expanded.cells)
    assert [job.id for job in jobs[:3]] == [
        identity.job_id(job.recipe, job.seed, job.data, job.code) for job in jobs[:3]
    ]
