"""A store into which somebody else puts links and special files, and every command that looks into it.

As a program, `planting.py SHARED FOLDER KIND ...` plants each kind in place of each file, one by one.
"""

import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import command_client
from click.testing import CliRunner
from commands import ablate
from filelock import FileLock

MARKER = b"MARKER-of-a-private-file-5c1e"
ROOM = 700 << 20  # bytes of memory that the commands may take beyond what the libraries have
SPARSE = 1 << 30

STUDY = """
name = "small"
question = "Does it run?"
seeds = 1
metric = "test/accuracy"
min_effect = 0.01

[recipe]
data = { name = "digits", image_size = 16, train_size = 300, validation = 40 }
augment = { crop = "none", flip = false }
model = { name = "cnn4", width = 0.25, head_dropout = 0.2 }
training = { epochs = 2, batch_size = 20 }
optimizer = { name = "adam", lr = LR }

[factors]
FACTORS
"""
SEARCH = """
[search]
trials = 2
seeds = 1
sampler = "random"
space.optimizer.weight_decay = { low = 1e-6, high = 1e-2, log = true }
"""


def studies(folder: Path) -> tuple[Path, Path]:
    """Write two studies that share neither jobs nor images: one with a range test and a search."""
    small, hunt = folder / "small.toml", folder / "hunt.toml"
    factors = "model.batch_norm = [true, false]"
    small.write_text(STUDY.replace("LR", "0.003").replace("FACTORS", factors))
    text = STUDY.replace('"small"', '"hunt"').replace("LR", '"find"').replace("size = 16", "size = 17")
    hunt.write_text(text.replace("FACTORS", "evaluation.mc_dropout = [0, 2]") + SEARCH)
    return small, hunt


def pristine(shared: Path) -> Path:
    """Return a store in which both are finished: it is made once for all processes of the tests."""
    folder = shared / "two-studies"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir()
            for study in studies(folder):
                code, out, err = ablate("run", study, "--store", folder / "store", "--jobs", "2")
                assert (code, err) == (0, ""), out + err
            (folder / "done").touch()
    return folder / "store"


# Plants: each is put where a file was


def link(path: Path, private: Path) -> None:
    """A link to a private file that is read as well as the one of before, and is told by its marker."""
    kept = private / path.name
    kept.write_bytes(path.read_bytes() + MARKER)
    path.unlink()
    path.symlink_to(kept)


def pipe(path: Path, _private: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path, _private: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def empty(path: Path, _private: Path) -> None:
    path.write_bytes(b"")


def picture(path: Path, _private: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def folder(path: Path, _private: Path) -> None:
    path.unlink()
    path.mkdir()


def zeros(path: Path, _private: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, SPARSE)


def linked_folder(path: Path, private: Path) -> None:
    """A link to a private folder that has the same files, in place of the folder that a file is in."""
    inside = path.parent
    shutil.copytree(inside, private / "folder", symlinks=True)
    for file in (private / "folder").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes() + MARKER)
    shutil.rmtree(inside)
    inside.symlink_to(private / "folder")


KINDS: dict[str, Callable[[Path, Path], None]] = {
    one.__name__: one for one in (link, pipe, endless, empty, picture, folder, zeros, linked_folder)
}


SAME = re.compile("[0-9a-f]{8,}|[0-9]+|(?<=^artifacts/)(small|hunt)")
"""In which paths of a sort may differ."""


def places(store: Path, kind: str) -> list[list[Path]]:
    """Return each group of files that is replaced at once, seen from a store: one of a sort, then the others.

    Files of a sort have the same place but for ids and numbers: they differ in nothing that reads them. Of
    folders that are to be replaced, it is the first file. What MLflow keeps of both studies is of the same
    sort.
    """
    files = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file())
    if kind == "linked_folder":
        files = list({path.parent: path for path in files if len(path.parts) > 1}.values())
    sorts: dict[str, list[Path]] = {}
    for path in files:
        sorts.setdefault(SAME.sub("*", str(path)), []).append(path)
    others = [path for each in sorts.values() for path in each[1:]]
    return [[each[0]] for each in sorts.values()] + ([others] if others else [])


# Looking


