"""Markdown, LaTeX and CSV of findings, whatever the names; two studies and two cells side by side."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from outcomes import turned
from reports import ROTATION, by_level, everything, found, level, nothing, rotated

from ablate.analysis import effects, metric_table
from ablate.report import comparison, data, exports, reasons, words
from ablate.study import file as study_file
from ablate.study import grid

BAD = 'a|b & c_d $x$ 50% #1 {y} ~z^ \\w "q"\n\rend <script>alert(1)</script> **bold** `code` &lt;'


def attacking():
    """Make a study whose names are markup, formulas and line breaks."""
    crop = [("[crop]", True, 0.0), ("*crop* | \r\n x", False, 0.0), ("[2pt] crop", True, 0.1)]
    raw = {
        "name": BAD,
        "question": f"Is {BAD} right?",
        "factor": [
            {"name": "=cmd()", "levels": [level("@off", rotation=0), level("=cmd()|/C calc", rotation=15)]},
            {
                "name": "crop",
                "levels": [level(name, flip=flip, erasing=erasing) for name, flip, erasing in crop],
            },
            {"name": BAD, "levels": [level("-1", cutout=0), level("+1+cmd()", cutout=8)]},
        ],
        "claim": [{"text": BAD, "source": BAD, "expect": "=cmd(): @off > =cmd()|/C calc"}],
    }
    rng = np.random.default_rng(0)
    return found(raw, lambda cell, seed: 0.9 + 0.01 * len(cell.label) ** 0.5 + float(rng.normal(0, 0.01)))


def with_simple():
    return turned()[2]


def single():
    return found({}, lambda cell, seed: 0.7)


EVERY = pytest.mark.parametrize(
    "make", [everything, with_simple, attacking, nothing, single], ids=lambda make: make.__name__
)


def cells_of(row):
    """Split a row of Markdown at the | that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", row)[1:-1]]


def rows_of_tables(text):
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]


class TestMarkdown:
    @EVERY
    def test_every_row_of_a_table_has_as_many_columns_as_its_head(self, make):
        of = make()
        made = rows_of_tables(exports.markdown(of))
        assert len(made) == sum(
            bool(part) for part in (of.effects, of.simple_effects, of.interactions, of.claims, of.cells)
        )
        for rows in made:
            assert {len(cells_of(row)) for row in rows} == {len(cells_of(rows[0]))}
            assert all(re.fullmatch(r"-{3}:?", cell) for cell in cells_of(rows[1]))
        assert len(made[-1]) - 2 == len(of.cells)

    @EVERY
    def test_no_name_is_markup(self, make):
        text = exports.markdown(make())
        for line in (cell for rows in rows_of_tables(text) for row in rows for cell in cells_of(row)):
            assert not re.search(r"(?<!\\)[*_`<>$~&\[\]#]", line.replace("\\\\", "")), line
        assert "<script" not in text.replace("\\<", "")

    def test_it_answers_first_and_has_the_numbers_of_the_page(self):
        of = everything()
        text = exports.markdown(of)
        assert text.startswith("# augmentation\n\nWhich augmentations help?\n\n")
        rotation = next(
            row for row in rows_of_tables(text)[0] if row.startswith("| rotation 15 instead of 0")
        )
        assert cells_of(rotation)[1:4] == ["+0.92", "\\[0.72, 1.13\\]", "helps"]

    def test_nothing_in_a_table_is_bold(self):
        assert "**" not in "".join(
            row for rows in rows_of_tables(exports.markdown(everything())) for row in rows
        )


SPECIAL = r"(?<!\\)[#$%&_~^{}]"


