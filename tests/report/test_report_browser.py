"""The page in a real browser: pictures are drawn, nothing complains, nothing is loaded."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from browser import CHROMIUM, QUIET, Browser, assert_quiet
from reports import everything, hostile, many, nothing, page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")]

EVERY = [
    "forest",
    "heat",
    "interplay",
    "curves",
    "schedules",
    "classes",
    "confusion-0",
    "confusion-1",
    "calibration",
    "rates",
    "rates-accuracy",
    "history",
    "fields",
    "map",
    "cost",
]
PICTURES = {everything: EVERY, nothing: [], hostile: EVERY}
TUNED = 5  # of them are of tuning


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    (folder / "report.html").write_text(page(everything()), encoding="utf-8")
    made = Browser(folder / "report.html", folder)
    yield made
    made.close()


def opened(text: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """Open a page on the screen of a phone: the DOM after all scripts, the console's lines, the requests."""
    path, log = folder / "report.html", folder / "requests.json"
    path.write_text(text, encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    asked = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # Chromium has errands of its own (updates, time, dictionaries): what no page asked for is "not an
    # origin".
    by_page = {
        params["url"] for params in asked if params.get("initiator", "not an origin") != "not an origin"
    }
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], sorted(by_page)


@pytest.fixture(params=PICTURES, ids=lambda of: of.__name__, scope="module")
def report(request, tmp_path_factory):
    return PICTURES[request.param], *opened(
        page(request.param()), tmp_path_factory.mktemp(request.param.__name__)
    )


def test_every_picture_is_drawn(report):
    pictures, dom, _, _ = report
    for name in pictures:
        inside = dom[dom.index(f'<div id="{name}"') :]
        assert '<svg class="main-svg"' in inside[: inside.index("</figure>")]
    assert dom.count('class="plot-container') == len(pictures)


def test_the_console_is_silent(report):
    assert report[2] == []


def test_nothing_is_asked_of_the_network(report):
    assert report[3] == []


def test_no_text_of_a_study_became_a_tag(report):
    shown = re.sub(
        r'<script.*?</script>|<img class="gallery" src="data:image/png;base64,',
        "",
        report[1],
        flags=re.DOTALL,
    )
    assert re.findall(r"<(?:img|a|i|b)[ >]", shown) == []


def test_a_page_that_complains_and_asks_would_be_noticed(tmp_path):
    _, console, asked = opened('<img src="http://example.test/x.png"><script>undefined.x</script>', tmp_path)
    assert len(console) == 1
    assert asked == ["http://example.test/x.png"]


def numbers(cells):
    return [float(cell.replace(",", "")) for cell in cells if cell[0].isdigit()]


def test_a_click_on_a_head_sorts_the_cells_as_numbers_and_another_one_turns_them(browser):
    before = browser.column("mean")
    assert (before["sorted"], before["order"]) == ([], None)
    browser.click("mean")
    up = browser.column("mean")
    assert (up["sorted"], up["order"]) == ([before["title"]], "ascending")
    assert numbers(up["rows"]) == sorted(numbers(before["rows"]))
    assert numbers(up["rows"]) != numbers(before["rows"])
    browser.click("mean")
    assert browser.column("mean")["order"] == "descending"
    assert numbers(browser.column("mean")["rows"]) == sorted(numbers(before["rows"]), reverse=True)


def test_numbers_are_no_words_and_another_column_takes_the_order_over(browser):
    browser.click("#")
    found = browser.column("#")
    assert found["sorted"] == ["#"]
    assert found["rows"] == [str(i) for i in range(1, len(found["rows"]) + 1)], "10 comes after 9"


def test_what_is_not_known_comes_last_whichever_way(browser):
    for _ in range(2):
        browser.click("seed\N{NO-BREAK SPACE}4")
        rows = browser.column("seed\N{NO-BREAK SPACE}4")["rows"]
        known = len(numbers(rows))
        assert 0 < known < len(rows)
        assert set(rows[known:]) <= {"-", "diverged", "crashed", "not run"}


def test_names_are_sorted_as_words(browser):
    browser.click("cell")
    rows = browser.column("cell")["rows"]
    assert rows[0].startswith("baseline")
    browser.click("cell")
    assert browser.column("cell")["rows"][-1].startswith("baseline")


