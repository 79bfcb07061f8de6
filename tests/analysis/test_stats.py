"""The statistics against scipy, statsmodels, slow loops and simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats
from spreads import families, min_effects, numbers, quick, samples

from ablate.analysis.stats import (
    Estimate,
    estimate,
    level,
    matched,
    matched_quadruples,
    unstable,
)

NAN, INF = math.nan, math.inf
benefits = st.sampled_from([-1, 1])


def has_spread(d):
    return np.std(d) > 1e-6


# Interval and p


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("family", [1, 4, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_effect_interval_and_p_agree_with_scipys_paired_t_test_at_sidaks_level(n, family, alpha):
    rng = np.random.default_rng([n, family])
    before, after = rng.normal(0.9, 0.01, n), rng.normal(0.905, 0.02, n)
    found = estimate(after - before, family=family, alpha=alpha)
    oracle = scipy_stats.ttest_rel(after, before)
    interval = oracle.confidence_interval((1 - alpha) ** (1 / family))
    assert found.effect == pytest.approx(np.mean(after) - np.mean(before), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p == pytest.approx(1 - (1 - oracle.pvalue) ** family, rel=1e-9)
    assert found.sd == pytest.approx(np.std(after - before, ddof=1), rel=1e-12)
    assert found.n == n


def test_a_tiny_p_survives_the_adjustment():
    d = np.array([1.0, 1.0001, 0.9999, 1.0002, 0.9998, 1.0003])
    assert estimate(d, family=8).p == pytest.approx(8 * scipy_stats.ttest_1samp(d, 0).pvalue, rel=1e-9, abs=0)


def test_one_effect_alone_is_not_adjusted():
    assert level(0.05, 1) == pytest.approx(0.05, rel=1e-14)


@given(st.floats(1e-6, 0.5), families)
@quick
def test_the_levels_of_a_family_multiply_to_its_confidence(alpha, family):
    assert (1 - level(alpha, family)) ** family == pytest.approx(1 - alpha, rel=1e-12)


@given(samples, families, benefits, min_effects, st.sampled_from([0.01, 0.05, 0.32]))
@quick
def test_interval_p_and_verdict_never_disagree(d, family, benefit, min_effect, alpha):
    assume(has_spread(d))
    found = estimate(d, family=family, alpha=alpha, benefit=benefit, min_effect=min_effect)
    excludes = found.low > 0 or found.high < 0
    within = min_effect is not None and max(abs(found.low), abs(found.high)) <= min_effect
    assert found.low < found.effect < found.high
    assert 0 <= found.p <= 1
    assert (found.p < alpha) == excludes
    assert (found.verdict == "equivalent") == within
    assert (found.verdict in {"helps", "hurts"}) == (excludes and not within)
    assert found.verdict != "helps" or benefit * found.effect > 0
    assert found.verdict != "hurts" or benefit * found.effect < 0


def test_interval_and_p_agree_even_where_an_end_of_the_interval_is_zero_to_the_last_bit():
    disagreed = 0
    for n in range(2, 12):
        noise = np.random.default_rng(n).normal(size=n)
        noise -= noise.mean()
        edge = scipy_stats.t.isf(level(0.05, 4) / 2, n - 1) * noise.std(ddof=1) / math.sqrt(n)
        for step in range(-30, 31):
            d = noise + edge * (1 + step * 1e-16)
            found = estimate(d, family=4)
            assert (found.p < 0.05) == (found.low > 0) == (found.verdict == "helps")
            turned = estimate(-d, family=4)
            assert (turned.p < 0.05) == (turned.high < 0) == (turned.verdict == "hurts")
            raw = scipy_stats.ttest_1samp(d, 0).pvalue
            disagreed += (-math.expm1(4 * math.log1p(-raw)) < 0.05) != (found.low > 0)
    assert disagreed > 0, "the cases must contain some in which two roundings part"


@given(samples, st.floats(-50, 50), st.floats(0.01, 100), families)
@quick
def test_the_interval_moves_with_the_data_and_grows_with_their_unit(d, shift, scale, family):
    assume(has_spread(d))
    found = estimate(d, family=family)
    moved = estimate(scale * np.array(d) + shift, family=family)
    for name in ("effect", "low", "high"):
        assert getattr(moved, name) == pytest.approx(
            scale * getattr(found, name) + shift, rel=1e-7, abs=1e-7 * scale
        )
    assert moved.sd == pytest.approx(scale * found.sd, rel=1e-7)


@given(samples, st.floats(0.01, 100), families, st.none() | st.floats(0.01, 100))
@quick
def test_the_unit_of_the_metric_changes_no_p_and_no_number_of_seeds(d, scale, family, min_effect):
    assume(has_spread(d))
    found = estimate(d, family=family, min_effect=min_effect)
    other = estimate(scale * np.array(d), family=family, min_effect=min_effect and scale * min_effect)
    assert other.p == pytest.approx(found.p, rel=1e-6)
    if found.more_seeds is not None and other.more_seeds is not None:
        assert abs(other.more_seeds - found.more_seeds) <= 1  # rounding may tip a power of exactly 0.8
    assert (
        other.verdict == found.verdict or math.isclose(found.p, 0.05, rel_tol=1e-6) or min_effect is not None
    )


# Verdict


@given(samples, families, min_effects)
@example([1.0, 1.1, 0.9, 1.05], 1, None)
@example([-1.0, -1.1, -0.9, -1.05], 1, None)
@quick
def test_a_metric_to_minimise_swaps_helps_and_hurts_and_nothing_else(d, family, min_effect):
    up = estimate(d, family=family, min_effect=min_effect)
    down = estimate(d, family=family, min_effect=min_effect, benefit=-1)
    swap = {"helps": "hurts", "hurts": "helps"}
    assert down.verdict == swap.get(up.verdict, up.verdict)
    assert (down.wins, down.ties, down.losses) == (up.losses, up.ties, up.wins)
    rest = (
        "effect",
        "low",
        "high",
        "p",
        "n",
        "sd",
        "reason",
        "more_seeds",
        "more_seeds_high",
        "more_seeds_min_effect",
    )
    assert [getattr(down, name) for name in rest] == [getattr(up, name) for name in rest]


def test_a_clear_gain_helps_and_a_clear_loss_hurts():
    assert estimate([1.0, 1.1, 0.9, 1.05], family=1).verdict == "helps"
    assert estimate([-1.0, -1.1, -0.9, -1.05], family=1).verdict == "hurts"


def test_the_family_can_take_a_verdict_away():
    d = [0.9, 1.6, 0.4, 1.2]  # p is 0.03 alone
    assert estimate(d, family=1).verdict == "helps"
    assert estimate(d, family=4).verdict == "undecided"


def test_a_gain_too_small_to_care_about_is_equivalent_though_its_interval_excludes_zero():
    found = estimate([0.010, 0.011, 0.009, 0.0105], family=1, min_effect=0.1)
    assert found.low > 0
    assert found.p < 0.05
    assert found.verdict == "equivalent"
    assert found.effect > 0


@pytest.mark.parametrize("d", [[0.3, -0.2, 0.1], [1.0, 1.1, 0.9], [-1.0, -1.1, -0.9]])
def test_an_interval_that_ends_exactly_at_min_effect_is_equivalent_and_one_bit_less_is_not(d):
    free = estimate(d, family=2)
    edge = max(abs(free.low), abs(free.high))
    assert estimate(d, family=2, min_effect=edge).verdict == "equivalent"
    assert estimate(d, family=2, min_effect=math.nextafter(edge, 0)).verdict == free.verdict != "equivalent"


def test_without_min_effect_nothing_is_equivalent():
    assert estimate([1e-6, -1e-6, 2e-6, -2e-6], family=1).verdict == "undecided"


def test_a_min_effect_of_nothing_is_refused():
    with pytest.raises(AssertionError):
        estimate([0.1, 0.2], family=1, min_effect=0.0)


# Too little data


@pytest.mark.parametrize("d", [[], [NAN, NAN], [INF], np.full(4, NAN)])
def test_no_pairs_give_no_effect(d):
    assert estimate(d, family=3, min_effect=0.1) == Estimate(
        n=0, wins=0, ties=0, losses=0, reason="no pairs", verdict="undecided"
    )


@pytest.mark.parametrize("d", [[0.3], [NAN, 0.3, NAN], [0.3, -INF]])
def test_one_seed_shows_the_effect_and_stays_undecided(d):
    expected = Estimate(effect=0.3, n=1, wins=1, ties=0, losses=0, verdict="undecided", reason="one seed")
    assert estimate(d, family=3, min_effect=10) == expected


def test_two_seeds_already_have_an_interval():
    found = estimate([1.0, 2.0], family=1)
    half = 0.5 * 12.7062047  # t table, df 1
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half), rel=1e-8)
    assert found.reason is None
    assert found.more_seeds >= 1


def test_missing_seeds_count_for_nothing():
    d = [0.2, NAN, 0.5, 0.1, NAN, -INF]
    assert estimate(d, family=2) == estimate([0.2, 0.5, 0.1], family=2)
    assert estimate(d, family=2).n == 3


@pytest.mark.parametrize(
    "d",
    [
        [0.0, 0.0],
        [0.1, 0.1, 0.1],
        [0.3 - 0.2, 0.4 - 0.3, 0.9 - 0.8, 0.1],  # 0.1 in four roundings
        [0.9 + k * 1e-16 - 0.9 for k in range(5)],  # nothing but the last bits of two accuracies
        [(1 / 3 + k / 7) - k / 7 for k in range(6)],
        [-5e3, -5e3 * (1 + 1e-15)],
    ],
)
@pytest.mark.parametrize("min_effect", [None, 1e4])
def test_a_seed_without_effect_is_reported_and_never_an_infinite_t(d, min_effect):
    found = estimate(d, family=2, min_effect=min_effect)
    assert (found.verdict, found.reason, found.sd, found.n) == (
        "undecided",
        "seed has no effect",
        0.0,
        len(d),
    )
    assert found.effect == pytest.approx(d[0], rel=1e-9, abs=1e-12)
    assert (
        found.low,
        found.high,
        found.p,
        found.more_seeds,
        found.more_seeds_high,
        found.more_seeds_min_effect,
    ) == (None,) * 6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_small_but_real_spread_is_not_taken_for_rounding(scale):
    found = estimate(scale * np.array([1.0, 1.00001, 0.99999]), family=1)
    assert found.reason is None
    assert found.sd == pytest.approx(1e-5 * scale)


@given(
    st.lists(
        st.sampled_from([-0.2, -1e-4, -1e-17, 0.0, 1e-17, 0.1 + 0.2 - 0.3, 1e-4, 0.1, NAN]), max_size=12
    ),
    benefits,
)
@quick
def test_every_seed_is_a_win_a_tie_or_a_loss_and_rounding_is_a_tie(d, benefit):
    found = estimate(d, family=1, benefit=benefit)
    assert found.wins == sum(benefit * x > 1e-5 for x in d)
    assert found.losses == sum(benefit * x < -1e-5 for x in d)
    assert found.ties == sum(abs(x) < 1e-5 for x in d)
    assert found.wins + found.ties + found.losses == found.n


# Unstable


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 10), (1, 10), False),  # exactly 0.10 more
        ((3, 10), (4, 10), False),  # 0.4 - 0.3 is above 0.1 in floating point
        ((0, 10), (2, 10), True),
        ((0, 100), (11, 100), True),
        ((0, 5), (1, 5), True),
        ((2, 10), (1, 5), False),
        ((5, 5), (5, 5), False),
        ((3, 5), (0, 5), False),
        ((0, 0), (5, 5), False),  # nothing to compare with
        ((0, 5), (0, 0), False),
        ((0, 0), (0, 0), False),
    ],
)
def test_a_cell_is_unstable_when_its_share_of_failed_runs_exceeds_the_baselines_by_more_than_a_tenth(
    before, after, expected
):
    assert unstable(*before, *after) is expected


# Matched pairs


def slow_per_seed(differences):
    """The rule in loops over a list of seeds of a list of settings, None = no pair: (effects, kept ones)."""
    settings_ = list(range(len(differences[0]) if differences else 0))
    complete = [row for row in differences if row and all(value is not None for value in row)]
    alive = [row for row in differences if any(value is not None for value in row)]
    kept, counting = settings_, complete
    if len(complete) < 2:
        kept = [m for m in settings_ if alive and all(row[m] is not None for row in alive)]
        counting = alive if kept else []
    return [sum(row[m] for m in kept) / len(kept) if row in counting else None for row in differences], kept


def as_list(values):
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]


def same(found, expected):
    expected = [NAN if v is None else v for v in expected]
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


grids = st.tuples(st.integers(1, 5), st.integers(0, 4))
cells = st.one_of(numbers, numbers, numbers, st.just(NAN))


@given(grids.flatmap(lambda shape: st.tuples(*[arrays(float, shape, elements=cells)] * 2)))
@quick
def test_matched_pairs_follow_the_rule_for_any_gaps(grid):
    before, after = grid
    pairs = [
        [None if a is None or b is None else a - b for a, b in zip(*rows, strict=True)]
        for rows in zip(as_list(after), as_list(before), strict=True)
    ]
    expected, kept = slow_per_seed(pairs)
    found = matched(before, after)
    same(found.effects, expected)
    assert np.flatnonzero(found.kept).tolist() == kept
    assert found.shares.tolist() == pytest.approx(
        [(m in kept) / max(1, len(kept)) for m in range(before.shape[1])]
    )


@given(grids.flatmap(lambda shape: st.tuples(*[arrays(float, shape, elements=cells)] * 4)))
@quick
def test_matched_quadruples_follow_the_rule_for_any_gaps(grid):
    quadruples = [
        [
            None if None in cell else (cell[3] - cell[1]) - (cell[2] - cell[0])
            for cell in zip(*rows, strict=True)
        ]
        for rows in zip(*map(as_list, grid), strict=True)
    ]
    expected, kept = slow_per_seed(quadruples)
    found = matched_quadruples(*grid)
    same(found.effects, expected)
    assert np.flatnonzero(found.kept).tolist() == kept


def test_a_complete_grid_gives_the_difference_of_the_means_inside_each_seed():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 5, 8))
    found = matched(before, after)
    assert found.effects == pytest.approx(after.mean(axis=1) - before.mean(axis=1), abs=1e-12)
    assert found.kept.all()


def test_a_seed_that_lacks_a_setting_is_left_out():
    before = np.array([[1.0, 10.0], [1.0, 10.0], [1.0, 10.0]])
    after = np.array([[2.0, 90.0], [3.0, NAN], [4.0, 90.0]])
    found = matched(before, after)
    assert found.effects.tolist() == pytest.approx([40.5, NAN, 41.5], nan_ok=True)
    assert found.kept.tolist() == [True, True]


def test_settings_are_left_out_where_fewer_than_two_seeds_have_all_of_them():
    before = np.array([[1.0, 10.0], [1.0, 10.0], [NAN, NAN]])
    after = np.array([[2.0, 90.0], [3.0, NAN], [4.0, 90.0]])
    found = matched(before, after)
    assert found.effects.tolist() == pytest.approx([1.0, 2.0, NAN], nan_ok=True)
    assert found.kept.tolist() == [True, False]


def test_without_a_setting_that_all_seeds_have_there_are_no_pairs():
    after = np.array([[1.0, NAN], [NAN, 4.0]])
    found = matched(np.zeros((2, 2)), after)
    assert np.isnan(found.effects).all()
    assert not found.kept.any()
    assert estimate(found.effects, family=1).reason == "no pairs"


def test_a_seed_without_any_pair_has_no_effect_and_keeps_no_other_from_having_one():
    found = matched(np.array([[1.0, 1.0], [NAN, NAN]]), np.array([[2.0, 4.0], [3.0, 3.0]]))
    assert found.effects.tolist() == pytest.approx([2.0, NAN], nan_ok=True)
    assert found.kept.all()


def test_without_any_setting_there_is_no_effect():
    found = matched(np.empty((3, 0)), np.empty((3, 0)))
    assert np.isnan(found.effects).tolist() == [True] * 3
    assert estimate(found.effects, family=1).reason == "no pairs"


def test_when_every_run_failed_there_are_no_pairs():
    found = matched(np.zeros((3, 2)), np.full((3, 2), NAN))
    assert not found.kept.any()
    assert estimate(found.effects, family=1).reason == "no pairs"


def test_a_diverged_value_is_a_missing_run():
    found = matched(np.array([[0.5, INF], [0.5, 0.5]]), np.array([[0.75, INF], [1.0, 0.5]]))
    assert found.effects.tolist() == [0.25, 0.5]
    assert found.kept.tolist() == [True, False]


def test_the_arrays_that_were_given_stay_as_they_are():
    before, after = np.array([[1.0, INF]]), np.array([[2.0, NAN]])
    matched(before, after)
    assert before.tolist() == [[1.0, INF]]
    assert np.isnan(after[0, 1])


def test_an_interaction_is_what_a_does_more_at_the_second_level_of_b():
    y00, y01, y10, y11 = (np.full((2, 3), v) for v in (1.0, 10.0, 3.0, 17.0))  # A adds 2 at b0 and 7 at b1
    found = matched_quadruples(y00, y01, y10, y11)
    assert found.effects.tolist() == [5.0, 5.0]
    assert found.kept.all()


# The promise: simulated studies


@pytest.mark.slow  # seconds
def test_studies_of_identical_levels_give_a_false_verdict_in_five_percent():
    studies = 1000
    d = np.random.default_rng(7).normal(size=(studies, 4, 5))
    verdicts = [{estimate(effect, family=4, min_effect=0.3).verdict for effect in study} for study in d]
    wrong = sum(bool(found & {"helps", "hurts"}) for found in verdicts) / studies
    assert wrong == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / studies))


@pytest.mark.parametrize("noise", [(1, 1, 1, 1, 1), (1, 0.4, 1, 1, 3), (3, 1, 1, 1, 1)])
def test_all_intervals_of_a_study_cover_at_once_whatever_the_noise_of_each_cell(noise):
    studies = 1200
    rng = np.random.default_rng(11)
    truth = np.array([0.0, 0.5, -1.0, 3.0])
    seeds = rng.normal(size=(studies, 1, 5))  # what a seed does to every cell
    y = seeds + rng.normal(size=(studies, 5, 5)) * np.array(noise)[:, None] + np.array([0.0, *truth])[:, None]
    covered = np.zeros((studies, 4), dtype=bool)
    for s in range(studies):
        for a in range(4):
            made = matched(y[s, 0][:, None], y[s, a + 1][:, None])
            # With this min_effect every verdict is equivalent: no sample sizes to find.
            found = estimate(made.effects, family=4, min_effect=1e6)
            covered[s, a] = found.low <= truth[a] <= found.high
    alone = 0.95 ** (1 / 4)
    error = 3 * math.sqrt(alone * (1 - alone) / studies)  # the four are correlated
    assert covered.mean() == pytest.approx(alone, abs=error)
    assert covered.all(axis=1).mean() >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / studies)
