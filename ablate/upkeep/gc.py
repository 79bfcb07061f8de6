"""What nothing in a store refers to, and its removal.

A folder is first renamed to a name that nothing looks for, so that a kill leaves it whole, or as a leftover
for the next removal; never half a job. Links are neither followed nor removed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import Timeout

from ablate import descriptors
from ablate.errors import AblateError, RefusedError, StoreError
from ablate.messages import show
from ablate.planning.references import IDENTITY, Needs, first_line
from ablate.recipe import identity
from ablate.store import files, job_folder, lease, study_folder
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.upkeep import leftovers
from ablate.upkeep.leftovers import CHECKPOINTS
from ablate.upkeep.locks import holders

Kind = Literal["job", "search", "range test", "images", "checkpoint", "draft"]


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be removed."""

    kind: Kind
    path: Path
    size: int  # bytes
    why: str
    seconds: float = 0.0  # of training that it took


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of a removal."""

    items: tuple[Item, ...]
    kept: tuple[tuple[Path, str], ...]  # what could not be removed, and why


def check(store: Store, needs: Needs) -> None:
    """Raise a StoreError where it cannot be decided what is garbage."""
    if not (store.path / "jobs").is_dir():
        hint = study_folder.hint(store) or "name one with --store DIR"
        raise StoreError(f"{store.path} must be a store, and there are no jobs: {hint}")
    if needs.unclear:
        name, reason = next(iter(needs.unclear.items()))
        do = f"Run that study again or, where it can go, remove its folder in {store.path / 'studies'}"
        if name in needs.hidden:
            do = "Ask its owner for the right to read it, or to run ablate gc"
        raise StoreError(
            f'{store.path}: nothing is removed, as the jobs of the study "{name}" cannot be named: '
            f"{reason}. {do}"
        )
    if not needs.studies:
        raise StoreError(
            f"{store.path} has no study, so every job would be removed: remove the folder itself if that "
            "is meant"
        )


def check_idle(store: Store, ours: Iterable[Path] = ()) -> None:
    """Raise a StoreError where another process works in the store; `ours`: the locks that this one holds."""
    for held in holders(store):
        if held.lock not in ours:
            raise StoreError(
                f"{store.path}: nothing is removed while a process works there, on {held.words}: wait for "
                "it, or stop it first"
            )


def find(store: Store, needs: Needs) -> tuple[Item, ...]:
    """Return what nothing refers to."""
    return (
        *_jobs(store, needs),
        *_tuning(store, needs),
        *_images(store, needs),
        *_checkpoints(store, needs),
        *_drafts(store),
    )


def _folders(store: Store, part: str) -> Iterator[Path]:
    """Return the folders of one part of a store whose name is an identity; none where that part is a link."""
    parent = store.path / part
    if parent.is_symlink() or not parent.is_dir():
        return
    yield from (
        path
        for path in sorted(parent.iterdir())
        if IDENTITY.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _jobs(store: Store, needs: Needs) -> Iterator[Item]:
    for path in _folders(store, "jobs"):
        if path.name not in needs.jobs:
            yield Item("job", path, leftovers.size(path), _why(Folder(path)), _seconds(Folder(path)))


def _why(folder: Folder) -> str:
    try:
        description = job_folder.read_description(folder)
        if description is None:
            return "has no recipe.json: what it trains is unknown"
        numerics = description.numerics
    except SPOILT:
        return "its recipe.json cannot be read"
    if numerics != identity.NUMERICS:
        return f"trained under numerics {numerics}, and this version trains it anew"
    studies = [attempt.study for attempt in job_folder.read_attempts(folder) if attempt.study]
    trained = f"; trained for {show(studies[-1])}" if studies else ""
    return f"{'' if folder.result.exists() else 'not finished, and '}no study needs it{trained}"


def _seconds(folder: Folder) -> float:
    """Return the seconds of all epochs of a job."""
    try:
        return float(sum(line.seconds for line in job_folder.read_epochs(folder)))
    except SPOILT:
        return 0.0


def _tuning(store: Store, needs: Needs) -> Iterator[Item]:
    parts: tuple[tuple[Kind, str, frozenset[str]], ...] = (
        ("search", "searches", needs.searches),
        ("range test", "ranges", needs.ranges),
    )
    for kind, part, needed in parts:
        for path in _folders(store, part):
            if path.name not in needed:
                yield Item(kind, path, leftovers.size(path), "no study asks for it")


def _images(store: Store, needs: Needs) -> Iterator[Item]:
    for path in _folders(store, "data"):
        if path.name not in needs.data:
            yield Item(
                "images",
                path,
                leftovers.size(path),
                "decoded for no study that is here; decoded again where one needs them",
            )


def _checkpoints(store: Store, needs: Needs) -> Iterator[Item]:
    for path in _folders(store, "jobs"):
        if path.name not in needs.jobs or not Folder(path).result.exists():
            continue
        for checkpoint in (path / name for name in CHECKPOINTS):
            if checkpoint.is_file() and not checkpoint.is_symlink():
                yield Item("checkpoint", checkpoint, leftovers.size(checkpoint), "its training has ended")


def _drafts(store: Store) -> Iterator[Item]:
    for path in leftovers.drafts(store):
        why = (
            "its removal was cut short"
            if path.name.endswith(leftovers.GONE)
            else "its process was killed before it was whole"
        )
        yield Item("draft", path, leftovers.size(path), why)


@contextmanager
def alone(store: Store, names: Iterable[str]) -> Iterator[frozenset[str]]:
    """Hold every study, and the decoding of images, so that none of them begins.

    Yields the names of the studies' folders. Raises a StoreError where a process works in the store.
    """
    there = frozenset(_studies(store))
    named = {store.study(name).name for name in names}
    # Of studies that never came to be trained.
    others = [store.path / "studies" / name / "lock" for name in there - named]
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(study_folder.hold(store, name))
        try:
            for lock in (store.data / "lock", *others):
                stack.enter_context(files.lock(lock).acquire(timeout=0))
        except Timeout:
            raise StoreError(
                f"{store.path}: nothing is removed while a process works there: wait for it, or stop it first"
            ) from None
        check_idle(store, {store.data / "lock", *others, *(store.study(name) / "lock" for name in names)})
        yield there


def remove(items: Iterable[Item], store: Store, studies: frozenset[str]) -> Removed:
    """Remove items, one after another; the caller holds the `studies` that `alone` has yielded.

    Raises an AblateError as soon as a new study appears: it may need the next item.
    """
    removed: list[Item] = []
    kept: list[tuple[Path, str]] = []
    for item in items:
        if _studies(store) != studies:
            raise AblateError(
                f"{store.path}: a new study has begun; {len(removed)} were removed before: start ablate gc "
                "again after it"
            )
        try:
            _remove(item)
            removed.append(item)
        except Timeout:
            kept.append((item.path, "a process holds it"))
        except RefusedError as error:
            kept.append((item.path, first_line(error)))
        except OSError as error:
            kept.append((item.path, first_line(error)))
    return Removed(tuple(removed), tuple(kept))


def _studies(store: Store) -> set[str]:
    return {path.name for path in (store.path / "studies").iterdir() if path.is_dir()}


def _remove(item: Item) -> None:
    if item.kind == "job":
        if lease.is_held_elsewhere(item.path):
            raise Timeout(str(item.path))
        with Folder(item.path).lock().acquire(timeout=0):
            _remove_folder(item.path)
    elif item.path.is_dir() and not item.path.is_symlink():
        _remove_folder(item.path)
    else:
        descriptors.remove(item.path)


def _remove_folder(path: Path) -> None:
    gone = path
    if not path.name.endswith(leftovers.GONE):
        gone = leftovers.doomed(path)
        if gone.exists():
            descriptors.remove_folder(gone)
        descriptors.rename(path, gone.name)
    descriptors.remove(Folder(gone).result)  # first: a job with a result is a whole one
    descriptors.remove_folder(gone)


def counts(items: Iterable[Item]) -> dict[tuple[Kind, str], tuple[int, int, float]]:
    """Return the number of items, their bytes and seconds of training, by kind and reason."""
    number: Counter[tuple[Kind, str]] = Counter()
    size: Counter[tuple[Kind, str]] = Counter()
    seconds: dict[tuple[Kind, str], float] = {}
    for item in items:
        key = item.kind, item.why
        number[key] += 1
        size[key] += item.size
        seconds[key] = seconds.get(key, 0.0) + item.seconds
    return {key: (number[key], size[key], seconds[key]) for key in number}
