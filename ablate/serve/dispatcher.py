"""The dispatcher of a store's queue: it starts `ablate run` for what waits, and records how that has ended.

Everything is in the store: what a dispatcher that was killed has started, the next one finds running, or
ended. A submission is marked as running before its process is started, and a process is started only under
the submission's lock (`process.py`), so none is started twice.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from ablate.errors import AblateError, StoreError
from ablate.serve.addresses import segment
from ablate.serve.process import Child, Process
from ablate.serve.shares import EVERYWHERE, Machine
from ablate.store import files, lease, origin, records
from ablate.store import queue as submissions
from ablate.store.layout import Store
from ablate.store.lease import Lease, LeaseLostError, Watch
from ablate.store.queue import Entry, State
from ablate.workflow import queue

EVERY = 0.2  # seconds between two looks at what may have changed
WHOLE = 3.0  # seconds between two looks at the whole queue, whatever has changed
RESTARTS = 10  # of one submission whose process was killed
LOCK = "dispatcher.lock"
INTERRUPTED = {130, 143}  # Ctrl-C or SIGTERM: in good order, or before it could be
WORDS = {"cancelled": "was cancelled", "failed": "has failed"}
log = logging.getLogger("ablate.serve")


@dataclass(slots=True)
class Dispatcher:
    """Who starts the submissions of a store; `command` returns what is started for one, without its share."""

    store: Store
    command: Callable[[Entry], Sequence[str]]
    studies: int = 1  # at once
    machine: Machine = EVERYWHERE
    tells: Callable[[Sequence[Entry]], object] = len  # called with all of them at each look
    restarts: int = RESTARTS
    networks: tuple[str, ...] = ()  # that other users' submissions may have
    url: str = ""  # of the service, for people who look at a study in MLflow
    _processes: list[Process] = field(default_factory=list)  # ours, to be reaped
    _seen: set[str] = field(default_factory=set)  # what has run while this dispatcher looked
    _drains: bool = False
    _changed: int = -1
    _looked: float = 0.0

    def run(self, held: Lease, ended: threading.Event) -> None:
        """Look at the queue again and again until it `ended`; what runs then goes on.

        It also returns where another machine has taken the lease of the queue.
        """
        while not ended.is_set():
            try:
                held.check()
                if self._is_due():
                    self.look()
            except LeaseLostError:
                return
            except (AblateError, OSError) as error:  # such as a full disk: what runs is not concerned
                log.warning("the queue is looked at again soon: %s", error)
            ended.wait(EVERY)

    def _is_due(self) -> bool:
        """Whether there may be something to do: reading a long queue each time costs more than it tells."""
        changed, now = submissions.changed(self.store), time.monotonic()
        folders = (submissions.folder(self.store, one) for one in self._seen)
        if (changed, True) == (self._changed, now - self._looked < WHOLE) and all(
            Child(folder).is_alive for folder in folders
        ):
            return False
        self._changed, self._looked = changed, now
        return True

    def drain(self, ended: threading.Event) -> None:
        """Stop what runs, to be gone on with by the next dispatcher; start nothing."""
        self._drains = True
        while not ended.is_set() and any(entry.state == "running" for entry in self.look()):
            ended.wait(EVERY)

    def look(self) -> list[Entry]:
        """Carry out wishes, record what has ended, start what may be; return all submissions."""
        self._processes = [process for process in self._processes if process.poll() is None]
        for entry in submissions.read_all(self.store):
            if entry.state == "running":
                self._look_after(entry)
        entries = submissions.read_all(self.store)
        self._tell(entries)
        running = [entry for entry in entries if entry.state == "running"]
        for entry in entries if not self._drains else ():
            if entry.state == "waiting" and self._is_ready(entry, entries):
                share = self.machine.share(self.studies, (slot for one in running for slot in one.slots))
                if len(running) >= self.studies or share is None:
                    break
                if all(one.study != entry.study for one in running):
                    running += self._start(entry.id, share)
        return entries

    def _tell(self, entries: Sequence[Entry]) -> None:
        """Pass on all submissions before anything starts: what ends before the first call is never told."""
        try:
            self.tells(entries)
        except (AblateError, OSError) as error:  # what runs is not concerned
            log.warning("notifications wait: %s", error)

    def _look_after(self, entry: Entry) -> None:
        child = Child(submissions.folder(self.store, entry.id))
        if not child.is_alive:
            self._end(entry.id, child)
            return
        self._seen.add(entry.id)
        if (entry.wish or self._drains) and not entry.is_signalled and child.stop():
            with submissions.changing(self.store):
                now = submissions.read(self.store, entry.id)
                if now is not None and now.state == "running":
                    submissions.write(self.store, now.model_copy(update={"is_signalled": True}))

    def _end(self, identity: str, child: Child) -> None:
        """Record how a submission's process has ended."""
        with submissions.changing(self.store):
            now = submissions.read(self.store, identity)
            if now is None or now.state != "running" or child.is_alive:
                return
            after = ended(
                now, child, was_watched=identity in self._seen and not self._drains, restarts=self.restarts
            )
            submissions.write(self.store, after)
        self._seen.discard(identity)
        log.info(
            "%s (%s) %s%s", identity, now.study, after.state, f": {after.reason}" if after.reason else ""
        )

    def _is_ready(self, entry: Entry, entries: Sequence[Entry]) -> bool:
        """Whether what a submission waits for is done; where it never will be, it is paused."""
        if not entry.after:
            return True
        states = {one.id: one.state for one in entries}
        bad = next((one for one in entry.after if states.get(one) in WORDS), None)
        if bad is None:
            return all(states.get(one, "done") == "done" for one in entry.after)
        does = f"ablate resume {entry.id} runs it all the same"
        why = f"{bad}, which it was to wait for, {WORDS[states[bad]]}: {does}"
        self._change(entry, state="paused", reason=why)
        return False

    def _change(self, entry: Entry, **changes: object) -> None:
        with submissions.changing(self.store):
            now = submissions.read(self.store, entry.id)
            if now == entry:
                submissions.write(self.store, now.model_copy(update=changes))

    def _start(self, identity: str, share: tuple[str, ...]) -> list[Entry]:
        """Start a submission; return it, or nothing where it does not run then."""
        folder = submissions.folder(self.store, identity)
        child = Child(folder)
        with submissions.changing(self.store):
            now = submissions.read(self.store, identity)
            held = None if now is None or now.state != "waiting" else child.hold()
            if now is None or held is None:
                return []
            try:
                if refused := queue.refusal(self.store, now, self.networks):
                    submissions.write(self.store, _over(now, "failed", refused))
                    return []
                child.forget()
                begun: dict[str, object] = {
                    "state": "running", "reason": "", "started": datetime.now(UTC), "ended": None,
                    "exit_code": None, "wish": None, "is_signalled": False, "slots": share,
                }  # fmt: skip
                running = submissions.write(self.store, now.model_copy(update=begun))
                words = [*self.command(running), *self.machine.options(share)]
                more = self.machine.environment(share) | self._page(now)
                try:
                    process = child.start(words, _cwd(folder, self.store), more, held)
                except OSError as error:
                    submissions.write(
                        self.store, _over(running, "failed", f"it could not be started: {error}")
                    )
                    return []
            finally:
                os.close(held)
        self._processes.append(process)
        self._seen.add(identity)
        log.info("%s (%s) started", identity, now.study)
        return [running]

    def _page(self, entry: Entry) -> dict[str, str]:
        """Return the variable by which a run knows where its study is followed."""
        return {submissions.FOLLOWED: f"{self.url}/studies/{segment(entry.study)}"} if self.url else {}


