"""The answer to a study's question, in a few sentences."""

import re

from reports import (
    HELPS,
    HURTS,
    ROTATION,
    UNDECIDED,
    by_level,
    found,
    nothing,
    rotated,
)

from ablate.analysis.findings import Effect, Findings
from ablate.report import headline, words


def only(of: Findings) -> Effect:
    (effect,) = of.effects
    return effect


class TestHeadline:
    def test_one_choice_is_one_sentence(self):
        assert headline.headline(rotated(HURTS)) == [
            "rotation 15 instead of 0 hurts: -3.06 points [-3.20, -2.92], 5 seeds."
        ]

    def test_one_undecided_choice_says_so(self):
        of = rotated(UNDECIDED, min_effect=0.002)
        assert headline.headline(of) == [f"rotation 15 instead of 0: {words.verdict_words(only(of), of)}."]

    def test_every_verdict_is_named_in_at_most_three_sentences(self, full):
        said = headline.headline(full)
        assert len(said) == 3
        assert said[0].startswith("So far (")
        assert "rotation 15 instead of 0 helps: +0.92 points [" in said[0]
        assert "random_resized_crop instead of random_crop hurts: -3.05 points [" in said[1]
        equivalent, undecided, unstable = said[2].split("; ", 2)
        assert equivalent.startswith("Equivalent: flip false ")
        assert undecided.startswith("undecided: conv_dropout 0.1 ")
        assert re.match(r"unstable: batch_norm false .*hurts -5", unstable)

    def test_nothing_finished_is_said(self):
        assert headline.headline(nothing()) == ["Nothing is finished yet: 0 of 10 runs."]

    def test_crashes_without_a_result_are_said(self):
        of = found(ROTATION, lambda c, s: 0.0, status=lambda c, s: "crashed" if s == 0 else "not_run")
        assert headline.headline(of) == ["Nothing is finished yet: 0 of 10 runs, and 2 crashed."]

    def test_nothing_but_failures_is_said(self):
        of = found(ROTATION, lambda c, s: 0.0, status=lambda c, s: "diverged")
        (said,) = headline.headline(of)
        assert said.startswith(
            "No run has a value of test/accuracy that counts, so nothing can be compared: of 10 runs, 10 "
            "diverged. Try "
        )

    def test_a_metric_that_no_run_has_is_said(self):
        of = found(ROTATION, lambda c, s: 0.9, metric="test/calibration_error")
        assert headline.headline(of) == [
            (
                "No run has a value of test/calibration_error that counts, so nothing can be compared: of 10 "
                "runs, 10 finished without it."
            )
        ]

    def test_one_seed_is_no_verdict_but_what_was_seen_is_said(self):
        (said,) = headline.headline(rotated([0.005]))
        assert said.startswith(
            "Undecided: one seed gives no verdict, because nothing says how much of it is chance."
        )
        assert said.endswith("Seen: rotation 15 instead of 0 +0.50 points.")

    def test_unpaired_runs_give_no_effect(self):
        of = found(ROTATION, lambda c, s: 0.9, status=lambda c, s: "finished" if c.is_baseline else "running")
        (said,) = headline.headline(of)
        assert said.startswith(
            "So far (5 of 10 runs): No effect can be said yet: no two finished runs differ in one factor "
            "only under "
        )
        assert said.endswith("(5 running).")

    def test_without_a_factor_the_mean_is_said(self):
        (said,) = headline.headline(found({}, lambda c, s: 0.7 + 0.01 * s))
        assert said == (
            "No factor is varied, so there is nothing to compare: test/accuracy is 72.00 % "
            "(sd 1.58 over 5 seeds)."
        )

    def test_many_choices_are_counted(self):
        levels = [0, 5, 10, 15, 20, 25, 30]
        changes = {("augment.rotation", str(level)): [level * x for x in HELPS] for level in levels[1:]}
        said = headline.headline(
            found(
                {"factors": {"augment": {"rotation": levels}}, "design": "one_at_a_time"},
                by_level(changes, base=0.3),
            )
        )
        assert said[0].startswith("Helps: rotation 30 instead of 0 (")
        assert said[0].endswith("and 2 more.")