def commands(store: Path, place: Path) -> dict[str, list[str]]:
    """Return every command that looks into the store, and those that write what is missing there.

    Of those some, where nothing else opens a file of that place.
    """
    job = min(path.name for path in (store / "jobs").iterdir() if path.is_dir())
    every = {
        "list": ["status"],
        "status": ["status", "small"],
        "hunt": ["status", "hunt"],
        "plan": ["plan", "small"],
        "report": ["report", "small", "--out", "OUT/page.html"],
        "json": ["report", "small", "--format", "json"],
        "compare": ["compare", "small", "hunt"],
        "logs": ["logs", job],
        "explain": ["explain", job],
        "doctor": ["doctor"],
        "gc": ["gc", "--dry-run"],
        "check": ["check", "small"],
        "sync": ["sync", "small"],
        "run": ["run", "small", "--jobs", "1"],
        "search": ["search", "hunt", "--jobs", "1"],
        "own report": ["report", "hunt"],
    }
    if place.parts[0] == "artifacts":
        return {name: every[name] for name in ("list", "doctor", "gc", "sync")}
    return every


WRITERS = ("sync", "run", "search", "own report")


class TooLongError(BaseException):
    """A command that hangs."""


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    def over(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def forget_connections() -> None:
    """Let MLflow open its database anew, as a new process does."""
    if "mlflow" in sys.modules:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        for engine in SqlAlchemyStore._engine_map.values():
            engine.dispose()
        SqlAlchemyStore._engine_map.clear()


def look(arguments: list[str], store: Path, out: Path, seconds: int = 60) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, what it printed, and what is wrong with that."""
    from ablate.cli import main

    asked = [text.replace("OUT", str(out)) for text in arguments]
    try:
        with watched(seconds):
            result = CliRunner().invoke(main, [*asked, "--store", str(store)])
    except TooLongError:
        return -1, "", "hangs"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        import traceback

        return -1, result.output, "".join(traceback.format_exception(*result.exc_info)[-4:])
    wrong = "" if result.exit_code in (0, 1, 2, 3) else f"exit code {result.exit_code}"
    if result.exit_code == 2 and not result.output.strip():
        wrong = "exit code 2 without a sentence"
    return result.exit_code, result.output, wrong


def snapshot(place: Path) -> dict[str, object]:
    """Return everything that lies in a folder."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else path.lstat().st_mode
        for path in sorted(place.rglob("*"))
        if not path.is_symlink()
    }


def leaks(place: Path) -> list[str]:
    """Return the regular files that have the marker of a private one."""
    return [
        str(path.relative_to(place))
        for path in place.rglob("*")
        if stat.S_ISREG(path.lstat().st_mode)
        and path.stat().st_size < SPARSE
        and MARKER in path.read_bytes()
        and not any(parent.is_symlink() for parent in path.parents)
    ]


Mark = tuple[int, int, int]
LAID: dict[Path, dict[str, Mark]] = {}
"""What lies in each store that was laid out, and marks by which a change of a file is seen."""


def marks(store: Path) -> dict[str, Mark]:
    """Return a mark of all that lies in a store; of a folder it does not tell what is in it."""
    seen = {}
    for folder, folders, files in os.walk(store):
        for name in (*folders, *files):
            about = os.lstat(f"{folder}/{name}")
            changed = 0 if stat.S_ISDIR(about.st_mode) else about.st_ctime_ns
            seen[os.path.relpath(f"{folder}/{name}", store)] = (about.st_mode, about.st_ino, changed)
    return seen


def lay_out(pristine: Path, store: Path) -> None:
    """Make a store as it was: all of it, and later on what has changed, since copies take longest."""
    before = LAID.get(store)
    if before is None or not store.exists():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(pristine, store)
        LAID[store] = marks(store)
        return
    for name, mark in sorted(marks(store).items(), reverse=True):  # what is in a folder before the folder
        if before.get(name) != mark:
            (store / name).rmdir() if stat.S_ISDIR(mark[0]) else (store / name).unlink()
    there = marks(store)
    for name in sorted(before.keys() - there.keys()):
        if stat.S_ISDIR(before[name][0]):
            (store / name).mkdir()
        else:
            shutil.copy2(pristine / name, store / name)
    LAID[store] = marks(store)


def plant(kind: str, pristine: Path, group: list[Path], store: Path, private: Path) -> None:
    """Lay the store out as it was, and plant something in place of files (seen from the store)."""
    shutil.rmtree(private, ignore_errors=True)
    lay_out(pristine, store)
    for number, place in enumerate(group):
        (private / str(number)).mkdir(parents=True)
        if not any(parent.is_symlink() for parent in (store / place).parents):
            KINDS[kind](store / place, private / str(number))
    forget_connections()


