"""Notifications: what has happened to submissions, told once to each receiver of the configuration.

An event becomes a file of `queue/outbox` as soon as it is seen; who has been told stands there, too. So
nothing is told twice or forgotten, whatever is killed; only a kill between a receiver's answer and its record
tells that one again, under the same id. A thread sends, and also asks now and then whether a running study is
decided, or has stalled: nothing of that holds up the dispatcher.
"""

import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from ablate import descriptors
from ablate.errors import AblateError
from ablate.execution.options import Where
from ablate.serve import post
from ablate.serve.config import Config, Event, Receiver
from ablate.serve.post import Message, PostError
from ablate.store import files, study_folder
from ablate.store import queue as submissions
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.store.queue import Entry
from ablate.workflow import inspect

EVERY = 60.0  # seconds between two looks at a running study
OLDEST = 86400.0  # seconds: what happened before is not told any more
FIRST, LONGEST = 2.0, 3600.0  # seconds between two tries
REPORT = 600.0  # seconds that a report may take
OPEN = frozenset(("undecided", "unstable"))
ENDINGS: dict[str, Event] = {"done": "finished", "failed": "failed"}
log = logging.getLogger("ablate.serve")


class Note(BaseModel):
    """A file of the outbox: an event, and who was told."""

    model_config = ConfigDict(extra="ignore")
    id: str
    event: Event
    submission: str
    study: str
    state: str
    reason: str
    happened: float  # seconds since 1970
    told: dict[str, float] = Field(default_factory=dict)  # when, by receiver
    is_checked: bool = False  # of a study that has finished: whether it is decided was asked


