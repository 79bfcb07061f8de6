"""The page in a real browser: pictures are drawn, nothing complains, nothing is loaded."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import everything, hostile, nothing, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-default-apps", "--no-first-run", "--disable-features=NetworkTimeServiceQuerying", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000")  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")]

PICTURES = {everything: ["forest", "curves", "cost"], nothing: [], hostile: ["forest", "curves", "cost"]}


@pytest.fixture(params=PICTURES, ids=lambda of: of.__name__, scope="module")
def opened(request, tmp_path_factory):
    """Open one page: what was expected, the DOM after all scripts, the console, the addresses that were asked for."""
    folder: Path = tmp_path_factory.mktemp(request.param.__name__)
    path, requests = folder / "report.html", folder / "requests.json"
    path.write_text(page(request.param()), encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={requests}", "--enable-logging=stderr", "--window-size=400,900"]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = re.findall(r'"url":"([^"]*)"', requests.read_text(encoding="utf-8"))
    assert json.loads(requests.read_text(encoding="utf-8"))["events"], "the log of requests has nothing in it"
    return PICTURES[request.param], done.stdout, console, set(asked)


def test_every_picture_is_drawn(opened):
    pictures, dom, _, _ = opened
    for name in pictures:
        inside = dom[dom.index(f'<div id="{name}"') :]
        assert '<svg class="main-svg"' in inside[: inside.index("</figure>")]
    assert dom.count('class="plot-container') == len(pictures)


def test_the_console_is_silent(opened):
    assert opened[2] == []


def test_nothing_is_asked_of_the_network(opened):
    assert [address for address in opened[3] if not address.startswith(("file:", "data:", "blob:", "chrome:", "about:"))] == []


def test_no_text_of_a_study_became_a_script(opened):
    _, dom, _, _ = opened
    assert "<img" not in dom
    assert not re.search(r"<a [^>]*javascript:", dom)
