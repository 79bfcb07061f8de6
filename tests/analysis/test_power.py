"""What a plan says that a study can see: from the noise of runs, or a bound, or nothing."""

import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ablate
from outcomes import find, make, outcomes, random_value
from scipy.stats import chi2

from ablate.analysis import power, stats
from ablate.cli import plan as plans
from ablate.errors import AblateError
from ablate.execution import options
from ablate.store import layout, study_folder
from ablate.study import file as study_file
from ablate.workflow import plan as planning

GOLDEN = Path(__file__).parents[1] / "golden" / "finished"
QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.toml"


def look(made, sds=(), n_test=10_000, seeds=5):
    return power.look(made[0], power.Noise(tuple(sds), seeds), "from somewhere", n_test)


def test_the_noise_is_that_of_the_main_effects():
    made, value = make(seeds=5), random_value()
    sds = [e.estimate.sd for e in find(made, value).effects]
    assert power.noise(*made, outcomes(made, value)) == power.Noise(tuple(sds), seeds=5)
    assert len(sds) == 4


def test_what_has_no_noise_tells_nothing():
    made = make()
    assert power.noise(*made, outcomes(made, lambda cell, seed: 0.9)) == power.Noise()
    assert (
        power.noise(*made, outcomes(made, random_value(), status=lambda cell, seed: "not_run"))
        == power.Noise()
    )


def test_the_smallest_effect_is_that_of_the_median_noise():
    made = make(seeds=5)
    sds = [0.001, 0.02, 0.004, 0.009]
    found = look(made, sds)
    assert found.effect == stats.detectable_effect(statistics.median(sds), 5, family=4, alpha=0.05)
    assert (found.basis, found.is_bound) == ("from somewhere", False)


def test_seeds_for_the_smallest_effect_worth_having_are_those_that_would_see_it():
    found = look(make(seeds=5), [0.02])
    needed = found.seeds_for_min_effect
    assert needed == stats.seeds_needed(0.02, 0.01, family=4, alpha=0.05) > 5
    assert (
        stats.detectable_effect(0.02, needed, family=4, alpha=0.05)
        <= 0.01
        < stats.detectable_effect(0.02, needed - 1, family=4, alpha=0.05)
    )
    assert look(make(seeds=5, min_effect=None), [0.02]).seeds_for_min_effect is None
    assert look(make(min_effect=1e-6), [0.02]).seeds_for_min_effect == stats.CAP + 1


def test_without_noise_the_test_images_set_a_bound():
    found = look(make(seeds=5))
    assert found.is_bound
    assert found.effect == stats.detectable_effect((0.1 / 10_000) ** 0.5, 5, family=4, alpha=0.05)
    assert "10,000 test images" in found.basis


@pytest.mark.parametrize(
    ("made", "sds", "n_test"),
    [
        (make(metric="test/loss"), [], 10_000),  # the bound is of accuracies
        (make(metric="test/calibration_error"), [], 10_000),
        (make(), [], None),
        (make(seeds=1), [0.01], 10_000),
        (make(seeds=1), [], 10_000),
        (make({}), [0.01], 10_000),
    ],
)
def test_where_nothing_can_be_said_nothing_is(made, sds, n_test):
    assert look(made, sds, n_test) is None


def test_noise_counts_for_any_metric():
    assert look(make(metric="test/loss", seeds=4), [0.01]).effect == stats.detectable_effect(
        0.01, 4, family=4, alpha=0.05
    )


FRESH = """
import json, sys
from pathlib import Path
from ablate.execution import options
from ablate.store import layout
from ablate.study import file
from ablate.workflow import answers, plan
where = options.Where(layout.open_store(Path(sys.argv[2])))
preview = plan.preview(file.load(Path(sys.argv[1])), where)
print(json.dumps({"data": answers.plain(answers.planned(preview)), "modules": sorted(sys.modules)}))
"""


