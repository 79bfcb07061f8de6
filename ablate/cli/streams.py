"""The streams of a command. No text commands a terminal, whoever wrote it and whichever part prints it.

A store may be shared, so whatever stands there may be meant for its reader's terminal: titles, colours, the
clipboard, letters in another order. Where a stream leads to a terminal, all that is printed goes through one
place, here; the tables and bars of rich, which draw by such sequences, have theirs in `terminal.Output`.
What goes to a file or a pipe is left as it is, for programs.
"""

import sys
from typing import Any, TextIO, cast

from ablate.messages import printable


class Guarded:
    """A stream to a terminal, in all but that texts are shown without what a terminal would obey."""

    def __init__(self, stream: TextIO, keeps: str = "") -> None:
        """Guard a stream; `keeps`: a control character that it lets through."""
        self.stream, self._keeps = stream, keeps

    def write(self, text: str) -> int:
        """Write a text, cleaned."""
        if not isinstance(text, str):  # click tries whether bytes are taken
            raise TypeError(f"a text must be written, got {type(text).__name__}")
        self.stream.write(self._clean(text))
        return len(text)

    def _clean(self, text: str) -> str:
        return self._keeps.join(map(printable, text.split(self._keeps))) if self._keeps else printable(text)

    def writelines(self, lines: Any) -> None:
        """Write texts, cleaned."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream itself has, but for its bytes: they would go past the guard."""
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


def guard() -> None:
    """Guard the streams of this process that lead to a terminal, until it ends, tracebacks included."""
    if sys.stdout.isatty():
        sys.stdout = cast(TextIO, Guarded(unguarded(sys.stdout)))
    if sys.stderr.isatty():
        # A bar of a download, which libraries draw there, begins with a carriage return.
        sys.stderr = cast(TextIO, Guarded(unguarded(sys.stderr), "\r"))


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream that a guard stands before, for what cleans its texts itself."""
    return stream.stream if isinstance(stream, Guarded) else stream
