"""The studies of a store: what was run, from which file, what that settled, and which process runs it."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import Timeout

from ablate import descriptors
from ablate.errors import AblateError, StoreError
from ablate.recipe import identity as identities
from ablate.recipe.fields import Data
from ablate.store import files, layout, origin, records
from ablate.store.files import SPOILT
from ablate.store.layout import Store, is_store
from ablate.store.origin import Origin
from ablate.store.records import KeptOrigin, KeptStudy
from ablate.study import file as study_file
from ablate.study.file import Study
from ablate.study.head import Head

MANY = 500  # folders that are searched for a store or for a free name, at most
SHOWN = 3  # stores named in one message


@dataclass(frozen=True, slots=True)
class Settled:
    """What a study's last run settled: reading its results needs neither that machine nor its images."""

    precision: str = ""  # what `auto` was; empty where the study was never run
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the decoded images, by `data_key`
    codes: Mapping[str, str] = field(default_factory=dict)  # of the user's own networks, by name


def data_key(data: Data) -> str:
    """Return the key of a data section in a Settled."""
    return identities.digest([data.name, data.root, data.image_size])


def keep(store: Store, checked: Study, now: Settled) -> None:
    """Write a study as it is run now."""
    folder = store.study(checked.name)
    content = {"precision": now.precision, "fingerprints": dict(now.fingerprints), "codes": dict(now.codes)}
    files.write_json(folder / "settled.json", content)
    files.write_json(folder / "origin.json", _origin(store, checked))
    files.write(folder / "study.json", study_file.to_json(checked))


@dataclass(frozen=True, slots=True)
class Past:
    """A study as it was last run."""

    name: str
    raw: Mapping[str, Any]
    text: str
    origin: Origin
    seeds: tuple[int, ...]  # that it was ever run with
    asked_seeds: int | None  # by `--seeds`


def past(store: Store, name: str) -> Past | None:
    """Return a study as last run; None where it never was, or its files are spoilt, which others report."""
    folder = store.study(name)
    try:
        kept = records.read(folder / "study.json", KeptStudy)
        if kept is None:
            return None
        more = records.read(folder / "origin.json", KeptOrigin)
        own = Head.model_validate({"name": "x", "seeds": kept.study.get("seeds", 5)}).seeds
        seeds = {*(range(own) if isinstance(own, int) else own), *(more.seeds if more is not None else ())}
        return Past(
            name=kept.study["name"], raw=kept.study, text=kept.text,
            origin=Origin(kept.source) if more is None else Origin(more.file, more.place, more.host),
            seeds=tuple(sorted(seeds)), asked_seeds=None if more is None else more.asked_seeds,
        )  # fmt: skip
    except SPOILT:
        return None


def _origin(store: Store, checked: Study) -> dict[str, Any]:
    """Return the file of a study, and the seeds that it was ever run with.

    A copy with the same content does not take the place of the file.
    """
    old, new = past(store, checked.name), origin.of(checked, store.path)
    file = new or Origin()
    if old is not None and (new is None or (_is_there(old, new, store) and _is_copy(old, checked, store))):
        file = old.origin
    seeds = sorted({*checked.seeds, *(old.seeds if old is not None else ())})
    return asdict(file) | {"seeds": seeds, "asked_seeds": checked.asked_seeds}


def _is_there(old: Past, new: Origin, store: Store) -> bool:
    return (
        not origin.is_same(old.origin, new, store.path)
        and origin.standing(old.origin, store.path)[0] != "gone"
    )


def _is_copy(old: Past, checked: Study, store: Store) -> bool:
    """Whether a study equals another file, as it is or as it was last run, and means the same by it."""
    if origin.has_neighbours(checked):
        return False
    state, file = origin.standing(old.origin, store.path)
    return origin.is_alike(old.raw, old.text, checked) or (state == "there" and origin.is_text(file, checked))


def taken(store: Store, checked: Study) -> str:
    """Return why a study may not take the place of the one in its folder; empty where it may.

    That one is from another file, or has another name that is the same on this disk.
    """
    old, new = past(store, checked.name), origin.of(checked, store.path)
    if old is None or new is None or origin.is_same(old.origin, new, store.path):
        return ""
    if old.name != checked.name:  # on a disk that knows no upper case
        return (
            f'{checked.source}: "{checked.name}" would share the folder of "{old.name}" in {store.path}, '
            "on a disk that does not tell upper case from lower: choose another name"
        )
    if _is_copy(old, checked, store):
        return ""
    state, file = origin.standing(old.origin, store.path)
    if state == "gone" or not old.origin.file or (state == "unknown" and not old.origin.place):
        return ""
    if state == "there" and origin.has_let_go(file, old.name, old.text):
        return ""
    where = "is another file" if state == "there" else f"may still be there, on {old.origin.host}"
    return (
        f'{checked.source}: the study "{old.name}" in {store.path} was last run from {file}, which {where} '
        f"and {_difference(old, checked)}: give one of them another name, "
        "or let this one take its place, report included, by ablate run --replace"
    )


def _difference(old: Past, checked: Study) -> str:
    changes = origin.differences(old.raw, checked.raw)
    if not changes:
        return "has its own images or networks beside it"
    others = f" and {len(changes) - origin.SHOWN} more" if len(changes) > origin.SHOWN else ""
    return f"says otherwise ({'; '.join(changes[: origin.SHOWN])}{others})"


