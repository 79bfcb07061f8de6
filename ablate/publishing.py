"""Findings to whoever reads them: a page, tables, pictures, text, and the study's run in MLflow."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate import __version__, journal, tracking
from ablate import store as stores
from ablate.findings import Findings
from ablate.report import claims as answers
from ablate.report import data, forms, html, pictures, words
from ablate.store import Store


def write(path: Path, text: str) -> None:
    """Write a file that a user has asked for, whole or not at all."""
    journal.write(path, text)


def write_page(found: Findings, store: Store, path: Path | None = None) -> Path:
    """Write the HTML report to a path, or to the study's folder in the store."""
    if path is None:
        stores.create(store)
        path = store.report(found.study.name)
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = html.render(found, created=created, version=__version__, study_text=found.study.text, store=str(store.path))
    journal.write(path, page)
    return path


def write_pictures(found: Findings, folder: Path) -> tuple[int, str]:
    """Write each picture of a report as files of its own; give their number, and the reason if there are HTML pages only."""
    return pictures.write(found, folder)


def text(found: Findings, form: str) -> str:
    """Give the findings in one of the forms of text; JSON has the keys that other programs rely on."""
    return _json(data.to_json(found)) if form == "json" else forms.FORMS[form](found)


def claims(found: Findings, *, as_json: bool) -> str:
    """Answer every claim in a line, or as JSON; say so where a study makes none."""
    if as_json:
        return _json(data.to_json(found)["claims"])
    said = [answers.sentence(claim, found) for claim in found.claims] or ["the study makes no claim"]
    return "".join(f"{line}\n" for line in said)


def untested(found: Findings, store: Store) -> str:
    """Say why claims could not be tested, and what to do; empty where all were, or the study makes none."""
    count = sum(claim.verdict == "not tested" for claim in found.claims)
    if not count:
        return "" if found.claims else "nothing was tested: give the study a [[claim]]"
    name, claims = found.study.name, f"{count} of {words.count(len(found.claims), 'claim')} {'was' if count == 1 else 'were'} not tested"
    if not store.path.exists():
        return f"{claims}: there is no store at {store.path.resolve()}: name the one that has the runs with --store DIR"
    if not found.finished:
        return f"{claims}: no run of {name} is finished in {store.path}: run the study first, or name another store with --store DIR"
    return f"{claims}: no two finished runs of {name} differ in that factor only under the same seed"


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def log(found: Findings, store: Store, address: str, path: Path) -> str:
    """Put the report into MLflow; give the reason where that fails, which loses nothing."""
    files = (path, store.study(found.study.name) / "study.json", *_tables(found, store.study(found.study.name)))
    note = "\n\n".join([*words.headline(found), *words.sentences(found)])
    try:
        tracking.log_study(address, found.study, store, note=note, files=files)
    except Exception as error:  # noqa: BLE001 (MLflow is a view: whatever its server does, the results stand)
        return tracking.first_line(error)
    return ""


def _tables(found: Findings, folder: Path) -> list[Path]:
    """Write the tables of a report beside it: for people who look at MLflow, and for programs."""
    written = {
        "report.md": forms.markdown(found),
        "effects.csv": forms.spreadsheet(found),
        "cells.csv": forms.cells_spreadsheet(found),
        "findings.json": text(found, "json"),
    }
    for name, content in written.items():
        journal.write(folder / name, content)
    return [folder / name for name in written]
