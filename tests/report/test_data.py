"""The report's JSON: strictly valid, with the keys that other programs rely on."""

import json
from dataclasses import replace

import pytest
from reports import (
    HELPS,
    ROTATED,
    ROTATION,
    everything,
    found,
    hostile,
    nothing,
    rotated,
)

from ablate.analysis.findings import Effect, Findings
from ablate.report import data


def only(of: Findings) -> Effect:
    (effect,) = of.effects
    return effect


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
