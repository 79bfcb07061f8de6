"""A lease: a file in a folder that names the process working there, and that its owner renews.

It works between machines, where file locks may not. The file is `lease-<n>`, made with O_EXCL, so that only
one of several processes gets it. A lease has expired when it was not renewed for its term. Clocks of two
machines may differ, so times are not compared: a waiting process watches the content by its own clock. To
take a lease over is to make `lease-<n+1>`, which only one process can; the owner of the older one sees that
at its next check, and writes nothing more. A lease is renewed in place, so that a file that was removed does
not come back.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ablate import descriptors
from ablate.store import files

TERM = 60.0
"""Seconds without a renewal after which a lease expires; network file systems show a file up to 30 s late."""
LONGEST_TERM = 3600.0  # another one would keep a job of a dead process for ever
RENEWALS = 12  # in a term
LENGTH = 512  # bytes of every lease, as it is overwritten in place
RECENT = 5 * TERM
"""Seconds within which another machine has renewed its lease, for a process that looks once only."""


class LeaseLostError(Exception):
    """Raised to the owner of a lease that another process has taken over."""


@dataclass(slots=True)
class Lease:
    """A lease that this process holds."""

    folder: Path
    number: int
    content: dict[str, Any]
    is_lost: bool = False

    @property
    def path(self) -> Path:
        """The file of the lease."""
        return _path(self.folder, self.number)

    def check(self) -> None:
        """Raise a LeaseLostError where another process has taken it over."""
        self.is_lost = self.is_lost or not self.path.exists() or _path(self.folder, self.number + 1).exists()
        if self.is_lost:
            raise LeaseLostError(f"{self.path}: taken over by another process")

    def renew(self) -> None:
        """Change its content, which others watch. Raises a LeaseLostError where it was taken over."""
        self.check()
        self.content["renewals"] += 1
        try:
            with os.fdopen(descriptors.open_file(self.path, os.O_WRONLY), "wb") as file:
                file.write(_bytes(self.content))
        except FileNotFoundError:
            self.is_lost = True
            raise LeaseLostError(f"{self.path}: taken over by another process") from None

    def release(self) -> None:
        """Remove its file."""
        descriptors.remove(self.path)


@dataclass(slots=True)
class Watch:
    """A process that waits for the lease of a folder, and what it has seen so far of another's lease."""

    folder: Path
    term: float = TERM  # of the lease that it wants
    clock: Callable[[], float] = time.monotonic
    owner: dict[str, Any] = field(default_factory=dict)  # of the lease that is in the way
    _seen: tuple[int, bytes] | None = None
    _since: float = 0.0

    @property
    def has_lease(self) -> bool:
        """Whether there is a lease in the folder."""
        return bool(_numbers(self.folder))

    def take(self, *, has_lock: bool) -> Lease | None:
        """Return the lease if it is free or has expired, else None: try again soon.

        `has_lock`: the folder's file lock is ours, so a lease of this machine is that of a dead process.
        """
        newest = _newest(self.folder)
        if newest is not None and not self._has_expired(newest, has_lock=has_lock):
            return None
        lease = _make(self.folder, 1 if newest is None else newest[0] + 1, self.term)
        if lease is None:
            return None
        others = [number for number in _numbers(self.folder) if number != lease.number]
        if any(number > lease.number for number in others):  # what was seen is long past
            lease.release()
            return None
        for number in others:
            descriptors.remove(_path(self.folder, number))
        return lease

    def _has_expired(self, newest: tuple[int, bytes], *, has_lock: bool) -> bool:
        self.owner = _parsed(newest[1])
        if has_lock and self.owner.get("machine") == machine():
            return True
        if newest != self._seen:
            self._seen, self._since = newest, self.clock()
        return bool(self.clock() - self._since >= self.owner.get("term", TERM))


@contextmanager
def renewing(lease: Lease) -> Iterator[None]:
    """Renew a lease in the background, and release it at the end."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(lease.content["term"] / RENEWALS):
            try:
                lease.renew()
            except LeaseLostError:
                return
            except OSError:  # the disk may come back before the term is over
                continue

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):  # it will expire
            lease.release()


def is_held_elsewhere(folder: Path) -> bool:
    """Whether another machine seems to hold the lease, for a process that looks once and cannot watch.

    The time of the file decides, with a wide margin: good enough to be shown, or to be careful.
    """
    try:
        newest = _newest(folder)
        if newest is None or _parsed(newest[1]).get("machine") in (None, machine()):
            return False
        return time.time() - _path(folder, newest[0]).stat().st_mtime < RECENT
    except OSError:
        return False


@cache
def machine() -> str:
    """Return the name of this machine: the same after a restart, and unique among those sharing a folder."""
    try:
        identity = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        identity = ""
    return f"{socket.gethostname()}/{identity}"


def _make(folder: Path, number: int, term: float) -> Lease | None:
    content = {
        "owner": secrets.token_hex(8), "machine": machine(), "host": socket.gethostname(), "pid": os.getpid(),
        "term": term, "renewals": 0,
    }  # fmt: skip
    path = _path(folder, number)
    try:
        file = descriptors.new(path)
    except FileExistsError:
        return None
    try:
        with file:
            file.write(_bytes(content))
    except OSError:  # the disk is full: an empty lease, of nobody, would be waited for
        descriptors.remove(path)
        raise
    return Lease(folder, number, content)


def _newest(folder: Path) -> tuple[int, bytes] | None:
    """Return the number and content of the newest lease; None where there is none."""
    while numbers := _numbers(folder):
        with suppress(FileNotFoundError):  # taken over, or released, since it was listed: look again
            return max(numbers), files.read(_path(folder, max(numbers)))
    return None


def _numbers(folder: Path) -> list[int]:
    there = (name.removeprefix("lease-") for name in descriptors.names(folder) if name.startswith("lease-"))
    return [int(number) for number in there if number.isdecimal()]


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease-{number}"


def _bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode().ljust(LENGTH - 1) + b"\n"


def _parsed(content: bytes) -> dict[str, Any]:
    """Return the content of a lease; empty where it is being written, or its owner died while writing it."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    term = parsed.get("term") if isinstance(parsed, dict) else None
    return parsed if isinstance(term, (int, float)) and 0 < term <= LONGEST_TERM else {}
