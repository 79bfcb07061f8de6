"""Names that people give to factors, classes and studies, as params and metrics of a real MLflow."""

import itertools
import posixpath

import pytest
import record_files
from mlflow.utils.validation import _validate_metric_name, _validate_param_name
from shown import client, runs_of
from tracked import begun

from ablate import tracking
from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity
from ablate.store import files, layout
from ablate.study import file as study_file
from ablate.tracking.keys import key, labels, shortened

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PARTS = (
    "/",
    ".",
    ":",
    "+",
    "#",
    "plus",
    "slash",
    "dot",
    "colon",
    "u2b",
    "a",
    "\n",
    "empty",
    "sha0123456789ab",
)
NAMES = [
    "C+", "C#", "C_", "C", "aug/", "/aug", "a//b", "..", ".", "...", "../x", "a/../b", "./a", "é", "e\u0301",
    "हिन्दी", "🙂", "crop=resized", "97%", "a\nb", "a\tb", "a ", "x" * 300, "x" * 299 + "y", "C:plus:",
    "C:plus:colon:", "seed", "factor seed", "optimizer.lr",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "lr",
        "lr 0.5",
        "test/accuracy",
        "seed 1/train/loss",
        "a_b-c.d",
        "a:b",
        "a: plus",
        "Größe",
        ".a",
        "a/...",
        "x" * 250,
    ],
)
def test_a_name_that_mlflow_takes_is_left_as_it_is(name):
    _validate_param_name(name)
    assert key(name) == name


def test_what_it_does_not_take_is_spelled_out():
    assert [key(name) for name in ("C+", "C#", "aug/", "97%", "a//b", "..", "🙂")] == [
        "C:plus:", "C:hash:", "aug:slash:", "97:percent:", "a/:slash:b", ":dot:.", ":u1f642:",
    ]  # fmt: skip


def test_no_two_names_are_one_and_mlflow_takes_every_one():
    names = {"".join(parts) for count in range(5) for parts in itertools.product(PARTS, repeat=count)} | set(
        NAMES
    )
    keys = {key(name) for name in names}
    assert len(keys) == len(names) > 30_000
    for one in keys:
        _validate_metric_name(one)
        assert len(one) <= 250
        assert posixpath.normpath(one) == one


def test_a_text_that_is_cut_still_differs_from_another():
    assert shortened("a" * 10, 10) == "a" * 10
    cut = {shortened("a" * 100 + end, 50) for end in "xyz"}
    assert len(cut) == 3
    assert {len(one) for one in cut} == {50}


def test_a_field_is_labelled_by_its_last_part_or_by_its_section_where_that_is_its_name():
    assert labels(["model.batch_norm", "schedule.name"]) == {
        "model.batch_norm": "batch_norm",
        "schedule.name": "schedule",
    }
    assert labels(["model.name", "optimizer.name"]) == {"model.name": "model", "optimizer.name": "optimizer"}


def test_labels_that_would_be_one_are_told_apart():
    assert labels(["schedule.name", "schedule"]) == {"schedule.name": "schedule.name", "schedule": "schedule"}
    assert labels(["augment.crop", "crop"]) == {"augment.crop": "augment.crop", "crop": "crop"}
    assert labels(["seed", "factor seed"]) == {"seed": "factor factor seed", "factor seed": "factor seed"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    held = layout.open_store(tmp_path_factory.mktemp("names") / "store")
    layout.create(held)
    return held


def sent(held, loaded):
    sources = tracking.tracked(loaded, begun(held, loaded), held)
    tracking.sync(tracking.uri(held, None), loaded, sources, held)
    assert tracking.compare(tracking.uri(held, None), loaded, sources, held) == []
    return runs_of(client(held.path), loaded.name)


def test_mlflow_shows_the_level_of_every_factor_whatever_it_is_called(shared):
    fields = [
        path
        for path, info in recipe_fields.fields().items()
        if info.annotation is float and path.startswith(("augment.", "training."))
    ]
    fields += [
        "model.conv_dropout",
        "model.head_dropout",
        "optimizer.momentum",
        "optimizer.weight_decay",
        "schedule.warmup",
    ]
    for start in range(0, len(NAMES), 6):
        few = NAMES[start : start + 6]
        raw = {
            "name": f"names {start}",
            "seeds": 1,
            "design": "one_at_a_time",
            "recipe": {"model": {"name": "cnn4"}},
        }
        raw["factor"] = [
            {
                "name": name,
                "levels": [{"name": f"{i} off", "set": {path: 0.0}}, {"name": f"{i} on", "set": {path: 0.5}}],
            }
            for i, (name, path) in enumerate(zip(few, fields, strict=False))
        ]
        runs = sent(shared, study_file.check(raw, "x.toml"))
        assert len(runs) == 1 + len(few)
        for i, label in enumerate(labels(few).values()):
            assert sorted(run.data.params[key(label)] for run in runs) == [f"{i} off"] * len(few) + [
                f"{i} on"
            ]
        assert {run.data.params["seed"] for run in runs} == {"0"}


def test_a_study_called_default_has_an_experiment_of_its_own(shared):
    raw = {
        "seeds": 1,
        "recipe": {"data": {"name": "digits"}, "model": {"name": "cnn4"}},
        "factors": {"augment": {"rotation": [0, 5]}},
    }
    for name in ("Default", "Default (study)"):
        loaded = study_file.check({**raw, "name": name}, "x.toml")
        sources = tracking.tracked(loaded, begun(shared, loaded), shared)
        tracking.sync(tracking.uri(shared, None), loaded, sources, shared)
        assert tracking.compare(tracking.uri(shared, None), loaded, sources, shared) == []
        assert len(runs_of(client(shared.path), f"{name} (study)")) == 2
    assert runs_of(client(shared.path), "Default") == []


@pytest.mark.parametrize("name", ["97%", "a=b", "a\nb", "..", "a/b", "a//", "é", "e\u0301"])
def test_a_class_of_any_name_may_be_the_metric_of_a_study(shared, name):
    raw = {
        "seeds": 1,
        "recipe": {"data": {"name": "digits"}, "model": {"name": "cnn4"}},
        "factors": {"augment": {"rotation": [0, 5]}},
    }
    loaded = study_file.check({**raw, "name": f"class {name}", "metric": f"test/accuracy/{name}"}, "x.toml")
    runs = begun(shared, loaded)
    folder = shared.job(runs[0].job_id)
    metrics = {"test/accuracy": 0.5, f"test/accuracy/{name}": 0.25, "test/accuracy/other": 0.75}
    files.write_json(folder.result, record_files.result(timestamp=1200, parameters=7))
    outcome = folder.outcome(identity.evaluation_id(runs[0].cell.recipe)) / "outcome.json"
    confusion = [[1, 3], [1, 3]]
    content = record_files.evaluation(
        timestamp=1300, metrics=metrics, classes=[name, "other"], confusion=confusion
    )
    files.write_json(outcome, content)
    sources = tracking.tracked(loaded, runs, shared)
    tracking.sync(tracking.uri(shared, None), loaded, sources, shared)
    assert tracking.compare(tracking.uri(shared, None), loaded, sources, shared) == []
    shown = [
        run.data.metrics
        for run in runs_of(client(shared.path), loaded.name)
        if "test/accuracy" in run.data.metrics
    ]
    assert shown == [
        {
            "test/accuracy": 0.5,
            key(f"test/accuracy/{name}"): 0.25,
            "test/precision": 0.5,
            "test/recall": 0.5,
            "test/f1": pytest.approx((1 / 3 + 0.6) / 2),
            "time/train_seconds": 1.0,
            "model/parameters": 7.0,
        }
    ]
