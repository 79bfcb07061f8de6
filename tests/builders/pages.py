"""Pages in a real browser, which tells what it says on its console and what it asks of the network."""

import shutil
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 300_000  # milliseconds: a busy machine is slow, and no test asks how slow


class Watched:
    """A page, with what it has said and asked."""

    def __init__(self, page, base):
        self.page, self.base = page, base
        self.said, self.asked, self.loads = [], [], 0
        page.set_default_timeout(WAIT)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("load", lambda _: self._loaded())

    def _loaded(self):
        self.loads += 1

    def go(self, path):
        self.page.goto(self.base + path)

    def assert_quiet(self):
        assert self.said == [], self.said
        elsewhere = [url for url in self.asked if not url.startswith((f"{self.base}/", "data:", "blob:"))]
        assert elsewhere == [], elsewhere
        assert self.asked, "requests are seen"


@contextmanager
def browsing():
    """Yield a function that opens a page of a service, in a window of its own. One at a time in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield lambda port, **of: Watched(browser.new_context(**of).new_page(), f"http://127.0.0.1:{port}")
        finally:
            browser.close()
