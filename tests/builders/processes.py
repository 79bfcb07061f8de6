"""What tests that kill need to know of processes: who is whose, and who still lives."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def is_alive(pid):
    """Whether a process runs; a zombie runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(pid):
    """List the processes below one, nearest first."""
    parents = {int(path.name): parent_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, level = [], [pid]
    while level:
        level = sorted(child for child, parent in parents.items() if parent in level)
        found += level
    return found


def workers_of(pid):
    """List the processes that are forked from the server of a coordinator."""
    below = descendants(pid)
    direct = [child for child in below if parent_of(child) == pid]
    return [child for child in below if child not in direct]


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
