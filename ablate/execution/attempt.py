"""What surrounds every attempt at a job: its lock, its log, signs of life, and the handling of errors."""

import contextlib
import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock, Timeout

from ablate import descriptors
from ablate.errors import UnwritableError
from ablate.execution import faults, memory
from ablate.execution.executors.base import Crashed, OutOfMemory, Stopped
from ablate.store import files, job_folder
from ablate.store import lease as leases
from ablate.store.job_folder import Folder
from ablate.store.lease import Lease, LeaseLostError, Watch
from ablate.training import lr_finder

BEAT = 1.0  # seconds between two signs of life
PATIENCE = 1.0  # seconds between two looks at a job that another process has


def beats(report: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Return a function to call at every step, which reports once a BEAT that the job is alive.

    An epoch may take hours.
    """
    last_beat = time.monotonic()

    def alive() -> None:
        nonlocal last_beat
        if time.monotonic() - last_beat >= BEAT:
            last_beat = time.monotonic()
            report({})

    return alive


@dataclass(frozen=True, slots=True)
class Alive:
    """Called at every step of a job: sends signs of life, and ends a job whose lease another process has."""

    beat: Callable[[], None]
    lease: Lease

    def __call__(self) -> None:
        """Raise a LeaseLostError where the renewal of the lease has found it taken over."""
        if self.lease.is_lost:
            self.check()
        self.beat()

    def check(self) -> None:
        """Look whether the lease is still ours: before anything is written into the folder."""
        self.lease.check()


@contextlib.contextmanager
def alone(
    folder: Folder,
    should_stop: Callable[[], bool],
    alive: Callable[[], None],
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Iterator[Lease]:
    """Hold the job's lock and its lease; while another worker has one of them, wait, and report that once.

    The lock ends with its process, however that ends; the lease is seen also where file locks do not reach.
    """
    lock, watch, is_reported = folder.lock(), Watch(folder.path), False
    try:
        while (owned := _acquire(folder, lock, watch)) is None:
            alive()
            if not is_reported:
                is_reported = True
                report({"elsewhere": f"waits for {_owner(folder, watch)}, which trains it"})
            if should_stop():
                raise Stopped
        with leases.renewing(owned):
            yield owned
    finally:
        lock.release()


def _acquire(folder: Folder, lock: BaseFileLock, watch: Watch) -> Lease | None:
    """Try for a second to get lock and lease of a job; a file system without locks has the lease alone.

    So has a job whose lock is held by a process that stands still, and may not even die: its lease expires.
    """
    with files.writing(folder.path):
        if not lock.is_locked:
            try:
                files.acquire(lock, PATIENCE)
            except Timeout:
                if not watch.has_lease:  # of something short, such as a look at the job
                    return None
        owned = watch.take(has_lock=lock.is_locked)
    if owned is None:
        time.sleep(min(PATIENCE, watch.owner.get("term", leases.TERM) / leases.RENEWALS))
    return owned


def _owner(folder: Folder, watch: Watch) -> str:
    """Return in words which process has a job."""
    if "host" in watch.owner and watch.owner.get("machine") != leases.machine():
        return f"process {watch.owner.get('pid', '?')} on {watch.owner['host']}"
    return last(folder)


def last(folder: Folder) -> str:
    """Return in words which process has trained a job last, and for which study."""
    *_, attempt = (None, *job_folder.read_attempts(folder))
    if attempt is None or attempt.pid is None:
        return "another process"
    return f"process {attempt.pid}" + (f" (study {attempt.study})" if attempt.study else "")


def is_of(folder: Folder, study: str) -> bool:
    """Whether a job was last trained for this study.

    One process at a time runs a study, so that was an earlier attempt of the same process.
    """
    return bool(study) and [attempt.study for attempt in job_folder.read_attempts(folder)[-1:]] == [study]


@contextlib.contextmanager
def accounted(folder: Folder, device: str) -> Iterator[None]:
    """Record that a job has failed while its lock is held: once it is free, another worker may take the job.

    Running out of memory or of disk, and the loss of a device, are no failure yet: the scheduler decides
    whether the job is tried again.
    """
    try:
        yield
    except lr_finder.Stopped:
        raise Stopped from None
    except (Stopped, UnwritableError, LeaseLostError):
        raise
    except Exception as error:
        # The full disk may be that of the log, or another one, such as that of /tmp.
        if isinstance(error, OSError) and error.errno in files.FULL:
            files.try_to_write(folder.path)
        message = "".join(traceback.format_exception_only(error)).strip()
        place = torch.device(device)
        match faults.kind(error, place):
            case "memory":
                had = f"the job had {memory.taken(place) / 2**30:.2f} GiB at most"
                raise OutOfMemory(f"{message.splitlines()[0]} ({had})") from error
            case "device":
                raise Crashed(message.splitlines()[0]) from error
        job_folder.fail(folder, kind="error", error=message)
        raise


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send everything that this process prints, from C too, to the job's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with os.fdopen(descriptors.open_file(path, flags), "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        faulthandler.enable(log)
        try:
            yield
        except Stopped:
            raise
        except LeaseLostError as error:
            print(error, flush=True)
            raise
        except Exception:
            traceback.print_exc()
            raise
        finally:
            _flush()
            faulthandler.disable()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def _flush() -> None:
    """Write out what was printed.

    What a full disk does not take is dropped, or it would appear in the log of the next job.
    """
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            stream.flush()
