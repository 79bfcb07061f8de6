"""The log of one job: as it is, or as it grows until the job has ended.

A store may be shared, so nothing in a log may control its reader's terminal: sequences of colours, titles
and the cursor are dropped, other control characters become spaces, and what a progress bar draws over itself
is shown on lines of its own.
"""

import codecs
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from ablate.messages import printable
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder
from ablate.store.job_state import state

EVERY = 0.2  # seconds between two reads of a log that grows
CHUNK = 1 << 20  # bytes
LONGEST_SEQUENCE = 4096  # characters; what goes on without an end is text
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # colours, the cursor
    # titles, links, the clipboard
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9b-\x9f\r\n]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*+[0-~]"  # all others
)
"""Control sequences of ECMA-48.

A string for the terminal ends with its line: one without an end must not hide the rest of a log.
"""
_BEGUN = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*+[ -/]*+"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9b-\x9f\r\n]*+\x1b?"
    r"|\x1b[ -/]*+|\r)\Z"
)
"""The beginning of one, or of a line's end of two characters, at the end of a text."""


def clean(text: str, *, final: bool = False) -> tuple[str, str]:
    """Return a text without control sequences, and its incomplete end, to be put before what is read next.

    `final`: nothing is read next, so nothing is held back.
    """
    begun = None if final else _BEGUN.search(text, max(0, len(text) - LONGEST_SEQUENCE))
    held = begun[0] if begun else ""
    whole = _SEQUENCE.sub("", text[: len(text) - len(held)])
    return printable(whole.replace("\r\n", "\n").replace("\r", "\n")), held


def read(folder: Folder) -> Iterator[str]:
    """Return a log, cleaned; bytes that are not UTF-8 are replaced."""
    decoder, held = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    with files.open_binary(folder.log) as file:
        while part := file.read(CHUNK):
            text, held = clean(held + decoder.decode(part))
            yield text
    yield clean(held + decoder.decode(b"", final=True), final=True)[0]


def follow(folder: Folder, evaluations: frozenset[str]) -> Iterator[str]:
    """Return a log as it grows, cleaned, until the job has ended; an empty text where there is nothing new.

    A log that becomes shorter, or another file, is read from its beginning. `evaluations`: the ways in which
    the job is evaluated before it has ended.
    """
    decoder, held = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    file: BinaryIO | None = None  # kept open: a new file may get the inode number of one that is gone
    with ExitStack() as opened:
        while True:
            over = has_ended(folder, evaluations)  # first: what was printed until then is still returned
            if file is None or _is_another(folder.log, file):
                opened.close()
                decoder.reset()
                file, held = None, ""
                with suppress(FileNotFoundError):
                    file = opened.enter_context(files.open_binary(folder.log))
            while file is not None and (part := file.read(CHUNK)):
                text, held = clean(held + decoder.decode(part))
                if text:
                    yield text
            if over:
                yield clean(held + decoder.decode(b"", final=True), final=True)[0]
                return
            yield ""
            time.sleep(EVERY)


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Whether a path is another file by now, or a shorter one than was read."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    return not os.path.samestat(there, os.fstat(file.fileno())) or there.st_size < file.tell()


def has_ended(folder: Folder, evaluations: frozenset[str]) -> bool:
    """Whether a job has ended: no process holds it, and it has failed, diverged, or was evaluated."""
    standing = state(folder)
    is_evaluated = all(job_folder.is_evaluated(folder, identity) for identity in evaluations)
    return not standing.is_running and standing.stage(is_evaluated=is_evaluated) in (
        "diverged",
        "crashed",
        "evaluated",
    )
