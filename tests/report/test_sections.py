"""The table of sections: page, pictures, spreadsheets, Markdown and JSON have all that it names."""

import csv
import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from reports import (
    HELPS,
    HURTS,
    ROTATED,
    ROTATION,
    Page,
    by_level,
    everything,
    found,
    hostile,
    level,
    nothing,
    page,
    pictures_of,
    rotated,
    tables_of,
)

from ablate.analysis.tuning import TuningFinding
from ablate.report import canvas, data, exports, pictures, publish, sections, tables, words
from ablate.report.canvas import Picture
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


@cache
def whole():
    of = everything()
    return replace(of, study=replace(of.study, text='name = "augmentation"'))


@cache
def made():
    return sections.make(whole()), data.to_json(whole())


@pytest.mark.parametrize("name", sections.SECTIONS)
def test_what_a_section_shows_is_in_the_json(name):
    every, written = made()
    section = every[name]
    assert section.blocks, "everything has every section"
    assert section.data
    for key, value in section.data.items():
        own = data.plain(value)
        assert own, f"{key} is shown, and its data are empty"
        joined = written[key]
        assert own == joined or all(part in joined for part in own)


def test_the_page_on_the_report_lists_every_section_and_its_keys():
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    every, _ = made()
    for section in every.values():
        assert section.title in text
        assert all(f"`{key}`" in text for key in section.data), section.title


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
        keys = ("text", "hovertext", "name")
        labels = [trace[key] for trace in traces for key in keys if key in trace]
        rows = [part for text in labels for part in ([text] if isinstance(text, str) else text)]
        # The texts of a heat map are lists of rows.
        texts = [part for text in rows for part in ([text] if isinstance(text, str) else text)]
        texts += [label["text"] for label in layout.get("annotations", ())]
        texts += [text for name in ("xaxis", "yaxis") for text in layout[name].get("ticktext", ())]
        tags = {tag for text in texts for tag in re.findall(r"<[^<>]*>", text)}
        assert tags <= {"<b>", "</b>", "<br>"}
        assert not any(
            "hovertemplate" in trace or trace.get("texttemplate", "%{text}") != "%{text}" for trace in traces
        )
