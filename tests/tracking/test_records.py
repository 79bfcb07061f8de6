"""What MLflow is sent of names: text, for spreadsheets and for its page."""

import csv
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from record_files import attempt
from shown import client, runs_of

from ablate import tracking
from ablate.execution.options import Where
from ablate.store import layout, study_folder
from ablate.tracking import sender
from ablate.workflow import plan as planning

GOLDEN = Path(__file__).parents[1] / "golden/finished"
FORMULAS = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+cmd()", "-2+3", "  =x", "a;=x", "a\n=x", "ok", "a=b", "-1"]
TRAPS = [
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "https://evil.example",
    "# x",
    "- a\n\n- b",
]


def test_the_name_of_a_class_is_no_formula_in_the_sheets_of_a_run(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "store")
    store = layout.open_store(tmp_path / "store")
    for job in (store.path / "jobs").iterdir():
        (job / "attempts.jsonl").write_text(json.dumps(attempt()) + "\n")
        for path in job.glob("outcomes/*/outcome.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": FORMULAS}))
    study = study_folder.recall(store, "tiny")
    source = tracking.tracked(study, planning.plan(study, Where(store, device="cpu")).runs, store)[0]
    (record,) = source.records(closing=True, is_done=lambda *_: False)
    for name in ("confusion_matrix.csv", "per_class_accuracy.csv"):
        rows = list(csv.reader(record.artifacts().texts[name].splitlines(keepends=True)))
        written = [row[0] for row in rows[1:]]
        assert written == [
            "'=cmd|' /C calc'!A0", "'@SUM(1)", "'+1+cmd()", "'-2+3", "'  =x", "a;'=x", "a\n'=x", "ok", "a=b",
            "-1",
        ]  # fmt: skip
        assert all(cell.isdecimal() for row in rows[1:] for cell in row[1:] if name.startswith("confusion"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own dependencies
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_note_of_a_study_has_neither_markup_nor_links_of_its_names(here):
    shutil.copytree(GOLDEN / "studies/tiny", here.path / "studies/tiny")
    lines = [*TRAPS, "a <b> " * 1000, *["x" * 800] * 12]
    address = tracking.uri(here, None)
    tracking.log_study(address, study_folder.recall(here, "tiny"), here, lines=lines, files=[])
    (run,) = runs_of(client(here.path), "tiny", "tags.`ablate.kind` = 'study'")
    note = run.data.tags["mlflow.note.content"]
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(note)
    assert set(re.findall(r"<(\w+)", page)) == {"p"}
    said = html.unescape(re.sub(r"<[^>]+>", "", page)).split("\n")
    assert said[: len(TRAPS)] == [" ".join(line.split()) for line in TRAPS]
    assert len(note) <= sender.LONGEST
    assert note.splitlines()[-1] == "x" * 800  # cut after a whole line


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own dependencies
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_note_of_a_study_that_a_service_runs_leads_to_its_page(here, monkeypatch):
    shutil.copytree(GOLDEN / "studies/tiny", here.path / "studies/tiny")
    address, study = tracking.uri(here, None), study_folder.recall(here, "tiny")
    for page, link in (
        ("https://here/studies/tiny", "[The study in ablate](https://here/studies/tiny)\n\n"),
        ("javascript:alert(1)", ""),
    ):
        monkeypatch.setenv("ABLATE_FOLLOWED", page)
        tracking.log_study(address, study, here, lines=["a verdict"], files=[])
        (run,) = runs_of(client(here.path), "tiny", "tags.`ablate.kind` = 'study'")
        assert run.data.tags["mlflow.note.content"] == f"{link}a verdict"
