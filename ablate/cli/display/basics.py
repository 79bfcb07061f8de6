"""What all of them share: times as people say them, small tables."""

from collections.abc import Sequence

from rich import markup
from rich.console import Console
from rich.table import Table

from ablate.messages import printable


def escape(text: str) -> str:
    """Write a text so that a terminal shows it as it is, and finds nothing in it to obey: no markup, no escape sequences."""
    return markup.escape(printable(text))


def seconds(value: float) -> str:
    """Write a time as people say it: 45 s, 3 min, 2.5 h."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def show_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table: text to the left, numbers to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(part) for part in row))
    console.print(table)
