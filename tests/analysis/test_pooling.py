"""The pooled variance against statsmodels, tables and simulation, and what a study says that asks for it."""

import itertools
import math

import numpy as np
import outcomes as made_up
import pandas as pd
import pytest
from scipy import integrate
from scipy import stats as distributions
from statsmodels.regression.linear_model import OLS

from ablate.analysis import pooling
from ablate.analysis.pooling import Fit, fit, spreads
from ablate.analysis.stats import estimate, level
from ablate.report import exports, headline, names, words

NAN = math.nan


def by_statsmodels(values, weights):
    """Fit the same by dummies: effects, standard errors, degrees of freedom and p values."""
    seeds, cells = np.nonzero(np.isfinite(values))
    columns = [
        *(cells == c for c in range(values.shape[1])),
        *(seeds == s for s in range(1, values.shape[0])),
    ]
    result = OLS(values[seeds, cells], np.column_stack(columns).astype(float)).fit()
    padded = np.hstack([weights, np.zeros((len(weights), values.shape[0] - 1))])
    test = result.t_test(padded)
    return test.effect, test.sd.ravel(), int(result.df_resid), test.pvalue


def against_first(cells):
    return np.array([[-1.0, *(float(c == other) for c in range(1, cells))] for other in range(1, cells)])


@pytest.mark.parametrize("seed", range(40))
def test_effects_errors_and_p_agree_with_least_squares_of_statsmodels_with_and_without_gaps(seed):
    rng = np.random.default_rng(seed)
    seeds, cells = int(rng.integers(2, 8)), int(rng.integers(2, 9))
    values = 0.9 + 0.01 * rng.normal(size=(seeds, cells)) + 0.02 * rng.normal(size=(seeds, 1))
    if seed % 2:
        gone = rng.random(values.shape) < 0.25
        gone[0] = gone[-1] = False  # so that every cell is there, under two seeds
        values[gone] = NAN
    weights = np.vstack([against_first(cells), rng.normal(size=(2, cells))])
    weights[-2:] -= weights[-2:].mean(axis=1, keepdims=True)
    effects, errors, df, p = by_statsmodels(values, weights)
    found = fit(values, weights)
    assert found.df == df
    np.testing.assert_allclose(found.effects, effects, atol=1e-9)
    np.testing.assert_allclose(found.errors, errors, atol=1e-9)
    alone = [spreads(fit(values, row[None]), np.array([seeds]), family=1, alpha=0.05)[0].p for row in weights]
    np.testing.assert_allclose(alone, p, atol=1e-9)


def test_one_contrast_of_two_complete_cells_is_the_paired_t_test():
    y = np.random.default_rng(3).normal(size=(6, 2))
    found = spreads(fit(y, np.array([[-1.0, 1.0]])), np.array([6]), family=1, alpha=0.05)[0]
    expected = distributions.ttest_rel(y[:, 1], y[:, 0])
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.effect + found.critical * found.sd / math.sqrt(6) == pytest.approx(
        expected.confidence_interval(0.95).high, abs=1e-12
    )


def balanced(arms, df):
    """Return the fit of complete data: all comparisons with the baseline have correlation 1/2."""
    return Fit(np.zeros(arms), np.ones(arms), df, np.full((arms, arms), 0.5) + 0.5 * np.eye(arms))


def by_integral(c, arms, df):
    """Return P(max |T| <= c) of Dunnett 1955 by his double integral, over the shared part and the scale."""
    z, scale = np.linspace(-8, 8, 801)[:, None], np.linspace(1e-6, 4, 801)[None]
    inside = distributions.norm.cdf(math.sqrt(2) * c * scale - z) - distributions.norm.cdf(
        -math.sqrt(2) * c * scale - z
    )
    density = distributions.norm.pdf(z) * distributions.chi(df, scale=1 / math.sqrt(df)).pdf(scale)
    return integrate.trapezoid(integrate.trapezoid(density * inside**arms, scale[0], axis=1), z[:, 0])


