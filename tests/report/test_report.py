"""What a report says, in words, in tables, in JSON and on the page.

Findings come from the real code, runs are made up.
"""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from reports import (
    EQUIVALENT,
    HELPS,
    HOSTILE,
    HURTS,
    ROTATED,
    ROTATION,
    UNDECIDED,
    Page,
    by_level,
    everything,
    found,
    hostile,
    level,
    nothing,
    page,
    pictures_of,
    png,
    rotated,
    tables_of,
)

from ablate.analysis.findings import Effect, Findings
from ablate.analysis.stats import CAP, Estimate
from ablate.analysis.tuning import TuningFinding
from ablate.report import canvas, data, headline, html, names, sections, summary, tables, words
from ablate.report.canvas import Picture

UNSTABLE = "of 5 with rotation 0; the runs that did not fail: "


@pytest.fixture(scope="module")
def full() -> Findings:
    return everything()


@pytest.fixture(scope="module")
def full_page(full) -> str:
    return page(full)


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


class TestSummary:
    def test_the_terminal_gets_a_row_a_cell_and_a_sentence_an_effect(self, full):
        made = summary.make(full)
        assert made.rows[0] == ("baseline", "5", "0", "0", "0", "90.20 %", "0.16", "10.8")
        assert len(made.rows) == len(full.cells)
        assert all(len(row) == len(made.columns) for row in made.rows)
        assert made.sentences == tuple(words.sentences(full))
        assert made.headline == tuple(headline.headline(full))

    def test_failed_and_missing_runs_are_counted(self, full):
        rows = {row[0]: row for row in summary.make(full).rows}
        assert summary.make(full).columns == (
            "cell",
            "n",
            "diverged",
            "crashed",
            "not run",
            "mean",
            "sd",
            "s/epoch",
        )
        assert rows["batch_norm=false"][1:5] == ("4", "1", "0", "0")
        assert rows["rotation=15"][1:5] == ("4", "0", "1", "0")
        assert summary.make(full).counted == "24 diverged, 1 crashed, 1 not run"

    def test_claims_are_answered_in_words(self, full):
        assert (
            summary.make(full)
            .claims[0]
            .startswith('"RandomCrop beats RandomResizedCrop": confirmed, +3.05 points [')
        )
        assert ", from" not in summary.make(nothing()).claims

    def test_a_claim_on_another_metric_names_it(self):
        raw = ROTATION | {"claim": [{"text": "t", "expect": "augment.rotation: 0 > 15 on test/loss"}]}
        of = found(raw, by_level({("augment.rotation", "15"): HELPS}))
        assert summary.make(of).claims == (
            '"t": confirmed, test/loss +0.00930 [0.00855, 0.01005] from 15 to 0 (lower is better)',
        )


class TestJson:
    KEYS = frozenset({"study", "metric", "direction", "seeds", "cells", "effects", "claims"})
    CELL = frozenset({"cell", "levels", "n", "failed", "mean", "sd", "values"})
    EFFECT = frozenset(
        {"kind", "factor", "from", "to", "effect", "low", "high", "p", "n", "verdict", "flags", "more_seeds"}
    )

    def test_other_programs_find_the_keys_they_rely_on(self, full):
        made = data.to_json(full)
        assert made.keys() >= self.KEYS
        assert all(cell.keys() >= self.CELL for cell in made["cells"])
        assert all(effect.keys() >= self.EFFECT for effect in made["effects"])
        assert all(claim.keys() >= {"text", "verdict", "effect", "low", "high"} for claim in made["claims"])
        assert {effect["kind"] for effect in made["effects"]} == {"main", "interaction", "cell"}
        assert made["study"] == "augmentation"
        assert made["seeds"] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("of", [everything, nothing, hostile])
    def test_it_is_strictly_valid_json(self, of):
        made = data.to_json(of())
        assert json.loads(json.dumps(made, allow_nan=False)) == made

    def test_what_is_not_a_number_is_null_and_what_json_does_not_know_is_text(self):
        odd = {"a": float("nan"), "b": (float("inf"), 1), 3: object}
        of = replace(nothing(), environments=(odd,))
        assert data.to_json(of)["environments"] == [
            {"a": None, "b": [None, 1], "3": "<class 'object'>", "git": {}}
        ]

    def test_it_has_every_class_and_the_insides_that_tables_and_pictures_cut(self):
        of = found(ROTATION | {"metric": "test/loss"}, ROTATED, classes=tuple(f"c{i}" for i in range(15)))
        made = data.to_json(of)
        assert len(made["classes"]) == len(of.class_effects) == 15
        assert {"class", "effect", "low", "high", "verdict"} <= made["classes"][0].keys()
        assert "points" in "".join(one["words"] for one in made["classes"] if one["verdict"] != "undecided")
        assert [one["cell"] for one in made["inside"]] == ["baseline", "rotation=15"]
        assert made["inside"][0]["confusion"] == [list(row) for row in of.details[0].confusion]

    def test_seeds_are_text_where_they_are_keys(self, full):
        assert list(data.to_json(full)["cells"][0]["values"]) == ["0", "1", "2", "3", "4"]

    def test_numbers_are_not_rounded(self):
        of = rotated(HELPS)
        (effect,) = [e for e in data.to_json(of)["effects"] if e["kind"] == "main"]
        assert effect["effect"] == only(of).estimate.effect
        assert effect["low"] == only(of).estimate.low


