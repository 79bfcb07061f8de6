"""The table of sections: page, pictures, spreadsheets, Markdown and JSON have all that it names."""

import csv
import io
import re
from dataclasses import replace

import pytest
from reports import Page, everything, nothing, page

from ablate.report import canvas, data, exports, pictures, publish, sections
from ablate.report.section import Note, Plots, Section, Sheet
from ablate.report.tables import Table
from ablate.store.layout import Store


def stations(findings) -> Section:
    """Make a section that no report has yet: a picture, a table, a note, data and a sheet."""
    drawn = canvas.picture("stations", [{"type": "scatter", "x": [1], "y": [2]}], {"height": 100})
    blocks = (
        Plots("Where the trains stop", (drawn,)),
        Table(
            "stations-table", "All stations", (("station", "head"), ("trains", "number")), (("<Ulm>", "12"),)
        ),
        Note("Trains & buses", soft=True),
    )
    rows = ((findings.study.name, 12),)
    return Section(
        "stations-title",
        "Stations",
        blocks,
        {"stations": [{"name": "<Ulm>"}]},
        (Sheet("stations", ("name", "n"), rows),),
    )


def test_a_row_of_the_table_is_all_that_a_section_costs(monkeypatch, tmp_path):
    monkeypatch.setitem(sections.SECTIONS, "stations", stations)
    of = everything()
    text = page(of)
    said = Page(text).said
    assert "Stations Where the trains stop All stations stationtrains" in said.replace(
        "station trains", "stationtrains"
    )
    assert "<Ulm> 12 Trains & buses" in said
    assert '<div id="stations"' in text
    assert [one.name for one in pictures.every(of)][-1] == "stations"
    assert data.to_json(of)["stations"] == [{"name": "<Ulm>"}]
    store = Store(tmp_path / "store")
    publish.write_page(of, store)
    beside = store.study(of.study.name)
    assert (beside / "stations.csv").read_text() == "name,n\naugmentation,12\n"
    assert {path.name for path in beside.iterdir()} >= {
        "report.html",
        "report.md",
        "findings.json",
        "effects.csv",
        "cells.csv",
    }


def whole():
    of = everything()
    return replace(of, study=replace(of.study, text='name = "augmentation"'))


@pytest.mark.parametrize("name", sections.SECTIONS)
def test_what_a_section_shows_is_in_the_json(name):
    of = whole()
    section = sections.make(of)[name]
    assert section.blocks, "everything has every section"
    written = data.to_json(of)
    assert section.data
    for key, value in section.data.items():
        own = data.plain(value)
        assert own, f"{key} is shown, and its data are empty"
        joined = written[key]
        assert own == joined or all(part in joined for part in own)


def test_the_lines_of_the_strongest_interaction_are_in_the_json():
    of = everything()
    interplay = data.to_json(of)["interplay"]
    assert interplay["factors"] == list(of.interplay.factors)
    assert {tuple(mean["levels"]): mean["mean"] for mean in interplay["means"]} == of.interplay.means
    assert data.to_json(nothing())["interplay"] is None


def test_data_of_one_key_are_joined_in_the_order_of_the_page_and_nothing_is_overwritten(monkeypatch):
    of = everything()
    kinds = [effect["kind"] for effect in data.to_json(of)["effects"]]
    assert kinds == sorted(kinds, key=["main", "simple", "interaction", "cell"].index)
    assert len(kinds) == len(of.effects + of.simple_effects + of.interactions + of.cell_effects)
    monkeypatch.setitem(sections.SECTIONS, "twice", lambda findings: Section("x", "X", (), {"tuning": {}}))
    with pytest.raises(AssertionError, match="two sections have the key tuning"):
        data.to_json(of)


def test_rows_of_one_sheet_are_joined_and_must_have_the_same_columns(monkeypatch):
    of = everything()
    rows = list(csv.DictReader(io.StringIO(exports.spreadsheet(of))))
    assert [row["kind"] for row in rows] == [effect["kind"] for effect in data.to_json(of)["effects"]]
    monkeypatch.setitem(
        sections.SECTIONS, "odd", lambda findings: Section("x", "X", (), {}, (Sheet("cells", ("a",), ()),))
    )
    with pytest.raises(AssertionError, match="two sheets cells"):
        exports.spreadsheet(of)


def test_a_section_without_blocks_is_not_on_the_page():
    of = nothing()
    empty = [section.title for section in sections.make(of).values() if not section.blocks]
    assert "Interactions" in empty
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page(of))
    assert set(headings) & set(empty) == {"Study file"}, "page() writes one"
    assert {*headings, *empty} == {section.title for section in sections.make(of).values()}
