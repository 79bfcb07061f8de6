"""A page in a real browser, Chromium, that can be clicked and typed into."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--virtual-time-budget=8000",
    "--window-size=400,900", "--enable-logging=stderr",
)  # fmt: skip


class Browser:
    """A page that can be clicked and typed into, by Chromium's own protocol over its pipe.

    Keys must come from outside.
    """

    def __init__(self, page: Path | str, folder: Path, width: int = 0) -> None:
        ends = (*os.pipe(), *os.pipe())
        read, self.write, self.read, write = (
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends
        )  # none of them is 3 or 4
        for end in ends:
            os.close(end)

        def as_chromium_wants() -> None:
            os.dup2(read, 3)
            os.dup2(write, 4)

        flags = [flag for flag in QUIET if not flag.startswith("--virtual-time")]
        command = [
            CHROMIUM,
            *flags,
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'clicked'}",
            "about:blank",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, preexec_fn=as_chromium_wants, close_fds=False, **quiet)  # noqa: PLW1509
        os.close(read)
        os.close(write)
        self.held, self.count, self.session, self.events = b"", 0, {}, []
        targets = self.ask("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self.session = {
            "sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        for part in ("Runtime", "Log", "Network"):
            self.ask(f"{part}.enable")
        if width:
            self.ask(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
        address = page if isinstance(page, str) else page.as_uri()
        self.ask("Page.navigate", url=address)
        end = time.monotonic() + 300
        while self.run("document.readyState + location.protocol") != f"complete{address.partition('/')[0]}":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.2)

    def ask(self, method, **parameters):
        self.count += 1
        os.write(
            self.write,
            json.dumps({"id": self.count, "method": method, "params": parameters} | self.session).encode()
            + b"\0",
        )
        while True:
            while b"\0" not in self.held:
                part = os.read(self.read, 1 << 16)
                assert part, "chromium has ended"
                self.held += part
            message, _, self.held = self.held.partition(b"\0")
            said = json.loads(message)
            if said.get("id") == self.count:
                assert "error" not in said, said
                return said["result"]
            about = said.get("params", {})
            text = (
                json.dumps([part.get("value") for part in about["args"]])
                if "args" in about
                else json.dumps(about.get("entry", ""))
            )
            self.events.append((said.get("method"), about.get("request", {}).get("url") or text))

    def run(self, script):
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text if kind == "keyDown" else "",
            )

    def column(self, title):
        """Return a column of the table of cells as it stands, and what its head says of the order."""
        return self.run(
            f"""(() => {{
            const heads = [...document.querySelectorAll("#cells-table thead th")];
            const at = heads.findIndex((head) => head.textContent.startsWith({json.dumps(title)}));
            const marked = heads.filter((head) => head.hasAttribute("aria-sort"));
            const sorted = marked.map((head) => head.textContent);
            const lines = [...document.querySelectorAll("#cells-table tbody tr")];
            const rows = lines.map((row) => row.children[at].textContent);
            return {{rows, sorted, order: heads[at].getAttribute("aria-sort"), title: heads[at].textContent}};
            }})()"""
        )

    def click(self, title):
        """Click on the head of a column with the mouse."""
        place = self.run(
            f"""(() => {{
            const heads = [...document.querySelectorAll("#cells-table thead th")];
            const head = heads.find((one) => one.textContent.startsWith({json.dumps(title)}));
            head.scrollIntoView({{block: "center", inline: "center"}});
            const box = head.firstElementChild.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)


def assert_quiet(browser):
    """Check that nothing was said on the console, and nothing asked of a network."""
    told = [
        event
        for event in browser.events
        if event[0] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    ]
    assert told == []
    asked = {url for event, url in browser.events if event == "Network.requestWillBeSent"}
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert any(url.endswith(".html") for url in asked), "requests are seen"
