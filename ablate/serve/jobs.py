"""The log of a job, in parts: each from where the last one ended."""

import codecs
import time
from dataclasses import dataclass

from ablate.planning import job_names
from ablate.store import files, logs
from ablate.store.job_folder import Folder
from ablate.store.layout import Store

EVERY = 0.3  # seconds between two looks at a log that is waited for
LONGEST = 256 << 10  # bytes of one part


@dataclass(frozen=True, slots=True)
class Job:
    """A job whose log is read, and in which ways it is evaluated before it has ended."""

    folder: Folder
    evaluations: frozenset[str]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a log, and the job's identity: a name takes longer to find."""

    job: str

    text: str
    next: int
    ended: bool


REMEMBERED = 30.0  # seconds
MOST = 200
_memory: dict[tuple[Store, str], tuple[float, Job]] = {}


def find(store: Store, text: str) -> Job:
    """Return the job that is meant. Raises an AblateError where none is, or several are."""
    now = time.monotonic()
    if (store, text) in _memory and _memory[store, text][0] > now - REMEMBERED:
        return _memory[store, text][1]
    known = job_names.read(store)  # resolves every study: too much for each part of a log
    identity = job_names.find(text, known)
    job = Job(store.job(identity), known.evaluations.get(identity, frozenset()))
    if len(_memory) >= MOST:
        _memory.clear()
    _memory[store, text] = now, job
    return job


def read(job: Job, offset: int) -> Part:
    """Return the part of a log from an offset on, cleaned, up to the end of a line where there is one."""
    over = logs.has_ended(job.folder, job.evaluations)  # first: what was printed until then is still returned
    try:
        with files.open_binary(job.folder.log) as file:
            file.seek(offset)
            content = file.read(LONGEST)
            is_last = not file.read(1)
    except FileNotFoundError:
        return Part(job.folder.path.name, "", 0, over)
    cut = content.rfind(b"\n") + 1
    whole = content if (over and is_last) or (not cut and len(content) == LONGEST) else content[:cut]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, _ = logs.clean(decoder.decode(whole, final=True), final=True)
    return Part(job.folder.path.name, text, offset + len(whole), over and is_last)
