"""A terminal that remembers what reaches it, and texts that would command it."""

import io
import re
import sys
from contextlib import contextmanager

from ablate.cli import main

EVIL = (
    "\x1b]0;owned\x07\x1b]8;;file:///x\x1b\\y\x1b[2J"
    "\x1b[66;1H\x1b[31m\x9b6n\x90q\x9c"
    "\x9d52;c;eA==\x9c"
    "\u202e\u2066\u200f\x08\r[link=file:///x]y[/link][bold red]z[/x]"
)
"""Titles, links, the clipboard, the cursor, colours, letters in another order; and markup of our tables."""
DRAWN = re.compile(r"\x1b\[(?:\?25[hl]|[\d;]*m|2K|\d*A)|\r")
"""What rich itself draws with, in a terminal that knows more than lines."""


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@contextmanager
def screens():
    """Let the streams of this process lead to two terminals; return what has reached them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = shown = Screen(), Screen()
    try:
        yield shown
    finally:
        sys.stdout, sys.stderr = before


def look(*arguments):
    """Run a command at a terminal; return its exit code and all that was shown."""
    with screens() as shown:
        try:
            main([*map(str, arguments)])
            code = 0
        except SystemExit as end:
            code = end.code
    return code, "".join(stream.getvalue() for stream in shown)


def commands_of(text, *, drawn=False):
    """Return the letters that a terminal would obey; `drawn`: but for those of rich itself."""
    rest = DRAWN.sub("", text) if drawn else text
    return [letter for letter in rest if not letter.isprintable() and letter not in "\n\t"]