def ended(entry: Entry, child: Child, *, was_watched: bool, restarts: int = RESTARTS) -> Entry:
    """Return a submission whose process has ended; `was_watched`: by a dispatcher that was to go on."""
    code = child.exit_code
    entry = entry.model_copy(update={"exit_code": code, "slots": ()})
    if code == 0:
        return _over(entry, "done", "it had ended before it could be stopped" if entry.wish else "")
    if code is not None and code < 128:
        return _over(entry, "failed", _why(code, child))
    if entry.wish is not None:
        return _over(entry, "cancelled" if entry.wish == "cancel" else "paused", "")
    if code not in INTERRUPTED:
        return _killed(entry, has_begun=code is not None or child.pid is not None, restarts=restarts)
    if entry.is_signalled or not was_watched:  # the wish was withdrawn, or the whole service was stopped
        return _over(entry, "waiting", "it was interrupted, and goes on")
    return _over(
        entry, "paused", f"it was interrupted from outside: ablate resume {entry.id} goes on with it"
    )


def _killed(entry: Entry, *, has_begun: bool, restarts: int) -> Entry:
    """Return a submission whose process was killed, or where a kill came before it had begun."""
    kills = entry.attempts + (1 if has_begun else 0)
    if kills > restarts:
        return _over(entry, "failed", f"its process was killed {kills} times")
    reason = "its process was killed, and starts again" if has_begun else ""
    return _over(entry.model_copy(update={"attempts": kills}), "waiting", reason)


