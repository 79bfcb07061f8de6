"""Runs to findings: which runs are compared with which, for every design, gap and failure."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from outcomes import CROPS, crossed, effect, find, half, make, outcomes, random_value, turned
from scipy.stats import ttest_1samp, ttest_rel
from statsmodels.stats.weightstats import DescrStatsW

from ablate.analysis import effects, findings, metric_table
from ablate.report import data, exports, headline, names, words


def test_a_main_effect_is_the_mean_inside_each_seed_over_all_settings_of_the_others():
    made, value = make(), random_value()
    found = find(made, value)
    cells = {tuple(cell.levels.values()): cell for cell in made[1].cells}
    for seed in range(3):
        expected = np.mean(
            [
                value(cells[r, "false", d], seed) - value(cells[r, "true", d], seed)
                for r in ("0", "15")
                for d in ("0.0", "0.1", "0.3")
            ]
        )
        assert effect(found, "model.batch_norm").per_seed[seed] == pytest.approx(expected, abs=1e-12)


def by_the_rule(pairs):
    """Average (seed x setting) differences, NaN where there is none.

    Over the seeds that have all, else over the settings that all seeds have.
    """
    complete = pairs.dropna()
    if len(complete) >= 2:
        return complete.mean(axis=1)
    return pairs.dropna(how="all").dropna(axis=1).mean(axis=1).dropna()


def laid_out(made, value, gone):
    """Lay the values out by seed and by the levels of every factor, NaN where the run is gone."""
    rows = [
        c.levels | {"seed": s, "y": np.nan if (c.label, s) in gone else value(c, s)}
        for c in made[1].cells
        for s in made[0].seeds
    ]
    return (
        pd.DataFrame(rows)
        .set_index(["seed", *made[1].cells[0].levels])["y"]
        .unstack([*made[1].cells[0].levels])
    )


def agrees(one, d, family):
    """Compare an effect with a t test of its per-seed differences."""
    assert dict(one.per_seed) == pytest.approx(dict(d), abs=1e-12)
    assert one.estimate.n == len(d)
    assert one.estimate.reason == {0: "no pairs", 1: "one seed"}.get(len(d))
    if len(d) > 1:
        expected, each = DescrStatsW(d), 1 - 0.95 ** (1 / family)
        low, high = expected.tconfint_mean(each)
        assert one.estimate.effect == pytest.approx(expected.mean, abs=1e-9)
        assert (one.estimate.low, one.estimate.high) == pytest.approx((low, high), abs=1e-9)
        assert one.estimate.p == pytest.approx(1 - (1 - expected.ttest_mean()[1]) ** family, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_random_grids_with_and_without_gaps_agree_with_pandas_and_statsmodels(seed):
    made, value, rng = make(seeds=5), random_value(seed), np.random.default_rng(seed)
    share = (0, 0.02, 0.1, 0.3)[seed % 4]
    gone = {(c.label, s) for c in made[1].cells for s in range(5) if rng.random() < share}
    if seed % 4 == 2:  # a cell of which nothing is left, as where a learning rate always diverges
        gone |= {(made[1].cells[seed % 12].label, s) for s in range(5)}
    found = find(made, value, status=lambda cell, s: "not_run" if (cell.label, s) in gone else "finished")
    wide = laid_out(made, value, gone)
    for one in found.effects:
        pairs = wide.xs(one.end, axis=1, level=one.factor) - wide.xs(one.start, axis=1, level=one.factor)
        agrees(one, by_the_rule(pairs), len(found.effects))
        whole = len(pairs.dropna()) >= 2
        kept = len(pairs.dropna(how="all").dropna(axis=1).columns)
        assert (
            ("conditional" in one.flags)
            == (one.scope is not None)
            == (not whole and 0 < kept < pairs.shape[1])
        )
        assert one.left_out == tuple(s for s in range(5) if s not in one.per_seed)
        assert ("incomplete" in one.flags) == bool(one.left_out)
        assert one.scattered == (not whole and not kept and bool(pairs.notna().any(axis=None)))
    for one in found.interactions:
        (first, a0, a1), (second, b0, b1) = one.changes
        y = {(a, b): wide.xs((a, b), axis=1, level=[first, second]) for a in (a0, a1) for b in (b0, b1)}
        agrees(one, by_the_rule((y[a1, b1] - y[a0, b1]) - (y[a1, b0] - y[a0, b0])), len(found.interactions))


def test_every_level_is_compared_with_its_baseline_in_one_family():
    found = find(make(), random_value())
    assert [(e.factor, e.start, e.end) for e in found.effects] == [
        ("augment.rotation", "0", "15"),
        ("model.batch_norm", "true", "false"),
        ("model.conv_dropout", "0.0", "0.1"),
        ("model.conv_dropout", "0.0", "0.3"),
    ]
    one = effect(found, "augment.rotation")
    p = ttest_1samp(list(one.per_seed.values()), 0).pvalue
    assert one.estimate.p == pytest.approx(1 - (1 - p) ** 4, abs=1e-9)


def test_an_interaction_is_the_difference_of_the_differences():
    made, value = make(), random_value(1)
    found = find(made, value)
    cells = {tuple(cell.levels.values()): cell for cell in made[1].cells}
    one = effect(found, "augment.rotation x model.conv_dropout", "15 / 0.3")
    for seed in range(3):
        y = {
            (r, d): np.array([value(cells[r, b, d], seed) for b in ("true", "false")])
            for r, d in itertools.product(("0", "15"), ("0.0", "0.3"))
        }
        expected = np.mean((y["15", "0.3"] - y["0", "0.3"]) - (y["15", "0.0"] - y["0", "0.0"]))
        assert one.per_seed[seed] == pytest.approx(expected, abs=1e-12)
    assert len(found.interactions) == 1 + 2 + 2


def test_one_at_a_time_compares_each_level_with_the_baseline_cell_and_knows_no_interactions():
    made, value = make(design="one_at_a_time"), random_value(2)
    found = find(made, value)
    baseline, *others = made[1].cells
    assert len(others) == 4
    assert found.interactions == ()
    for cell, one in zip(others, found.effects, strict=True):
        assert one.per_seed == pytest.approx(
            {seed: value(cell, seed) - value(baseline, seed) for seed in range(3)}, abs=1e-12
        )
    assert [e.end for e in found.cell_effects] == [cell.label for cell in others]
    assert found.cell_effects[0].per_seed == found.effects[0].per_seed


def test_cells_against_the_baseline_are_a_family_of_their_own():
    made = make()
    found = find(made, random_value(3))
    assert len(found.cell_effects) == len(made[1].cells) - 1 == 11
    one = found.cell_effects[4]
    assert one.estimate.p == pytest.approx(
        1 - (1 - ttest_1samp(list(one.per_seed.values()), 0).pvalue) ** 11, abs=1e-9
    )


def inactive():
    """MC dropout is active only where there is dropout to sample."""
    return make(
        {
            "model": {"conv_dropout": [0.0, 0.1], "batch_norm": [True, False]},
            "evaluation": {"mc_dropout": [0, 20]},
        }
    )


def test_an_inactive_factor_is_compared_only_where_it_is_active():
    made, value = inactive(), random_value(4)
    assert len(made[1].cells) == 6
    found = find(made, value)
    cells = {cell.label: cell for cell in made[1].cells}
    for seed in range(3):
        pairs = [
            ("conv_dropout=0.1, mc_dropout=20", "conv_dropout=0.1"),
            ("conv_dropout=0.1, batch_norm=false, mc_dropout=20", "conv_dropout=0.1, batch_norm=false"),
        ]
        expected = np.mean([value(cells[a], seed) - value(cells[b], seed) for a, b in pairs])
        assert effect(found, "evaluation.mc_dropout").per_seed[seed] == pytest.approx(expected, abs=1e-12)


def test_a_cell_without_a_factor_is_matched_with_that_factors_baseline():
    made, value = inactive(), random_value(5)
    found = find(made, value)
    cells = {cell.label: cell for cell in made[1].cells}
    for seed in range(3):
        pairs = [("conv_dropout=0.1", "baseline"), ("conv_dropout=0.1, batch_norm=false", "batch_norm=false")]
        expected = np.mean([value(cells[a], seed) - value(cells[b], seed) for a, b in pairs])
        assert effect(found, "model.conv_dropout").per_seed[seed] == pytest.approx(expected, abs=1e-12)
    assert "incomplete" not in effect(found, "model.conv_dropout").flags
    assert not [e for e in found.interactions if e.factor == "model.conv_dropout x evaluation.mc_dropout"]


def test_a_seed_that_lacks_a_run_is_left_out_of_the_effects_that_need_it_and_named():
    made, value = make(), random_value(6)
    gone = "batch_norm=false, conv_dropout=0.3"
    found = find(
        made, value, status=lambda cell, seed: "crashed" if (cell.label, seed) == (gone, 1) else "finished"
    )
    one = effect(found, "model.batch_norm")
    assert one.flags[0] == "incomplete"
    assert "conditional" not in one.flags
    assert one.left_out == (1,)
    cells = {tuple(cell.levels.values()): cell for cell in made[1].cells}
    settings = [(r, d) for r in ("0", "15") for d in ("0.0", "0.1", "0.3")]
    expected = {
        s: np.mean([value(cells[r, "false", d], s) - value(cells[r, "true", d], s) for r, d in settings])
        for s in (0, 2)
    }
    assert one.per_seed == pytest.approx(expected, abs=1e-12)
    assert effect(found, "model.conv_dropout", "0.1").left_out == ()
    assert names.flags(one)[0] == "incomplete: seed 1 left out"
    cell = next(c for c in found.cells if c.cell.label == gone)
    assert (cell.n, cell.failed, cell.missing) == (2, 0, 1)
    assert [(f.run, f.status) for f in found.failures] == [(f"{gone}/1", "crashed")]


def test_one_missing_run_takes_its_seed_away_and_does_not_turn_the_effect_into_another_one():
    value, whole = crossed()
    _, found = crossed(lambda cell, seed: "running" if cell.is_baseline and seed == 0 else "finished")
    one, before = effect(found, "augment.crop"), effect(whole, "augment.crop")
    assert one.per_seed == {seed: d for seed, d in before.per_seed.items() if seed}
    assert (before.estimate.verdict, one.estimate.verdict) == ("undecided", "undecided")
    cells = {cell.cell.label: cell.cell for cell in whole.cells}
    alone = [
        value(cells["crop=random_resized_crop, batch_norm=false"], s) - value(cells["batch_norm=false"], s)
        for s in range(5)
    ]
    assert ttest_1samp(alone, 0).pvalue < 0.02, (
        "where BatchNorm is off the crop helps, and that is another effect"
    )
    assert (one.scope, one.left_out) == (None, (0,))
    assert "where" not in headline.headline(found)[0]


def test_an_effect_that_is_known_in_some_settings_only_is_named_for_what_it_is_wherever_it_stands():
    asked = [
        {"text": "it helps", "expect": f"augment.crop: random_resized_crop {relation} none"}
        for relation in (">", "<", "~")
    ]
    _, found = crossed(half, claim=asked)
    one, name = effect(found, "augment.crop"), "random_resized_crop instead of none, where batch_norm = false"
    assert one.estimate.verdict == "helps"
    assert one.flags == ("conditional",)
    assert (names.change(one, found), one.estimate.n) == (name, 5)
    (answer,) = headline.headline(found)
    assert answer.startswith(
        "So far (16 of 20 runs): Known in part only, because runs failed or are missing: "
    )
    assert f"{name}: helps +" in answer
    assert words.sentences(found)[0].startswith(f"{name}: helps +")
    assert name in exports.markdown(found).replace("\\", "")
    assert name in exports.latex(found).replace("\\", "")
    written = data.to_json(found)
    row = next(e for e in written["effects"] if e["factor"] == "augment.crop")
    assert row["change"] == name
    assert (row["condition"], row["flags"], row["seeds_left_out"]) == (
        "where batch_norm = false",
        ["conditional"],
        [],
    )
    assert "where batch_norm = false" in exports.spreadsheet(found)
    assert [claim["verdict"] for claim in written["claims"]] == ["undecided"] * 3
    assert {claim["condition"] for claim in written["claims"]} == {"where batch_norm = false"}
    assert [found.verdict for found in crossed(claim=asked)[1].claims] == ["undecided"] * 3


def test_runs_that_no_setting_has_under_every_seed_say_nothing():
    def status(cell, seed):
        return (
            "running"
            if (cell.label, seed < 2) in (("baseline", True), ("batch_norm=false", False))
            else "finished"
        )

    _, found = crossed(status, claim=[{"text": "x", "expect": "augment.crop: random_resized_crop > none"}])
    one = effect(found, "augment.crop")
    assert (one.estimate.verdict, one.estimate.reason, one.estimate.effect) == ("undecided", "no pairs", None)
    assert words.verdict_words(one, found) == "undecided: no setting has its pair of runs under every seed"
    assert found.claims[0].verdict == "undecided"


def test_a_cell_that_always_fails_leaves_the_effect_of_the_others_and_says_where_it_fails():
    def status(cell, seed):
        return (
            ("diverged", "at_chance")[seed == 4]
            if cell.label == "crop=random_resized_crop, batch_norm=false"
            else "finished"
        )

    _, found = crossed(status)
    one = effect(found, "augment.crop")
    assert (one.estimate.verdict, one.survivors, "conditional" in one.flags) == ("unstable", "hurts", True)
    said = words.verdict_words(one, found)
    assert said.startswith(
        "unstable: 5 of 10 runs failed (4 diverged, 1 at chance level), 0 of 10 with crop none, only where "
        "batch_norm = false (5 of 5 there); the runs that did not fail, where batch_norm = true: hurts -"
    )
    assert names.change(one, found) == "random_resized_crop instead of none"
    assert data.to_json(found)["effects"][0]["failures"] == {
        "before": 0, "of_before": 10, "after": 5, "of_after": 10, "at_chance": 1, "chance_values": [],
        "condition": "where batch_norm = false",
    }  # fmt: skip


def test_failures_on_both_sides_are_no_reason_to_say_only():
    def status(cell, seed):
        both = cell.levels["model.batch_norm"] == "true" and seed == 4
        return (
            "diverged" if both or cell.label == "crop=random_resized_crop, batch_norm=false" else "finished"
        )

    _, found = crossed(status)
    said = words.verdict_words(effect(found, "augment.crop"), found)
    assert said.startswith(
        "unstable: 6 of 10 runs diverged, 1 of 10 with crop none, more than without it only where "
        "batch_norm = false (5 of 5 there);"
    )


def test_runs_at_chance_level_are_counted_with_their_values():
    made = make(CROPS, seeds=5)
    runs = outcomes(
        made,
        random_value(),
        status=lambda cell, seed: "at_chance" if cell.label.startswith("crop") and seed > 2 else "finished",
    )
    runs = tuple(
        replace(o, metrics={"test/accuracy": 0.1 + 0.001 * o.run.seed}) if o.status == "at_chance" else o
        for o in runs
    )
    found = findings.find(*made, runs)
    one = effect(found, "augment.crop")
    assert set(one.per_seed) == {0, 1, 2}
    said = (
        "unstable: 4 of 10 runs stayed at chance level, test/accuracy 10.30 % to 10.40 %, 0 of 10 with "
        "crop none; the runs that did"
    )
    assert words.verdict_words(one, found).startswith(said)
    assert data.to_json(found)["effects"][0]["failures"]["chance_values"] == pytest.approx(
        [0.103, 0.103, 0.104, 0.104]
    )


def test_diverged_runs_make_a_level_unstable_and_are_never_averaged():
    made = make()

    def status(cell, seed):
        return "diverged" if cell.levels["model.batch_norm"] == "false" and seed == 0 else "finished"

    found = find(
        made,
        lambda cell, seed: 0.9 - 0.1 * (cell.levels["model.batch_norm"] == "false") + 0.001 * seed,
        status=status,
    )
    one = effect(found, "model.batch_norm")
    assert one.estimate.verdict == "unstable"
    assert one.survivors in ("hurts", "undecided")
    assert set(one.per_seed) == {1, 2}
    assert effect(found, "augment.rotation").estimate.verdict != "unstable"
    assert sum(cell.failed for cell in found.cells) == 6
    assert all(math.isfinite(cell.mean) for cell in found.cells)


def test_a_main_effect_that_another_factor_turns_round_is_flagged_on_both():
    made = make({"augment": {"rotation": [0, 15]}, "model": {"batch_norm": [True, False]}}, seeds=6)
    noise = np.random.default_rng(0)

    def value(cell, seed):
        r, b = cell.levels["augment.rotation"] == "15", cell.levels["model.batch_norm"] == "false"
        return 0.7 + (0.1 if r and b else -0.1 if r else 0.0) + float(noise.normal(0, 0.002))

    found = find(made, value)
    assert effect(found, "augment.rotation").flags == ("depends on model.batch_norm",)
    additive = find(
        made,
        lambda cell, seed: (
            0.7 + 0.1 * (cell.levels["augment.rotation"] == "15") + float(noise.normal(0, 0.002))
        ),
    )
    assert effect(additive, "augment.rotation").flags == ()


def test_nothing_lacks_a_cell_that_is_excluded():
    exclude = {"if": "model.batch_norm == false and augment.rotation > 0", "why": "diverges"}
    found = find(make(exclude=[exclude]), random_value())
    assert {e.flags for e in (*found.effects, *found.interactions)} == {()}


def test_a_metric_to_minimise_turns_the_verdict_and_not_the_sign():
    made = make({"augment": {"rotation": [0, 15]}}, metric="test/loss", seeds=5)
    noise = np.random.default_rng(2)

    def loss(cell):
        return {"test/loss": 1.0 - 0.2 * (cell.label != "baseline") + float(noise.normal(0, 0.01))}

    measured = (replace(o, metrics=o.metrics | loss(o.run.cell)) for o in outcomes(made, random_value()))
    found = findings.find(*made, tuple(measured))
    assert found.effects[0].estimate.effect == pytest.approx(-0.2, abs=0.02)
    assert found.effects[0].estimate.verdict == "helps"


@pytest.mark.slow
def test_identical_levels_are_declared_different_in_about_one_family_of_twenty():
    """An A/A study: 400 studies of 4 contrasts whose levels do nothing, in their true family."""
    made = make(seeds=5)
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(400):
        by_seed = rng.normal(0, 0.02, 5)
        found = find(
            made, lambda cell, seed, by_seed=by_seed: 0.7 + by_seed[seed] + float(rng.normal(0, 0.01))
        )
        false += any(e.estimate.verdict in ("helps", "hurts") for e in found.effects)
    assert 6 <= false <= 36  # 20 expected, sd 4.4


def test_one_cell_alone_has_a_mean_and_no_effects():
    found = find(make({}), random_value())
    assert (len(found.cells), found.effects, found.interactions, found.cell_effects) == (1, (), (), ())
    assert found.cells[0].n == 3


@pytest.mark.parametrize("name", ["C", "a b", 'say "x"', "lambda", "a x b", "1 / 2", "<b>"])
def test_a_factor_may_have_any_name(name):
    levels = [
        {"name": level, "set": {"augment": {"rotation": i}}} for i, level in enumerate(("a / b", "c x d"))
    ]
    made = make({"model": {"batch_norm": [True, False]}}, factor=[{"name": name, "levels": levels}], seeds=4)
    found = find(made, random_value(8))
    assert effect(found, name).end == "c x d"
    assert found.interactions[0].changes == (("model.batch_norm", "true", "false"), (name, "a / b", "c x d"))


# Simple effects


def test_simple_effects_are_those_of_what_is_turned_round_at_every_level_of_what_turns_it():
    _, _, found = turned()
    expected = [
        (e.changes, (other, level.name))
        for e in found.effects
        for flag in e.flags
        for other in [flag.removeprefix("depends on ")]
        for level in next(f for f in found.study.factors if f.name == other).levels
    ]
    assert ((("augment.rotation", "0", "15"),), ("model.batch_norm", "false")) in expected
    assert [(e.changes, e.where) for e in found.simple_effects] == expected
    assert {e.kind for e in found.simple_effects} == {"simple"}


def test_a_simple_effect_is_the_main_effect_over_the_cells_with_that_level():
    (_, expanded), value, found = turned()
    cells = {tuple(cell.levels.values()): cell for cell in expanded.cells}
    for level, sign in (("true", -1), ("false", 1)):
        one = next(
            e
            for e in found.simple_effects
            if e.where == ("model.batch_norm", level) and e.factor == "augment.rotation"
        )
        for seed in range(5):
            pairs = [
                value(cells["15", level, d], seed) - value(cells["0", level, d], seed)
                for d in ("0.0", "0.1", "0.3")
            ]
            assert one.per_seed[seed] == pytest.approx(np.mean(pairs), abs=1e-12)
        assert one.estimate.verdict == {1: "helps", -1: "hurts"}[sign]
        p = ttest_1samp(list(one.per_seed.values()), 0).pvalue
        assert one.estimate.p == pytest.approx(1 - (1 - p) ** len(found.simple_effects), rel=1e-6)


def test_simple_effects_say_where_in_words_and_in_json():
    _, _, found = turned()
    assert [names.change(e, found) for e in found.simple_effects[:2]] == [
        "rotation 15 instead of 0, where batch_norm = true",
        "rotation 15 instead of 0, where batch_norm = false",
    ]
    written = [e for e in data.to_json(found)["effects"] if e["kind"] == "simple"]
    assert [e["where"] for e in written] == [list(e.where) for e in found.simple_effects]
    assert all(e["where"] is None for e in data.to_json(found)["effects"] if e["kind"] != "simple")


def test_a_study_without_a_sign_that_turns_has_no_simple_effects():
    assert find(make(), lambda cell, seed: 0.7 + 0.01 * len(cell.label) + 0.001 * seed).simple_effects == ()


def test_two_cells_are_compared_by_a_paired_t_test():
    made, value = make(seeds=6), random_value(9)
    table = metric_table.tabulate(*made, outcomes(made, value), "test/accuracy", "max")
    one, other = made[1].cells[3], made[1].cells[8]
    found = effects.between(table, one, other)
    expected = ttest_rel([value(other, seed) for seed in range(6)], [value(one, seed) for seed in range(6)])
    interval = expected.confidence_interval(0.95)
    assert (found.start, found.end) == (one.label, other.label)
    assert found.estimate.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_two_cells_with_a_gap_are_compared_under_the_seeds_that_both_have():
    made, value = make(seeds=6), random_value(10)
    one, other = made[1].cells[3], made[1].cells[8]
    gap = outcomes(
        made, value, status=lambda cell, seed: "not_run" if (cell, seed) == (other, 2) else "finished"
    )
    found = effects.between(metric_table.tabulate(*made, gap, "test/accuracy", "max"), one, other)
    assert (set(found.per_seed), found.flags) == ({0, 1, 3, 4, 5}, ("incomplete",))
