"""What is being worked on in a store: the locks that living processes hold, read without changing a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablate.errors import RefusedError
from ablate.recipe import identity
from ablate.store import files, study_folder
from ablate.store.layout import Store

LOCKS: dict["Kind", str] = {
    "study": "studies/*/lock", "search": "searches/*/lock", "range test": "ranges/*/*/lock",
    "job": "jobs/*/lock", "data": "data/lock",
}  # fmt: skip
"""Where each kind of work has its lock, as a pattern below the store."""

Kind = Literal["study", "search", "range test", "job", "data"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Something that a process works on; in words, such as: study "x" by process 12 on host."""

    kind: Kind
    lock: Path
    words: str


def holders(store: Store) -> Iterator[Holder]:
    """Return what is worked on now."""
    for kind, pattern in LOCKS.items():
        for lock in sorted(store.path.glob(pattern)):
            if _is_held(lock):
                yield Holder(kind, lock, _words(kind, lock, store))


def _is_held(lock: Path) -> bool:
    try:
        return files.is_held(lock)
    except RefusedError:  # a link or a pipe, which nobody can hold; the doctor names it
        return False


def _words(kind: Kind, lock: Path, store: Store) -> str:
    if kind == "study":
        name = study_folder.name_of(lock.with_name("study.json"), store)
        return f'study "{name}" {study_folder.held_by(store, name)}'
    if kind == "data":
        return "images, which are being decoded"
    return f"{kind} {(lock.parent.parent if kind == 'range test' else lock.parent).name[: identity.ID_SHOWN]}"