LOADING = ("src", "href", "srcset", "action", "data", "poster")


class TestTuning:
    def test_every_trial_stands_in_a_table_with_what_became_of_it(self, full):
        made = tables_of(full)["trials"]
        assert [title for title, _ in made.columns] == [
            "search",
            "trial",
            "lr",
            "weight_decay",
            "validation/accuracy, %",
            "outcome",
        ]
        own = [row for row in made.rows if row[0] == "baseline"]
        assert [row[5] for row in own] == [
            "complete, as the recipe stands",
            "complete",
            "pruned",
            "the best",
            "diverged",
        ]
        assert own[3][2:5] == ("0.0316", "1e-05", "80.00")

    def test_the_pictures_show_what_the_tables_say(self, full):
        every = pictures_of(full)
        traces, _ = drawn(every["history"])
        dots = [
            point
            for trace in traces
            if trace["mode"] == "markers" and "baseline" in trace["hovertext"][0]
            for point in trace["y"]
        ]
        assert dots[:3] == pytest.approx([50, 60, 80])
        traces, layout = drawn(every["fields"])
        assert max(trace["line"]["width"] for trace in traces) == 4
        assert {label["text"] for label in layout["annotations"]} == {
            "0.001",
            "1",
            "1e-06",
            "0.01",
            "50.00 %",
            "80.00 %",
        }
        traces, layout = drawn(every["map"])
        assert (layout["xaxis"]["type"], layout["yaxis"]["type"]) == ("log", "log")
        assert len(traces[1]["x"]) == 3
        traces, _ = drawn(every["rates"])
        assert [trace["x"] for trace in traces if trace["mode"] == "markers"] == [[0.01]] * 12

    def test_cells_say_what_was_tuned_and_effects_whether_they_turn(self, full, full_page):
        made = tables_of(full)
        assert [row[-1] for row in made["cells"].rows[:2]] == ["untuned", "lr 0.0123"]
        assert made["turns"].rows[0][1:] == ("+1.20", "-3.40", "changes")
        assert "1 of the effects changes its sign with tuning" in Page(full_page).said
        assert [row[-1] for row in made["rates"].rows[:2]] == ["yes", ""]

    def test_a_study_without_tuning_has_no_such_section_and_column(self):
        of = rotated(HELPS)
        assert not any(title == "tuned" for title, _ in sections.cells.cells_table(of).columns)
        assert 'id="tuning-title"' not in page(of)

    def test_tuning_that_has_not_begun_is_a_page_too(self):
        of = replace(rotated(HELPS), tuning=TuningFinding())
        assert 'id="tuning-title"' in page(of)
        assert "rates" not in pictures_of(of)

    def test_a_cell_whose_fields_are_not_found_yet_says_so(self, full):
        assert words.tuned(replace(full.cells[0].cell, pending=True)) == "not found yet"

    def test_programs_get_all_of_it(self, full):
        found = data.to_json(full)
        assert found["cells"][1]["tuned"] == {"optimizer.lr": 0.01234}
        assert found["tuning"]["turns"][0]["tuned"] == -0.034
        assert [trial["state"] for trial in found["tuning"]["searches"][0]["trials"]] == [
            "complete",
            "complete",
            "pruned",
            "complete",
            "diverged",
        ]
        assert found["tuning"]["range_tests"][0]["chosen"]["rate"] == 0.01
        json.dumps(found, allow_nan=False)


