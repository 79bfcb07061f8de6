"""The networks on the page: a folded table each, what is frozen, what is too many, names as text, JSON."""

from dataclasses import replace

from reports import ATTACK, HOSTILE, Page, cnn, hostile, nothing, page, rotated, with_networks

from ablate.report import data, sections
from ablate.report.section import Folded, Note
from ablate.store.network import Layer

HELPS = [0.01, 0.011, 0.012]


def studied(*networks, **of):
    findings = rotated(HELPS)
    return with_networks(findings, *(networks or [cnn("cnn4", findings, **of)]))


def made(findings):
    return sections.make(findings)["model_summary"]


def test_a_network_has_a_folded_table_that_ends_with_its_totals():
    (block,) = made(studied()).blocks
    assert isinstance(block, Folded)
    assert block.summary == (
        "cnn4: 37,450 parameters, 9,280 of them frozen, 9,437,504 multiply-adds an image "
        "(baseline; rotation=15)"
    )
    rows = [tuple(getattr(cell, "text", cell) for cell in row) for row in block.table.rows]
    assert block.table.rows[0][0].note == "Conv2d"
    assert rows[0] == ("block0.conv", "32 x 16 x 16", "9,216", "frozen", "2,359,296")
    assert rows[2] == ("block0.relu", "32 x 16 x 16", "", "", "")
    assert rows[3][3] == "yes"
    assert rows[-1] == ("total", "", "37,450", "28,170", "9,437,504")
    assert "an image of 3 x 32 x 32" in block.table.caption


def test_what_is_trained_is_said_only_where_not_everything_is():
    (block,) = made(studied(frozen=0)).blocks
    assert [title for title, _ in block.table.columns] == ["layer", "output", "parameters", "multiply-adds"]
    assert {len(row) for row in block.table.rows} == {4}
    assert "frozen" not in block.summary


def test_folded_rows_say_how_many_layers_they_hold():
    folded = (
        Layer(name="", kind="Net", shape=(10,), parameters=7, trainable_parameters=7),
        Layer(name="body", kind="Body", shape=(4,), parameters=9, trainable_parameters=3, macs=5, layers=12),
        Layer(name="", kind="", parameters=1, layers=1300),
    )
    of = studied()
    network = of.summaries[0].network.model_copy(update={"layers": folded})
    said = Page(page(with_networks(of, replace(of.summaries[0], network=network)))).said
    assert "the network itself Net 10 7 yes" in said
    assert "body Body, 12 layers 4 9 3 5" in said
    assert "all further layers 1,300 layers" in said
    assert "a block of many layers stands in one row" in said


def test_many_networks_are_counted_and_all_of_them_are_in_the_json():
    findings = rotated(HELPS)
    many = with_networks(findings, *(cnn(f"net{i}", findings) for i in range(20)))
    blocks = made(many).blocks
    assert [type(block) for block in blocks] == [Folded] * 12 + [Note]
    assert blocks[-1].text == "8 more networks: `ablate report --format json` has all."
    assert [one["network"] for one in data.to_json(many)["model_summaries"]] == [f"net{i}" for i in range(20)]
    large = with_networks(findings, *(cnn(f"net{i}", findings, blocks=65) for i in range(5)))
    assert [type(block) for block in made(large).blocks] == [Folded] * 3 + [Note]


def test_programs_get_every_layer():
    (one,) = data.to_json(studied())["model_summaries"]
    assert {key: one[key] for key in ("network", "cells", "image", "parameters")} == {
        "network": "cnn4", "cells": ["baseline", "rotation=15"], "image": [3, 32, 32], "parameters": 37450,
    }  # fmt: skip
    assert one["layers"][0] == {
        "name": "block0.conv", "kind": "Conv2d", "shape": [32, 16, 16], "parameters": 9216,
        "trainable_parameters": 0, "macs": 2359296, "layers": 0,
    }  # fmt: skip


def test_names_of_layers_are_text():
    of = hostile()
    shown = Page(page(of))
    assert f"{ATTACK}0.conv" in shown.said
    assert f"{HOSTILE}: " in shown.said
    assert not any(tag == "a" for tag, _ in shown.tags)


def test_a_study_whose_layers_nobody_recorded_says_nothing():
    assert made(nothing()).blocks == ()
    assert data.to_json(nothing())["model_summaries"] == []
