"""Verdicts, effects and numbers in words. Findings come from the real code, runs are made up."""

from dataclasses import replace
from typing import Any

import pytest
from reports import (
    EQUIVALENT,
    HELPS,
    HURTS,
    ROTATED,
    ROTATION,
    UNDECIDED,
    by_level,
    found,
    nothing,
    page,
    rotated,
)

from ablate.analysis.findings import Effect, Findings
from ablate.analysis.stats import CAP, Estimate
from ablate.report import headline, names, words

UNSTABLE = "of 5 with rotation 0; the runs that did not fail: "


def only(of: Findings) -> Effect:
    (effect,) = of.effects
    return effect


def with_estimate(of: Findings, **changes: Any) -> tuple[Effect, Findings]:
    effect = replace(only(of), estimate=replace(only(of).estimate, **changes))
    return effect, replace(of, effects=(effect,))


class TestWords:
    def test_a_benefit_helps_with_its_effect_and_interval_in_points(self):
        assert words.verdict_words(only(rotated(HELPS)), rotated(HELPS)) == "helps +0.93 points [0.85, 1.01]"

    def test_a_harm_hurts_with_its_own_sign(self):
        assert (
            words.verdict_words(only(rotated(HURTS)), rotated(HURTS)) == "hurts -3.06 points [-3.20, -2.92]"
        )

    def test_what_is_too_small_is_equivalent_with_its_sign(self):
        of = rotated(EQUIVALENT, min_effect=0.002)
        assert words.verdict_words(only(of), of) == "equivalent +0.00 points [-0.03, 0.02]"

    @pytest.mark.parametrize(
        ("left_out", "pooled", "expected"),
        [
            ((1,), (), "seed 1 left out"),
            ((1,), ("pooled variance",), "seed 1 lacks a run"),
            ((1, 2), ("pooled variance",), "seeds 1, 2 lack runs"),
            ((0, 3, 4, 5), (), "seeds 0, 3 to 5 left out"),
            (tuple(range(0, 16, 2)), (), "seeds 0, 2, 4, 6, 8, 10, 12, 14 left out"),
            (tuple(range(0, 2400, 2)), (), "1,200 seeds (0, 2, 4, ..., 2398) left out"),
        ],
    )
    def test_seeds_without_a_run_are_named_and_many_are_counted(self, left_out, pooled, expected):
        effect = replace(only(rotated(HELPS)), left_out=left_out, flags=("incomplete", *pooled))
        assert names.flags(effect)[0] == f"incomplete: {expected}"

    def test_undecided_says_how_many_seeds_would_decide(self):
        of = rotated(UNDECIDED, min_effect=0.002)
        estimate = only(of).estimate
        seen = (estimate.more_seeds, estimate.more_seeds_high)
        least = (estimate.more_seeds_min_effect, estimate.more_seeds_min_effect_high)
        expected = (
            "about {} more seeds (up to {}) if it is as large as seen, about {} (up to {}) to see an effect "
            "of 0.2 points"
        )
        assert words.verdict_words(only(of), of) == f"undecided: {expected}".format(*seen, *least)

    def test_the_headline_has_both_numbers_of_seeds_without_their_upper_figures(self):
        factors = {"augment": {"rotation": [0, 15], "flip": [True, False]}}
        noisy = [-0.01, -0.02, -0.06, -0.09, -0.11]
        values = by_level({("augment.rotation", "15"): noisy, ("augment.flip", "false"): EQUIVALENT})
        of = found(ROTATION | {"min_effect": 0.01, "factors": factors}, values)
        effect = next(e for e in of.effects if e.factor == "augment.rotation").estimate
        few, many = effect.more_seeds, effect.more_seeds_min_effect
        assert few < 5 < 100 < many
        assert (
            f"rotation 15 instead of 0 (about {few} more seeds if it is as large as seen, about {many} to "
            "see an effect of 1 point)" in (headline.headline(of)[0])
        )

    def test_without_a_smallest_effect_the_seeds_are_for_the_effect_as_seen(self):
        of = rotated(UNDECIDED)
        assert words.verdict_words(only(of), of).endswith(") if it is as large as seen")

    @pytest.mark.parametrize(
        ("few", "many", "said"),
        [
            (1, 1, "about 1 more seed"),
            (1, 4, "about 1 more seed (up to 4)"),
            (12, 30, "about 12 more seeds (up to 30)"),
            (12, 12, "about 12 more seeds"),
            (CAP, CAP + 1, "about 1000 more seeds (perhaps more than 1000)"),
            (CAP + 1, CAP + 1, "more than 1000 more seeds"),
        ],
    )
    def test_seeds_to_add_are_counted_and_capped(self, few, many, said):
        effect, of = with_estimate(rotated(UNDECIDED), more_seeds=few, more_seeds_high=many)
        assert words.verdict_words(effect, of) == f"undecided: {said} if it is as large as seen"

    @pytest.mark.parametrize(
        ("few", "many", "said"),
        [
            (1, 4, "about 1 (up to 4)"),
            (338, CAP + 1, "about 338 (perhaps more than 1000)"),
            (CAP + 1, CAP + 1, "more than 1000"),
        ],
    )
    def test_seeds_for_the_smallest_effect_are_counted_and_capped(self, few, many, said):
        effect, of = with_estimate(
            rotated(UNDECIDED, min_effect=0.01), verdict="undecided", more_seeds=2, more_seeds_high=2,
            more_seeds_min_effect=few, more_seeds_min_effect_high=many,
        )  # fmt: skip
        assert words.verdict_words(effect, of) == (
            f"undecided: about 2 more seeds if it is as large as seen, {said} to see an effect of 1 point"
        )

    def test_one_seed_is_undecided_and_says_so(self):
        assert words.verdict_words(only(rotated([0.005])), rotated([0.005])) == "undecided: one seed"

    def test_a_seed_without_effect_is_undecided_and_says_so(self):
        of = found(ROTATION, lambda cell, seed: 0.905 if not cell.is_baseline else 0.9)
        assert (
            words.verdict_words(only(of), of)
            == "undecided: every seed shows the same difference, so nothing says how much of it is chance"
        )

    def test_no_pair_of_runs_is_undecided_and_says_so(self):
        assert words.verdict_words(only(nothing()), nothing()) == "undecided: no pair of finished runs"

    def test_unstable_names_the_level_it_is_worse_than_and_what_the_survivors_say(self):
        of = found(
            ROTATION, ROTATED, status=lambda c, s: "diverged" if not c.is_baseline and s == 0 else "finished"
        )
        assert words.verdict_words(only(of), of).startswith(
            f"unstable: 1 of 5 runs diverged, 0 {UNSTABLE}helps +0.93 points ["
        )

    def test_unstable_survivors_of_one_seed_are_undecided(self):
        of = found(
            ROTATION, ROTATED, status=lambda c, s: "at_chance" if not c.is_baseline and s else "finished"
        )
        seen = "4 of 5 runs stayed at chance level, test/accuracy 90.95 % to 91.36 %"
        assert words.verdict_words(only(of), of) == f"unstable: {seen}, 0 {UNSTABLE}no verdict (one seed)"

    def test_unstable_without_a_survivor_says_so(self):
        of = found(ROTATION, ROTATED, status=lambda c, s: "finished" if c.is_baseline else "diverged")
        assert (
            words.verdict_words(only(of), of)
            == "unstable: 5 of 5 runs diverged, 0 of 5 with rotation 0; no pair of finished runs is left"
        )
        assert headline.headline(of) == [f"rotation 15 instead of 0: {words.verdict_words(only(of), of)}."]
        assert "points" not in words.sentences(of)[0], "a unit without a number"
        assert "unstable" in page(of)

    def test_a_metric_to_minimise_helps_with_its_own_sign_and_says_what_is_better(self):
        of = rotated([-0.031, -0.029, -0.034], metric="test/loss")
        assert words.verdict_words(only(of), of) == "helps -0.0313 [-0.0376, -0.0251]"
        assert "lower test/loss is better" in words.sentences(of)[0]
        assert "lower test/loss is better" in headline.headline(of)[0]

    def test_a_share_to_minimise_is_in_points_too(self):
        of = rotated([0.031, 0.029, 0.034], metric="test/calibration_error")
        assert words.verdict_words(only(of), of).startswith("hurts +3.13 points [")

    def test_a_metric_to_maximise_says_nothing_of_the_direction(self):
        assert "better" not in words.sentences(rotated(HELPS))[0]

    def test_an_interval_that_excludes_0_never_reads_0(self):
        effect, of = with_estimate(rotated(HELPS), effect=0.01, low=0.00004, high=0.01996)
        assert words.verdict_words(effect, of) == "helps +1.000 points [0.004, 1.996]"

    def test_a_tiny_interval_gets_the_digits_it_needs(self):
        effect, of = with_estimate(rotated(HELPS), effect=0.00003, low=0.00001, high=0.00005)
        assert words.verdict_words(effect, of) == "helps +0.003 points [0.001, 0.005]"

    def test_no_number_reads_minus_nothing(self):
        effect, of = with_estimate(
            rotated(HELPS), effect=-0.000001, low=-0.003, high=0.003, verdict="equivalent"
        )
        assert words.verdict_words(effect, of) == "equivalent +0.00 points [-0.30, 0.30]"

    def test_a_rounding_error_reads_0(self):
        effect, of = with_estimate(rotated([0.5], metric="test/loss"), effect=-2.2e-17)
        assert words.difference(effect.estimate, of.metric) == "+0"

    @pytest.mark.parametrize(
        ("number", "metric", "said"),
        [
            (0.7123, "test/accuracy", "71.23 %"),
            (1.0, "test/accuracy/cat", "100.00 %"),
            (0.83123456, "test/loss", "0.8312"),
            (12345.6, "time/train_seconds", "12,346"),
            (0.0, "test/loss", "0"),
            (3e-9, "test/loss", "3.000e-09"),
            (None, "test/loss", "-"),
            (float("nan"), "test/accuracy", "-"),
        ],
    )
    def test_values_have_sensible_digits(self, number, metric, said):
        assert words.value(number, metric) == said

    @pytest.mark.parametrize(
        ("p", "said"), [(0.00099, "< 0.001"), (0.0123, "= 0.012"), (1.0, "= 1.000"), (None, "")]
    )
    def test_p_has_three_decimals(self, p, said):
        assert words.p_words(Estimate(n=5, p=p, wins=0, ties=0, losses=0)) == said

    def test_a_sentence_has_effect_first_then_p_seeds_and_wins(self):
        (sentence,) = words.sentences(rotated(HURTS))
        assert sentence == (
            "rotation 15 instead of 0: hurts -3.06 points [-3.20, -2.92], p (adjusted) < 0.001, 5 seeds, "
            "0 wins / 0 ties / 5 losses"
        )

    def test_an_undecided_sentence_still_has_its_effect(self):
        assert (
            "undecided: one seed, +0.50 points, 1 seed, 1 win / 0 ties / 0 losses"
            in words.sentences(rotated([0.005]))[0]
        )

    def test_flags_stand_in_the_sentence(self):
        raw = {"factors": {"augment": {"rotation": [0, 15]}, "model": {"batch_norm": [True, False]}}}
        turned = [0.02, 0.021, 0.019, 0.02, 0.022]

        def value(cell, seed):
            sign = 1 if cell.levels["model.batch_norm"] == "true" else -1
            return (
                0.9 + 0.0003 * seed + (sign * turned[seed] if cell.levels["augment.rotation"] == "15" else 0)
            )

        of = found(
            raw, value, status=lambda c, s: "crashed" if c.label == "rotation=15" and s == 4 else "finished"
        )
        assert "incomplete" in words.sentences(of)[0]
        assert "depends on model.batch_norm" in words.sentences(of)[0]

    def test_a_level_that_names_its_factor_stands_alone(self, full):
        named = [names.change(effect, full) for effect in full.effects]
        assert named[:2] == ["random_resized_crop instead of random_crop", "rotation 15 instead of 0"]

    def test_an_interaction_is_named_by_its_two_changes(self, full):
        named = [names.change(effect, full) for effect in full.interactions]
        assert "random_resized_crop with rotation 15" in named
        assert len(set(named)) == len(full.interactions)

    def test_an_interaction_does_not_help(self, full):
        effect = full.interactions[0]
        for name, said in (
            ("helps", "better together"),
            ("hurts", "worse together"),
            ("equivalent", "additive"),
        ):
            assert (
                words.verdict_alone(replace(effect, estimate=replace(effect.estimate, verdict=name)), full)
                == said
            )

    def test_a_cell_is_named_by_its_label(self, full):
        assert names.change(full.cell_effects[0], full) == full.cells[1].cell.label