def test_a_plan_in_an_empty_store_says_what_it_sees_without_a_heavy_library(tmp_path):
    command = [sys.executable, "-c", FRESH, str(QUICKSTART), str(tmp_path)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["data"]["detectable_effect"] > 0
    assert not {"torch", "torchvision", "mlflow", "plotly", "pandas", "sklearn"} & set(told["modules"])


def test_a_plan_goes_by_the_runs_that_are_there(done):
    folder, _ = done
    code, out, err = ablate("plan", folder / "tiny.toml", "--store", folder / "store", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["detectable_effect_basis"] == "from the runs that are there"
    _, report, _ = ablate("report", folder / "tiny.toml", "--store", folder / "store", "--format", "json")
    sds = [e["sd"] for e in json.loads(report)["effects"] if e["kind"] == "main" and e["sd"]]
    assert said["detectable_effect"] == stats.detectable_effect(
        statistics.median(sds), 2, family=2, alpha=0.05
    )


@pytest.fixture
def finished(tmp_path):
    """Copy the store of a finished study of 4 seeds, whose runs a second study of 2 seeds has as well."""
    shutil.copytree(GOLDEN, tmp_path / "store")
    where = options.Where(layout.open_store(tmp_path / "store"))
    tiny = study_folder.recall(where.store, "tiny")
    known = study_folder.settled(where.store, "tiny")
    study_folder.keep(
        where.store, study_file.check(tiny.raw | {"name": "a_two_seeds", "seeds": 2}, "a.toml"), known
    )
    return where


def seen(where, name="other", **more):
    tiny = study_folder.recall(where.store, "tiny")
    checked = study_file.check(tiny.raw | {"name": name} | more, "other.toml")
    return planning.outlook(planning.plan(checked, where), where)


def longer(where):
    recipe = study_folder.recall(where.store, "tiny").raw["recipe"]
    return {"recipe": recipe | {"training": recipe["training"] | {"epochs": 4}}}


def test_a_new_study_goes_by_the_study_on_the_same_images_that_has_the_most_seeds(finished):
    found = seen(finished, **longer(finished))
    assert found.basis == "from the noise of the study tiny, 4 seeds"
    assert not found.is_bound


def test_two_seeds_of_another_study_tell_nothing(finished):
    shutil.rmtree(finished.store.study("tiny"))
    with pytest.raises(AblateError):
        study_folder.recall(finished.store, "tiny")
    two = study_folder.recall(finished.store, "a_two_seeds")
    recipe = two.raw["recipe"] | {"training": two.raw["recipe"]["training"] | {"epochs": 4}}
    checked = study_file.check(two.raw | {"name": "other", "recipe": recipe, "seeds": 4}, "other.toml")
    found = planning.outlook(planning.plan(checked, finished), finished)
    assert found is None or found.is_bound


def test_own_runs_come_first_even_from_two_seeds(finished):
    assert seen(finished, "tiny", seeds=2).basis == "from the runs that are there"


def test_the_range_is_that_of_the_noise(finished):
    found = seen(finished)
    low, high = (math.sqrt(3 / chi2.ppf(tail, 3)) for tail in (0.9, 0.1))
    assert (found.low, found.high) == pytest.approx((low * found.effect, high * found.effect))
    assert found.low < found.effect < found.high


@pytest.mark.parametrize(("seeds", "is_blind"), [(2, True), (5, False)])
def test_what_no_accuracy_can_show_is_said_in_words(seeds, is_blind):
    made = make(seeds=seeds)
    found = look(made, [0.03], seeds=seeds)
    assert found.is_blind is is_blind == (found.effect >= 1)
    planned = SimpleNamespace(study=made[0])
    said = plans._outlook(planned, found)
    assert (
        "nothing at 2 seeds: an effect would have to be larger than test/accuracy can change" in said
    ) is is_blind
    assert (
        bool(re.search(r"effects of about \d[.\d]* points \([.\d]+ to [.\d]+\) at 5 seeds", said))
        is not is_blind
    )


def test_only_studies_of_the_same_metric_and_images_are_alike():
    def one_of(metric="test/accuracy", **section):
        return make(recipe={"data": section, "model": {"name": "cnn4"}}, metric=metric)[0]

    one, same = one_of(name="imagefolder", root="/a"), one_of(name="imagefolder", root="/a")
    assert power.alike(one, same)
    assert not power.alike(one, one_of(name="imagefolder", root="/b"))
    assert power.alike(one_of(name="digits", root="/a"), one_of(name="digits"))
    assert power.alike(one_of(), one_of(name="cifar10"))
    assert not power.alike(one_of(name="digits"), one_of(name="mnist"))
    assert not power.alike(one_of(name="digits"), one_of(name="digits", metric="test/loss"))
