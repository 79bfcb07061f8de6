"""What a report says of tuning, from the files that a store has of it."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resolving import fingerprints

from ablate.analysis import tuning as tuning_findings
from ablate.planning import tuning
from ablate.recipe import range_test
from ablate.recipe.range_test import Curve
from ablate.store import files, layout
from ablate.study import file as study_file
from ablate.study import grid

SEARCH = {
    "trials": 6,
    "space": {
        "optimizer": {
            "lr": {"low": 0.001, "high": 1.0, "log": True},
            "weight_decay": {"low": 0.0, "high": 0.01},
        }
    },
}


@pytest.fixture
def here(tmp_path):
    made = layout.open_store(tmp_path / "store")
    layout.create(made)
    return made


def resolved(here, **more):
    """Make a study and what its store says of its tuning."""
    raw = {
        "name": "x",
        "seeds": 2,
        "recipe": {"model": {"name": "cnn4"}},
        "factors": {"model": {"batch_norm": [True, False]}},
    } | more
    checked = study_file.check(raw, "x.toml")
    expanded = grid.expand(checked, precision="fp32")
    return checked, tuning.resolve(checked, expanded, here, fingerprints(expanded))


def put_trials(here, one, values, *, fields=None, states=None):
    """Write the trials of a search as a run leaves them; the first is the recipe as it stands."""
    rows = []
    for i, given_ in enumerate(values):
        params = (
            fields[i]
            if fields
            else {
                "optimizer.lr": 0.1 if i == 0 else 10 ** -(i / 3),
                "optimizer.weight_decay": 0.0005 * (i + 1),
            }
        )
        state = states[i] if states else "complete"
        value = given_ if state == "complete" else None
        rows.append({
            "number": i, "params": params, "jobs": {}, "value": value, "state": state, "proposed": i > 0,
            "started": 1, "ended": 2,
        })  # fmt: skip
    files.write_json(here.search(one.id).trials, {"trials": rows})


def read(here, **more):
    checked, made = resolved(here, **more)
    return tuning_findings.read(checked, made, here)


def test_a_study_without_tuning_has_nothing_to_say(here):
    assert read(here) is None


def test_a_search_that_has_not_begun_has_no_history(here):
    assert read(here, search=SEARCH) == tuning_findings.TuningFinding()


def test_the_best_so_far_is_that_of_the_trials_that_have_ended(here):
    _, made = resolved(here, search=SEARCH)
    put_trials(
        here,
        made.searches[0],
        [0.5, 0.4, 0.9, 0.7, 0.0, 0.6],
        states=["complete"] * 4 + ["diverged", "running"],
    )
    history = read(here, search=SEARCH).histories[0]
    assert history.best_so_far == ((1, 0.5), (2, 0.5), (3, 0.9), (4, 0.9), (5, 0.9))
    assert (history.best, history.label) == (2, "baseline")
    assert [trial.state for trial in history.trials[4:]] == ["diverged", "running"]


def test_of_a_loss_the_smallest_is_the_best(here):
    asked = SEARCH | {"metric": "validation/loss"}
    _, made = resolved(here, search=asked)
    put_trials(here, made.searches[0], [0.5, 0.4, 0.9, 0.7, 0.8, 0.6])
    history = read(here, search=asked).histories[0]
    assert (history.best, history.best_so_far[-1]) == (1, (6, 0.4))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.sampled_from([1, -1]))
@settings(max_examples=60, deadline=None)
def test_the_expected_best_is_the_mean_over_all_draws_with_replacement(values, sign):
    found = dict(tuning_findings.expected_best(values, sign))
    assert set(found) == set(range(1, len(values) + 1))
    for n, value in found.items():
        draws = [sign * max(sign * v for v in draw) for draw in itertools.product(values, repeat=n)]
        assert value == pytest.approx(np.mean(draws), abs=1e-9)


def test_only_random_searches_have_an_expected_best_and_the_recipe_itself_is_no_draw(here):
    asked = SEARCH | {"sampler": "random"}
    _, made = resolved(here, search=asked)
    put_trials(here, made.searches[0], [0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    expected = read(here, search=asked).histories[0].expected
    assert len(expected) == 5
    assert expected[0] == (1, pytest.approx(0.3))
    _, made = resolved(here, search=SEARCH)
    put_trials(here, made.searches[0], [0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert read(here, search=SEARCH).histories[0].expected == ()


def test_the_map_goes_through_the_trials_and_over_the_whole_space(here):
    _, made = resolved(here, search=SEARCH)
    fields = [{"optimizer.lr": lr, "optimizer.weight_decay": wd} for lr in (0.001, 1.0) for wd in (0.0, 0.01)]
    put_trials(here, made.searches[0], [0.1, 0.2, 0.3, 0.4], fields=fields)
    found = read(here, search=SEARCH).histories[0].map
    assert (found.x[0], found.x[-1]) == (pytest.approx(0.001), pytest.approx(1.0))
    assert (found.y[0], found.y[-1]) == (0.0, pytest.approx(0.01))
    corners = [found.z[0][0], found.z[-1][0], found.z[0][-1], found.z[-1][-1]]
    assert corners == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)
    assert all(0.1 <= value <= 0.4 for row in found.z for value in row)


def test_too_few_trials_or_one_field_have_no_map(here):
    _, made = resolved(here, search=SEARCH)
    put_trials(here, made.searches[0], [0.1, 0.2, 0.3])
    assert read(here, search=SEARCH).histories[0].map is None
    single = {"trials": 6, "space": {"optimizer": {"lr": {"low": 0.001, "high": 1.0}}}}
    _, made = resolved(here, search=single)
    put_trials(here, made.searches[0], [0.1] * 6, fields=[{"optimizer.lr": 0.1}] * 6)
    assert read(here, search=single).histories[0].map is None


def test_an_effect_turns_where_its_sign_at_the_first_trials_is_not_that_at_the_best(here):
    _, made = resolved(here, search=SEARCH)
    put_trials(here, made.searches[0], [0.5, 0.9, 0.1, 0.1, 0.1, 0.1])
    put_trials(here, made.searches[1], [0.7, 0.8, 0.1, 0.1, 0.1, 0.1])
    (turn,) = read(here, search=SEARCH).turns
    assert turn.change == ("model.batch_norm", "true", "false")
    assert (turn.shared, turn.tuned, turn.is_turned) == (pytest.approx(0.2), pytest.approx(-0.1), True)


def test_no_effect_turns_by_one_search_for_all_or_where_the_recipe_was_not_tried(here):
    asked = SEARCH | {"per": "study"}
    _, made = resolved(here, search=asked)
    put_trials(here, made.searches[0], [0.5, 0.9, 0.1, 0.1, 0.1, 0.1])
    assert read(here, search=asked).turns == ()
    outside = SEARCH | {"space": {"optimizer": {"lr": {"low": 0.5, "high": 1.0}}}}
    _, made = resolved(here, search=outside)
    for one in made.searches:
        put_trials(here, one, [0.5, 0.9], fields=[{"optimizer.lr": 0.6}, {"optimizer.lr": 0.7}])
        rows = json.loads(here.search(one.id).trials.read_text())["trials"]
        files.write_json(here.search(one.id).trials, {"trials": [row | {"proposed": True} for row in rows]})
    assert read(here, search=outside).turns == ()


def put_curves(here, test, *, upto):
    tried = range_test.rates(test.sweep)
    for seed in test.seeds[:upto]:
        losses = tuple(
            2.3 - 1.5 / (1 + math.exp(-3 * (math.log10(rate) + 2.5))) + 0.001 * (seed % 7) for rate in tried
        )
        curve = Curve(
            tried, (*losses[:90], *(math.inf for _ in losses[90:])), (0.5,) * len(tried), "diverged"
        )
        files.write_json(here.range(test.id).curve(seed), range_test.to_json(curve) | {"timestamp": 1})


FIND = {"recipe": {"model": {"name": "cnn4"}, "optimizer": {"lr": "find"}}}


def test_a_range_test_has_its_median_its_band_and_what_was_chosen(here):
    _, made = resolved(here, **FIND)
    assert read(here, **FIND) == tuning_findings.TuningFinding()
    put_curves(here, made.ranges[0], upto=2)
    begun = read(here, **FIND).ranges[0]
    assert (begun.chosen, begun.suggestions) == (None, {})
    put_curves(here, made.ranges[0], upto=3)
    tuning.conclude(made.open_ranges, here)
    found = read(here, **FIND).ranges[0]
    assert found.chosen.status == "ok"
    assert found.chosen.rate == float(f"{found.suggestions[found.chosen.rule].rate:.2g}")
    assert set(found.suggestions) == set(range_test.RULES)
    assert len(found.tried) == len(found.low) == len(found.high) == 90
    assert all(low < high for low, high in zip(found.low, found.high, strict=True))
    assert len(found.rates) == len(found.losses)


def test_cells_that_share_a_range_test_are_named_together(here):
    shared = FIND | {"factors": {"evaluation": {"tta": ["none", "flip"]}}}
    _, made = resolved(here, **shared)
    assert len(made.ranges) == 1
    put_curves(here, made.ranges[0], upto=1)
    assert read(here, **shared).ranges[0].label == "baseline, tta=flip"


def test_what_some_searches_say_of_a_change_is_named_for_the_cells_that_they_tuned(here):
    asked = {
        "search": SEARCH,
        "factors": {"model": {"batch_norm": [True, False]}, "augment": {"rotation": [0, 15]}},
    }
    _, made = resolved(here, **asked)
    for one, values in zip(made.searches, ([0.5, 0.9], [0.6, 0.8], [0.7, 0.8]), strict=False):
        put_trials(here, one, [*values, 0.1, 0.1, 0.1, 0.1])
    turns = {turn.change[0]: turn for turn in read(here, **asked).turns}
    assert turns["model.batch_norm"].scope.terms == ((("augment.rotation", ("0",)),),)
    assert turns["augment.rotation"].scope.terms == ((("model.batch_norm", ("true",)),),)
    put_trials(here, made.searches[3], [0.7, 0.8, 0.1, 0.1, 0.1, 0.1])
    assert {turn.scope for turn in read(here, **asked).turns} == {None}