def test_the_keyboard_sorts_as_well(browser):
    browser.run('document.querySelectorAll("#cells-table .sort")[1].focus()')
    for _ in range(3):
        browser.press("Tab", 9)
    focused = browser.run("document.activeElement.textContent")
    before = browser.column(focused)["order"]
    assert before is None
    browser.press("Enter", 13, text="\r")
    assert browser.column(focused)["order"] == "ascending"
    assert browser.column(focused)["sorted"] == [focused]
    assert numbers(browser.column(focused)["rows"]) == sorted(numbers(browser.column(focused)["rows"]))


def test_the_gallery_is_drawn(browser):
    sizes = browser.run("""(() => {
        const all = [...document.querySelectorAll("img.gallery")];
        all.forEach((one) => { one.loading = "eager"; one.scrollIntoView(); });
        return all.map((one) => one.src.length);
    })()""")
    assert len(sizes) == 2
    end = time.monotonic() + 300
    while (
        browser.run('[...document.querySelectorAll("img.gallery")].map((one) => one.naturalWidth).join()')
        != "64,64"
    ):
        assert time.monotonic() < end, "an image of the gallery is not drawn"
        time.sleep(0.1)


def test_neither_clicks_nor_pictures_complain_or_ask_for_anything(browser):
    browser.click("mean")
    assert browser.column("mean")["order"]
    assert_quiet(browser)


@pytest.fixture(scope="module")
def pages(quickstart, tmp_path_factory):
    """Write three reports: of the real quickstart, of 500 runs, of a study of which nothing is finished."""
    folder = tmp_path_factory.mktemp("pages")
    for made in (many, nothing):
        (folder / f"{made.__name__}.html").write_text(page(made()), encoding="utf-8")
    (report,) = (quickstart / "studies").glob("*/report.html")
    (folder / "quickstart.html").write_text(report.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize(
    ("name", "pictures"), [("quickstart", len(EVERY) - TUNED), ("many", len(EVERY)), ("nothing", 0)]
)
def test_a_page_is_drawn_in_its_window_without_a_word_or_a_request(name, pictures, width, pages, tmp_path):
    made = Browser(pages / f"{name}.html", tmp_path, width)
    try:
        assert made.run("innerWidth") == width
        assert made.run("document.documentElement.scrollWidth") <= width, "something is wider than the window"
        drawn = """[...document.querySelectorAll(".js-plotly-plot")].map((one) => {
            const box = one.getBoundingClientRect();
            const shapes = ".scatterlayer path, .heatmaplayer image, .contourlayer path";
            const marks = one.querySelectorAll(shapes).length;
            const inside = box.width > 100 && box.right <= innerWidth && box.height > 100;
            return [inside, marks > 0, one.querySelectorAll("svg.main-svg").length > 0];
        })"""
        found = made.run(drawn)
        assert found == [[True, True, True]] * pictures
        assert made.run('document.querySelector("h1").textContent.length') > 0
        made.run("scrollTo(0, document.body.scrollHeight)")
        assert_quiet(made)
    finally:
        made.close()


def test_on_a_phone_the_verdict_stands_below_its_change_and_nothing_of_an_effect_is_hidden(tmp_path):
    (tmp_path / "report.html").write_text(page(everything()), encoding="utf-8")
    made = Browser(tmp_path / "report.html", tmp_path, 400)
    try:
        for name in ("effects-table", "claims-table", "interactions-table", "baseline-table"):
            places = made.run(f"""[...document.querySelectorAll("#{name} tbody tr")].map((row) => {{
                const box_of = (cell) => cell.getBoundingClientRect();
                const boxes = [...row.children].filter((cell) => cell.textContent).map(box_of);
                const [change, verdict] = ["th", ".verdict"].map((one) => box_of(row.querySelector(one)));
                const others = [...row.querySelectorAll("td:not(.verdict)")].map((cell) => box_of(cell).top);
                const fits = (box) => box.left >= 0 && box.right <= innerWidth;
                const inside = boxes.every((box) => fits(box) && box.width > 0 && box.height > 0);
                const below = others.filter(Boolean).every((top) => top >= verdict.bottom - 1);
                return [inside, verdict.top >= change.bottom, below];
            }})""")
            assert places
            assert places == [[True, True, True]] * len(places), name
            shown = made.run(
                f"""getComputedStyle(document.querySelector("#{name} td[data-title]"), "::before").content"""
            )
            assert shown not in ("none", "normal"), "numbers have lost their names"
    finally:
        made.close()
