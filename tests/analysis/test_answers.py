"""Claims are answered by the effect that each is about."""

from dataclasses import replace

import numpy as np
import pytest
from outcomes import crossed, find, half, make, outcomes, random_value

from ablate.analysis import findings
from ablate.report import claims, sections

CLAIMS = {
    "augment.rotation: 15 > 0": "confirmed",
    "augment.rotation: 0 > 15": "refuted",
    "augment.rotation: 15 < 0": "refuted",
    "augment.rotation: 0 < 15": "confirmed",
    "augment.rotation: 0 ~ 15": "refuted",
    "model.batch_norm: true ~ false": "confirmed",
    "model.batch_norm: true > false": "refuted",
    "model.conv_dropout: 0.1 > 0.0": "undecided",
    "model.conv_dropout: 0.1 > 0.3": "undecided",
    "augment.rotation: 15 > 0 when model.batch_norm = false": "confirmed",
    "augment.rotation: 15 better than 0": "confirmed",
    "augment.rotation: 15 worse than 0": "refuted",
    "augment.rotation: 0 worse than 15 when model.batch_norm = true": "confirmed",
    "augment.rotation: 15 > 0 on time/epoch_seconds": "undecided",
    "augment.rotation: 15 no better than 0": "refuted",
    "augment.rotation: 0 no better than 15": "confirmed",
    "augment.rotation: 15 no worse than 0": "confirmed",
    "augment.rotation: 0 no worse than 15": "refuted",
    "model.batch_norm: true no better than false": "confirmed",  # equivalent
    "model.batch_norm: true no worse than false": "confirmed",
    "model.conv_dropout: 0.1 no better than 0.0": "undecided",
}


@pytest.mark.parametrize(("expect", "answer"), CLAIMS.items())
def test_claims_are_answered_by_the_effect(expect, answer):
    noise = np.random.default_rng(1)

    def value(cell, seed):
        """Rotation helps by 10 points, BatchNorm does nothing, and dropout adds what the seed likes."""
        swing = {"0.0": 0.0, "0.1": (-0.2, 0.2, 0.1)[seed % 3], "0.3": (0.3, -0.1, -0.2)[seed % 3]}[
            cell.levels["model.conv_dropout"]
        ]
        return 0.6 + 0.1 * (cell.levels["augment.rotation"] == "15") + swing + float(noise.normal(0, 1e-4))

    made = make(seeds=6, claim=[{"text": "somebody says so", "expect": expect}])
    (claim,) = find(made, value).claims
    assert claim.verdict == answer


BOUNDS = {  # of the cell with this level and every other factor at its baseline
    "augment.rotation: 15 > 0.65 on test/accuracy": "confirmed",
    "augment.rotation: 15 < 0.65 on test/accuracy": "refuted",
    "augment.rotation: 0 < 0.65 on test/accuracy": "confirmed",
    "augment.rotation: 15 > 0.70 on test/accuracy": "undecided",
    "augment.rotation: 15 > 0.65 when model.conv_dropout = 0.1 on test/accuracy": "refuted",
    "model.conv_dropout: 0.3 < 0.55 on test/accuracy": "confirmed",
    "augment.rotation: 15 < 2.5 on time/epoch_seconds": "undecided",
}


@pytest.mark.parametrize("variance", ["own", "pooled"])
@pytest.mark.parametrize(("expect", "answer"), BOUNDS.items())
def test_a_claim_may_compare_a_metric_with_a_number(expect, answer, variance):
    noise = np.random.default_rng(1)

    def value(cell, seed):
        lost = {"0.0": 0.0, "0.1": 0.2, "0.3": 0.1}[cell.levels["model.conv_dropout"]]
        helped = 0.1 * (cell.levels["augment.rotation"] == "15")
        return 0.6 + helped - lost + (0.001, -0.001, 0.0)[seed % 3] + float(noise.normal(0, 1e-5))

    made = make(seeds=6, claim=[{"expect": expect}], analysis={"variance": variance})
    found = find(made, value)
    (claim,) = found.claims
    assert claim.verdict == answer
    assert f"from {claim.claim.second} to" in claims.sentence(claim, found)


DIRECTIONS = {  # on a metric of which less is better, and which is larger with rotation
    "15 > 0": "confirmed",
    "15 < 0": "refuted",
    "0 < 15": "confirmed",
    "15 worse than 0": "confirmed",
    "15 better than 0": "refuted",
    "0 better than 15": "confirmed",
    "0  worse   than 15": "refuted",
    "0 ~ 15": "refuted",
    "15 no better than 0": "confirmed",
    "15 no worse than 0": "refuted",
    "0 no worse than 15": "confirmed",
    "0 no better than 15": "refuted",
}


@pytest.mark.parametrize(("expect", "answer"), DIRECTIONS.items())
def test_more_and_less_are_about_values_and_better_and_worse_about_benefits(expect, answer):
    made = make(
        seeds=6,
        claim=[{"text": "it is slower", "expect": f"augment.rotation: {expect} on time/epoch_seconds"}],
    )
    noise = np.random.default_rng(5)

    def seconds(cell):
        return {
            "time/epoch_seconds": 1.0
            + 0.2 * (cell.levels["augment.rotation"] == "15")
            + float(noise.normal(0, 0.01))
        }

    measured = tuple(
        replace(o, metrics=o.metrics | seconds(o.run.cell)) for o in outcomes(made, random_value())
    )
    found = findings.find(*made, measured)
    (claim,) = found.claims
    assert claim.verdict == answer
    assert claims.sentence(claim, found).endswith("(lower is better)")
    assert sections.claims.claims_table(found).rows[0][3].endswith("(lower is better)")


@pytest.mark.parametrize(
    "expect", ["true > false", "false < true", "false > true", "true < false", "true ~ false", "false ~ true"]
)
def test_a_claim_about_an_unstable_factor_is_undecided_whichever_way_it_is_put(expect):
    made = make(claim=[{"text": "x", "expect": f"model.batch_norm: {expect}"}], seeds=6)

    def status(cell, seed):
        return "diverged" if cell.levels["model.batch_norm"] == "false" and seed < 3 else "finished"

    noise = np.random.default_rng(3)

    def value(cell, seed):
        return 0.9 - 0.3 * (cell.levels["model.batch_norm"] == "false") + float(noise.normal(0, 0.01))

    found = find(made, value, status=status)
    assert found.claims[0].verdict == "undecided"


def test_a_claim_without_a_pair_is_not_tested():
    made = make(claim=[{"text": "x", "expect": "augment.rotation: 15 > 0"}])
    found = find(made, random_value(), status=lambda cell, seed: "not_run")
    assert [claim.verdict for claim in found.claims] == ["not tested"]
    assert (found.finished, found.total) == (0, 36)
    assert all(e.estimate.reason == "no pairs" for e in found.effects)


def test_a_claim_where_a_factor_has_the_level_that_is_complete_is_answered():
    _, found = crossed(
        half, claim=[{"expect": "augment.crop: random_resized_crop > none when model.batch_norm = false"}]
    )
    assert found.claims[0].verdict == "confirmed"
