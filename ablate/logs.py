"""The log of one job: as it is, or as it grows until the job has ended."""

import codecs
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from ablate import journal
from ablate.journal import Folder

EVERY = 0.2  # seconds between two looks at a log that grows
CHUNK = 1 << 20  # bytes


def read(folder: Folder) -> Iterator[str]:
    """Give a log; bytes that are not UTF-8 are replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with folder.log.open("rb") as file:
        while part := file.read(CHUNK):
            yield decoder.decode(part)
    yield decoder.decode(b"", final=True)


def follow(folder: Folder, evaluations: frozenset[str]) -> Iterator[str]:
    """Give a log as it grows, until the job has ended; an empty text where there is nothing new.

    A log that becomes shorter, or another file, is given from its beginning. `evaluations`: the ways in which the job is to
    be judged before it has ended.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    file: BinaryIO | None = None  # kept open: the number of a file that is gone would be given to the next one
    with ExitStack() as opened:
        while True:
            over = has_ended(folder, evaluations)  # first: what was printed until then is given before this ends
            if file is None or _is_another(folder.log, file):
                opened.close()
                decoder.reset()
                file = None
                with suppress(FileNotFoundError):
                    file = opened.enter_context(folder.log.open("rb"))
            while file is not None and (part := file.read(CHUNK)):
                yield decoder.decode(part)
            if over:
                yield decoder.decode(b"", final=True)
                return
            yield ""
            time.sleep(EVERY)


def _is_another(path: Path, file: BinaryIO) -> bool:
    """Say whether a path leads to another file by now, or to less of it than was read."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    return not os.path.samestat(there, os.fstat(file.fileno())) or there.st_size < file.tell()


def has_ended(folder: Folder, evaluations: frozenset[str]) -> bool:
    """Say whether nothing more will happen to a job: nobody holds it, and it has failed, or has a result and is judged."""
    if journal.is_running(folder):
        return False
    if journal.is_there(folder.failure):
        return True
    result = journal.read_json(folder.result)
    return result is not None and (
        result["status"] != "finished" or all(journal.is_there(folder.outcome(identity) / "outcome.json") for identity in evaluations)
    )
