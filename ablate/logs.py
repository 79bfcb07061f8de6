"""The log of one job: as it is, or as it grows until the job has ended."""

import codecs
import os
import time
from collections.abc import Iterator

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
    at, which = 0, None
    while True:
        over = has_ended(folder, evaluations)  # first: what was printed until then is given before this ends
        try:
            with folder.log.open("rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_dev, now.st_ino) != which or now.st_size < at:
                    at, which = 0, (now.st_dev, now.st_ino)
                    decoder.reset()
                file.seek(at)
                while part := file.read(CHUNK):
                    at += len(part)
                    yield decoder.decode(part)
        except FileNotFoundError:
            pass
        if over:
            yield decoder.decode(b"", final=True)
            return
        yield ""
        time.sleep(EVERY)


def has_ended(folder: Folder, evaluations: frozenset[str]) -> bool:
    """Say whether nothing more will happen to a job: nobody holds it, and it has failed, or has a result and is judged."""
    if journal.is_running(folder):
        return False
    if folder.failure.exists():
        return True
    result = journal.read_json(folder.result)
    return result is not None and (
        result["status"] != "finished" or all((folder.outcome(identity) / "outcome.json").exists() for identity in evaluations)
    )
