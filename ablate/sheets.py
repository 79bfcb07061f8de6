"""Sheets: rows as CSV for spreadsheets, in which no name is a formula."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

NUMBER = r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?"
FORMULA = re.compile(rf"(^|[;\t\n])(?!\s{{0,99}}{NUMBER}\s*(?:$|[;\n]))([^\S\n]{{0,99}}[=+\-@＝＋－＠])")  # noqa: RUF001
"""The beginning of what a spreadsheet takes for a formula: a level such as -1 is a number.

Some take a semicolon or a tab for the end of a cell, whatever stands in quotes.
"""


def text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV."""
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows([_harmless(cell) for cell in row] for row in rows)
    return held.getvalue()


def _harmless(cell: object) -> object:
    """Return a cell in which a formula is text; a carriage return would end the row."""
    if not isinstance(cell, str):
        return cell
    return FORMULA.sub(r"\1'\4", cell.replace("\r\n", "\n").replace("\r", "\n"))