def take_over(store: Store, checked: Study, *, replace: bool) -> str:
    """Return whose place a study takes, or where its file has moved from; empty for the file last run.

    Raises a StoreError where it would take another file's place, unless `replace`.
    """
    old, new, others = past(store, checked.name), origin.of(checked, store.path), taken(store, checked)
    if others and not replace:
        raise StoreError(others)
    if old is None or new is None or origin.is_same(old.origin, new, store.path):
        return ""
    if others:
        return f'"{checked.name}" takes the place of the study of {old.origin.file}'
    if not old.origin.place or origin.standing(old.origin, store.path)[0] != "gone":
        return ""
    return (
        f'"{checked.name}" was last run from {old.origin.file}, which is gone: '
        f"it goes on from {checked.source}"
    )


def settled(store: Store, name: str) -> Settled:
    """Return what a study's last run settled."""
    kept = records.read(store.study(name) / "settled.json", records.Settled)
    return Settled() if kept is None else Settled(kept.precision, kept.fingerprints, kept.codes)


def recall(store: Store, name: str) -> Study:
    """Return a study as it was last run. Raises a StoreError that lists the store's studies."""
    path = store.study(name) / "study.json"
    if not files.is_there(path):
        there = ", ".join(names(store)) or "none yet"
        raise StoreError(
            f'"{name}" is neither a study file nor a study in {store.path}; studies there: {there}'
        )
    try:
        last = past(store, name)
        asked = last.asked_seeds if last is not None else None
        return replace(study_file.from_json(files.read(path).decode()), asked_seeds=asked)
    except (AblateError, OSError):
        raise
    except SPOILT:
        raise StoreError(
            f"{path}: must be a study as ablate writes it, and is not: "
            "remove it, and run the study's file again"
        ) from None


def names(store: Store) -> list[str]:
    """Return the names of the studies in a store; ablate doctor reports files that are none."""
    return sorted(name_of(path, store) for path in study_files(store))


def name_of(path: Path, store: Store) -> str:
    """Return the name of the study of a study.json; where that cannot be told, the one of its folder.

    A name that belongs to another folder is none: reading by it would read another study.
    """
    with suppress(*SPOILT):  # reported where that study is read
        kept = records.read(path, KeptStudy)
        if kept is not None and store.study(kept.study["name"]) == path.parent:
            return str(kept.study["name"])
    return unquote(path.parent.name)


def study_files(store: Store) -> list[Path]:
    """Return the path of each study.json, those included that only another user can read.

    Raises an OSError where they cannot be listed.
    """
    folder, paths = store.path / "studies", []
    for path in map(folder.joinpath, descriptors.names(folder)):
        try:
            if path.is_dir() and files.is_there(path / "study.json"):
                paths.append(path / "study.json")
        except PermissionError:
            paths.append(path / "study.json")
    return paths


def is_held(store: Store, name: str) -> bool:
    """Whether a process runs a study now."""
    return files.is_held(store.study(name) / "lock")


def held_by(store: Store, name: str) -> str:
    """Return in words which process runs a study; it only serves a message."""
    who = None
    with suppress(*SPOILT):
        who = records.read(store.study(name) / "holder.json", records.Holder)
    return "by a process" if who is None else f"by process {who.pid} on {who.host}"


@contextmanager
def hold(
    store: Store,
    name: str,
    *,
    waits: Callable[[str], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold a study while it runs.

    Where another process holds it, wait if there is `waits`, which is called with a sentence; else raise a
    StoreError that names the process. A dead process holds nothing. `stopped` is asked while waiting, and
    ends it. A study that was never kept leaves no folder behind.
    """
    folder = store.study(name)
    lock, holder = files.lock(folder / "lock"), folder / "holder.json"
    is_announced = False
    while True:
        try:
            files.make(folder, durable=False)  # again: the process before may have removed it
            lock.acquire(timeout=0.1 if waits is None else 0.5)  # not 0: `is_held` has it for an instant
            break
        except FileNotFoundError:
            continue
        except Timeout:
            if waits is not None and stopped():
                raise KeyboardInterrupt from None
            said = f'study "{name}" is being run {held_by(store, name)}'
            if waits is None:
                raise StoreError(f"{said}: wait for it, with --wait, or stop it first") from None
            if not is_announced:
                waits(f"{said}: waiting for it")
                is_announced = True
    try:
        files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()}, durable=False)
        yield
    finally:
        with suppress(OSError):
            if set(descriptors.names(folder)) <= {"lock", "holder.json"}:
                descriptors.remove_folder(folder)
        lock.release()


@contextmanager
def hold_free(store: Store, name: str) -> Iterator[None]:
    """Hold the first free one of "NAME 1", "NAME 2", ... as if it were a study.

    For work that is no study's, such as `lr-find`: nothing that it needs is removed meanwhile, by anyone who
    looks for studies that are run.
    """
    with ExitStack() as stack:
        for number in range(1, MANY + 1):
            try:
                stack.enter_context(hold(store, f"{name} {number}"))
                break
            except StoreError:
                if number == MANY:
                    raise
        yield


def near(name: str = "", at: Path | None = None) -> Iterator[Path]:
    """Return the stores of the usual name in the folders right below this one and above it.

    With a `name`, only the stores that have that study.
    """
    here = Path.cwd() if at is None else at
    try:
        below = sorted(path for path in islice(here.iterdir(), MANY) if not path.name.startswith("."))
    except OSError:
        below = []
    for folder in (*below, *here.parents):
        path = folder / layout.USUAL
        if is_store(path) and (not name or past(Store(path), name) is not None):
            yield path


def hint(store: Store, name: str = "") -> str:
    """Return where another store is, one with the study `name`; empty where none is near."""
    others = [os.path.relpath(path) for path in near(name) if path != store.path][:SHOWN]
    what = f'"{name}" is in' if name else "there is one at"
    return f"{what} {' and '.join(others)}: --store {others[0]}" if others else ""
