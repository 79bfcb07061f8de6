"""Whether every file is as ablate writes it: JSON, lists of lines, weights and checkpoints."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain, groupby
from pathlib import Path

from ablate import descriptors
from ablate.errors import RefusedError
from ablate.store import complaint, files, job_folder
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.training import data
from ablate.upkeep import leftovers
from ablate.upkeep.doctor.finding import Finding, Patient, can_read
from ablate.upkeep.leftovers import CHECKPOINTS, PARTS

LENGTH = 64  # of the name of a job, a search, a range test or a decoded set
SUFFIXES = (".json", ".jsonl", ".pt", ".npy", ".png")
ANEW = "remove its folder, and run its study again"
THAT = "remove that file"
RIGHTS = "ask its owner for the right to read it, such as chmod -R a+rX, or ask the doctor as that user"
AGAIN = "remove that file, and run its study again"
FROM_FILE = "remove the folder of that study, and run its study file again: its jobs are kept"

ADVICE: Mapping[str, str] = {
    "recipe.json": ANEW, "result.json": ANEW, "outcome.json": AGAIN, "failure.json": THAT,
    "study.json": FROM_FILE, "settled.json": FROM_FILE,
    "search.json": AGAIN, "trials.json": AGAIN, "range.json": AGAIN, "suggestion.json": AGAIN,
    "meta.json": "remove its folder: images are decoded again",
    "journal.jsonl": ANEW, "attempts.jsonl": "remove the bad lines of that file: it only lists attempts",
    "optuna.jsonl": "remove the folder of that search: the jobs of its trials are kept, and found again",
}  # fmt: skip
"""What to do where a file is not what it must be; any other file is removed."""


def _named(patient: Patient, suffix: str) -> Iterator[Path]:
    """Yield the files of a kind. The folder of a job is held meanwhile: each is opened from there."""
    jobs = f"{patient.store.path / 'jobs'}{os.sep}"

    def job(path: str) -> str:
        return path[: path.find(os.sep, len(jobs))] if path.startswith(jobs) else ""

    for folder, paths in groupby(_files(patient, suffix), job):
        with descriptors.holding(Path(folder)) if folder else nullcontext():
            yield from map(Path, paths)


def _files(patient: Patient, suffix: str) -> Iterator[str]:
    for entry in patient.entries:
        is_named = entry.name.endswith(suffix) and not entry.name.startswith(".")
        if is_named and entry.is_file(follow_symlinks=False) and can_read(entry):
            yield entry.path


def readable(patient: Patient) -> Iterator[Finding]:
    """Find what this user may not read: no other check reports on it."""
    beside = [path for path in (patient.store.path / "id", patient.store.database) if path.exists()]
    folders = [path for path in (patient.store.path / part for part in PARTS) if path.is_dir()]
    within = (entry for entry in patient.entries if not entry.is_symlink())
    every: tuple[Path | os.DirEntry[str], ...] = (*beside, *folders, *within)
    for path in every:
        if not can_read(path) and os.path.lexists(path):  # else a running job has just removed it
            says = "you may not read this, so nothing is said of it"
            yield Finding("readable", "problem", says, RIGHTS, patient.short(Path(path)))


def regular(patient: Patient) -> Iterator[Finding]:
    """Find links and special files, and files that are far too large: nothing of ours opens them."""
    start = len(str(patient.store.path)) + 1
    for entry in chain(leftovers.beside(patient.store), patient.entries):
        try:
            about = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        short = entry.path[start:]  # no Path, as there are a hundred thousand
        is_ours = short.partition(os.sep)[0] in PARTS
        says = descriptors.wrong(about) or (
            _other_kind(entry.name, short.count(os.sep), about) if is_ours else ""
        )
        if not says and is_ours and stat.S_ISREG(about.st_mode) and about.st_size > descriptors.SMALLEST:
            most = descriptors.limit(Path(entry.path))
            if about.st_size > most:
                says = f"is far larger than any such file that ablate writes, {most / 1e6:,.0f} MB"
        if says:
            what, _, do = says.partition(": ")
            yield Finding("regular", "problem", what, do or "remove it", short)


def _other_kind(name: str, depth: int, about: os.stat_result) -> str:
    """Return that what lies so many folders below the store is a folder and must be a file, or vice versa."""
    if stat.S_ISDIR(about.st_mode):
        is_files = name.endswith(SUFFIXES) or name in ("log.txt", "lock")
        return "is a folder, and must be a file: move it elsewhere" if is_files else ""
    is_folders = name in ("outcomes", "index") or (depth == 1 and len(name) == LENGTH)
    return "is a file, and must be a folder: remove it" if is_folders else ""


def json_files(patient: Patient) -> Iterator[Finding]:
    """Find JSON files that are not what their readers expect."""
    for path in _named(patient, ".json"):
        do = ADVICE.get(path.name, THAT)
        try:
            says = complaint.of(path.name, files.read(path))
        except (FileNotFoundError, RefusedError):  # a running job has just removed it; or as `regular` says
            continue
        except OSError as error:
            says = f"cannot be read ({error.strerror})"
            do = "mind its permissions and its disk: nothing says that it is wrong"
        if says:
            yield Finding("json", "problem", f"{path.name} {says}", do, patient.short(path))


def line_files(patient: Patient) -> Iterator[Finding]:
    """Find lines that are not JSON; a torn last one does not count, and is mended by the next write."""
    for path in _named(patient, ".jsonl"):
        do = ADVICE.get(path.name, THAT)
        try:
            *whole, rest = files.read(path).split(b"\n")
        except (FileNotFoundError, RefusedError):  # a running job has just removed it; or as `regular` says
            continue
        bad = [number for number, line in enumerate(whole, 1) if complaint.of(path.name, line)]
        if bad:
            says = f"{path.name} has lines that cannot be read, the first is line {bad[0]}"
            yield Finding("lines", "problem", says, do, patient.short(path))
        if rest:
            says = f"{path.name} has a torn last line: it counts as none, and the next attempt mends it"
            yield Finding("lines", "note", says, where=patient.short(path))


def weights(patient: Patient) -> Iterator[Finding]:
    """Find damaged checkpoints and weights.

    Checkpoints are read whole, to verify their checksums; weights only with --deep, else they are only
    checked for being cut off.
    """
    for path in _named(patient, ".pt"):
        is_checkpoint = path.name in CHECKPOINTS
        try:
            wrong = files.damage(path, deep=patient.deep or is_checkpoint)
        except (FileNotFoundError, RefusedError):  # a training that has just ended removes its checkpoint
            continue
        if wrong:
            earlier = "remove that file: the job goes on from an earlier checkpoint, or starts anew"
            do = earlier if is_checkpoint else ANEW
            yield Finding("weights", "problem", f"{path.name} {wrong}", do, patient.short(path))


def images(patient: Patient) -> Iterator[Finding]:
    """Find decoded images that are cut off: they count as not decoded, and are decoded again."""
    for path in sorted(patient.store.data.glob("[0-9a-f]*")):
        if len(path.name) != LENGTH or not (
            path.is_dir() and can_read(path) and all(map(can_read, path.iterdir()))
        ):
            continue  # another check reports it
        if complaint.of("meta.json", _content(path / "meta.json")):
            continue  # as above
        if not data.is_whole(path):
            says = "decoded images are cut off, or not what ablate decodes: the next run decodes them again"
            yield Finding("images", "problem", says, ADVICE["meta.json"], patient.short(path))


def _content(path: Path) -> bytes:
    try:
        return files.read(path)
    except SPOILT:
        return b""


def results(patient: Patient) -> Iterator[Finding]:
    """Find trainings that have ended and lack their weights, or lines for some of their epochs."""
    for path in patient.held():
        yield from _results(patient, Folder(path))


def _results(patient: Patient, folder: Folder) -> Iterator[Finding]:
    try:
        result = job_folder.read_result(folder)
        lines = files.read(folder.journal).count(b"\n") if folder.journal.exists() else 0  # bad ones, too
    except SPOILT:  # another check reports it
        return
    if result is None:
        return
    if result.status == "finished" and not folder.weights("last").exists():
        says = "a job has a result and no weights"
        yield Finding("results", "problem", says, ANEW, patient.short(folder.path))
    if lines < result.epochs:
        says = f"a job has a result of {result.epochs} epochs, and {lines} of them in its journal"
        yield Finding("results", "problem", says, ANEW, patient.short(folder.path))