@pytest.mark.parametrize(("arms", "df", "table"), [(3, 8, 2.880), (4, 20, 2.651)])
def test_critical_values_are_those_of_dunnetts_tables_and_of_his_integral(arms, df, table):
    """Two-sided, 5 %: Dunnett 1964, table II."""
    found = spreads(balanced(arms, df), np.full(arms, 5), family=arms, alpha=0.05)[0].critical
    assert found == pytest.approx(table, abs=0.002)
    assert by_integral(found, arms, df) == pytest.approx(0.95, abs=2e-4)


def test_p_is_that_of_dunnetts_integral():
    found = spreads(
        Fit(np.array([2.0, 2.5, -3.0]), np.ones(3), 8, balanced(3, 8).correlation),
        np.full(3, 3),
        family=3,
        alpha=0.05,
    )
    for spread, t in zip(found, (2.0, 2.5, 3.0), strict=True):
        assert spread.p == pytest.approx(1 - by_integral(t, 3, 8), abs=5e-4)


def test_a_contrast_and_its_reverse_are_one():
    y = np.random.default_rng(5).normal(size=(4, 4))
    weights = against_first(4)
    one, other = (
        spreads(fit(y, turned), np.full(3, 4), family=3, alpha=0.05)
        for turned in (weights, weights * [[1.0], [-1.0], [1.0]])
    )
    assert [(s.critical, s.p, s.sd) for s in one] == [(s.critical, s.p, s.sd) for s in other]
    assert one[1].effect == -other[1].effect


@pytest.mark.slow  # seconds of integrals
def test_a_large_family_takes_sidaks_bound_which_is_never_below_dunnetts():
    small, large = balanced(pooling.MOST, 50), balanced(pooling.MOST + 1, 50)
    joint = spreads(small, np.full(pooling.MOST, 5), family=pooling.MOST, alpha=0.05)[0].critical
    bound = spreads(large, np.full(pooling.MOST + 1, 5), family=pooling.MOST + 1, alpha=0.05)[0].critical
    assert bound == pytest.approx(-distributions.t.ppf(level(0.05, pooling.MOST + 1) / 2, 50))
    assert joint < -distributions.t.ppf(level(0.05, pooling.MOST) / 2, 50) < bound


def test_nothing_that_varies_has_no_error_and_one_seed_no_freedom():
    still = fit(np.tile([1.0, 2.0, 4.0], (3, 1)), against_first(3))
    np.testing.assert_allclose(still.errors, 0, atol=1e-12)
    np.testing.assert_allclose(still.effects, [1, 3])
    alone = fit(np.array([[1.0, 2.0, 4.0]]), against_first(3))
    assert alone.df == 0
    assert np.isnan(alone.errors).all()


def judged(y, min_effect=None):
    """Judge every cell against the first, pooled."""
    d = (y[:, 1:] - y[:, :1]).T
    made = spreads(fit(y, against_first(y.shape[1])), np.full(len(d), len(y)), family=len(d), alpha=0.05)
    return [
        estimate(one, family=len(d), min_effect=min_effect, spread=spread)
        for one, spread in zip(d, made, strict=True)
    ]


@pytest.mark.slow
def test_where_all_cells_are_equally_noisy_all_intervals_cover_at_once_and_are_narrower_than_the_cells_own():
    studies, truth = 400, np.array([0.0, 0.5, -1.0, 3.0])
    rng = np.random.default_rng(11)
    covered, narrower = [], []
    for _ in range(studies):
        y = rng.normal(size=(3, 1)) + rng.normal(size=(3, 5)) + [0.0, *truth]
        found = judged(y, min_effect=1e6)
        covered.append(all(one.low <= true <= one.high for one, true in zip(found, truth, strict=True)))
        alone = [estimate(y[:, a] - y[:, 0], family=4, min_effect=1e6) for a in range(1, 5)]
        narrower.append(
            np.mean([one.high - one.low for one in found]) < np.mean([one.high - one.low for one in alone])
        )
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / studies))
    assert np.mean(narrower) > 0.9


def test_interval_p_and_verdict_never_disagree():
    rng = np.random.default_rng(2)
    for _ in range(20):
        for one in judged(rng.normal(size=(4, 4)) + np.array([0, 0, 1.5, 3])):
            assert (one.p < 0.05) == (one.low > 0 or one.high < 0) == (one.verdict in ("helps", "hurts"))


