"""How a task works where the store is not seen: its files go there, and what it writes comes back.

The coordinator holds the lock and the lease of the task's folder meanwhile, and writes what comes by the
store's own writers. Files travel under names of a fixed list, and the list makes the paths; a name that is
not on it is refused. They are read there in the opposite order of how a worker writes them, and written here
in that order: so what stands here at any time is what a kill of a worker in this folder may have left, and
resumes to the same result.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ablate import descriptors, places
from ablate.errors import AblateError, RefusedError
from ablate.execution.executors.base import Files
from ablate.recipe import identity, networks, user_code
from ablate.recipe.datasets import is_folder
from ablate.recipe.fields import Data, Recipe
from ablate.store import files, job_folder, tasks
from ablate.store import lease as leases
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.store.lease import LeaseLostError, Watch
from ablate.store.tasks import ProbeTask, RangeTask, TrainTask

LOG, THERE, CODE, START = "log.txt", "there", "code/", "start.pt"
TRAINING = (
    "best.pt", "last.pt", "previous.pt", "checkpoint.pt", "journal.jsonl", "attempts.jsonl",
    "environment.json", "model.json", "result.json", "failure.json",
)  # fmt: skip
"""What a worker writes while it trains, in its order: what speaks of other files stands after them."""
RETRACTED = ("result.json", "failure.json")  # by a worker, before it writes others
SPARE = ("checkpoint.pt", "previous.pt")  # removed by a worker once the result stands
LIMITS = 1000, 16 << 20  # files and bytes of a user's own code
_watches: dict[str, Watch] = {}  # of folders that another machine's process has


# The coordinator's end


@dataclass(slots=True)
class Trip:
    """A task that works elsewhere, and our hold of its folder."""

    files: Files  # that it needs there
    _paths: dict[str, Path]
    _log: Path
    _held: ExitStack
    _lease: leases.Lease | None  # none: it has no folder of its own

    def receive(self, content: Files) -> None:
        """Write what has come. Raises an AblateError where another process has the folder by now."""
        try:
            if self._lease is not None:
                self._lease.check()
        except LeaseLostError as error:
            raise AblateError(str(error)) from None
        there = content.pop(THERE, b"").decode().split("\n")
        if unknown := content.keys() - self._paths.keys() - {LOG}:
            raise RefusedError(f"{self._log.parent}: no task writes a file {min(unknown)!r}")
        if LOG in content:
            _append(self._log, content[LOG])
        is_over = "result.json" in there
        _remove(self._paths, [name for name in RETRACTED if name not in there])
        for name, path in self._paths.items():
            if name in content:
                keep = self._paths.get("previous.pt") if name == "checkpoint.pt" else None
                files.write(path, content[name], keep=keep, durable=is_over or name == "best.pt")
        _remove(self._paths, [name for name in SPARE if is_over and "checkpoint.pt" not in there])

    def end(self) -> None:
        """Let go of the folder."""
        self._held.close()


def depart(payload: Json) -> Trip | None:
    """Take hold of a task's folder, and read what it needs elsewhere; None while another process has it."""
    task = tasks.from_json(payload)
    folder = _folder(task)
    with ExitStack() as stack:
        lease = None if isinstance(task, ProbeTask) else _hold(folder, stack)
        if lease is None and not isinstance(task, ProbeTask):
            return None
        paths = _paths(task)
        content = {name: files.read(path) for name, path in paths.items() if files.is_there(path)}
        if (start := _start(task)) is not None and files.is_there(start):
            content[START] = files.read(start)
        return Trip(content | _code(task, folder), paths, _log(task), stack.pop_all(), lease)
    return None


def _folder(task: TrainTask | RangeTask | ProbeTask) -> Folder:
    return Folder(task.log.parent if isinstance(task, ProbeTask) else task.folder)


def _remove(paths: dict[str, Path], names: Iterable[str]) -> None:
    for name in names:
        if name in paths:
            descriptors.remove(paths[name])


