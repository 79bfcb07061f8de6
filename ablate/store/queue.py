"""The submissions of a store, in `queue/<id>`: what was handed in, and how far it is.

A folder has `study.toml`, exactly as it was handed in, `origin.json`, copies of the user's own networks, and
`state.json`. It gets its name by one rename, and `state.json` is written whole or not at all. Whoever changes
anything holds the queue's lock; who only reads needs none.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from ablate import descriptors
from ablate.errors import StoreError
from ablate.store import files
from ablate.store.layout import Store
from ablate.store.quantities import Count
from ablate.store.records import Record

State = Literal["waiting", "running", "paused", "cancelled", "done", "failed"]
Wish = Literal["pause", "cancel"]

ID = re.compile(r"\d{5,9}")
DRAFT = "draft-"
FOLLOWED = "ABLATE_FOLLOWED"  # the variable by which a run knows the page where its study is followed
ENDED: frozenset[State] = frozenset(("cancelled", "done", "failed"))
SETTLING = 2.0  # seconds: two versions of a file within the clock's tick may look the same from outside
TURNS: Mapping[State, int] = {"running": 0, "waiting": 1, "paused": 1, "failed": 2, "cancelled": 2, "done": 2}


class Entry(Record):
    """state.json: a submission, and how far it is."""

    id: str
    study: str  # its name
    sets: tuple[str, ...] = ()  # each key=value
    priority: int = 0  # higher first
    after: tuple[str, ...] = ()  # ids that must have ended before
    submitted: AwareDatetime
    by: str | None = None
    state: State = "waiting"
    wish: Wish | None = None  # of a running one
    exit_code: int | None = None
    reason: str = ""  # a sentence on how it came into its state; empty where that needs none
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    key: str | None = None  # the same submission twice has the same key
    place: float  # among those of its priority
    # What only the dispatcher asks for:
    slots: tuple[str, ...] = ()  # of the machine, while it runs
    attempts: Count = 0  # that were killed from outside, one after another
    is_signalled: bool = False  # its process was asked to stop
    retries: bool = False  # it also trains what has crashed
    replaces: bool = False  # it may take the place of another file's study

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ENDED


def folder(store: Store, identity: str) -> Path:
    """Return the folder of a submission."""
    return store.queue / identity


def study_file(store: Store, identity: str) -> Path:
    """Return the file that was handed in."""
    return folder(store, identity) / "study.toml"


def read_text(store: Store, identity: str) -> str:
    """Return what was handed in."""
    return files.read(study_file(store, identity)).decode()


def log(store: Store, identity: str) -> Path:
    """Return the file of what its `ablate run` has printed."""
    return folder(store, identity) / "log.txt"


@contextmanager
def changing(store: Store) -> Iterator[None]:
    """Hold the queue, for whoever changes it."""
    files.make(store.queue)
    with files.lock(store.queue / "lock"):
        yield


def read(store: Store, identity: str) -> Entry | None:
    """Return a submission; None where there is none of this id."""
    path = _state(store, identity)
    try:
        content = files.read(path)
    except FileNotFoundError:
        return None
    try:
        return Entry.model_validate_json(content)
    except ValidationError:
        raise StoreError(
            f"{path}: must be JSON as ablate writes it, and it is not: remove the folder, and submit its "
            "study.toml again"
        ) from None


def read_all(store: Store) -> list[Entry]:
    """Return all submissions: those that run, those to come in the order in which they will, those ended."""
    entries = []
    with descriptors.holding(store.queue):
        for name in ids(store):
            entry = _seen(store, name)
            entries += [] if entry is None else [entry]
    return sorted(entries, key=order)


def order(entry: Entry) -> tuple[float, ...]:
    """Return what submissions are sorted by."""
    turn = TURNS[entry.state]
    if turn == 0:
        return (turn, entry.started.timestamp() if entry.started else 0.0)
    if turn == 1:
        return (turn, -entry.priority, entry.place, int(entry.id))
    return (turn, -(entry.ended or entry.submitted).timestamp(), -int(entry.id))


def ids(store: Store) -> list[str]:
    """Return the ids of all submissions, oldest first."""
    return sorted((name for name in descriptors.names(store.queue) if ID.fullmatch(name)), key=int)


def add(store: Store, entry: Entry, contents: Mapping[str, bytes]) -> Entry:
    """Write a new submission, with the files of its folder; return it with its id. The queue must be held."""
    _sweep(store)
    number = max(map(int, ids(store)), default=0) + 1
    entry = entry.model_copy(update={"id": f"{number:05d}", "place": float(number)})
    draft = store.queue / f"{DRAFT}{entry.id}"
    try:
        for name, content in contents.items():
            files.write(draft / name, content)
        files.write_json(draft / "state.json", _plain(entry))
        _touch(store)  # before, as it may need room: what is refused must not be in the queue after all
        descriptors.rename(draft, entry.id)
    except Exception:
        _sweep(store)
        raise
    files.sync(store.queue)
    _touch(store)
    return entry


def write(store: Store, entry: Entry) -> Entry:
    """Write a submission's state. The queue must be held."""
    files.write_json(_state(store, entry.id), _plain(entry))
    _touch(store)
    return entry


def changed(store: Store) -> int:
    """Return what differs once a submission has changed, unless that was killed halfway; 0 at first."""
    try:
        return (store.queue / "changed").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _touch(store: Store) -> None:
    """Let those who wait for a change see that there is one, without reading all submissions."""
    descriptor = descriptors.open_file(store.queue / "changed", os.O_WRONLY | os.O_CREAT)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def _state(store: Store, identity: str) -> Path:
    return folder(store, identity) / "state.json"


def _plain(entry: Entry) -> files.Json:
    content: files.Json = json.loads(entry.model_dump_json())
    return content


def _sweep(store: Store) -> None:
    """Remove what killed submissions have left: as the queue is held, nobody is at work on a draft."""
    for name in descriptors.names(store.queue):
        if name.startswith(DRAFT):
            descriptors.remove_folder(store.queue / name)


_memory: dict[Path, tuple[tuple[int, ...], Entry]] = {}


def _seen(store: Store, identity: str) -> Entry | None:
    """Return a submission, from memory where its file is the one that was read before.

    One that cannot be read is shown as failed, so that it hides no other.
    """
    path = _state(store, identity)
    try:
        about = path.stat()
        version = (about.st_ino, about.st_mtime_ns, about.st_size)
        if path in _memory and _memory[path][0] == version:
            return _memory[path][1]
        entry = read(store, identity)
        if entry is not None and time.time() - about.st_mtime > SETTLING:
            _memory[path] = (version, entry)
        return entry
    except FileNotFoundError:
        return None
    except (StoreError, OSError) as error:
        return _spoilt(path, identity, error)


def _spoilt(path: Path, identity: str, error: Exception) -> Entry:
    when = 0.0
    with suppress(OSError):
        when = path.parent.stat().st_mtime
    reason = str(error) if isinstance(error, StoreError) else f"{path}: cannot be read: {error}"
    return Entry.model_validate(
        {
            "id": identity, "study": "?", "submitted": _utc(when), "state": "failed",
            "reason": reason, "place": 0.0,
        }
    )  # fmt: skip


def _utc(seconds: float) -> AwareDatetime:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)
