"""What all commands share of the terminal: its console, texts shown as they are, times, sizes, tables."""

import sys
import threading
from collections.abc import Iterable, Sequence

from rich import markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from ablate.cli.group import end_unread
from ablate.cli.streams import unguarded
from ablate.messages import printable


class Output(Console):
    """A console whose texts command no terminal, and that ends the command when its reader has gone.

    As after `| head`.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:  # fmt: skip
        """Return the parts of what is drawn: rich's own sequences, and texts without any, nor links."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control:
                yield segment
            else:
                plain = style.update_link(None) if style is not None and style.link else style
                yield Segment(printable(text), plain)

    def on_broken_pipe(self) -> None:
        """End the process; from another thread than the main one, leave that to the main one's next line."""
        if threading.current_thread() is threading.main_thread():
            end_unread()


def console(*, err: bool = False) -> Console:
    """Return the terminal; `err`: its error stream, where the output is for programs."""
    return Output(file=unguarded(sys.stderr if err else sys.stdout), highlight=False, emoji=False)


def escape(text: str) -> str:
    """Return a text so that a terminal shows it as it is, with no markup or escape sequences to obey."""
    return markup.escape(printable(text))


def seconds(value: float) -> str:
    """Return a time as people say it: 45 s, 3 min, 2.5 h."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def size(count: float) -> str:
    """Return bytes as people say them: 512 B, 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def show_table(terminal: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table: text to the left, numbers to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(part) for part in row))
    terminal.print(table)
