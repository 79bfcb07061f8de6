"""What a process does to the files below a folder, and every state in which a power cut may leave them.

The model is POSIX's, which promises less than any file system keeps: the bytes of a file are safe once it was
synced, its name once its folder was. Whatever came after that may be there or not, in any order.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pytest

Kind = Literal["create", "write", "fsync", "rename", "unlink", "mkdir"]
Mode = Literal["kept", "dropped", "torn"]
FEW = 4  # changes of names of which every subset is tried


@dataclass(frozen=True)
class Op:
    """One thing that was done."""

    kind: Kind
    path: str  # as it is called at that time
    file: int = -1  # of folders: none; a folder that is renamed takes along what is in it
    to: str = ""  # of a rename
    content: bytes = b""  # of a write: of the whole file

    @property
    def folder(self) -> str:
        return "" if os.sep not in self.path else self.path.rpartition(os.sep)[0]

    @property
    def is_naming(self) -> bool:
        return self.kind in ("create", "rename", "unlink", "mkdir")


@dataclass
class Disk:
    """What was done below a folder, in order."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)

    def inside(self, path: object) -> str | None:
        """Return a path as seen from the root, or none where it is not below it."""
        text = str(Path(path).absolute()) if isinstance(path, str | os.PathLike) else ""
        return os.path.relpath(text, self.root) if text.startswith(f"{self.root}{os.sep}") else None

    def look(self) -> None:
        """Note what was written, and under which new names, since the last look."""
        for path in sorted(path for path in self.root.rglob("*") if path.is_file()):
            name, content = str(path.relative_to(self.root)), path.read_bytes()
            if name not in self.names:
                self.names[name] = len(self.contents)
                self.contents[self.names[name]] = b""
                self.ops.append(Op("create", name, self.names[name]))
            file = self.names[name]
            if content != self.contents[file]:
                self.contents[file] = content
                self.ops.append(Op("write", name, file, content=content))

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what is about to happen."""
        if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
            return
        name = self.inside(arguments[0] if event == "open" else whole(arguments[0], arguments[-1]))
        if name is None or (event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            return
        self.look()
        if event == "os.rename":
            to, file = self.inside(whole(arguments[1], arguments[3])), self.names.pop(name, -1)
            assert to is not None
            self.ops.append(Op("rename", name, file, to))
            if file < 0:
                self.names = {moved(path, name, to): one for path, one in self.names.items()}
            else:
                self.names[to] = file
        elif event == "os.remove" and name in self.names:
            self.ops.append(Op("unlink", name, self.names.pop(name)))
        elif event == "os.mkdir" and not (self.root / name).exists():
            self.ops.append(Op("mkdir", name))

    def synced(self, descriptor: int) -> None:
        """Note that a file or a folder is synced."""
        about = os.fstat(descriptor)
        for path in (self.root, *self.root.rglob("*")):
            if os.path.samestat(path.stat(), about):
                self.look()
                name = "" if path == self.root else str(path.relative_to(self.root))
                self.ops.append(Op("fsync", name, self.names.get(name, -1)))
                return


def moved(path: str, old: str, new: str) -> str:
    """Return a path after a folder on it has got another name."""
    return f"{new}{path.removeprefix(old)}" if f"{path}{os.sep}".startswith(f"{old}{os.sep}") else path


def whole(path: object, folder: object) -> object:
    """Return the whole path of a name in a folder, by the descriptor that audit events have of it."""
    if not isinstance(folder, int) or folder < 0 or not isinstance(path, str | os.PathLike):
        return path
    return Path(f"/proc/self/fd/{folder}").readlink() / path


@contextmanager
def recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Record what this process does below a folder."""
    disk, is_on = Disk(root), True
    lock, looking = threading.RLock(), threading.local()
    plain, rename, unlink = os.fsync, os.rename, os.unlink

    def note(what: Callable[..., None], *arguments: Any) -> None:
        """Note what one thread does while the others wait; looking opens files, too."""
        if is_on and not getattr(looking, "is_on", False):
            with lock:
                looking.is_on = True
                try:
                    what(*arguments)
                finally:
                    looking.is_on = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        note(disk.hear, event, arguments)

    def fsync(descriptor: int) -> None:
        plain(descriptor)
        note(disk.synced, descriptor)

    def alone(do: Callable[..., None], *arguments: Any, **more: Any) -> None:
        """Change a name with nobody looking between what is noted and what is done."""
        with lock:
            do(*arguments, **more)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", partial(alone, rename))
    monkeypatch.setattr(os, "unlink", partial(alone, unlink))
    sys.addaudithook(hook)
    try:
        yield disk
        disk.look()
    finally:
        is_on = False
        monkeypatch.undo()