def test_more_seeds_are_the_fewest_with_the_power_at_the_freedom_of_all_cells():
    y = np.random.default_rng(8).normal(size=(3, 5))
    made = spreads(fit(y, against_first(5)), np.full(4, 3), family=4, alpha=0.05)
    each = 2 * distributions.t.sf(made[0].critical, 8)

    def power(n):
        df, ncp = 4 * (n - 1), 0.5 / made[0].sd * math.sqrt(n)
        return distributions.nct.sf(distributions.t.isf(each / 2, df), df, ncp)

    for pooled in judged(y, 0.5):
        assert pooled.verdict == "undecided"
        few, many = pooled.more_seeds_min_effect, pooled.more_seeds_min_effect_high
        assert power(3 + few) >= 0.8 > power(3 + few - 1)
        ratio = (3 + many) / (3 + few)
        # Nearer than the 2 / 0.446 of two differences alone.
        assert ratio == pytest.approx(8 / distributions.chi2.ppf(0.2, 8), rel=0.05)


# In a study


def pooled(factors=made_up.FACTORS, **more):
    return made_up.make(factors, **({"analysis": {"variance": "pooled"}} | more))


def table_of(made, value):
    """Lay the made-up values out as pandas would have them."""
    rows = [(cell.label, seed, value(cell, seed)) for cell in made[1].cells for seed in made[0].seeds]
    return pd.DataFrame(rows, columns=["cell", "seed", "y"]).pivot_table(
        index="seed", columns="cell", values="y", sort=False
    )


def test_a_factorials_main_effects_are_contrasts_of_the_least_squares_means():
    made, value = pooled(), made_up.random_value(4)
    values = table_of(made, value).to_numpy()
    weights = np.zeros(values.shape[1])
    for i, cell in enumerate(made[1].cells):
        weights[i] = (1 if cell.levels["augment.rotation"] == "15" else -1) / 6
    effect, error, df, _ = by_statsmodels(values, weights[None])
    found = made_up.effect(made_up.find(made, value), "augment.rotation")
    assert found.estimate.effect == pytest.approx(effect[0], abs=1e-9)
    assert found.estimate.sd == pytest.approx(error[0] * math.sqrt(3), abs=1e-9)
    assert df == 22


def test_gaps_are_filled_by_what_the_seeds_do_to_the_other_cells():
    made, value = (
        pooled({"augment": {"rotation": [0, 15], "erasing": [0, 0.5]}}, design="one_at_a_time", seeds=4),
        made_up.random_value(9),
    )
    gone = {("rotation=15", 1), ("erasing=0.5", 2)}

    def status(cell, seed):
        return "not_run" if (cell.label, seed) in gone else "finished"

    values = np.array(
        [[NAN if (c.label, s) in gone else value(c, s) for c in made[1].cells] for s in range(4)]
    )
    assert np.isnan(values).sum() == 2
    expected, errors, _, _ = by_statsmodels(values, against_first(3))
    found = made_up.find(made, value, status=status).effects
    np.testing.assert_allclose([e.estimate.effect for e in found], expected, atol=1e-9)
    np.testing.assert_allclose([e.estimate.sd / math.sqrt(e.estimate.n) for e in found], errors, atol=1e-9)
    assert [e.estimate.n for e in found] == [3, 3]
    assert all(e.flags == ("incomplete", "pooled variance") for e in found)


@pytest.mark.parametrize(
    ("expect", "turned"),
    [
        ("augment.rotation: 15 > 0", 1), ("augment.rotation: 0 > 15", -1), (("model.batch_norm: false > "
                                                                            "true"), 1),
        ("model.batch_norm: true > false", -1),
    ],
)  # fmt: skip
def test_a_claim_about_a_main_effect_has_its_interval_whichever_way_it_is_put(expect, turned):
    made = pooled(claim=[{"expect": expect}])
    found = made_up.find(made, made_up.random_value(6))
    claim, effect = found.claims[0].estimate, made_up.effect(found, expect.partition(":")[0]).estimate
    assert [turned * claim.low, turned * claim.high][::turned] == pytest.approx(
        [effect.low, effect.high], abs=1e-12
    )
    assert claim.p == pytest.approx(effect.p, abs=1e-12)


