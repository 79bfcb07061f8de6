"""How many seeds decide, and how small an effect they detect."""

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats
from spreads import families, min_effects, quick, samples

from ablate.analysis import stats
from ablate.analysis.stats import (
    CAP,
    Estimate,
    detectable_effect,
    estimate,
    level,
    sd_lower_bound,
    seeds_needed,
)

# Sample sizes


def slow_power(n, effect, alpha):
    """The power of the two-sided t test: the normal tails, integrated over the chi distribution of the sd."""
    critical, shift = scipy_stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    chi = scipy_stats.chi(n - 1, scale=1 / math.sqrt(n - 1))

    def seen(s):
        return chi.pdf(s) * (
            scipy_stats.norm.sf(critical * s - shift) + scipy_stats.norm.cdf(-critical * s - shift)
        )

    edges = sorted({0.0, *(max(0.0, (shift + z) / critical) for z in (-8, 0, 8)), 1.0, 10.0})
    return sum(integrate.quad(seen, a, b, epsabs=1e-10)[0] for a, b in pairwise(edges))


@pytest.mark.parametrize("size", [0.15, 0.3, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(("family", "power"), [(1, 0.8), (4, 0.8), (20, 0.9)])
def test_seeds_needed_agree_with_statsmodels(size, family, power):
    from statsmodels.stats.power import TTestPower

    needed = seeds_needed(2.0, 2.0 * size, family=family, alpha=0.05, power=power)
    oracle = TTestPower()
    assert oracle.power(size, needed, level(0.05, family)) >= power
    assert oracle.power(size, needed - 1, level(0.05, family)) < power


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 100, 1000])
@pytest.mark.parametrize("family", [1, 4, 400])
def test_the_detectable_effect_has_exactly_the_power_asked_for(n, family):
    effect = detectable_effect(1.0, n, family=family, alpha=0.05)
    assert slow_power(n, effect, level(0.05, family)) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("power", [0.06, 0.1, 0.5, 0.99])
def test_any_power_may_be_asked_for_and_both_tails_count(power):
    effect = detectable_effect(2.0, 5, family=1, alpha=0.05, power=power)
    assert slow_power(5, effect / 2, 0.05) == pytest.approx(power, abs=1e-6)


def test_seeds_are_right_where_scipys_noncentral_t_gives_nan():
    # 2 seeds: the lower tail of nct is NaN at noncentrality 11 ... 16.5, where the power goes from 0.61 to
    # 0.80.
    with np.errstate(all="ignore"):
        trap = [scipy_stats.nct.cdf(-scipy_stats.t.isf(0.025, 1), 1, x) for x in (8, 11, 12.5, 16)]
    if not np.isnan(trap).any():
        pytest.skip("this scipy has no such trap")
    for shift in np.arange(8, 25):
        size = shift / math.sqrt(2)
        expected = 2 if slow_power(2, size, 0.05) >= 0.8 else 3
        assert seeds_needed(1.0, size, family=1, alpha=0.05) == expected, shift


@pytest.mark.parametrize("family", [1, 10, 1000])
def test_a_larger_effect_never_needs_more_seeds_however_large_it_is(family):
    needed = [seeds_needed(1.0, target, family=family, alpha=0.05) for target in np.geomspace(0.05, 1e9, 120)]
    assert all(a >= b for a, b in pairwise(needed))
    assert (needed[0], needed[-1]) == (CAP + 1, 2)


@pytest.mark.parametrize(("sd", "target"), [(1.0, 1e300), (1e-12, 1e3), (0.0, 0.1), (1.0, -1e12)])
def test_two_seeds_are_enough_for_an_effect_far_above_the_noise(sd, target):
    assert seeds_needed(sd, target, family=5, alpha=0.05) == 2


@pytest.mark.parametrize("target", [0.0, 1e-9, 1e-300])
def test_an_effect_of_nothing_needs_more_than_the_cap(target):
    assert seeds_needed(1.0, target, family=1, alpha=0.05) == CAP + 1


