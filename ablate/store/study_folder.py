"""The studies of a store: what was run, from which file, what it has settled, who runs it."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock, Timeout

from ablate.errors import AblateError, StoreError, StudyError
from ablate.recipe import identity as identities
from ablate.recipe.fields import Data
from ablate.store import files, layout, origin
from ablate.store.layout import Store, is_store
from ablate.store.origin import Origin
from ablate.study import file as study_file
from ablate.study.file import Study

MANY = 500  # folders that are looked into for a store
SHOWN = 3  # stores named in one message


@dataclass(frozen=True, slots=True)
class Settled:
    """What a study's last run has settled: reading its results needs neither that machine nor its images."""

    precision: str = ""  # what `auto` was; empty where the study was never run
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the decoded images, by `data_key`
    codes: Mapping[str, str] = field(default_factory=dict)  # of the user's own networks, by name


def data_key(data: Data) -> str:
    """Name a data section in a Settled."""
    return identities.digest([data.name, data.root, data.image_size])


def keep(store: Store, checked: Study, now: Settled) -> None:
    """Record a study as it is run now."""
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
    seeds: tuple[int, ...]  # under which it was ever run
    asked_seeds: int | None  # by `--seeds`


def past(store: Store, name: str) -> Past | None:
    """Read how a study was last run; None where it never was, or its files are spoilt, which others say."""
    folder = store.study(name)
    try:
        kept = files.read_json(folder / "study.json")
        if kept is None:
            return None
        more = files.read_json(folder / "origin.json") or {}
        given = kept["study"].get("seeds", 5)
        own = range(given) if isinstance(given, int) else given
        file = Origin(
            **{key: more[key] for key in ("file", "place", "host")} if more else {"file": str(kept["source"])}
        )
        seeds = tuple(sorted({*map(int, own), *map(int, more.get("seeds", ()))}))
        return Past(
            str(kept["study"]["name"]), kept["study"], str(kept["text"]), file, seeds, more.get("asked_seeds")
        )
    except (AblateError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _origin(store: Store, checked: Study) -> dict[str, Any]:
    """Return which file a study is from, and the seeds under which it was ever run.

    A copy that says the same takes nothing over.
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
    """Whether a study says what another file says, or has said when it was last run, and means the same by it."""
    if origin.has_neighbours(checked):
        return False
    state, file = origin.standing(old.origin, store.path)
    return origin.is_alike(old.raw, old.text, checked) or (state == "there" and origin.is_text(file, checked))


def taken(store: Store, checked: Study) -> str:
    """Return whose place a study would take: that of another file, or of another name that is the same on this disk; empty for nobody's."""
    old, new = past(store, checked.name), origin.of(checked, store.path)
    if old is None or new is None:
        return ""
    is_same = origin.is_same(old.origin, new, store.path)
    if old.name != checked.name:  # on a disk that knows no upper case
        says = f'{checked.source}: "{checked.name}" would share the folder of "{old.name}" in {store.path}'
        return (
            ""
            if is_same
            else f"{says}, on a disk that does not tell upper case from lower: choose another name"
        )
    if is_same or _is_copy(old, checked, store):
        return ""
    state, file = origin.standing(old.origin, store.path)
    if state == "gone" or not old.origin.file or (state == "unknown" and not old.origin.place):
        return ""
    if state == "there" and origin.has_let_go(file, old.name, old.text):
        return ""
    where = "is another file" if state == "there" else f"may still be there, on {old.origin.host}"
    found = origin.differences(old.raw, checked.raw)
    others = f" and {len(found) - origin.SHOWN} more" if len(found) > origin.SHOWN else ""
    says = (
        f"says otherwise ({'; '.join(found[: origin.SHOWN])}{others})"
        if found
        else "has its own images or networks beside it"
    )
    return (
        f'{checked.source}: the study "{old.name}" in {store.path} was last run from {file}, which {where} '
        f"and {says}: "
        "give one of them another name, or let this one take its place, report included, by ablate run "
        "--replace"
    )


def take_over(store: Store, checked: Study, *, replace: bool) -> str:
    """Return whose place a study takes, or from where its file has moved.

    Empty where it is the file that was last run.

    Raises a StoreError where it would take another file's place and was not told to `replace` it.

    """
    old, new, others = past(store, checked.name), origin.of(checked, store.path), taken(store, checked)
    if others and not replace:
        raise StoreError(others)
    if old is None or new is None or origin.is_same(old.origin, new, store.path):
        return ""
    if others:
        return f'"{checked.name}" takes the place of the study of {old.origin.file}'
    is_gone = bool(old.origin.place) and origin.standing(old.origin, store.path)[0] == "gone"
    return (
        f'"{checked.name}" was last run from {old.origin.file}, which is gone: it goes on from '
        f"{checked.source}"
        if is_gone
        else ""
    )


def settled(store: Store, name: str) -> Settled:
    """Read what a study's last run has settled."""
    return Settled(**(files.read_json(store.study(name) / "settled.json") or {}))


def recall(store: Store, name: str) -> Study:
    """Read a study as it was last run; raise a StoreError that names the studies that are there."""
    path = store.study(name) / "study.json"
    if not files.is_there(path):
        known = ", ".join(names(store)) or "none yet"
        raise StoreError(
            f'"{name}" is neither a study file nor a study in {store.path}; studies there: {known}'
        )
    try:
        known_since = past(store, name)
        asked = known_since.asked_seeds if known_since is not None else None
        return replace(study_file.from_json(path.read_text(encoding="utf-8")), asked_seeds=asked)
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(
            f"{path}: must be a study as ablate writes it, and is not: remove it, and run the study's file "
            "again"
        ) from None


def names(store: Store) -> list[str]:
    """List the studies that were run in a store; ablate doctor names files that are none."""
    found = []
    for path in study_files(store):
        with suppress(StoreError, KeyError, TypeError):
            try:
                found.append(str(files.read_json(path)["study"]["name"]))
            except OSError:  # whoever asks for it is told so
                found.append(unquote(path.parent.name))
    return sorted(found)


def study_files(store: Store) -> list[Path]:
    """List the study.json of each study, those included that only another user can read.

    Raises an OSError where nobody can list them.
    """
    folder, found = store.path / "studies", []
    for path in sorted(folder.iterdir()) if files.is_there(folder) else ():
        try:
            if path.is_dir() and files.is_there(path / "study.json"):
                found.append(path / "study.json")
        except PermissionError:
            found.append(path / "study.json")
    return found


def is_held(store: Store, name: str) -> bool:
    """Whether a process runs a study now."""
    return files.is_held(store.study(name) / "lock")


@contextmanager
def hold(
    store: Store,
    name: str,
    *,
    waits: Callable[[str], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold a study while it runs.

    Where another process does, wait for it (`waits` is told so), or raise a StoreError that says who.

    A dead holder lets go. `stopped` is asked while waiting, and ends it. What was never kept leaves no folder
    behind.
    """
    folder = store.study(name)
    lock, holder = FileLock(folder / "lock"), folder / "holder.json"
    told = False
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)  # again: the one that was waited for may have left none
            lock.acquire(timeout=0.1 if waits is None else 0.5)  # not 0: `is_held` has it for an instant
            break
        except FileNotFoundError:
            continue
        except Timeout:
            if waits is not None and stopped():
                raise KeyboardInterrupt from None
            who = json.loads(holder.read_text()) if holder.exists() else {}
            said = f'study "{name}" is being run by process {who.get("pid", "?")} on {who.get("host", "?")}'
            if waits is None:
                raise StoreError(f"{said}: wait for it, with --wait, or stop it first") from None
            if not told:
                waits(f"{said}: waiting for it")
                told = True
    try:
        files.write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()}, durable=False)
        yield
    finally:
        with suppress(OSError):
            if {path.name for path in folder.iterdir()} <= {"lock", "holder.json"}:
                shutil.rmtree(folder)
        lock.release()


def near(name: str = "", at: Path | None = None) -> Iterator[Path]:
    """List the stores, under their usual name, in the folders right below this one and above it.

    Those that have the study `name`.
    """
    here = Path.cwd() if at is None else at
    try:
        below = sorted(path for path in islice(here.iterdir(), MANY) if not path.name.startswith("."))
    except OSError:
        below = []
    for folder in (*below, *here.parents):
        found = Store(folder / layout.USUAL)
        if is_store(found.path) and (not name or past(found, name) is not None):
            yield found.path


def hint(store: Store, name: str = "") -> str:
    """Return where another store is, one that has the study `name`; nothing where none is near."""
    others = [os.path.relpath(path) for path in near(name) if path != store.path][:SHOWN]
    what = f'"{name}" is in' if name else "there is one at"
    return f"{what} {' and '.join(others)}: --store {others[0]}" if others else ""