class Notifier:
    """Who tells what has happened."""

    def __init__(
        self, store: Store, config: Config, clock: Callable[[], float] = time.time, first: float = FIRST
    ) -> None:
        """Take the store and its service's configuration; nothing is read or written without receivers."""
        self.store, self.config, self.clock, self._first = store, config, clock, first
        self.outbox = store.queue / "outbox"
        self.receivers = {_key(receiver): receiver for receiver in config.notify.to}
        self._notes: dict[str, Note] = {}
        self._since = 0.0
        self._running: tuple[Entry, ...] = ()
        self._moved: dict[str, tuple[object, float]] = {}  # what was seen of a running study, since when
        self._looked = 0.0
        self._tries: dict[tuple[str, str], tuple[int, float]] = {}  # how many, and when the next one is due
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)

    def look(self, entries: Sequence[Entry]) -> None:
        """Note what has ended; called by the dispatcher again and again."""
        if not self.receivers:
            return
        if not self._since:
            self._begin()
        self._running = tuple(entry for entry in entries if entry.state == "running")
        for entry in entries:
            event = ENDINGS.get(entry.state)
            if event is not None and entry.ended is not None:
                happened = entry.ended.timestamp()
                self.note(f"{entry.id}-{event}-{int(happened * 1000)}", event, entry, happened)

    def _begin(self) -> None:
        """Read the outbox, and start to send."""
        for name in descriptors.names(self.outbox):
            with suppress(*SPOILT):
                if name.endswith(".json") and name != "since.json":
                    note = Note.model_validate_json(files.read(self.outbox / name))
                    self._notes[note.id] = note
        since = files.read_json(self.outbox / "since.json")
        if since is None:
            since = self.clock()
            files.write_json(self.outbox / "since.json", since)
        self._since = float(since)
        self._thread.start()

    def note(self, identity: str, event: Event, entry: Entry, happened: float) -> None:
        """Note an event, unless it was noted before, or is too old to be told."""
        if identity in self._notes or happened < max(self._since, self.clock() - OLDEST):
            return
        if not any(event in receiver.events for receiver in self.receivers.values()):
            return
        note = Note(
            id=identity, event=event, submission=entry.id, study=entry.study, state=entry.state,
            reason=entry.reason, happened=happened,
        )  # fmt: skip
        self._keep(note)
        self._notes[identity] = note
        self._wake.set()

    def _keep(self, note: Note) -> None:
        files.write_json(self.outbox / f"{note.id}.json", json.loads(note.model_dump_json()))

    def _work(self) -> None:
        while True:
            try:
                self._watch()
                wait = self.send()
            except Exception:  # the thread must outlive it: what is noted is still to be told
                log.exception("notifications are tried again")
                wait = self._first
            self._wake.wait(wait)
            self._wake.clear()

    def send(self) -> float:
        """Tell whoever is to be told by now; return in how many seconds there may be more to tell."""
        now, wait = self.clock(), EVERY
        for note in list(self._notes.values()):
            for key, receiver in self.receivers.items():
                is_old = now - note.happened > OLDEST
                if note.event not in receiver.events or key in note.told or is_old:
                    continue
                times, due = self._tries.get((note.id, key), (0, 0.0))
                if due <= now and not self._tell(note, key, receiver):
                    due = self.clock() + min(LONGEST, self._first * 2**times)
                    self._tries[note.id, key] = (times + 1, due)
                wait = wait if key in note.told else min(wait, max(0.05, due - self.clock()))
        return wait

    def _tell(self, note: Note, key: str, receiver: Receiver) -> bool:
        try:
            post.send(
                receiver.address(), receiver.kind, self._message(note),
                allow_private=self.config.notify.allow_private,
            )  # fmt: skip
        except (PostError, AblateError) as error:
            log.warning("%s of %s could not be told: %s", note.event, note.study, error)
            return False
        note.told[key] = self.clock()
        self._keep(note)
        self._tries.pop((note.id, key), None)
        return True

    def _message(self, note: Note) -> Message:
        base = self.config.url
        words = {
            "decided": "is decided: every effect has its verdict", "finished": "has finished",
            "failed": "has failed", "stalled": f"has not moved for {self.config.notify.stalled}",
        }  # fmt: skip
        reason = f" ({note.reason})" if note.reason else ""
        return Message(
            id=note.id, event=note.event, study=note.study, submission=note.submission, state=note.state,
            reason=note.reason, text=f"ablate: {note.study} {words[note.event]}{reason}",
            time=datetime.fromtimestamp(note.happened, UTC).isoformat(timespec="seconds"),
            url=f"{base.rstrip('/')}/studies/{quote(note.study, safe='')}" if base else None,
        )  # fmt: skip

    def _watch(self) -> None:
        """Note what is to be told of studies that have finished, and now and then of those that run."""
        wanted = {event for receiver in self.receivers.values() for event in receiver.events}
        for note in list(self._notes.values()) if "decided" in wanted else ():
            if note.event == "finished" and not note.is_checked:
                if is_decided(self.store, note.study):
                    self._note_decided(note.submission, note.happened)
                note.is_checked = True
                self._keep(note)
        if self.clock() - self._looked < EVERY:
            return
        self._looked = self.clock()
        for entry in self._running:
            with suppress(*SPOILT):  # not begun yet, or being written: looked at again
                self._look_at(entry, wanted)

    def _note_decided(self, identity: str, happened: float) -> None:
        entry = submissions.read(self.store, identity)
        if entry is not None:
            self.note(f"{identity}-decided", "decided", entry, happened)

    def _look_at(self, entry: Entry, wanted: Iterable[str]) -> None:
        begun = entry.started.timestamp() if entry.started else 0.0
        study = study_folder.recall(self.store, entry.study)
        now = inspect.status(study, Where(self.store))
        sign = max(
            begun,
            *(_newest(self.store.job(running.job).path) for running in now.running),
            _newest(submissions.folder(self.store, entry.id)),
        )
        if "stalled" in wanted and self.clock() - sign > self.config.notify.stalled_seconds:
            self.note(f"{entry.id}-stalled-{int(sign * 1000)}", "stalled", entry, self.clock())
        finished = now.total.get("finished", 0)
        seen = self._moved.get(entry.id, (None, 0.0))[0]
        if "decided" in wanted and finished and seen != finished:
            self._moved[entry.id] = (finished, self.clock())
            if is_decided(self.store, entry.study):
                self._note_decided(entry.id, self.clock())


def is_decided(store: Store, study: str) -> bool:
    """Whether every effect of a study has its verdict; asked in a process of its own, as it brings pandas."""
    command = [sys.executable, "-P", "-m", "ablate", "report", study, "--json", "--store", str(store.path)]
    answer = subprocess.run(command, capture_output=True, check=False, timeout=REPORT)  # noqa: S603
    if answer.returncode:
        return False
    verdicts = [effect["verdict"] for effect in json.loads(answer.stdout)["effects"]]
    return bool(verdicts) and not OPEN & set(verdicts)


def _newest(folder: Path) -> float:
    """Return when a file of a folder was changed last; 0 where there is none."""
    times = [0.0]
    for name in descriptors.names(folder):
        with suppress(OSError):
            times.append((folder / name).lstat().st_mtime)
    return max(times)


def _key(receiver: Receiver) -> str:
    """Return what stands for a receiver in the outbox: not its address, which is a secret."""
    return hashlib.sha256(f"{receiver.kind} {receiver.url or receiver.url_file}".encode()).hexdigest()[:16]