def _hold(folder: Folder, stack: ExitStack) -> leases.Lease | None:
    """Take lock and lease of a folder, and renew the lease until the stack is closed."""
    lock, watch = folder.lock(), _watches.setdefault(str(folder.path), Watch(folder.path))
    try:
        files.acquire(lock, 0)
    except Timeout:
        return None
    stack.callback(lock.release)
    lease = watch.take(has_lock=lock.is_locked)
    if lease is not None:
        del _watches[str(folder.path)]
        stack.enter_context(leases.renewing(lease))
    return lease


def _paths(task: TrainTask | RangeTask | ProbeTask) -> dict[str, Path]:
    """Return the files that travel, by their names on the way, in the order in which a worker writes them."""
    if isinstance(task, ProbeTask):
        return {}
    folder = Folder(task.folder)
    if isinstance(task, RangeTask):
        return {"curve": task.curve, "failure.json": folder.failure}
    names = {"recipe.json": folder.recipe} | {name: folder.path / name for name in TRAINING}
    for short in sorted({*_evaluations(task), *descriptors.names(folder.path / "outcomes")}):
        if len(short) == identity.ID_SHOWN and short.isalnum():
            for part in job_folder.PARTS:
                names[f"{short}/{part}"] = folder.path / "outcomes" / short / part
    return names


def _start(task: TrainTask | RangeTask | ProbeTask) -> Path | None:
    """Return the weights of another job that a training starts from."""
    return task.start if isinstance(task, TrainTask) else None


def _evaluations(task: TrainTask) -> Iterator[str]:
    """Return the short identities of the ways in which a job is to be evaluated."""
    recipe = _recipe(task, Folder(task.folder)) or Recipe()
    for evaluation in task.evaluations:
        way = recipe.model_copy(update={"evaluation": evaluation})
        yield identity.evaluation_id(way)[: identity.ID_SHOWN]


