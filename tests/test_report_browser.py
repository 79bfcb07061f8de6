"""The page in a real browser: pictures are drawn, nothing complains, nothing is loaded."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import everything, hostile, nothing, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000",
    "--window-size=400,900", "--enable-logging=stderr",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")]

PICTURES = {everything: ["forest", "curves", "cost"], nothing: [], hostile: ["forest", "curves", "cost"]}


def opened(text: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """Open a page on the screen of a phone: the DOM after all scripts, what the console says, what the page asks for."""
    path, log = folder / "report.html", folder / "requests.json"
    path.write_text(text, encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    asked = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # Chromium has errands of its own (updates, time, dictionaries): what no page asked for is "not an origin".
    by_page = {params["url"] for params in asked if params.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], sorted(by_page)


@pytest.fixture(params=PICTURES, ids=lambda of: of.__name__, scope="module")
def report(request, tmp_path_factory):
    return PICTURES[request.param], *opened(page(request.param()), tmp_path_factory.mktemp(request.param.__name__))


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
    shown = re.sub(r"<script.*?</script>", "", report[1], flags=re.DOTALL)
    assert re.findall(r"<(?:img|a|i|b)[ >]", shown) == []


def test_a_page_that_complains_and_asks_would_be_noticed(tmp_path):
    _, console, asked = opened('<img src="http://example.test/x.png"><script>undefined.x</script>', tmp_path)
    assert len(console) == 1
    assert asked == ["http://example.test/x.png"]