def test_no_noise_shows_any_effect_but_one_that_is_not_there():
    assert seeds_needed(0.0, 1e-9, family=1, alpha=0.05) == 2
    assert seeds_needed(0.0, 0.0, family=1, alpha=0.05) == CAP + 1


def test_seeds_needed_stop_exactly_at_the_cap():
    edge = detectable_effect(3.0, CAP, family=4, alpha=0.05)
    assert seeds_needed(3.0, edge * 1.0001, family=4, alpha=0.05) == CAP
    assert seeds_needed(3.0, edge * 0.9999, family=4, alpha=0.05) == CAP + 1


@given(st.floats(1e-4, 1e3), st.integers(3, CAP), families, st.sampled_from([0.5, 0.8, 0.95]))
@quick
def test_seeds_needed_turn_the_detectable_effect_round(sd, n, family, power):
    effect = detectable_effect(sd, n, family=family, alpha=0.05, power=power)
    assert seeds_needed(sd, effect * (1 + 1e-9), family=family, alpha=0.05, power=power) == n
    assert seeds_needed(sd, effect * (1 - 1e-6), family=family, alpha=0.05, power=power) == n + 1


def test_less_than_two_seeds_detect_nothing_and_no_noise_hides_nothing():
    assert detectable_effect(1.0, 1, family=1, alpha=0.05) is None
    assert detectable_effect(1.0, 0, family=1, alpha=0.05) is None
    assert detectable_effect(0.0, 5, family=1, alpha=0.05) == 0


@pytest.mark.parametrize("min_effect", [None, 0.8])
def test_more_seeds_are_the_smallest_number_with_the_power_and_their_bound_takes_the_limit_of_the_noise(
    min_effect,
):
    d = np.array([1.5, -0.5, 1.0, -0.3, 0.8])
    found = estimate(d, family=3, min_effect=min_effect)
    sds = (d.std(ddof=1), d.std(ddof=1) * math.sqrt(4 / scipy_stats.chi2.ppf(0.2, 4)))
    for target, counts in (
        (d.mean(), (found.more_seeds, found.more_seeds_high)),
        (min_effect, (found.more_seeds_min_effect, found.more_seeds_min_effect_high)),
    ):
        if target is None:
            assert counts == (None, None)
            continue
        for k, sd in zip(counts, sds, strict=True):
            assert slow_power(5 + k, target / sd, level(0.05, 3)) >= 0.8
            assert slow_power(5 + k - 1, target / sd, level(0.05, 3)) < 0.8


def test_a_large_effect_just_missed_asks_for_few_seeds_and_a_small_min_effect_for_many():
    # Five losses of five, and an interval that just holds 0.
    d = np.array([-0.01, -0.02, -0.06, -0.09, -0.11])
    found = estimate(d, family=2, min_effect=0.01)
    assert (found.verdict, found.losses, found.more_seeds) == ("undecided", 5, 3)
    assert found.more_seeds_min_effect > 100


@given(samples, families, min_effects)
@quick
def test_more_seeds_are_asked_for_exactly_when_an_interval_is_undecided(d, family, min_effect):
    found = estimate(d, family=family, min_effect=min_effect)
    asked = found.verdict == "undecided" and found.reason is None
    assert (found.more_seeds is not None) == (found.more_seeds_high is not None) == asked
    wanted = asked and min_effect is not None
    assert (
        (found.more_seeds_min_effect is not None) == (found.more_seeds_min_effect_high is not None) == wanted
    )
    if asked:
        assert 1 <= found.more_seeds <= found.more_seeds_high <= CAP + 1
    if wanted:
        assert 1 <= found.more_seeds_min_effect <= found.more_seeds_min_effect_high <= CAP + 1


