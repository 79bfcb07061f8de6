"""The folder of one job: every path in it, and the only code that reads or writes it. Journals are the truth.

    recipe.json       what is trained: written once, before the first attempt
    attempts.jsonl    a line when an attempt starts: number, time, process, device, study
    environment.json  commit, versions and machine of the last attempt
    model.json        the network: parameters, multiplications, receptive field, layers
    journal.jsonl     a line an epoch: epoch, timestamp, seconds, metrics
    checkpoint.pt     the state of the training; removed when it has ended
    previous.pt       the checkpoint before, should the other one be damaged
    last.pt, best.pt  weights after the last epoch, and of the best epoch by validation
    result.json       written last of the training: finished or diverged
    failure.json      why the last attempt failed; removed when another one starts
    outcomes/<id>/    one way of evaluating: outcome.json is written last
    log.txt           what the job printed, tracebacks included
    lock              held by the process that trains, and by any other that writes here
    lease-1           renewed by that process, for machines that locks do not reach; see lease.py

Every file but the two append-only ones is written beside itself and renamed, so that a kill at any instant
leaves the old file or the new one. A torn last line of the other two does not count. Nothing here depends on
the machine: a folder may be shared by several.

A power cut may undo whatever was not synced, in any order. Before result.json is written, all that it rests
on is synced (`finish`); before that, an older checkpoint is as good as a newer one, but never with the best
weights of another epoch, so that best.pt is durable before the checkpoint that speaks of it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ablate import descriptors
from ablate.recipe import identity
from ablate.store import files, lease, records
from ablate.store.files import DRAFT, Line
from ablate.store.records import Attempt, Epoch, Evaluation, Failure, JobRecipe, Result
from ablate.study.grid import Job

HARD: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in signature(FileLock.__init__).parameters else {}
)
"""No file stands in for a lock where the file system has none: it would outlive its process.

There a job has its lease alone.
"""

MISCLASSIFIED, CORRECT = "misclassified.png", "correct.png"
PARTS = (MISCLASSIFIED, CORRECT, "outcome.json")  # of an evaluation; whatever else lies there is not ours
LOOKS = 50  # at the lock of a folder without a recipe, of a tenth of a second each


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths of one job."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The file with what is trained."""
        return self.path / "recipe.json"

    @property
    def attempts(self) -> Path:
        """The file with a line for each attempt."""
        return self.path / "attempts.jsonl"

    @property
    def environment(self) -> Path:
        """The file with what the last attempt ran on: commit, versions, machine."""
        return self.path / "environment.json"

    @property
    def model(self) -> Path:
        """The file with the network's parameters, multiplications, receptive field and layers."""
        return self.path / "model.json"

    @property
    def journal(self) -> Path:
        """The file with a line for each finished epoch."""
        return self.path / "journal.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that the training is resumed from."""
        return self.path / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before."""
        return self.path / "previous.pt"

    @property
    def log(self) -> Path:
        """The file with what the job printed."""
        return self.path / "log.txt"

    def weights(self, select: str) -> Path:
        """Return the path of the weights that are evaluated: `last` or `best_validation`."""
        return self.path / ("last.pt" if select == "last" else "best.pt")

    @property
    def result(self) -> Path:
        """The file with the result of the training."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """The file with the reason why the last attempt failed."""
        return self.path / "failure.json"

    def outcome(self, evaluation: str) -> Path:
        """Return the folder of one way of evaluating."""
        return self.path.joinpath("outcomes", evaluation[: identity.ID_SHOWN])

    def evaluation(self, evaluation: str) -> Path:
        """Return the path of the outcome of one way of evaluating."""
        return self.path.joinpath("outcomes", evaluation[: identity.ID_SHOWN], "outcome.json")

    def lock(self) -> FileLock:
        """Return the lock that the training process holds; it is released however the process ends."""
        return files.lock(self.path / "lock", **HARD)


# What is trained


def create(folder: Folder, job: Job) -> None:
    """Write what is trained, where it is not written yet, and remove the drafts of killed processes.

    What is there already is the same, by the job's identity. A process that holds the job does both itself.
    """
    for _ in range(LOOKS):
        if folder.recipe.exists() and not any(drafts(folder)):
            return
        with try_to_hold(folder, 0.1) as is_ours:
            if is_ours:
                sweep_drafts(folder)
            if is_ours and not folder.recipe.exists():
                records.write(folder.recipe, _description(job), durable=False)
            if is_ours or folder.recipe.exists():
                return
    records.write(folder.recipe, _description(job), durable=False)  # the holder never did


def _description(job: Job) -> JobRecipe:
    settled = job.recipe.model_dump(mode="json")
    settled["data"].pop("root")  # a path: no part of what is trained
    settled.pop("evaluation")
    return JobRecipe(
        job=job.id, seed=job.seed, data=job.data, code=job.code, start=job.start,
        numerics=identity.NUMERICS, recipe=settled,
    )  # fmt: skip


def read_description(folder: Folder) -> JobRecipe | None:
    """Return what is trained, as it was written."""
    return records.read(folder.recipe, JobRecipe)


# How it went


def read_attempts(folder: Folder) -> list[Attempt]:
    """Return the attempts at a job."""
    return records.lines(folder.attempts, Attempt)


def read_epochs(folder: Folder) -> list[Epoch]:
    """Return the epochs in a job's journal."""
    return records.lines(folder.journal, Epoch)


