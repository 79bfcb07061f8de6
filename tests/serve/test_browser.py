"""The service in a real browser: a study from its text to its verdicts, without a word on the console."""

import re
import shutil
import sys

import pytest
from commands import TINY
from pages import CHROMIUM, browsing
from servers import Process, answers, free_port
from services import Client, serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")]
SETS = "training.epochs=2\ndata.train_size=300\nseeds=3"
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Run `ablate serve` as users do, on a store that is not there yet."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    command = [
        sys.executable,
        "-m",
        "ablate",
        "serve",
        "--port",
        port,
        "--store",
        folder / "store",
        "--drain",
    ]
    process = Process(command, folder / "log.txt", {"ABLATE_TOKEN": ""})
    process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/v1/health"))
    yield Client(port)
    process.stop()


@pytest.fixture(scope="module")
def opened():
    with browsing() as browser:
        yield browser


def test_a_study_is_submitted_watched_cancelled_reported_and_compared(opened, service):
    watched = opened(service.port, viewport={"width": 1400, "height": 900})
    page = watched.page
    watched.go("/")
    page.click("main >> text=New study")
    text = page.input_value("#text")
    page.fill("#text", text.replace("flip", "flop", 1))
    page.wait_for_selector("#mistakes li >> text=did you mean augment.flip?")
    page.fill("#text", text)
    page.fill("#sets", SETS)
    page.wait_for_selector("#plan >> text=24 under 3 seeds")
    assert page.locator("#mistakes li").count() == 0
    page.click("#submit")
    page.wait_for_selector("#grid td.running")
    watched.loads = 0
    page.wait_for_selector("#grid td.finished")
    page.wait_for_selector("#forests .interval, #forests .point")
    second = service.post("/queue?set=name=second", text).json["id"]
    page.wait_for_selector("#line >> text=24 of 24 runs ended")
    page.wait_for_selector("#headline >> text=/helps|hurts|equivalent|undecided/i")
    page.wait_for_selector("#grid td.s6")
    assert page.locator("#grid td:is(.finished, .at_chance)").count() == 24
    assert watched.loads == 0, "the page was loaded again"
    watched.assert_quiet()

    watched.go("/")
    page.click(f'[data-entry="{second}"] >> text=Cancel')
    page.wait_for_selector(f'#ended [data-entry="{second}"] .badge.cancelled')
    page.click(".studies >> text=quickstart")
    page.click("text=Report")
    frame = page.frame_locator("iframe.report")
    frame.locator("h1 >> text=quickstart").wait_for()
    frame.locator(".main-svg").first.wait_for()
    page.click("text=Back to the study")
    page.click("#grid td.finished a >> nth=0")
    page.wait_for_selector("#log >> text=epoch 2")
    watched.assert_quiet()

    page.goto(f"{watched.base}/new?study=quickstart")
    page.fill("#sets", f"{SETS}\nname=third\nmin_effect=0.02")
    page.wait_for_selector("#plan >> text=third")
    page.click("#submit")
    page.wait_for_selector("#line >> text=24 of 24 runs ended")
    watched.go("/compare?first=quickstart")
    page.select_option("#second", "third")
    page.click("main button >> text=Compare")
    page.wait_for_selector("section table tbody tr")
    watched.assert_quiet()


@pytest.fixture(scope="module")
def finished(done):
    """Serve the tiny study, with two submissions that nobody runs."""
    with serving(done[0] / "store") as asked:
        for name in ("first", "second"):
            asked.post(f"/queue?set=name={name}", TINY)
        asked.get("/studies/tiny/verdicts")
        yield asked


PAGES = [
    "/", "/studies/tiny", "/studies/tiny/report", "/studies/tiny/log?cell=baseline&seed=0", "/new",
    "/compare?first=tiny&second=tiny", "/login", "/queue/00001", "/studies/first", "/studies/nope",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault_of_accessibility_or_is_wider_than_a_phone(scheme, opened, finished):
    from axe_playwright_python.sync_playwright import Axe

    faults, wide = [], []
    phone = {"viewport": {"width": 400, "height": 800}, "color_scheme": scheme}
    for path in PAGES:
        watched = opened(finished.port, bypass_csp=True, **phone)  # axe puts its script into the page
        watched.go(path)
        watched.page.wait_for_timeout(700)
        if watched.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
        faults += [
            (path, fault["id"], [node["html"][:200] for node in fault["nodes"]][:3])
            for fault in Axe().run(watched.page).response["violations"]
            if fault["impact"] in SERIOUS
        ]
        watched.page.context.close()
    assert (faults, wide) == ([], [])


def test_the_keyboard_does_all_and_keeps_its_place(opened, finished):
    watched = opened(finished.port)
    page = watched.page
    watched.go("/")
    page.wait_for_selector("[data-move]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    names = [page.text_content(f".entry >> nth={place} >> .name") for place in (0, 1)]
    page.focus(f'[aria-label="Move {names[0]} down"]')
    page.keyboard.press("Enter")
    page.wait_for_selector(f".entry >> nth=0 >> .name >> text={names[1]}")
    focused = page.evaluate("document.activeElement.closest('.entry').querySelector('.name').textContent")
    assert focused == names[0]
    watched.assert_quiet()


def test_without_scripts_all_can_be_read_and_nothing_is_promised(opened, finished):
    watched = opened(finished.port, java_script_enabled=False)
    for path in PAGES:
        watched.go(path)
        assert watched.page.locator("main h1").count() == 1
    watched.go("/")
    assert "Scripts are off" in watched.page.locator(".warning").inner_text()
    assert not watched.page.locator("[data-do]").first.is_visible()
    watched.go("/studies/tiny")
    assert watched.page.locator("#grid td.finished").count() == 8
    assert watched.page.locator("#forests svg").count() > 0


def test_signing_in_with_a_browser(opened, done):
    with serving(done[0] / "store", "correct-horse-battery-staple") as asked:
        watched = opened(asked.port)
        page = watched.page
        watched.go("/studies/tiny")
        page.fill("#token", "correct-horse-battery-staple")
        page.keyboard.press("Enter")
        page.wait_for_selector("#grid")
        assert re.search(r"/studies/tiny$", page.url)
        page.click("text=Sign out")
        page.wait_for_selector("#token")
        watched.go("/studies/tiny")
        page.wait_for_selector("#token")
        watched.assert_quiet()


def test_a_log_that_is_read_grows(opened, tmp_path, done):
    shutil.copytree(done[0] / "store", tmp_path / "store", symlinks=True)
    with serving(tmp_path / "store") as asked:
        job = asked.get("/logs?job=tiny:baseline/0").json["job"]
        folder = tmp_path / "store/jobs" / job
        (folder / "result.json").rename(tmp_path / "result.json")
        watched = opened(asked.port)
        watched.go("/studies/tiny/log?cell=baseline&seed=0")
        watched.page.wait_for_selector("#line >> text=goes on")
        with (folder / "log.txt").open("a") as log:
            log.write("one more line\n")
        watched.page.wait_for_selector("#log >> text=one more line")
        (tmp_path / "result.json").rename(folder / "result.json")
        watched.page.wait_for_selector("#line >> text=has ended")
        watched.assert_quiet()
