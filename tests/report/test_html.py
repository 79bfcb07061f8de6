"""The page: complete, well-formed, without a request, and with every text escaped."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from reports import (
    HELPS,
    HOSTILE,
    ROTATED,
    ROTATION,
    Page,
    cnn,
    everything,
    found,
    hostile,
    nothing,
    page,
    png,
    rotated,
    tables_of,
    with_networks,
)

from ablate.report import headline, html, names, sections

LOADING = ("src", "href", "srcset", "action", "data", "poster")


class TestPage:
    ORDER = (
        "Effects", "Claims", "Cells", "Train and test", "Interactions", "Cells against the baseline",
        "Learning curves", "Learning rates", "Classes", "Two cells from inside", "Range tests", "Tuning",
        "Cost and benefit", "Model summary", "Failures", "Excluded cells", "How to read this", "Study file",
        "Provenance",
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
        assert names.count("table") == names.count("caption") == names.count("thead") == 18
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
        assert len(parsed.scripts) == 1 + 15 + 2  # plotly.js, the pictures, sorting and printing

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
        layout = sections.effects.forest(of.effects, of).layout
        assert any(scope in re.sub(r"(<[^>]+>)+", " ", label["text"]) for label in layout["annotations"])
        (heat,) = sections.interactions.heat(of).data
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

    @pytest.mark.slow
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
        of = with_networks(of, *(cnn(f"net{i}", of, blocks=10, frozen=i) for i in range(2)))
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