def read_result(folder: Folder) -> Result | None:
    """Return the result of a training; None before it has ended."""
    return records.read(folder.result, Result)


def read_evaluation(folder: Folder, evaluation: str) -> Evaluation | None:
    """Return the outcome of one way of evaluating; None before it was evaluated so."""
    return records.read(folder.evaluation(evaluation), Evaluation)


def read_evaluations(folder: Folder) -> Iterator[Evaluation]:
    """Return the outcome of every way in which a network was evaluated."""
    for path in sorted(folder.path.glob("outcomes/[!.]*/outcome.json")):
        outcome = records.read(path, Evaluation)
        if outcome is not None:
            yield outcome


def is_evaluated(folder: Folder, evaluation: str) -> bool:
    """Whether the network was evaluated in one way."""
    return files.is_there(folder.evaluation(evaluation))


def lacks(folder: Folder, result: Result, *, deep: bool = False) -> str:
    """Return what a result rests on and its folder lacks; empty where nothing is lacking.

    A power cut may have left it so, where the writer, of an earlier version, had not synced the rest before.
    `deep`: the weights are read for their checksums, too.
    """
    weights = folder.weights("last")
    if result.status == "finished" and not files.is_there(weights):
        return "its weights are gone"
    if deep and result.status == "finished" and files.damage(weights):
        return "its weights are damaged"
    return "its journal lacks epochs" if len(read_epochs(folder)) < result.epochs else ""


def reopen(folder: Folder) -> None:
    """Remove a result that lacks what it rests on: the training goes on from where the folder stands.

    The caller holds the lock.
    """
    descriptors.remove(folder.result)


def restore_journal(folder: Folder, history: list[Line]) -> None:
    """Rewrite the journal from the history in a checkpoint, where they differ.

    A kill came between the checkpoint and the line, or the disk failed.
    """
    text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in history)
    there = files.read(folder.journal) if folder.journal.exists() else b""
    if there != text:
        files.write(folder.journal, text, durable=False)


def finish(folder: Folder, result: Result) -> None:
    """Write the result of a training, once all that it rests on outlasts a power cut."""
    files.sync(folder.attempts, folder.journal, folder.path, folder.path.parent)
    records.write(folder.result, result)


def evaluate(folder: Folder, evaluation: str, outcome: Evaluation, pictures: Mapping[str, bytes]) -> None:
    """Write pictures of a network's answers, by their names, and then, last, its outcome."""
    place = folder.outcome(evaluation)
    for name, picture in pictures.items():
        files.write(place / name, picture)
    records.write(folder.evaluation(evaluation), outcome)


def sweep(folder: Folder) -> None:
    """Remove what a finished training no longer needs: its checkpoints, and the drafts of killed processes.

    The caller holds the lock.
    """
    for path in (folder.checkpoint, folder.previous):
        descriptors.remove(path)
    sweep_drafts(folder)


def sweep_drafts(folder: Folder) -> None:
    """Remove the drafts of killed processes. The caller holds the lock, as every writer does."""
    for path in drafts(folder):
        descriptors.remove(path)


def drafts(folder: Folder) -> Iterator[Path]:
    """Return the files that are half-written, those included that are being written now."""
    for here, folders, names in os.walk(folder.path):
        yield from (Path(here, name) for name in (*folders, *names) if DRAFT.fullmatch(name))


Kind = Literal["error", "crash", "memory", "stall"]


def fail(folder: Folder, *, kind: Kind, error: str) -> None:
    """Write why a job failed: `kind` is error (an exception), crash (its process died), memory or stall."""
    records.write(folder.failure, Failure(kind=kind, error=error, timestamp=time.time_ns() // 1_000_000))


def fail_for_the_dead(folder: Folder, *, kind: Kind, error: str) -> None:
    """Write the failure of a job whose process died, unless it did so itself or the job runs again by now."""
    with try_to_hold(folder, 0.1) as is_ours:  # not 0: `is_running` has the lock for an instant
        if is_ours and not folder.failure.exists():
            fail(folder, kind=kind, error=error)


# Which process has it


@contextmanager
def try_to_hold(folder: Folder, patience: float) -> Iterator[bool]:
    """Hold a job for a moment, as every writer to its folder does; False where another process has it."""
    lock = folder.lock()
    try:
        with files.writing(folder.path):
            files.make(folder.path, durable=False)
            lock.acquire(timeout=patience)
    except Timeout:
        yield False
        return
    try:
        yield not lease.is_held_elsewhere(folder.path)
    finally:
        lock.release()


def is_running(folder: Folder) -> bool:
    """Whether a process holds the job's lock, or one on another machine its lease."""
    return files.is_held(folder.path / "lock") or lease.is_held_elsewhere(folder.path)


def artifacts(outcome: Path) -> Iterator[Path]:
    """Return the files of one evaluation."""
    yield from (path for path in map(outcome.joinpath, PARTS) if path.exists())