def tries(
    kind: str, pristine: Path, group: list[Path], store: Path, only: Collection[str] = ()
) -> Iterator[str]:
    """Plant something, and yield what is wrong with each command; those that write get it planted anew."""
    private, out = store.parent / "private", store.parent / "out"
    plant(kind, pristine, group, store, private)
    before, chosen = snapshot(private), commands(pristine, max(group))
    names = [name for name in chosen if not only or name in only]
    place = str(group[0]) if len(group) == 1 else f"{len(group)} files"
    for i, name in enumerate(names):
        out.mkdir(exist_ok=True)
        code, said, wrong = look(chosen[name], store, out)
        last = i + 1 == len(names) or names[i + 1] in WRITERS
        if MARKER.decode() in said:
            wrong = f"prints a private file: {said[:300]}"
        if last and (leaked := [*leaks(store), *leaks(out)]):
            wrong = f"it, or one before, copies a private file to {leaked}"
        if last and snapshot(private) != before:
            wrong = f"it, or one before, changes private files: {snapshot(private).keys() ^ before.keys()}"
        if wrong:
            yield f"{kind} in place of {place}: ablate {name} (exit code {code}): {wrong}"
        if name in WRITERS:
            plant(kind, pristine, group, store, private)


def moved(pristine: Path, store: Path, to: Path) -> None:
    """Copy a store to a folder, for its database of MLflow to be used in `store`."""
    shutil.copytree(pristine, to)
    with closing(sqlite3.connect(to / "mlflow.db")) as database:
        (old,) = database.execute("SELECT max(artifact_location) FROM experiments").fetchone()
        paths = (old.rpartition("/artifacts/")[0], store.as_uri())
        database.execute("UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", paths)
        database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", paths)
        database.commit()


def limit_memory() -> None:
    """Let this process take little more memory than its libraries have taken by now."""
    import mlflow  # noqa: F401
    import torch  # noqa: F401

    import ablate.workflow.run  # noqa: F401

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def openings(pristine: Path, store: Path) -> dict[str, set[str]]:
    """Return which files of the store, as it is, each command opens: paths, or names within open folders."""
    opened, is_on = set[str](), True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if is_on and event in ("open", "sqlite3.connect") and isinstance(arguments[0], str | os.PathLike):
            opened.add(os.fspath(arguments[0]).removeprefix(f"{store}/"))

    sys.addaudithook(hook)
    every: dict[str, set[str]] = {}
    for name, arguments in commands(pristine, Path("jobs")).items():
        plant("", pristine, [], store, store.parent / "private")
        opened.clear()
        look(arguments, store, store.parent)
        every[name] = set(opened)
    is_on = False  # a hook stays for ever
    return every


def share(names: list[str], group: list[Path], opened: dict[str, set[str]], kind: str, turn: int) -> set[str]:
    """Return the commands that are tried in one place, as all of them everywhere take too long.

    With a link all that open what is there, of the other kinds a third of them, another third in the next
    place and of the next kind. What a command does not open makes no difference to it: of those, two or one.
    """
    places = {str(path.parent) for path in group} if kind == "linked_folder" else set(map(str, group))
    bare = {Path(place).name for place in places}

    def opens(name: str) -> bool:
        if kind == "linked_folder":
            return any(path.startswith(f"{place}/") for place in places for path in opened[name])
        return not opened[name].isdisjoint(places | bare)

    opening = [name for name in names if opens(name)]
    others = [name for name in names if name not in opening] or opening
    if kind == "link":
        return {*opening, others[turn % len(others)], others[(turn + 1) % len(others)]}
    return {*opening[turn % 3 :: 3], others[turn % len(others)]}


def main(shared: Path, folder: Path, *kinds: str) -> None:
    """Print each kind with each thing that is wrong, and at its end with how many groups were tried."""
    command_client.SERVER.shared = shared
    command_client.lend_fork_servers()
    shutil.rmtree(folder, ignore_errors=True)
    store, copy = folder / "store", folder / "pristine"
    moved(pristine(shared), store, copy)
    opened = openings(copy, store)
    for kind in kinds:
        groups = places(copy, kind)
        for number, group in enumerate(groups):
            print(f"{kind}, {number} of {len(groups)}: {group[0]}", file=sys.stderr, flush=True)
            limit_memory()  # anew: what hundreds of commands in one process leave behind is no matter here
            names = list(commands(copy, max(group)))
            chosen = share(names, group, opened, kind, number + list(KINDS).index(kind))
            for wrong in tries(kind, copy, group, store, chosen):
                print(json.dumps([kind, wrong]), flush=True)
        print(json.dumps([kind, len(groups)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
