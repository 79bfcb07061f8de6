"""MLflow's own page in a real browser, at the addresses that `ablate ui` prints."""

import json
import re
import shutil
import socket
import time
import urllib.request

import pytest
from browser import CHROMIUM, Browser
from commands import RECIPE, ablate, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")]

ROWS = """JSON.stringify((() => {
    const headers = [...document.querySelectorAll("[role=columnheader][col-id]")];
    const heads = headers.map((header) => header.getAttribute("col-id"));
    const rows = {};
    for (const cell of document.querySelectorAll("[role=row][row-id] [role=gridcell]")) {
        const row = rows[cell.closest("[role=row]").getAttribute("row-id")] ??= {};
        row[cell.getAttribute("col-id")] = cell.textContent.trim();
    }
    return {heads, rows: Object.values(rows)};
})())"""


def study(name, levels, lr="0.003"):
    recipe = RECIPE.replace(
        "lr = 0.003", f"lr = {lr}"
    )  # in fewer epochs a run stays at chance level, which is a group of its own
    return f"name = {json.dumps(name)}\nseeds = 2\n{recipe}[factors]\n{levels}\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve a store of three studies, one of which has a range test and has had another seed.

    Give the printed addresses by study.
    """
    folder = tmp_path_factory.mktemp("page")
    wanted = {
        "one": study("one", "model.batch_norm = [true, false]"),
        "a / b = 50 %": study("a / b = 50 %", 'schedule.name = ["constant", "cosine"]'),
        "found": study("found", "evaluation.mc_dropout = [0, 3]", lr='"find"'),
    }
    for i, text in enumerate(wanted.values()):
        (folder / f"{i}.toml").write_text(text)
        for more in (("--set", "seeds=3"), ()) if i == 2 else ((),):
            code, out, err = ablate("run", folder / f"{i}.toml", "--store", folder / "store", *more)
            assert code == 0, out + err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start("ui", "--store", folder / "store", "--port", port)

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
        except OSError:
            return False

    printed = dict(re.fullmatch(r"(.*): (http://.*)\n", server.stdout.readline()).groups() for _ in wanted)
    try:
        wait_for(answers, server)
        assert printed.keys() == wanted.keys()
        yield printed
    finally:
        server.terminate()
        server.communicate(timeout=300)


def looked(address, folder, count):
    """Open an address and give the heads and rows of its table, once it has so many rows."""
    browser, end = Browser(address, folder, 1600), time.monotonic() + 300
    try:
        while len((seen := json.loads(browser.run(ROWS)))["rows"]) < count:
            assert time.monotonic() < end, browser.run("document.body.innerText")
            time.sleep(0.5)
        return seen, browser.run("document.body.innerText")
    finally:
        browser.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("one", ("baseline", "batch_norm=false")),
        ("a / b = 50 %", ("baseline", "cosine")),
        ("found", ("baseline", "mc_dropout=3")),
    ],
)
def test_the_printed_address_opens_on_the_runs_of_the_study_grouped_by_cell_with_the_metric(
    name, cells, served, tmp_path
):
    seen, text = looked(served[name], tmp_path, 2 * 3)
    assert {"metrics.`test/accuracy`", "tags.`ablate.cell`", "tags.`ablate.seed`"} <= set(seen["heads"])
    assert "Traces" not in text.partition("Runs")[0], "it opens as model training"
    assert "Group by:" in text
    assert "4 matching runs" in text, "no range test, no report, no seed that the study no longer has"
    groups = [row for row in seen["rows"] if not row["tags.`ablate.seed`"]]
    runs = [row for row in seen["rows"] if row["tags.`ablate.seed`"]]
    assert (len(groups), len(runs)) == (2, 4)
    assert sorted(row["tags.`ablate.seed`"] for row in runs) == ["0", "0", "1", "1"]
    for cell in cells:
        own = [row for row in runs if row["tags.`ablate.cell`"].endswith(cell)]
        mean = sum(float(row["metrics.`test/accuracy`"]) for row in own) / len(own)
        assert len(own) == 2
        # a group shows its mean as "0.5 (average)"
        assert any(abs(float(group["metrics.`test/accuracy`"].split()[0]) - mean) < 1e-6 for group in groups)
