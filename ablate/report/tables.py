"""Tables of the report: columns of a kind, rows of plain text. The template escapes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ablate.recipe import metrics

MOST_ROWS = 500  # of one table: a browser stays quick, and `ablate report --format json` has all of them

Column = tuple[str, Literal["text", "head", "number", "value", "verdict"]]
"""The title of a column and its kind."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict: the key that colours it and its words."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A name, and what is to be said of it in passing."""

    text: str
    note: str = ""


Cell = str | Mark | Label


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the template draws it."""

    kind: ClassVar[str] = "table"
    name: str  # its id on the page
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def table(name: str, caption: str, columns: Sequence[Column], rows: Iterable[tuple[Cell, ...]]) -> Table:
    """Return a table of the rows that a browser can take, with a note if there are more."""
    every = tuple(rows)
    note = ""
    if len(every) > MOST_ROWS:
        note = f"The first {MOST_ROWS} of {len(every):,} rows; `ablate report --format json` has all of them."
    return Table(name, caption, tuple(columns), every[:MOST_ROWS], note)


def in_unit(metric: str, *, share: str = "points") -> str:
    """Return the unit of a metric, behind a comma, for what is called after it; empty where it has none."""
    return f", {share}" if metrics.is_fraction(metric) else ""