State = dict[str, bytes]  # content by path; of a folder that is empty nothing


def after_power_cuts(ops: list[Op], ignored: Callable[[str], bool]) -> Iterator[State]:
    """Return every state in which a power cut may leave the files, each once.

    `ignored`: a path that makes no difference, of which nothing is lost.
    """
    seen: set[frozenset[tuple[str, bytes]]] = set()
    for end in range(len(ops) + 1):
        done = ops[:end]
        naming = [i for i, op in enumerate(done) if op.is_naming and not ignored(op.to or op.path)]
        pending = [
            i for i in naming if not any(op.kind == "fsync" and op.path == done[i].folder for op in done[i:])
        ]
        for lost in _losses(pending):
            for mode in ("kept", "dropped", "torn"):
                state = _state(done, lost, mode, ignored)
                key = frozenset((path, content) for path, content in state.items() if not ignored(path))
                if key not in seen:
                    seen.add(key)
                    yield state


def _losses(pending: list[int]) -> Iterator[frozenset[int]]:
    """Return which changes of names may be lost: all subsets of a few.

    Of many the last ones, one, or all but one.
    """
    if len(pending) <= FEW:
        yield from (frozenset(lost) for n in range(len(pending) + 1) for lost in combinations(pending, n))
        return
    for i, op in enumerate(pending):
        yield from (frozenset(pending[i:]), frozenset({op}), frozenset(pending) - {op})
    yield frozenset()


def _state(done: list[Op], lost: frozenset[int], mode: Mode, ignored: Callable[[str], bool]) -> State:
    names: dict[str, int] = {}
    folders, now, safe = {""}, dict[int, bytes](), dict[int, bytes]()
    for i, op in enumerate(done):
        if op.kind == "write":
            now[op.file] = op.content
        elif op.kind == "fsync" and op.file >= 0:
            safe[op.file] = now.get(op.file, b"")
        elif i in lost:
            continue
        elif op.kind == "create":
            names[op.path] = op.file
        elif op.kind == "mkdir":
            folders.add(op.path)
        elif op.kind == "rename" and op.file < 0:
            names = {moved(path, op.path, op.to): file for path, file in names.items()}
            folders = {moved(path, op.path, op.to) for path in folders}
        else:
            _name(names, op)
    there = {path: file for path, file in names.items() if _parents(path) <= folders}
    return {
        path: now.get(file, b"") if ignored(path) else _left(now.get(file, b""), safe.get(file, b""), mode)
        for path, file in there.items()
    }


def _name(names: dict[str, int], op: Op) -> None:
    """Remove the name of a file; of one that is renamed, put the other one there."""
    if names.get(op.path) == op.file:
        del names[op.path]
    if op.kind == "rename":
        names[op.to] = op.file


def _parents(path: str) -> set[str]:
    return {str(parent) for parent in Path(path).parents if str(parent) != "."}


def _left(now: bytes, safe: bytes, mode: Mode) -> bytes:
    """Return what is left of a file: all of it, what was synced, or half of the rest, too."""
    if mode == "kept" or now == safe:
        return now
    return safe if mode == "dropped" else now[: len(safe) + (len(now) - len(safe)) // 2]


def lay_out(state: State, root: Path) -> None:
    """Write a state."""
    root.mkdir(parents=True)
    for name, content in state.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