def _over(entry: Entry, state: State, reason: str) -> Entry:
    at = datetime.now(UTC) if state in submissions.ENDED else None
    changes = {"state": state, "reason": reason, "ended": at, "wish": None, "is_signalled": False}
    return entry.model_copy(update=changes)


def _why(code: int, child: Child) -> str:
    """Return in a sentence why a run has ended with an exit code below those of signals."""
    if code == 1:
        return "some jobs failed, and the report shows the others: ablate resume tries them again"
    line = child.last_line
    return f"ablate run ended with {code}{f': {line}' if line else ''}"


def _cwd(folder: Path, store: Store) -> str:
    """Return the directory of a run: that of the file which was submitted, as long as it is there."""
    kept = origin.submitted(folder, store.path)
    if kept is not None and kept.file != origin.sent(store.path).as_posix():
        above = Path(kept.file).parent
        with suppress(OSError):
            if above.is_dir() and above != store.queue:
                return str(above)
    return str(Path.cwd())


def command(store: Store, options: Sequence[str] = ()) -> Callable[[Entry], list[str]]:
    """Return a function that returns the `ablate run` of a submission; `options`: more of its options."""

    def made(entry: Entry) -> list[str]:
        path = submissions.study_file(store, entry.id)
        sets = [word for one in entry.sets for word in ("--set", one)]
        flags = [
            *(["--retry-failed"] if entry.retries else ()),
            *(["--replace"] if entry.replaces else ()),
        ]
        return [
            sys.executable, "-P", "-m", "ablate", "run", str(path), "--store", str(store.path), "--wait",
            *sets, *flags, *options,
        ]  # fmt: skip

    return made


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Keep other processes of this machine from the queue. Raises a StoreError where one of them has it."""
    files.make(store.queue)
    lock, holder = files.lock(store.queue / LOCK), store.queue / "holder.json"
    try:
        lock.acquire(timeout=0.2)  # not 0: whoever asks whether it is held has it for an instant
    except Timeout:
        who = records.read(holder, records.Holder)
        by = f" by process {who.pid} on {who.host}" if who else ""
        raise StoreError(f"{store.path}: its queue is served already{by}: stop that first") from None
    try:
        files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()}, durable=False)
        yield
    finally:
        lock.release()


@contextmanager
def leading(store: Store, ended: threading.Event, waits: Callable[[str], None]) -> Iterator[Lease | None]:
    """Yield the lease of a `locked` queue, once no other machine has it; None where it `ended` before."""
    watch, has_waited = Watch(store.queue), False
    while (held := watch.take(has_lock=True)) is None:
        if not has_waited:
            waits(f"the queue is served on {watch.owner.get('host', 'another machine')}: waiting for it")
            has_waited = True
        if ended.wait(1.0):
            yield None
            return
    with lease.renewing(held):
        yield held