class TestPage:
    ORDER = (
        "Effects", "Claims", "Cells", "Interactions", "Cells against the baseline", "Learning curves",
        "Classes", "Two cells from inside", "Tuning", "Cost and benefit", "Failures", "Excluded cells",
        "How to read this", "Study file", "Provenance",
    )  # fmt: skip

    def test_it_answers_first_and_has_every_part_in_order(self, full, full_page):
        said = Page(full_page).said
        assert (
            said.index(full.study.question)
            < said.index(headline.headline(full)[0])
            < said.index("runs finished")
            < said.index("Effects")
        )
        headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", full_page)
        assert headings == list(self.ORDER)

    @pytest.mark.parametrize("of", [everything, nothing, hostile])
    def test_every_tag_is_closed_and_every_id_is_there_once(self, of):
        parsed = Page(page(of()))
        assert parsed.open == []
        ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = [
            attributes["aria-labelledby"] for _, attributes in parsed.tags if "aria-labelledby" in attributes
        ]
        assert set(targets) <= set(ids)

    @pytest.mark.parametrize("of", [everything, nothing, hostile])
    def test_it_loads_nothing(self, of):
        parsed = Page(page(of()))
        asked = [x for _, attributes in parsed.tags for name, x in attributes.items() if name in LOADING]
        assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", x) for x in asked)
        assert not any(re.search(r"url\(|@import", style) for style in parsed.styles)
        policy = next(
            attributes["content"]
            for _, attributes in parsed.tags
            if attributes.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none'")

    def test_plotly_stands_in_it_once_and_it_is_below_7_megabytes(self, full_page):
        assert full_page.count("* plotly.js v") == 1
        assert len(full_page.encode()) < 7_000_000

    def test_every_table_has_a_caption_and_heads(self, full_page):
        parsed = Page(full_page)
        names = [tag for tag, _ in parsed.tags]
        assert names.count("table") == names.count("caption") == names.count("thead") == 15
        assert ("html", {"lang": "en"}) in parsed.tags

    def test_an_empty_study_renders_and_says_so(self):
        made = page(nothing())
        said = Page(made).said
        assert "Nothing is finished yet: 0 of 10 runs." in said
        assert "undecided : no pair of finished runs" in said
        assert "No run has said yet where it ran." in said
        assert len(made) < 100_000  # no picture, hence no plotly.js

    def test_a_study_without_a_factor_renders(self):
        assert "No factor is varied" in Page(page(found({}, lambda c, s: 0.7))).said

    def test_free_text_is_text(self, full_page):
        of = hostile()
        made = page(of)
        parsed = Page(made)
        assert parsed.said.count(HOSTILE) >= 3
        assert of.study.factors[0].levels[1].name in parsed.said
        assert "{{ 7 * 7 }}" in parsed.said
        assert "{{ cell" not in made
        assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in Page(full_page).tags}
        assert len(parsed.scripts) == 1 + 13 + 2  # plotly.js, the pictures, sorting and printing

    def test_an_effect_that_is_turned_round_is_taken_apart_below_the_effects(self):
        raw = {"factors": {"augment": {"rotation": [0, 15]}, "model": {"batch_norm": [True, False]}}}
        turn = {"true": [0.02, 0.021, 0.019, 0.02, 0.022], "false": [-0.02, -0.019, -0.021, -0.022, -0.02]}
        of = found(
            raw,
            lambda c, s: (
                0.9 + (turn[c.levels["model.batch_norm"]][s] if c.levels["augment.rotation"] == "15" else 0)
            ),
        )
        said = Page(page(of)).said
        assert "rotation 15 instead of 0, where batch_norm = true +2.04" in said
        assert "rotation 15 instead of 0, where batch_norm = false -2.04" in said
        assert len(tables_of(of)["simple"].rows) == len(of.simple_effects) >= 2

    def test_an_effect_that_is_known_in_some_settings_only_is_named_wherever_it_is_drawn(self):
        raw = {
            "factors": {
                "augment": {"rotation": [0, 15], "crop": ["none", "random_crop"]},
                "model": {"batch_norm": [True, False]},
            }
        }
        noise = np.random.default_rng(0)
        never = "rotation=15, batch_norm=false"
        of = found(
            raw,
            lambda c, s: 0.8 + float(noise.normal(0, 0.01)),
            status=lambda c, s: "running" if c.label == never else "finished",
        )
        scope = "except where crop = none and batch_norm = false"
        effect = next(e for e in of.effects if e.factor == "augment.rotation")
        assert names.change(effect, of) == f"rotation 15 instead of 0, {scope}"
        said = Page(page(of)).said
        assert f"rotation 15 instead of 0, {scope}" in said
        assert "and not of the whole factor" in said
        _, layout = drawn(sections.effects.forest(of.effects, of))
        assert any(scope in re.sub(r"(<[^>]+>)+", " ", label["text"]) for label in layout["annotations"])
        (heat,), _ = drawn(sections.interactions.heat(of))
        assert (
            sum(text.endswith("*") for row in heat["text"] for text in row)
            == sum(e.scope is not None for e in of.interactions)
            > 0
        )
        assert "A star: known in some settings only" in said

    def test_names_of_classes_are_text(self):
        made = page(hostile())
        said = Page(made).said
        for name in ("<b>{{ 7 * 7 }}</b> %{x} $a$", "<img src=x onerror=alert(4)>"):
            assert name in said
        assert "<img src=x" not in made
        assert [attributes for tag, attributes in Page(made).tags if tag == "img"] == []

    def test_a_gallery_stands_in_the_page_as_it_is(self, full, full_page):
        shown = [attributes for tag, attributes in Page(full_page).tags if tag == "img"]
        assert len(shown) == len(full.details) == 2
        for attributes, one in zip(shown, full.details, strict=True):
            assert base64.b64decode(attributes["src"].partition(",")[2]) == Path(png()).read_bytes()
            assert one.label in attributes["alt"]
            assert (
                f"{one.label}, seed {one.picture_seed}: the most confident mistakes" in Page(full_page).said
            )

    def test_a_gallery_that_is_too_large_or_gone_is_left_out(self):
        assert Path(png(500)).stat().st_size > sections.inside.LARGEST
        for picture in (png(500), "/nowhere/wrong.png", ""):
            of = found(ROTATION, ROTATED, classes=("cat", "dog", "bird"), picture=picture)
            assert "<img" not in page(of), picture
            assert "Two cells from inside" in page(of)

    def test_a_study_of_500_runs_stays_below_7_megabytes(self):
        factors = {
            "augment": {"rotation": [0, 5, 10, 15, 20], "flip": [True, False]},
            "model": {"batch_norm": [True, False]},
        }
        raw = {"seeds": 5, "factors": factors | {"optimizer": {"lr": [0.1, 0.05, 0.02, 0.01, 0.005]}}}
        rng = np.random.default_rng(0)
        of = found(
            raw,
            lambda cell, seed: float(rng.normal(0.8, 0.02)),
            classes=tuple(f"class {i}" for i in range(100)),
            picture=png(400),
            epochs=60,
        )
        assert of.total == 500
        assert len(page(of).encode()) < 7_000_000

    def test_runs_are_counted(self, full, full_page):
        tiles = dict(html._tiles(full))
        assert tiles["runs finished"] == f"{full.finished} of {full.total}"
        assert (tiles["diverged"], tiles["crashed"], tiles["not run"]) == ("24", "1", "1")
        assert (sum(cell.failed for cell in full.cells), sum(cell.missing for cell in full.cells)) == (24, 2)
        assert f"{full.finished} of {full.total}" in Page(full_page).said

    def test_failures_have_a_reason_and_a_log(self, full_page):
        said = Page(full_page).said
        assert "rotation=15/4 crashed RuntimeError: boom /store/jobs/" in said
        assert "diverged the training loss was nan in epoch 3 /store/jobs/" in said

    def test_excluded_cells_say_why(self, full_page):
        assert "is known to diverge: " in Page(full_page).said

    def test_a_cell_says_whose_training_it_shares(self, full_page):
        assert "tta=flip shares the training of baseline" in Page(full_page).said

    def test_mixed_versions_are_warned_of(self, full_page):
        assert "versions torch: 2.9.0, 2.10.0" in Page(full_page).said
        assert "do not all come from the same" not in page(rotated(HELPS))

    def test_provenance_says_commit_changes_and_data_but_not_the_diff(self, full_page):
        said = Page(full_page).said
        assert "git commit 3f2a9c1d" in said
        assert "git dirty yes: there were uncommitted changes" in said
        assert "data fingerprint fingerprint-1" in said
        assert "machine device cpu" in said
        assert "SECRET DIFF" not in full_page

    def test_the_study_file_and_who_made_the_page_stand_in_it(self, full_page):
        said = Page(full_page).said
        assert 'name = "x" # a & b' in said
        assert "Made by ablate 0.1.0, 20 Nov 2026. Runs: /store" in said

    def test_it_explains_alpha_and_min_effect(self):
        said = Page(page(rotated(HELPS, min_effect=0.002, analysis={"alpha": 0.1}))).said
        assert "at 90 % (Student's t" in said
        assert "within 0.2 points of 0" in said

    def test_it_is_the_same_page_each_time(self):
        assert page(rotated(HELPS)) == page(rotated(HELPS))


