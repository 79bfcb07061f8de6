"""Findings to whoever reads them: a page, tables, pictures, text, and the study's run in MLflow."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate import __version__, tracking
from ablate.analysis import stats
from ablate.analysis.findings import Findings
from ablate.errors import StoreError, UnwritableError
from ablate.messages import count as counted
from ablate.messages import printable
from ablate.recipe import identity
from ablate.report import claims as answers
from ablate.report import data, exports, headline, html, pictures, sections, words
from ablate.report.sections import Sections
from ablate.store import files as store_files
from ablate.store import layout, study_folder
from ablate.store.layout import Store

LONGEST_NAME = 80  # characters of what a file is named after
UNUSUAL = re.compile(r"[^\n -~]+")  # what a terminal may not show


def load() -> None:
    """Load now, for a command that has seconds to wait, what verdicts and a page need in the end: 0.2 s."""
    stats.load()
    html.load()


def write(path: Path, text: str) -> None:
    """Write a file that a user has asked for, whole or not at all."""
    store_files.write(path, text, durable=False)


def write_page(
    findings: Findings, store: Store, path: Path | None = None, *, cells: Sequence[str] = ()
) -> Path:
    """Write the HTML report to a path, or to the study's folder in the store, with its tables beside it.

    A report on another metric, or with other `cells` shown from inside, has a name of its own there and no
    tables: what lies in one folder always says the same, and a path that somebody was told keeps its content.
    """
    if path is None and (others := study_folder.taken(store, findings.study)):
        raise StoreError(f"{others}, or write the page elsewhere with --out FILE")
    special = _special(findings, cells) if path is None else ""
    report = store.report(findings.study.name)
    target = path or (report.with_name(f"report-{special}.html") if special else report)
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    every = sections.make(findings)
    page = html.render(findings, every, created=created, version=__version__, store=str(store.path))
    try:
        if path is None:
            layout.create(store)
            if not special:
                _write_tables(findings, every, target.parent)
        store_files.write(target, page, durable=False)
    except (PermissionError, StoreError) as error:
        if path is not None:
            raise
        said = f"{target}: cannot be written ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise UnwritableError(f"{said}; ablate report --out FILE puts the page elsewhere") from None
    return target


def write_pictures(findings: Findings, folder: Path) -> tuple[int, str]:
    """Write each picture as files of its own; return their number, and the reason if there are pages only."""
    return pictures.write(findings, folder)


def text(findings: Findings, form: str) -> str:
    """Return the findings in one of the forms of text; JSON has the keys that other programs rely on."""
    return json_text(data.to_json(findings)) if form == "json" else exports.FORMS[form](findings)


def claims(findings: Findings, *, as_json: bool) -> str:
    """Return the answer to every claim, one a line, or as JSON."""
    if as_json:
        return json_text(data.to_json(findings)["claims"])
    said = [answers.sentence(claim, findings) for claim in findings.claims] or ["the study makes no claim"]
    return "".join(f"{printable(line)}\n" for line in said)


def untested(findings: Findings, store: Store) -> str:
    """Return why claims could not be tested, and what to do; empty where all were."""
    metrics = [claim.metric for claim in findings.claims if claim.verdict == "not tested"]
    count = len(metrics)
    if not count:
        return "" if findings.claims else "nothing was tested: give the study a [[claim]]"
    name, were = findings.study.name, "was" if count == 1 else "were"
    claims = f"{count} of {counted(len(findings.claims), 'claim')} {were} not tested"
    if not findings.finished:
        remedy = "run the study first, or name another store with --store DIR"
        return f"{claims}: no run of {name} is finished in {store.path}: {remedy}"
    measured = " or ".join(dict.fromkeys(metrics))
    pairs = f"no two finished runs of {name} that differ in that factor only"
    return f"{claims}: {pairs} have {measured} under the same seed"


def json_text(content: Any) -> str:
    """Return JSON that a terminal can show: its control characters stand as escapes of JSON."""
    written = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return UNUSUAL.sub(lambda part: "".join(map(_escaped, part[0])), written) + "\n"


def _escaped(character: str) -> str:
    is_shown = character.isprintable() or character == "\n"
    return character if is_shown else json.dumps(character)[1:-1]


def log(findings: Findings, store: Store, address: str, path: Path) -> str:
    """Send the report to MLflow; return the reason if that fails, which loses nothing."""
    folder = store.study(findings.study.name)
    files = (path, folder / "study.json", *(folder / name for name in _names(sections.make(findings))))
    lines = (*headline.headline(findings), *words.sentences(findings))
    try:
        tracking.log_study(address, findings.study, store, lines=lines, files=files)
    except Exception as error:  # noqa: BLE001 (MLflow is a view: whatever its server does, the results stand)
        return tracking.first_line(error)
    return ""


def _write_tables(findings: Findings, every: Sections, folder: Path) -> None:
    """Write the tables of a report beside it: for people who look at MLflow, and for programs."""
    sheets = exports.spreadsheets(every).values()
    contents = (exports.markdown(findings, every), json_text(data.to_json(findings, every)), *sheets)
    for name, content in zip(_names(every), contents, strict=True):
        store_files.write(folder / name, content, durable=False)


def _names(every: Sections) -> tuple[str, ...]:
    """Return the names of the files beside a report."""
    return ("report.md", "findings.json", *(f"{name}.csv" for name in sections.sheets(every)))


def _special(findings: Findings, cells: Sequence[str]) -> str:
    """Return what sets a report apart from the study's own: "test-loss", "cell-rotation=15"; else empty."""
    parts = [findings.metric] if findings.metric != findings.study.metric else []
    parts += [f"cell-{label}" for label in cells]
    plain = re.sub(r"[^A-Za-z0-9=._-]+", "-", "-".join(parts)).strip("-.")
    is_plain = (
        len(parts) < 2
        and len(plain) <= LONGEST_NAME
        and plain == "-".join(parts).replace("/", "-").replace(", ", "-")
    )
    return plain if is_plain else f"{plain[:LONGEST_NAME]}-{identity.digest(parts)[: identity.ID_SHOWN]}"