@given(samples, families, min_effects, st.floats(0.01, 200))
@quick
def test_an_interval_is_cut_to_what_an_effect_can_be_and_nothing_else_changes(d, family, min_effect, reach):
    free, cut = (estimate(d, family=family, min_effect=min_effect, reach=limit) for limit in (None, reach))
    rest = [
        (getattr(one, name) for name in Estimate.__slots__ if name not in ("low", "high"))
        for one in (free, cut)
    ]
    assert list(rest[0]) == list(rest[1])
    if free.low is None:
        assert (cut.low, cut.high) == (None, None)
    elif abs(free.effect) <= reach:
        assert (cut.low, cut.high) == (max(free.low, -reach), min(free.high, reach))
    else:  # a mean of impossible values: the interval still holds it
        assert cut.low <= free.effect <= cut.high


def test_at_least_one_more_seed_is_asked_for_though_the_power_was_there():
    noise = np.array([1.0, -1.0, 0.5, -0.5, 1.2, -1.2])
    d = noise / noise.std(ddof=1) + 1.0  # the interval is 1.00 +- 1.05: it holds 0, and more than min_effect
    assert seeds_needed(1.0, 1.6, family=1, alpha=0.05) <= 6
    found = estimate(d, family=1, min_effect=1.6)
    assert (found.verdict, found.more_seeds_min_effect) == ("undecided", 1)


def test_more_seeds_count_up_to_the_cap_beside_the_seeds_that_are_there():
    d = np.array([1.0, -1.0, 0.5, -0.5, 0.1])
    sd = float(d.std(ddof=1))
    for total, expected in ((CAP + 4, CAP - 1), (CAP + 5, CAP), (CAP + 6, CAP + 1), (3 * CAP, CAP + 1)):
        min_effect = detectable_effect(sd, total, family=1, alpha=0.05) * (1 + 1e-7)
        assert estimate(d, family=1, min_effect=min_effect).more_seeds_min_effect == expected


def test_an_observed_effect_of_zero_would_need_more_than_the_cap():
    found = estimate([1.0, -1.0, 2.0, -2.0], family=1)
    assert (found.effect, found.p, found.more_seeds, found.more_seeds_high) == (0.0, 1.0, CAP + 1, CAP + 1)


def test_sizes_are_found_fast_enough_for_hundreds_of_effects(monkeypatch):
    counts, power = [], stats._power  # what takes the time: an integral over the spread
    monkeypatch.setattr(stats, "_power", lambda *at: counts.append(at) or power(*at))
    differences = np.random.default_rng(0).normal(size=(300, 5))
    for row in differences:
        stats.estimate(row, family=9)
    assert 0 < len(counts) <= 40 * len(differences)


def test_importing_the_statistics_does_not_import_scipy():
    code = (
        "import sys; before = set(sys.modules); import ablate.analysis.stats; print([m for m in "
        "set(sys.modules) - before if 'scipy' in m])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


def test_the_noise_of_a_test_set_is_that_of_two_independent_runs():
    one = math.sqrt(0.055 / (2 * 10_000))  # notes/stats.md: 0.166 points
    assert one == pytest.approx(0.00166, abs=1e-5)
    assert sd_lower_bound(0.055, 10_000) == pytest.approx(math.sqrt(2) * one, rel=1e-12)
    assert sd_lower_bound(0.0, 100) == 0


def test_calibrated_networks_differ_by_the_noise_of_the_test_set():
    # Each image is drawn right with its own chance q; a calibrated pair errs by 2 q (1 - q), each run varies
    # by q (1 - q).
    rng = np.random.default_rng(1)
    chance = rng.uniform(0.5, 1, 1000)
    votes = rng.random((2, 800, 1000)) < chance
    truth = rng.random((800, 1000)) < chance  # labels as uncertain as the networks: that is calibration
    error = float((votes[0] != truth).mean())
    fixed = votes == (chance > 0.5)
    spread = (fixed[1].mean(axis=1) - fixed[0].mean(axis=1)).std(ddof=1)
    assert spread == pytest.approx(sd_lower_bound(error, 1000), rel=0.08)