class TestLatex:
    @EVERY
    def test_every_row_has_five_columns_and_no_special_character(self, make):
        of = make()
        text = exports.latex(of)
        assert text.count("\n") == 10 + len(of.effects)
        body = text[text.index("\\midrule") :].splitlines()[1:-3]
        assert len(body) == len(of.effects)
        for row in body:
            assert row.endswith(r" \\")
            columns = re.split(r"(?<!\\) & ", row.removesuffix(r" \\"))
            assert len(columns) == 5
            assert all(re.fullmatch(r"--|\$[-+\d.,e\[\] ]+\$", number) for number in columns[1:3])
            plain = re.sub(
                r"\\text(backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\{[\[\]*]\}", "", columns[0]
            )
            assert not re.search(SPECIAL + r"|[<>|*\[\]\"]", plain), plain
            assert row[0] not in "[*", "an option of the line above"

    @EVERY
    def test_nothing_is_bold(self, make):
        assert not re.search(r"textbf|bfseries|\\bf\b", exports.latex(make()))

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex in PATH")
    @EVERY
    def test_it_compiles(self, make, tmp_path):
        body = (
            "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
            + exports.latex(make())
            + "\\end{document}\n"
        )
        (tmp_path / "x.tex").write_text(body, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def read(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


class TestCsv:
    @EVERY
    def test_effects_read_back_are_those_of_the_json_to_the_last_digit(self, make):
        of = make()
        rows, expected = read(exports.spreadsheet(of)), data.to_json(of)["effects"]
        assert len(rows) == len(expected)
        for row, effect in zip(rows, expected, strict=True):
            for name in ("effect", "low", "high", "p", "sd", "n", "wins", "ties", "losses", "more_seeds"):
                given = row["p (adjusted)" if name == "p" else name]
                assert (float(given) if given else None) == effect[name]
            assert row["condition"] == (effect["condition"] or "")
            assert (row["kind"], row["verdict"]) == (effect["kind"], effect["verdict"])
            assert row["flags"] == "; ".join(effect["flags"])
            assert row["where"] == "; ".join(effect["where"] or [])

    @EVERY
    def test_cells_read_back_are_those_of_the_json_to_the_last_digit(self, make):
        of = make()
        rows, expected = read(exports.spreadsheet(of, "cells")), data.to_json(of)["cells"]
        assert len(rows) == len(expected)
        for row, cell in zip(rows, expected, strict=True):
            for name in ("mean", "sd", "n", "epoch_seconds"):
                assert (float(row[name]) if row[name] else None) == cell[name]
            assert {name: int(row[name]) for name in reasons.ORDER} == {
                name: cell["outcomes"][name] for name in reasons.ORDER
            }
            assert (row["metric"], row["unit"]) == (of.metric, "fraction")
            given = {seed: float(row[f"seed {seed}"]) for seed in of.study.seeds if row[f"seed {seed}"]}
            assert given == {int(seed): value for seed, value in cell["values"].items()}

    def test_no_cell_is_a_formula_and_a_number_stays_one(self):
        of = attacking()
        texts = [exports.spreadsheet(of), exports.spreadsheet(of, "cells")]
        cells = {cell for text in texts for row in csv.reader(io.StringIO(text, newline="")) for cell in row}
        for cell in cells:
            assert cell.lstrip()[:1] not in ("=", "+", "-", "@") or re.fullmatch(
                r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", cell
            ), cell
        assert {"'=cmd()", "'@off", "'+1+cmd()", "-1"} <= cells

    def test_names_survive(self):
        rows = [row for row in read(exports.spreadsheet(attacking())) if row["kind"] == "main"]
        levels = {"=cmd()|/C calc", "*crop* | \n x", "[2pt] crop", "+1+cmd()"}
        assert {row["to"].removeprefix("'") for row in rows} == levels


FLIPPED = {"name": "other", "factors": {"augment": {"rotation": [0, 15], "flip": [True, False]}}}
HELPS = {("augment.rotation", "15"): [0.0093, 0.0085, 0.0101, 0.0090, 0.0096]}
HURTS = {("augment.rotation", "15"): [-0.031, -0.029, -0.032, -0.030, -0.031]}


class TestComparison:
    def test_two_studies_have_a_row_for_each_change_of_either(self):
        one, other = found(ROTATION, by_level(HELPS)), found(FLIPPED, by_level(HURTS))
        made = comparison.of_studies(one, other)
        assert made.columns == ("change", "x", "other", "same verdict")
        rotation, flip = made.rows
        assert rotation == (
            "rotation 15 instead of 0",
            "helps +0.93 points [0.85, 1.01]",
            words.verdict_words(other.effects[0], other),
            "no",
        )
        assert (flip[0], flip[1], flip[3]) == ("flip false instead of true", "-", "-")
        assert flip[2].startswith("undecided: every seed shows the same difference")
        assert made.sentences == ("1 change in both studies, 1 in one of them only",)
        assert [row[0] for row in comparison.of_studies(other, one).rows] == [rotation[0], flip[0]]

    def test_the_same_verdict_agrees(self):
        of = found(ROTATION, by_level(HELPS))
        assert [row[3] for row in comparison.of_studies(of, of).rows] == ["yes"]

    def test_two_undecided_effects_do_not_agree(self):
        of = rotated([0.01, -0.02, 0.015])
        assert [row[3] for row in comparison.of_studies(of, of).rows] == ["neither is decided"]

    def test_an_effect_that_is_known_in_some_settings_only_is_not_that_of_the_whole_factor(self):
        whole = found(FLIPPED, by_level(HELPS))
        part = found(
            FLIPPED, by_level(HELPS), status=lambda c, s: "running" if c.label == "flip=false" else "finished"
        )
        (rotation, *_) = comparison.of_studies(whole, part).rows
        assert rotation[0] == "rotation 15 instead of 0"
        assert rotation[2] == "helps +0.93 points [0.84, 1.02], where flip = true"
        assert rotation[3] == "not the same effect"

    def test_an_undecided_effect_still_has_its_number(self):
        of = rotated([0.005])
        assert comparison.of_studies(of, of).rows[0][1] == "undecided: one seed; +0.50 points"

    def test_studies_on_two_metrics_say_so(self):
        one, other = (
            found(ROTATION, by_level(HELPS)),
            found(ROTATION | {"metric": "test/loss"}, by_level(HELPS)),
        )
        assert (
            comparison.of_studies(one, other).sentences[1]
            == "the metrics differ: test/accuracy and test/loss"
        )

    def test_studies_without_a_common_change_share_nothing(self):
        one = found(ROTATION, by_level(HELPS))
        other = found({"factors": {"augment": {"flip": [True, False]}}}, by_level({}))
        made = comparison.of_studies(one, other)
        assert {row[3] for row in made.rows} == {"-"}
        assert made.sentences == ("0 changes in both studies, 2 in one of them only",)

    def cells(self, **more):
        """Put baseline and rotation side by side."""
        of = found(ROTATION, by_level(HELPS), **more)
        expanded = grid.expand(
            study_file.check({"name": "x", "recipe": {"data": {"name": "digits"}}} | ROTATION, "x.toml"),
            precision="fp32",
        )
        values = np.array([[c.values.get(seed, np.nan) for c in of.cells] for seed in of.study.seeds])
        table = metric_table.lay_out(of.study, expanded, of.study.seeds, values)
        return comparison.of_cells(of, *of.cells, effects.between(table, *expanded.cells))

    def test_two_cells_stand_seed_by_seed_with_what_it_comes_to(self):
        made = self.cells()
        assert made.columns == ("test/accuracy", "baseline", "rotation=15", "difference")
        assert made.rows[0] == ("seed 0", "90.00 %", "90.93 %", "+0.93 points")
        assert made.rows[-1] == ("mean", "90.20 %", "91.13 %", "+0.93 points [0.85, 1.01]")
        assert len(made.rows) == 6
        assert made.sentences == ("rotation=15 instead of baseline: helps +0.93 points [0.85, 1.01]",)

    def test_a_seed_that_one_cell_lacks_has_no_difference(self):
        made = self.cells(
            status=lambda cell, seed: "not_run" if (cell.label, seed) == ("rotation=15", 1) else "finished"
        )
        assert made.rows[1] == ("seed 1", "90.10 %", "not run", "-")
        # The means are those of which the difference is one.
        assert made.rows[-1][:3] == ("mean of 4 seeds", "90.22 %", "91.18 %")

    def test_two_of_many_cells_are_a_single_comparison_and_say_so(self):
        of = found(FLIPPED, by_level(HELPS))
        one, other = of.cells[0], next(cell for cell in of.cells if cell.cell.label == "rotation=15")
        values = np.array([[c.values[seed] for c in of.cells] for seed in of.study.seeds])
        cells = grid.expand(of.study, precision="fp32")
        table = metric_table.lay_out(of.study, cells, of.study.seeds, values)
        alone = effects.between(table, one.cell, other.cell)
        made = comparison.of_cells(of, one, other, alone)
        reported = next(e for e in of.cell_effects if e.end == "rotation=15").estimate
        assert reported.high - reported.low > 1.2 * (alone.estimate.high - alone.estimate.low)
        assert made.sentences[1] == (
            "this interval is that of a single comparison, these two cells; the report's hold together for "
            "all 3 cells against the baseline, and are wider"
        )

    def test_every_difference_has_two_decimals(self):
        assert [words.moved(d, "test/accuracy") for d in (0.05, 1 / 48, -0.0041667, -0.00001)] == [
            "+5.00 points", "+2.08 points", "-0.42 points", "+0.00 points"
        ]  # fmt: skip
        assert [words.moved(d, "test/loss") for d in (0.5, -1 / 3)] == ["+0.5000", "-0.3333"]


def test_findings_of_the_other_metric_are_written_in_its_own_unit():
    of = found(ROTATION, by_level(HELPS), metric="test/loss")
    assert "effect & interval" in exports.latex(of)
    assert "effect (points)" in exports.latex(found(ROTATION, by_level(HELPS)))