class TestTables:
    def test_effects_and_cells_have_a_row_each(self, full):
        made = tables_of(full)
        assert len(made["effects"].rows) == len(full.effects)
        assert len(made["cells"].rows) == len(full.cells)
        assert len(made["baseline"].rows) == len(full.cells) - 1
        assert len(made["interactions"].rows) == len(full.interactions)
        assert all(len(row) == len(table.columns) for table in made.values() for row in table.rows)

    def test_p_comes_last_but_for_flags(self, full):
        assert [title for title, _ in tables_of(full)["effects"].columns] == [
            "change", "effect, points", "interval, points", "verdict", "seeds", "wins / ties / losses",
            "p (adjusted)", "flags",
        ]  # fmt: skip

    def test_a_long_table_is_cut_and_says_so(self, monkeypatch, full):
        monkeypatch.setattr(tables, "MOST_ROWS", 3)
        made = sections.cells.cells_table(full)
        assert len(made.rows) == 3
        assert (
            made.note
            == f"The first 3 of {len(full.cells)} rows; `ablate report --format json` has all of them."
        )

    def test_long_curves_are_thinned_to_the_last_epoch(self):
        of = replace(found(ROTATION, lambda c, s: 0.9, epochs=95))
        made = sections.curves.curves_table(of)
        epochs = [int(row[1]) for row in made.rows if row[0] == "baseline"]
        assert epochs[-1] == 95
        assert len(epochs) <= sections.curves.MOST_EPOCHS
        assert "every 3 epochs" in made.caption

    def test_numbers_of_a_picture_stand_in_a_table(self, full):
        cells = [" ".join(str(cell) for cell in row) for row in tables_of(full)["curves"].rows]
        assert any(row.startswith("baseline 4 ") and "90.20 [90.00, 90.40]" in row for row in cells)

    def test_numbers_of_the_insides_stand_in_tables(self, full):
        made, every = tables_of(full), pictures_of(full)
        traces, _ = drawn(every["heat"])
        shown = [text for row in traces[0]["text"] for text in row if text]
        assert sorted(shown) == sorted(row[1] for row in made["interactions"].rows if row[1] != "-")
        traces, _ = drawn(every["interplay"])
        assert {f"{y:.2f}" for trace in traces for y in trace["y"]} == {
            cell for row in made["interplay"].rows for cell in row[1:]
        }
        traces, layout = drawn(every["classes"])
        points = [f"{x:+.2f}" for trace in traces if trace["mode"] == "markers" for x in trace["x"]]
        change, chosen = sections.classes.strongest(full)
        assert len(points) == len(chosen) == 4
        assert sorted(points) == sorted(row[2] for row in made["classes"].rows if row[0] == change)
        assert set(layout["yaxis"]["ticktext"]) == {row[1] for row in made["classes"].rows}
        traces, _ = drawn(every["calibration"])
        lines = [list(pair) for trace in traces[1:] for pair in zip(trace["x"], trace["y"], strict=True)]
        assert [[f"{x:.1f}", f"{y:.1f}"] for x, y in lines] == [
            list(row[2:]) for row in made["calibration"].rows
        ]

    def test_two_factors_whose_levels_have_one_name_do_not_share_squares(self):
        levels = [
            ("a", {"rotation": 0}, {"rotation": 15}),
            ("b", {"flip": True}, {"flip": False}),
            ("c", {"erasing": 0.0}, {"erasing": 0.1}),
        ]
        raw = {
            "factor": [
                {"name": name, "levels": [level("no", **off), level("abc", **on)]} for name, off, on in levels
            ]
        }
        of = found(
            raw, lambda cell, seed: 0.8 + 0.03 * len(cell.label) ** 0.5 + 0.001 * seed * len(cell.label)
        )
        traces, layout = drawn(sections.interactions.heat(of))
        assert sum(bool(text) for row in traces[0]["text"] for text in row) == len(of.interactions) == 3
        assert layout["xaxis"]["ticktext"] == layout["yaxis"]["ticktext"] == ["abc", "abc"]

    def test_numbers_of_a_confusion_stand_in_a_table(self, full):
        rows = {row[:3]: row[3] for row in tables_of(full)["confusion"].rows}
        for i, one in enumerate(full.details):
            traces, layout = drawn(sections.inside.confusion(one, f"confusion-{i}"))
            right = {label["x"]: label["text"] for label in layout["annotations"]}
            for a, true in enumerate(one.classes):
                assert f"{float(rows[one.label, true, true]):.0f}" == right[a]
                for b, answer in enumerate(one.classes):
                    share = traces[0]["z"][a][b]
                    assert (share is None) == (a == b)
                    assert share in (None, 0) or rows[one.label, true, answer] == f"{share:.2f}"

    def test_of_many_classes_the_commonest_mistakes_are_listed(self):
        of = found(ROTATION, ROTATED, classes=tuple(f"c{i}" for i in range(30)))
        made = sections.inside.confusion_table(of)
        shares = [float(row[3]) for row in made.rows if row[0] == "baseline"]
        assert len(shares) == sections.inside.MOST_CONFUSIONS
        assert shares == sorted(shares, reverse=True)