def _append(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with files.writing(path), os.fdopen(descriptors.open_file(path, flags), "ab") as log:
        log.write(content)


def _recipe(task: TrainTask | RangeTask | ProbeTask, folder: Folder) -> Recipe | None:
    if not isinstance(task, TrainTask):
        return task.recipe
    description = job_folder.read_description(folder)
    return None if description is None else description.parsed()


def _code(task: TrainTask | RangeTask | ProbeTask, folder: Folder) -> Files:
    """Return the files of a user's own network: its module and those beside it, or its whole package."""
    recipe, folders = _recipe(task, folder), task.context.code
    if recipe is None or folders is None or not networks.is_own(recipe.model.name):
        return {}
    path = user_code.find(recipe.model.name, folders)
    depth = recipe.model.name.partition(":")[0].count(".")
    if path is None or not any(path.is_relative_to(folder) for folder in folders):
        return {}  # installed, there too
    above = path.parents[depth] if path.name != "__init__.py" else path.parents[depth + 1]
    inside = (above / path.relative_to(above).parts[0]).rglob("*.py") if depth else []
    modules = sorted({*above.glob("*.py"), *inside})
    size = sum(module.stat().st_size for module in modules)
    if len(modules) > LIMITS[0] or size > LIMITS[1]:
        raise AblateError(
            f"{above}: {len(modules)} modules of {size / 1e6:.0f} MB are too much to send to a node for "
            f"{recipe.model.name}: put it into a folder of its own, or the store where all nodes see it"
        )
    return {f"{CODE}{module.relative_to(above).as_posix()}": module.read_bytes() for module in modules}


# The end where the task works


@dataclass(slots=True)
class Stay:
    """A task in a folder of this machine, and what of it the coordinator has seen."""

    payload: Json
    _paths: dict[str, Path]
    _log: Path
    _seen: dict[str, tuple[int, int, int]]
    _there: str = ""
    _logged: int = 0

    def changes(self) -> Files:
        """Return the files that are new, read from the last that a worker writes to the first."""
        content: Files = {}
        there = []
        for name, path in reversed(self._paths.items()):
            if name == "previous.pt":  # the coordinator keeps its own
                continue
            with suppress(FileNotFoundError):
                if (mark := _mark(path)) != self._seen.get(name):
                    content[name] = files.read(path)
                    self._seen[name] = mark
                there.append(name)
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(self._logged)
            if written := log.read():
                content[LOG] = written
                self._logged += len(written)
        if content or "\n".join(there) != self._there:
            self._there = "\n".join(there)
            content[THERE] = self._there.encode()
        return content


def arrive(payload: Json, content: Files, folder: Path) -> Stay:
    """Unpack a task's files below a folder of this machine, where nothing is left of an earlier task."""
    task = tasks.from_json(payload)
    store, root = Path(task.context.store), folder / "store"
    with suppress(FileNotFoundError):
        descriptors.remove_folder(root)
    descriptors.make(root)
    update: dict[str, Any] = {
        name: root / Path(getattr(task, name)).relative_to(store)
        for name in ("folder", "curve", "log", "start")
        if getattr(task, name, None) is not None
    }
    context = {"store": str(root), "compile_cache": str(places.cache() / "compiled")}
    moved = task.model_copy(update=update | {"context": task.context.model_copy(update=context)})
    files.make(_folder(moved).path, durable=False)
    if "recipe.json" in content:
        files.write(_folder(moved).recipe, content["recipe.json"], durable=False)
    if START in content and (start := _start(moved)) is not None:
        files.make(start.parent, durable=False)
        files.write(start, content[START], durable=False)
    paths = _paths(moved)
    for name in paths.keys() & content.keys() - {"recipe.json"}:
        files.write(paths[name], content[name], durable=False)
    seen = {name: _mark(paths[name]) for name in paths.keys() & content.keys()}
    stay = Stay(moved.to_json(), paths, _log(moved), seen)
    if modules := {name: text for name, text in content.items() if name.startswith(CODE)}:
        _unpack(modules, root)
        code = (str(root / "code"), *(task.context.code or ())[1:])
        stay.payload["context"]["code"] = code
    return stay


def _mark(path: Path) -> tuple[int, int, int]:
    """Return what changes with a file."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _log(task: TrainTask | RangeTask | ProbeTask) -> Path:
    return task.log if isinstance(task, ProbeTask) else Folder(task.folder).log


def _unpack(modules: Files, root: Path) -> None:
    """Write a user's own modules."""
    for name, text in modules.items():
        path = root / name
        if ".." in path.parts or not path.is_relative_to(root / "code"):
            raise RefusedError(f"{name!r}: leads out of the folder of modules")
        files.write(path, text, durable=False)


def work(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Run a task that was unpacked here, with the images that this machine has."""
    from ablate.execution import worker

    task = tasks.from_json(payload)
    recipe = _recipe(task, _folder(task))
    images = _images(task.data, None if recipe is None else recipe.data, report)
    return worker.work(payload | {"data": str(images)}, report, should_stop)


def _images(planned: Path, section: Data | None, report: Callable[[Json], None]) -> Path:
    """Return the folder of the decoded images that a task was planned with.

    They are looked for under the same path, and in the user's cache, where they are decoded once if that is
    possible here. Raises an AblateError where these very images cannot be had.
    """
    from ablate.training import data

    cache = places.cache() / "decoded"
    for folder in (planned, cache / planned.name):
        if data.is_whole(folder):
            return folder
    reason = "those of a folder are decoded by the coordinator alone"
    if section is not None and not is_folder(section.name):
        report({})
        try:
            prepared = data.prepare(section, cache)
        except AblateError as error:
            reason = str(error)
        else:
            if prepared.folder.name == planned.name:
                return prepared.folder
            reason = "those that are decoded here differ"
    raise AblateError(
        f"{os.uname().nodename} does not have the images of this job ({reason}): copy {planned} there, as "
        f"the same path or into {cache}"
    )
