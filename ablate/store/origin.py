"""The file that a study of a store is from.

One file may be seen by several paths, may move and be edited, and two may have the same study name.
"""

import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablate import descriptors
from ablate.errors import RefusedError
from ablate.messages import show
from ablate.recipe import networks
from ablate.store import records
from ablate.store.records import KeptOrigin
from ablate.study.file import Study

SETS = "\n# --set "  # before each `--set` below the text of a file
SHOWN = 3  # differences named in one sentence


@dataclass(frozen=True, slots=True)
class Origin:
    """A study file as it was last run."""

    file: str = ""  # absolute; an older version recorded it as it was typed
    place: str = (
        ""  # relative to the store, as both may move or be mounted elsewhere; empty: an older version
    )
    host: str = ""


def of(study: Study, store: Path) -> Origin | None:
    """Return the file of a study; None for a study of the store."""
    if not study.folder:
        return None
    if (kept := submitted(Path(study.folder), store)) is not None:
        return kept
    path = os.path.realpath(Path(study.folder) / Path(study.source).name)
    return Origin(path, os.path.relpath(path, os.path.realpath(store)), socket.gethostname())


def submitted(folder: Path, store: Path) -> Origin | None:
    """Return the file that a submission in a folder of the queue was read from; None for other folders."""
    if os.path.realpath(folder.parent) != os.path.realpath(store / "queue"):
        return None
    kept = records.read(folder / "origin.json", KeptOrigin)
    if kept is not None:
        return Origin(kept.file, kept.place, kept.host)
    path = os.path.realpath(sent(store))
    return Origin(path, os.path.relpath(path, os.path.realpath(store)), socket.gethostname())


def sent(store: Path) -> Path:
    """Return the folder, which never exists, of the studies that are sent to a service, without a file."""
    return store / "queue" / "sent"


def is_same(old: Origin, new: Origin, store: Path) -> bool:
    """Whether two origins are one file: by path, by place beside the store, or on disk (links and mounts)."""
    if old.file == new.file or (old.place and old.place == new.place):
        return True
    return any(_is_one_file(path, Path(new.file)) for path in _paths(old, store))


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _paths(old: Origin, store: Path) -> Iterator[Path]:
    if old.place:
        yield Path(os.path.normpath(Path(os.path.realpath(store)) / old.place))
        yield Path(old.file)
    elif old.file:  # relative to an unknown folder: the usual ones are tried
        yield from dict.fromkeys((Path(old.file).absolute(), store.parent / old.file))


def standing(old: Origin, store: Path) -> tuple[Literal["there", "gone", "unknown"], Path]:
    """Return whether the file is still there, and its path.

    Unknown where it is on another machine, or in folders that may not be read.
    """
    state: Literal["gone", "unknown"] = "gone" if old.host == socket.gethostname() else "unknown"
    for path in _paths(old, store):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            state = "unknown"
            continue
        return "there", path
    return state, Path(old.file)


def has_let_go(path: Path, name: str, text: str) -> bool:
    """Whether a file whose study once had this name (`text`: as it was run) now has another name."""
    return _name(text.split(SETS, maxsplit=1)[0]) == name != _name(_read(path) or text)


def is_text(path: Path, study: Study) -> bool:
    """Whether a file now has the text that a study was read from."""
    return _read(path) == study.text.split(SETS)[0]


def _read(path: Path) -> str:
    try:
        return descriptors.read(path).decode("utf-8-sig")  # whatever the store names: perhaps a pipe
    except (OSError, UnicodeDecodeError, RefusedError):
        return ""


def _name(text: str) -> object:
    try:
        return tomllib.loads(text).get("name")
    except ValueError:
        return None


def is_alike(old: Mapping[str, Any], old_text: str, new: Study) -> bool:
    """Whether a file equals the study as last run, seeds and `--set`s aside: a copy changes nothing."""
    return old_text.split(SETS, maxsplit=1)[0] == new.text.split(SETS)[0] or not differences(old, new.raw)


def roots_beside(study: Study) -> tuple[str, ...]:
    """Return the folders of images that a study names relative to its file."""
    return tuple(dict.fromkeys(given for path, given in _named(study) if _is_beside(path, given)))


def has_neighbours(study: Study) -> bool:
    """Whether a study names images or networks beside its file: a copy of its text elsewhere means others."""
    return bool(networks_of(study) or roots_beside(study))


def networks_of(study: Study) -> tuple[str, ...]:
    """Return the user's own networks that a study names."""
    named = (given for path, given in _named(study) if path == "model.name" and networks.OWN.fullmatch(given))
    return tuple(dict.fromkeys(named))


def _named(study: Study) -> list[tuple[str, str]]:
    """Return each text that a study gives a field, with the field's path."""
    tried = study.search.space.items() if study.search else ()
    searched = [(path, given) for path, one in tried for given in one.choices or ()]
    named = [
        *study.base.items(),
        *(item for factor in study.factors for level in factor.levels for item in level.set.items()),
        *searched,
    ]
    return [(path, given) for path, given in named if isinstance(given, str)]


def _is_beside(path: str, given: str) -> bool:
    return path == "data.root" and given not in ("", "none") and not given.startswith(("/", "~"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences of two studies, seeds aside: `training.epochs 6 -> 12`."""
    before, after = (
        dict(_flat({key: part for key, part in raw.items() if key != "seeds"})) for raw in (old, new)
    )
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [f"{path} {_shown(before, path)} -> {_shown(after, path)}" for path in paths]


def _shown(table: Mapping[str, Any], path: str) -> str:
    return show(table[path]) if path in table else "not given"


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in table.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{path}{key}.")
        else:
            yield f"{path}{key}".removeprefix("recipe."), part
