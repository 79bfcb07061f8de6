"""The mathematics of a range test, by curves with a known answer: toys, noise, mistakes of other finders."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate.errors import AblateError
from ablate.recipe import range_test
from ablate.recipe.range_test import FEWEST, RULES, Curve, Suggestion, Sweep

NAN, INF = math.nan, math.inf
quick = settings(max_examples=150, deadline=None)
modes = st.sampled_from(["exponential", "linear"])
any_loss = st.floats(0, 1e6) | st.sampled_from([NAN, INF, -INF, 1e38, 1e300, 0.0])


@st.composite
def sweeps(draw):
    low = draw(st.floats(1e-9, 10))
    return Sweep(
        low,
        low * draw(st.floats(1.0001, 1e9)),
        draw(st.integers(5, 300)),
        draw(modes),
        draw(st.sampled_from(["batch", "epoch"])),
    )


@st.composite
def curves(draw, shortest=1):
    sweep = draw(sweeps())
    losses = tuple(draw(st.lists(any_loss, min_size=shortest, max_size=min(sweep.steps, 40))))
    return Curve(
        range_test.rates(sweep)[: len(losses)],
        losses,
        (0.5,) * len(losses),
        draw(st.sampled_from(["end", "diverged"])),
    )


def of(losses, sweep=None, stopped="end"):
    """Return the curve of some losses at the first rates of a sweep, by default as many from 1e-6 to 10."""
    tried = range_test.rates(sweep or Sweep(steps=len(losses)))[: len(losses)]
    return Curve(tried, tuple(float(loss) for loss in losses), (0.5,) * len(losses), stopped)


def along(sweep, function, noise=0.0, seed=0):
    """Return the curve of a loss that is a function of log10 of the rate, with noise.

    What is above 20 has diverged.
    """
    losses = function(np.log10(range_test.rates(sweep))) + noise * np.random.default_rng(seed).normal(
        size=sweep.steps
    )
    end = next((i for i, loss in enumerate(losses) if loss > 20), None)
    return of(losses, sweep) if end is None else of(losses[: end + 1], sweep, "diverged")


def valley(x):
    """Fall from 2.3 to about 0.5 with its steepest point at 1e-3, and blow up from about 1e-1 on."""
    return 0.5 + 1.8 / (1 + np.exp(3 * (x + 3))) + np.exp(4 * (x + 0.5))


@given(sweeps())
@quick
def test_rates_rise_from_exactly_the_first_to_exactly_the_last(sweep):
    found = range_test.rates(sweep)
    assert len(found) == sweep.steps
    assert (found[0], found[-1]) == (sweep.low, sweep.high)
    assert all(one <= other for one, other in pairwise(found))
    spacing = np.diff(np.log(found) if sweep.mode == "exponential" else found)
    assert spacing == pytest.approx(spacing.mean(), rel=1e-3, abs=1e-12 * sweep.high)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"low": 0.0}, "low 0 "), ({"low": -1.0}, "low -1"), ({"low": 1.0, "high": 1.0}, "high 1:"),
        ({"low": 2.0, "high": 1.0}, "high 1:"), ({"high": INF}, "high inf"), ({"low": NAN}, "low nan"),
        ({"steps": 4}, "got 4"), ({"mode": "linear", "steps": 0}, "got 0"), ({"mode": "log"}, "got log"),
        ({"per": "step"}, "got step"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_refused_in_a_sentence(given, named):
    with pytest.raises(AblateError, match=named) as caught:
        Sweep(**given)
    assert ": give " in str(caught.value)


@given(curves(shortest=0))
@quick
def test_a_curve_survives_json_to_the_last_bit(curve):
    text = json.dumps(range_test.to_json(curve), allow_nan=False)
    assert repr(range_test.from_json(json.loads(text))) == repr(curve)  # repr, as NaN is not equal to itself


@given(st.floats(0.01, 100), st.integers(1, 50), st.floats(0, 0.99))
@quick
def test_a_constant_is_its_own_mean_from_the_first_step_on(value, number, decay):
    assert range_test.average(np.full(number, value), decay) == pytest.approx(value)


def test_the_mean_is_the_weighted_one_and_without_its_correction_it_starts_near_0():
    values, decay = np.random.default_rng(0).normal(3, 1, 30), 0.9
    found = range_test.average(values, decay)
    biased = 0.0
    for i in range(30):
        weights = decay ** np.arange(i, -1, -1)
        assert found[i] == pytest.approx(weights @ values[: i + 1] / weights.sum())
        biased = decay * biased + (1 - decay) * values[i]
        if i == 0:
            assert biased < 0.2 * values[0] == pytest.approx(0.2 * found[0])
    assert biased < found[-1]


def test_a_mean_that_starts_at_0_takes_the_start_for_the_best_loss_and_the_rest_for_divergence():
    # Lightning#14167: the loss of a healthy training, from 2.3 down to 2, seems to be 0.23 at first and 1.9
    # soon after.
    losses, biased, seen = np.linspace(2.3, 2.0, 30), 0.0, []
    for loss in losses:
        biased = 0.9 * biased + 0.1 * loss
        seen.append(biased)
    assert max(seen) > range_test.BLOWN * seen[0]
    assert range_test.divergence(losses, 100) is None
    assert int(np.argmin(range_test.average(losses, 0.9))) == 29


@given(st.floats(-3, 3), st.floats(-2, 2), st.integers(5, 200), st.none() | st.floats(0, 0.95))
@quick
def test_a_loss_that_is_linear_in_the_decades_is_smoothed_onto_itself(slope, height, number, decay):
    curve = of(height + slope * np.log10(range_test.rates(Sweep(steps=number))))
    smooth = range_test.smoothed(curve, decay)
    assert np.allclose(smooth.losses, height + slope * np.log10(smooth.rates))
    assert len(smooth.rates) == number
    assert smooth.stopped == curve.stopped


def test_a_lagging_mean_would_find_the_smallest_loss_at_rates_that_are_too_high():
    curve = along(Sweep(), lambda x: (x + 2) ** 2)  # smallest at 1e-2
    decay = 0.95
    lagging = curve.rates[int(np.argmin(range_test.average(np.array(curve.losses), decay)))]
    smooth = range_test.smoothed(curve, decay)
    ours = smooth.rates[int(np.argmin(smooth.losses))]
    assert lagging > 10**-1.3
    assert ours == pytest.approx(1e-2, rel=0.3)


def test_what_is_not_finite_stays_in_the_mean_as_infinite():
    assert range_test.average(np.array([1.0, NAN, 1.0]), 0.5).tolist() == [1.0, INF, INF]
    assert range_test.average(np.array([1.0, INF, 1.0]), 0.0).tolist() == [1.0, INF, 1.0]


def test_divergence_is_the_first_loss_that_is_not_finite_or_a_smoothed_one_above_four_times_its_best():
    assert range_test.divergence([], 100) is None
    assert range_test.divergence([1.0, 2.0, NAN, 1.0], 100) == 2
    assert range_test.divergence([INF], 100) == 0
    assert range_test.divergence([1.0, 4.0, 4.1, 9.0], 10) == 2  # ten steps are not smoothed
    assert (
        range_test.divergence([1.0] * 50 + [20.0] * 10, 100) == 51
    )  # one wild step is forgiven: 0.9 + 2 = 2.9, then 4.6
    assert range_test.divergence([5.0, 1.0, 4.5], 10) == 2, "the best one so far, not the first"


@given(st.lists(any_loss, max_size=60), st.integers(0, 60), st.integers(5, 200))
@quick
def test_divergence_does_not_depend_on_what_came_after_it(losses, seen, steps):
    whole = range_test.divergence(losses, steps)
    assert range_test.divergence(losses[:seen], steps) == (
        whole if whole is not None and whole < seen else None
    )


def test_the_median_over_seeds_counts_the_diverged_as_the_worst():
    sweep = Sweep(steps=6)
    healthy = [of([2.0, 1.9, 1.5, 1.0, 0.9, 0.8], sweep), of([2.2, 2.1, 1.7, 1.2, 1.1, 1.0], sweep)]
    early, later = of([2.1, 1.0, NAN], sweep, "diverged"), of([2.1, 2.0, 1.8, 7.0], sweep, "diverged")
    three = range_test.combine([*healthy, early])
    assert three.losses == (2.1, 1.9, 1.7, 1.2, 1.1, 1.0)
    assert three.accuracies == (0.5,) * 6
    assert three.stopped == "end"
    four = range_test.combine(
        [*healthy, early, later]
    )  # half of them are there to the end, and the other half is worse
    assert len(four.rates) == 6
    assert four.losses[:4] == pytest.approx((2.1, 1.95, 1.75, 4.1))
    assert four.losses[4:] == (INF, INF)
    assert four.stopped == "diverged"
    most = range_test.combine([healthy[0], early, later])  # from the fifth rate on, one of three is there
    assert most.losses == (2.1, 1.9, 1.8, 7.0)
    assert most.rates == range_test.rates(sweep)[:4]
    assert most.stopped == "diverged"


def test_curves_of_different_sweeps_are_not_combined():
    with pytest.raises(AblateError, match="sweep all seeds with the same one"):
        range_test.combine([of([1.0] * 6), of([1.0] * 7)])


@given(curves())
@quick
def test_one_curve_is_its_own_median(curve):
    assert range_test.combine([curve]) == range_test.combine([curve, curve])
    whole = [loss for loss in range_test.combine([curve]).losses if math.isfinite(loss)]
    assert whole == [loss for loss in curve.losses if math.isfinite(loss)]


@given(st.lists(curves(), min_size=1, max_size=1) | curves().map(lambda c: [c, c, c]))
@quick
def test_a_suggestion_never_crashes_and_is_whole_or_says_why_not(some):
    found = range_test.suggest(some)
    assert tuple(found) == RULES
    for rule, suggestion in found.items():
        assert suggestion.rule == rule
        if suggestion.status in ("ok", "edge of the range"):
            assert 0 < suggestion.low <= suggestion.rate <= suggestion.high < INF
            assert suggestion.high <= some[0].rates[-1] * (1 + 1e-9)
        else:
            assert (suggestion.rate, suggestion.low, suggestion.high) == (None, None, None)
    chosen = range_test.best(found)
    assert chosen is None or chosen.status == "ok"


@pytest.mark.parametrize("length", range(1, FEWEST))
@pytest.mark.parametrize("stopped", ["end", "diverged"])
def test_a_curve_of_a_few_points_says_nothing(length, stopped):
    for losses in (
        [3.0, 1.0, 0.5, 0.1][:length],
        [NAN] * length,
        [1.0, 9.0, NAN, INF][:length],
        [2.0] * length,
    ):
        statuses = {one.status for one in range_test.suggest([of(losses, Sweep(), stopped)]).values()}
        lost = stopped == "diverged" or not all(map(math.isfinite, losses))
        assert statuses == {"diverged at once" if lost else "flat"}


def test_the_rules_find_what_they_say_on_a_smooth_valley():
    found = range_test.suggest([along(Sweep(steps=300), valley)])
    assert {one.status for one in found.values()} == {"ok"}
    x = np.linspace(-6, 1, 100_001)
    y = valley(x)
    lowest = int(np.argmin(y))
    fall = y[:lowest].max() - y[lowest]
    at = [float(10 ** x[:lowest][y[:lowest] > y[lowest] + left * fall][-1]) for left in (0.1, 0.25, 0.0)]
    assert (found["valley"].rate, found["valley"].low, found["valley"].high) == pytest.approx(at, rel=0.3)
    assert abs(math.log10(found["steepest"].rate) + 3) < 0.3  # the mean leans towards what came last
    half = (
        math.log10(3 + 2 * math.sqrt(2)) * math.log(10) / 3
    )  # where the slope of a logistic curve is half of its largest
    assert math.log10(found["steepest"].low) == pytest.approx(-3 - half, abs=0.5)
    assert math.log10(found["steepest"].high) == pytest.approx(-3 + half, abs=0.5)
    assert found["min/10"].rate == pytest.approx(10 ** x[lowest] / 10, rel=0.2)
    assert found["min/10"].low < found["min/10"].rate < found["min/10"].high
    after = np.flatnonzero((x > x[lowest]) & (y > y[lowest] + 0.2 * fall))
    assert (
        2 * found["rise"].low < found["rise"].rate < 10 ** x[after[0]]
    )  # a mean rises before what explodes behind it
    assert found["rise"].low == pytest.approx(10 ** x[lowest], rel=0.3)
    assert range_test.best(found) == found["rise"]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("steps", [30, 100, 300])
def test_noise_moves_a_suggestion_by_less_than_half_a_decade(steps, seed):
    truth = range_test.suggest([along(Sweep(steps=300), valley)])
    noisy = [along(Sweep(steps=steps), valley, noise=0.05, seed=10 * seed + i) for i in range(3)]
    for rule, one in range_test.suggest(noisy).items():
        assert one.status == "ok"
        assert abs(math.log10(one.rate / truth[rule].rate)) < 0.5, rule


def test_the_spacing_of_the_rates_hardly_matters_as_the_slope_is_per_decade():
    fall = {"low": 0.01, "high": 10.0, "steps": 400}

    def loss(x):
        return 2.3 - 2 / (1 + np.exp(-8 * (x + 0.5))) + np.exp(8 * (x - 0.4))

    exponential, linear = (
        range_test.suggest([along(Sweep(**fall, mode=mode), loss)]) for mode in ("exponential", "linear")
    )
    for rule in RULES:
        assert exponential[rule].status == linear[rule].status == "ok"
        assert linear[rule].rate == pytest.approx(exponential[rule].rate, rel=0.3), rule
        assert linear[rule].low < exponential[rule].rate < linear[rule].high
    # What torch-lr-finder does: the smallest np.gradient by index. The same loss, another spacing, and
    # another answer.
    by_index = []
    for mode in ("exponential", "linear"):
        curve = along(Sweep(**fall, mode=mode), loss)
        by_index.append(curve.rates[int(np.gradient(np.array(curve.losses)).argmin())])
    assert by_index[0] / by_index[1] > 1.15
    assert linear["steepest"].rate / exponential["steepest"].rate < by_index[0] / by_index[1]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_on_a_quadratic_the_rates_are_below_the_largest_that_is_stable(momentum):
    # Gradient descent on c/2 w^2 is stable up to 2 (1 + momentum) / c (Polyak 1964).
    curvature, sweep = 4.0, Sweep(1e-5, 100.0, 200)
    w, speed, losses = 1.0, 0.0, []
    for rate in range_test.rates(sweep):
        losses.append(0.5 * curvature * w * w + 0.1)
        if range_test.divergence(losses, sweep.steps) is not None:
            break
        speed = momentum * speed + curvature * w
        w -= rate * speed
    found = range_test.suggest([of(losses, sweep, "diverged")])
    assert len(losses) < sweep.steps
    for one in found.values():
        assert one.status == "ok"
        # From the optimum itself an unstable rate needs steps to be seen, and this sweep is there long
        # before.
        assert 1e-4 < one.rate < (2.2 if one.rule == "rise" else 1) * 2 * (1 + momentum) / curvature


@pytest.mark.parametrize("length", [5, 6, 8, 10, 20, 50, 100, 300])
def test_pure_noise_is_flat_but_for_one_curve_in_a_hundred(length):
    rng = np.random.default_rng(length)
    found = [range_test.suggest([of(rng.normal(2.3, 0.1, length))])["valley"].status for _ in range(200)]
    assert found.count("flat") > 192  # 8 others where 2 are expected: once in 1,000 times


def test_flat_is_said_of_a_constant_and_of_a_fall_that_is_next_to_nothing():
    for losses in ([2.3] * 50, np.linspace(2.3, 2.29, 50), [0.0] * 50):
        found = range_test.suggest([of(losses)])
        assert set(found.values()) == {Suggestion(rule, "flat") for rule in RULES}
        assert range_test.best(found) is None


def test_a_fall_within_the_noise_is_flat_and_the_same_without_noise_is_none():
    def gentle(x):
        return 2.3 - 0.1 / (1 + np.exp(-3 * (x + 2)))

    noisy = [
        range_test.suggest([along(Sweep(), gentle, noise=0.2, seed=seed)])["steepest"].status
        for seed in range(100)
    ]
    assert (
        noisy.count("flat") > 75
    )  # the fall of 0.1 is 1.6 of its standard deviations: it is seen now and then
    assert "flat" not in {one.status for one in range_test.suggest([along(Sweep(), gentle)]).values()}


@pytest.mark.parametrize(
    "losses", [[2.3, 2.9, 30.0, 900.0, NAN, NAN], [2.3, NAN], [NAN], [2.3, 2.4, 2.6, 3.5, 5.0, 9.0, 14.0]]
)
def test_a_training_that_blows_up_in_its_first_steps_has_diverged_at_once(losses):
    found = range_test.suggest([of(losses, Sweep(), "diverged")])
    assert {one.status for one in found.values()} == {"diverged at once"}
    assert range_test.best(found) is None


def test_a_loss_that_still_falls_at_the_last_rate_is_at_the_edge():
    found = range_test.suggest([of(np.linspace(2.3, 0.5, 100))])
    assert found["valley"].status == found["min/10"].status == "edge of the range"
    reach = (
        7 / 99 * 9
    )  # decades a step times the mean age of what a decay of 0.9 averages: the last mean is that far from 10
    assert math.log10(found["min/10"].rate) == pytest.approx(1 - reach - 1, abs=0.01)
    still = range_test.suggest([along(Sweep(high=1e-3), valley)])  # steepest exactly at the end
    assert {one.status for one in still.values()} == {"edge of the range"}
    assert range_test.best(still) is None


def test_a_loss_that_falls_to_the_end_may_still_be_steepest_before_it():
    found = range_test.suggest([along(Sweep(high=1e-2), valley)])
    assert [one.status for one in found.values()] == [
        "edge of the range",
        "edge of the range",
        "ok",
        "edge of the range",
    ]
    assert found["steepest"].rate == pytest.approx(1e-3, rel=0.2)
    assert range_test.best(found) == found["steepest"]


def test_a_loss_that_only_rises_is_at_the_edge_of_the_first_rate():
    found = range_test.suggest([of(np.linspace(0.5, 1.5, 100))])
    assert set(found.values()) == {Suggestion(rule, "edge of the range", 1e-6, 1e-6, 1e-6) for rule in RULES}


def test_a_tenth_of_a_rate_near_the_lowest_is_outside_of_the_range():
    found = range_test.suggest([along(Sweep(low=1e-2, high=10.0), lambda x: (x + 1.3) ** 2)])
    assert found["min/10"].status == "edge of the range"
    assert found["min/10"].rate < 1e-2


@pytest.mark.parametrize("tail", [[NAN], [INF, NAN], [NAN, 1.0, 0.0], [1e39], [1e300, 0.0], [-INF]])
def test_whatever_comes_after_the_first_loss_that_is_not_finite_changes_nothing(tail):
    losses = valley(np.linspace(-6, -0.5, 80))
    one, other = (range_test.suggest([of([*losses, *end], Sweep(), "diverged")]) for end in (tail, [NAN]))
    assert one == other
    assert range_test.best(one).rate > 1e-3


def test_one_seed_in_three_that_diverges_does_not_move_the_suggestion():
    sweep = Sweep(steps=200)
    healthy = [along(sweep, valley, noise=0.02, seed=seed) for seed in range(3)]
    lost = Curve(
        *(part[:60] for part in (healthy[2].rates, healthy[2].losses, healthy[2].accuracies)), "diverged"
    )
    one, other = range_test.suggest(healthy), range_test.suggest([*healthy[:2], lost])
    for rule in RULES:
        assert other[rule].status == "ok"
        assert abs(math.log10(one[rule].rate / other[rule].rate)) < 0.3


@given(st.permutations(range(4)), st.integers(0, 1000))
@quick
def test_the_order_of_the_seeds_does_not_matter(order, seed):
    some = [along(Sweep(steps=40), valley, noise=0.1, seed=seed + i) for i in range(4)]
    assert range_test.suggest([some[i] for i in order]) == range_test.suggest(some)


@given(st.floats(0.1, 10), st.floats(1e-3, 1e3), st.integers(0, 1000))
@quick
def test_a_suggestion_scales_with_the_rates_and_not_with_the_loss(factor, shift, seed):
    curve = along(Sweep(steps=50), valley, noise=0.02, seed=seed)
    scaled = Curve(
        tuple(shift * r for r in curve.rates),
        tuple(factor * x for x in curve.losses),
        curve.accuracies,
        curve.stopped,
    )
    one, other = range_test.suggest([curve]), range_test.suggest([scaled])
    assume(all(suggestion.status == "ok" for suggestion in one.values()))
    for rule in RULES:
        assert other[rule].rate == pytest.approx(shift * one[rule].rate, rel=1e-6)


def test_best_takes_the_first_rule_that_has_an_answer():
    def all_but(*bad):
        return {
            rule: Suggestion(rule, "flat") if rule in bad else Suggestion(rule, "ok", 0.1, 0.01, 1.0)
            for rule in RULES
        }

    assert [range_test.best(all_but(*RULES[:i])).rule for i in range(len(RULES))] == [
        "rise",
        "valley",
        "steepest",
        "min/10",
    ]
    assert range_test.best(all_but(*RULES)) is None
