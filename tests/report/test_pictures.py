"""Each picture of a report as files of its own."""

import shutil
from xml.etree import ElementTree as ET

import pytest
from browser import CHROMIUM, Browser, assert_quiet
from commands import ablate
from PIL import Image
from reports import everything, nothing

from ablate.report import pictures

NAMES = [
    "calibration", "classes", "confusion-0", "confusion-1", "cost", "curves", "fields", "forest", "heat",
    "history", "interplay", "map", "rates", "rates-accuracy", "schedules",
]  # fmt: skip


def without_images(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)


def test_every_picture_is_a_page_of_its_own_and_the_reason_says_how_to_have_images(tmp_path, monkeypatch):
    without_images(monkeypatch)
    assert pictures.write(everything(), tmp_path) == (
        len(NAMES),
        'for PNG and SVG, pip install "ablate-studies[figures]"',
    )
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.html" for name in NAMES}
    text = (tmp_path / "forest.html").read_text(encoding="utf-8")
    assert text.count("Plotly.newPlot(") >= 1
    assert "plotly.js v" in text, "it stands alone"
    assert "<script src" not in text


def test_nothing_finished_has_no_pictures_and_needs_no_browser(tmp_path):
    assert pictures.write(nothing(), tmp_path) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_there_are_pages_and_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    count, reason = pictures.write(everything(), tmp_path / "made")
    assert count == len(NAMES)
    assert reason.startswith("no PNG and SVG: kaleido has no browser to draw them: ")
    assert "\n" not in reason
    assert {path.suffix for path in (tmp_path / "made").iterdir()} == {".html"}


def test_the_command_says_what_it_wrote_beside_what_was_asked_for(done, tmp_path):
    folder, _ = done
    code, out, err = ablate(
        "report",
        "tiny",
        "--store",
        folder / "store",
        "--format",
        "csv",
        "--figures",
        tmp_path / "made",
        BROWSER_PATH=str(tmp_path / "none"),
    )
    assert (code, out.partition(",")[0]) == (0, "kind")
    assert err.startswith(f"{tmp_path / 'made'}: ")
    assert "pictures as HTML; no PNG and SVG" in err
    assert (tmp_path / "made" / "forest.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_with_a_browser_every_picture_is_an_image_too_and_the_pages_are_quiet(tmp_path):
    assert pictures.write(everything(), tmp_path) == (len(NAMES), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{form}" for name in NAMES for form in ("html", "png", "svg")
    )
    for name in NAMES:
        image = Image.open(tmp_path / f"{name}.png").convert("L")
        assert image.width == pictures.WIDTH * pictures.SCALE
        assert image.getextrema()[0] < 128, "something is drawn"
        assert image.getpixel((0, 0)) == 255, "on white"
        assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    made = Browser(tmp_path / "forest.html", tmp_path / "browser", 700)
    try:
        assert made.run('document.querySelectorAll(".js-plotly-plot svg.main-svg").length') > 0
        assert_quiet(made)
    finally:
        made.close()
        shutil.rmtree(tmp_path / "browser", ignore_errors=True)