def test_a_claim_between_levels_that_are_no_main_effect_is_one_more_of_the_family():
    found = made_up.find(pooled(claim=[{"expect": "model.conv_dropout: 0.3 > 0.1"}]), made_up.random_value(6))
    claim = found.claims[0].estimate
    assert claim.low < claim.effect < claim.high


def test_one_seed_and_a_seed_without_effect_stay_undecided():
    single = made_up.find(pooled(seeds=1), made_up.random_value())
    assert {e.estimate.reason for e in single.effects} == {"one seed"}
    still = made_up.find(pooled(), lambda cell, seed: 0.5 + 0.01 * len(cell.label))
    assert {e.estimate.reason for e in still.effects} == {"seed has no effect"}


def test_a_cell_without_any_run_leaves_the_others_judged():
    made = pooled({"augment": {"rotation": [0, 15, 30]}})
    found = made_up.find(
        made,
        made_up.random_value(),
        status=lambda cell, seed: "not_run" if "30" in cell.label else "finished",
    )
    one, other = found.effects
    assert one.estimate.low is not None
    assert other.estimate.reason == "no pairs"


def test_every_kind_of_effect_is_judged_and_says_so():
    found = made_up.find(pooled(), made_up.random_value())
    every = [*found.effects, *found.interactions, *found.cell_effects]
    assert all(e.estimate.low is not None and "pooled variance" in e.flags for e in every)
    assert "pooled variance" in words.sentence(found.effects[0], found)
    assert "one variance for all cells, Dunnett" in exports.markdown(found)
    assert not any("pooled" in line for line in headline.headline(found))  # no part of the answer itself


def test_the_default_never_pools():
    found = made_up.find(made_up.make(), made_up.random_value())
    assert not any(
        "pooled variance" in e.flags
        for e in itertools.chain(found.effects, found.interactions, found.cell_effects)
    )


def test_a_missing_run_leaves_a_main_effect_the_mean_over_all_settings():
    made, value = pooled(made_up.CROPS, seeds=5), made_up.random_value(3)
    values = np.array(
        [[NAN if c.is_baseline and s == 0 else value(c, s) for c in made[1].cells] for s in range(5)]
    )
    cropped = np.array([c.levels["augment.crop"] != "none" for c in made[1].cells])
    effect, error, _, _ = by_statsmodels(values, np.where(cropped, 0.5, -0.5)[None])
    found = made_up.find(
        made, value, status=lambda c, s: "running" if c.is_baseline and s == 0 else "finished"
    )
    one = made_up.effect(found, "augment.crop")
    assert one.estimate.effect == pytest.approx(effect[0], abs=1e-9)
    assert one.estimate.sd == pytest.approx(error[0] * math.sqrt(4), abs=1e-9)
    assert (one.estimate.n, one.scope, one.left_out, one.flags) == (
        4,
        None,
        (0,),
        ("incomplete", "pooled variance"),
    )
    assert names.flags(one)[0] == "incomplete: seed 0 lacks a run"


def test_an_effect_that_is_known_in_some_settings_only_is_the_contrast_of_their_cells():
    made, value = (
        pooled(made_up.CROPS, seeds=5, claim=[{"expect": "augment.crop: random_resized_crop > none"}]),
        made_up.random_value(3),
    )
    values = np.array(
        [[NAN if made_up.half(c, s) == "running" else value(c, s) for c in made[1].cells] for s in range(5)]
    )
    signs = [1.0 if cell.levels["augment.crop"] != "none" else -1.0 for cell in made[1].cells]
    is_off = [cell.levels["model.batch_norm"] != "true" for cell in made[1].cells]
    weights = np.where(is_off, signs, 0.0)
    effect, error, _, _ = by_statsmodels(values, weights[None])
    found = made_up.find(made, value, status=made_up.half)
    one = made_up.effect(found, "augment.crop")
    assert (one.estimate.effect, one.estimate.sd) == pytest.approx(
        (effect[0], error[0] * math.sqrt(5)), abs=1e-9
    )
    assert one.flags == ("conditional", "pooled variance")
    assert names.change(one, found) == "random_resized_crop instead of none, where batch_norm = false"
    assert found.claims[0].verdict == "undecided"
