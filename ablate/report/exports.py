"""Findings as text for other places: Markdown for an issue, LaTeX for a paper, CSV for a spreadsheet."""

import re
from collections.abc import Callable

from ablate import sheets
from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.recipe import metrics
from ablate.report import data, headline, names, reasons, sections, words
from ablate.report.sections import Sections
from ablate.report.tables import Label, Mark, Table

MARKDOWN = ("effects", "interactions", "claims", "cells")
"""The sections whose open tables stand in the Markdown."""


def markdown(findings: Findings, every: Sections | None = None) -> str:
    """Return the answer, the effects, the claims and the cells in GitHub's Markdown."""
    study = findings.study
    parts = [
        f"# {_marked(study.name)}",
        _marked(study.question),
        "\n".join(_marked(line) for line in headline.headline(findings)),
    ]
    every = every or sections.make(findings)
    parts += [_markdown_table(table) for name in MARKDOWN for table in every[name].open_tables]
    parts.append(f"{findings.finished} of {findings.total} runs; {_marked(_conditions(findings))}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(findings: Findings) -> str:
    """Return in a line how the intervals are to be read."""
    least = findings.study.min_effect
    applies = least is not None and findings.metric == findings.study.metric
    smallest = (
        f", smallest effect worth having {metrics.size(least, findings.metric)}"
        if least is not None and applies
        else ""
    )
    level = f"{100 * (1 - findings.study.alpha):g} %"
    counted = reasons.counted(findings)
    missing = f"; runs that do not count: {counted}" if counted else ""
    return f"paired by seed, intervals simultaneous at {level} ({words.method(findings)}){smallest}{missing}"


def _markdown_table(table: Table) -> str:
    header = [title for title, _ in table.columns]
    ruler = ["---:" if kind == "number" else "---" for _, kind in table.columns]
    rows = [[_marked(_text(cell)) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in ([_marked(title) for title in header], ruler, *rows)]
    note = [table.note] if table.note else []
    return "\n\n".join([f"**{_marked(table.caption)}**", "\n".join(lines), *note])


def _text(cell: str | Mark | Label) -> str:
    match cell:
        case Mark():
            return cell.text
        case Label():
            return f"{cell.text} ({cell.note})" if cell.note else cell.text
    return cell


def _marked(text: str) -> str:
    """Escape what Markdown would take for markup; a line break would end a row."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", " ".join(text.split()))


def latex(findings: Findings) -> str:
    r"""Return the effects as a table for \usepackage{booktabs}: effect and interval, nothing in bold."""
    unit = metrics.unit(findings.metric).strip()
    rows = [_latex_row(effect, findings) for effect in words.ranked(findings.effects, findings)]
    head = ["change", f"effect{f' ({unit})' if unit else ''}", "interval", "verdict", "seeds"]
    caption = f"{findings.study.name}: effects on {findings.metric}; {_conditions(findings)}."
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", r"\begin{tabular}{lrrlr}",
        r"\toprule",
        " & ".join(_tex(part) for part in head) + r" \\", r"\midrule", *rows, r"\bottomrule",
        r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _latex_row(effect: Effect, findings: Findings) -> str:
    estimate = effect.estimate
    numbers = [words.effect_words(estimate, findings.metric), words.interval_words(estimate, findings.metric)]
    shown = [f"${number}$" if number else "--" for number in numbers]
    change, verdict = names.change(effect, findings), words.verdict(effect, findings)
    return " & ".join([_tex(change), *shown, _tex(verdict), str(estimate.n)]) + r" \\"


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    '"': "''",
    # A row that begins with [ or * would be an option of the \\ above it.
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in " ".join(text.split()))


def spreadsheet(findings: Findings, name: str = "effects") -> str:
    """Return a sheet as CSV, in the metric's own unit and to the last digit; the JSON has the rest."""
    return spreadsheets(sections.make(findings))[name]


def spreadsheets(every: Sections) -> dict[str, str]:
    """Return every sheet of the sections as CSV, by its name."""
    return {
        name: sheets.text([_written(cell) for cell in row] for row in (sheet.columns, *sheet.rows))
        for name, sheet in sections.sheets(every).items()
    }


def _written(cell: object) -> object:
    value = data.plain(cell)
    if isinstance(value, list):
        return "; ".join(str(part) for part in value)
    return "" if value is None else value


FORMS: dict[str, Callable[[Findings], str]] = {"md": markdown, "tex": latex, "csv": spreadsheet}
"""By the name of `ablate report --format`."""