def drawn(picture: Picture) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Take a picture apart, as a page would have it, and have plotly check it."""
    go.Figure(picture.data, picture.layout)
    return json.loads(json.dumps(picture.data)), json.loads(json.dumps(picture.layout))


INSIDES = (
    sections.interactions.heat,
    lambda of: sections.interactions.interplay(of.interplay, of),
    lambda of: sections.classes.classes(of.class_effects, of),
    lambda of: sections.inside.confusion(of.details[0], "confusion"),
    lambda of: sections.inside.calibration(of.details),
)


class TestFigures:
    def test_a_forest_has_point_interval_dots_band_and_zero_line(self):
        of = rotated(HELPS, min_effect=0.002)
        traces, layout = drawn(sections.effects.forest(of.effects, of))
        interval, dots, point = traces
        assert interval["x"] == pytest.approx([0.855, 1.005], abs=0.01)
        assert dots["x"] == pytest.approx([100 * x for x in HELPS])
        assert point["x"] == pytest.approx([0.93])
        assert {shape["type"] for shape in layout["shapes"]} == {"rect", "line"}
        assert layout["shapes"][0]["x1"] == pytest.approx(0.2)

    def test_a_forest_has_a_row_an_effect_the_best_at_the_top(self, full):
        _, layout = drawn(sections.effects.forest(full.effects, full))
        labels = [label["text"] for label in layout["annotations"]]
        assert len(labels) == len(full.effects)
        assert labels[0].startswith("<b>rotation 15 instead of 0</b><br>helps +0.92 points [")
        assert [label["y"] for label in layout["annotations"]] == sorted(
            label["y"] for label in layout["annotations"]
        )

    def test_the_best_of_a_metric_to_minimise_is_the_lowest(self):
        raw = {"factors": {"augment": {"rotation": [0, 15], "flip": [True, False]}}, "metric": "test/loss"}
        of = found(raw, by_level({("augment.rotation", "15"): HELPS, ("augment.flip", "false"): HURTS}))
        _, layout = drawn(sections.effects.forest(of.effects, of))
        assert "flip false" in layout["annotations"][0]["text"]
        assert "left is better" in layout["xaxis"]["title"]["text"]

    def test_one_seed_has_no_interval_but_a_point(self):
        of = rotated([0.005])
        traces, _ = drawn(sections.effects.forest(of.effects, of))
        assert [trace["mode"] for trace in traces] == ["markers", "markers"]

    def test_curves_have_two_panels_and_an_entry_a_training(self, full):
        traces, layout = drawn(sections.curves.curves(full))
        assert sum(trace.get("showlegend", False) for trace in traces) == len(canvas.LINES)
        assert {trace["xaxis"] for trace in traces} == {"x", "x2"}
        assert [label["text"] for label in layout["annotations"]] == ["<b>accuracy</b>, %", "<b>loss</b>"]

    def test_the_trainings_nearest_to_the_baseline_are_drawn_and_the_page_says_so(self, full, full_page):
        labels = sections.curves.drawn_trainings(full)
        assert labels[0] == "baseline"
        assert len(labels) == len(canvas.LINES) == 12
        assert max(label.count("=") for label in labels) <= 2
        assert "Drawn are the 12 trainings that differ least from the baseline, of " in Page(full_page).said

    def test_a_study_without_validation_draws_what_there_is(self, full):
        of = replace(full, curves=tuple(curve for curve in full.curves if curve.metric == "train/loss"))
        traces, layout = drawn(sections.curves.curves(of))
        assert {trace["xaxis"] for trace in traces} == {"x"}
        assert "yaxis2" not in layout

    def test_cost_has_a_point_a_cell_numbered_as_the_table(self, full):
        traces, _ = drawn(sections.cost.cost(full))
        assert traces[0]["text"] == [str(i) for i in range(1, len(full.cells) + 1)]

    def test_no_line_is_left_out_where_there_are_more_than_colours(self, full):
        many = [replace(full.details[0], label=f"cell {i}") for i in range(len(sections.inside.COLOURS) + 3)]
        traces, _ = drawn(sections.inside.calibration(many))
        assert [trace["name"] for trace in traces[1:]] == [one.label for one in many]

    @pytest.mark.parametrize(
        "draw",
        [
            lambda of: sections.effects.forest(of.effects, of),
            sections.curves.curves,
            sections.cost.cost,
            *INSIDES,
        ],
    )
    def test_free_text_is_no_markup_in_a_picture(self, draw):
        of = hostile()
        assert "<script>alert" not in canvas.div(draw(of))
        traces, layout = drawn(draw(of))
        found_texts = [
            trace[key] for trace in traces for key in ("text", "hovertext", "name") if key in trace
        ]
        texts = [part for text in found_texts for part in ([text] if isinstance(text, str) else text)]
        texts = [
            part for text in texts for part in ([text] if isinstance(text, str) else text)
        ]  # of a heat map
        texts += [label["text"] for label in layout.get("annotations", ())]
        texts += [text for name in ("xaxis", "yaxis") for text in layout[name].get("ticktext", ())]
        tags = {tag for text in texts for tag in re.findall(r"<[^<>]*>", text)}
        assert tags <= {"<b>", "</b>", "<br>"}
        assert not any(
            "hovertemplate" in trace or trace.get("texttemplate", "%{text}") != "%{text}" for trace in traces
        )
