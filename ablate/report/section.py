"""A section of the report as one value: what the page shows of it, its data, its sheets.

What stands on the page is a row of blocks; each kind of block has its markup in the template, and most
sections need no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from ablate.report.canvas import Picture
from ablate.report.tables import Table


@dataclass(frozen=True, slots=True)
class Plots:
    """Pictures under one caption."""

    kind: ClassVar[str] = "plots"
    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A table that a click unfolds."""

    kind: ClassVar[str] = "folded"
    summary: str
    table: Table


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph; a soft one is small print."""

    kind: ClassVar[str] = "note"
    text: str | Markup
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An image that stands in the page itself, as a data address."""

    kind: ClassVar[str] = "image"
    caption: str
    source: str
    alternative: str  # what it shows, for those who do not see it


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each item with a head."""

    kind: ClassVar[str] = "items"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms and what they mean."""

    kind: ClassVar[str] = "terms"
    rows: tuple[tuple[str | Markup, str | Markup], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a file."""

    kind: ClassVar[str] = "source"
    text: str


Block = Plots | Table | Folded | Note | Image | Items | Terms | Source


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows for a spreadsheet, unrounded; sections that name one sheet continue it, with its columns."""

    name: str  # of its file
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the report. One without blocks is not on the page; its data are in the JSON."""

    anchor: str  # the id of its heading
    title: str
    blocks: tuple[Block, ...]
    data: Mapping[str, Any]  # for the JSON, by key; lists of several sections under one key are joined
    sheets: tuple[Sheet, ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture, in the order of the page."""
        return tuple(
            picture for block in self.blocks if isinstance(block, Plots) for picture in block.pictures
        )

    @property
    def open_tables(self) -> tuple[Table, ...]:
        """The tables that no click has to unfold: the ones that the Markdown has as well."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table, in the order of the page."""
        tables = (block.table if isinstance(block, Folded) else block for block in self.blocks)
        return tuple(table for table in tables if isinstance(table, Table))


def plots(caption: str, pictures: Sequence[Picture]) -> tuple[Block, ...]:
    """Return the block of some pictures; no block where there are none."""
    return (Plots(caption, tuple(pictures)),) if pictures else ()


def shown(table: Table) -> tuple[Block, ...]:
    """Return the block of a table; no block where it has no row."""
    return (table,) if table.rows else ()


def folded(summary: str, table: Table) -> tuple[Block, ...]:
    """Return the block of a folded table; no block where it has no row."""
    return (Folded(summary, table),) if table.rows else ()
