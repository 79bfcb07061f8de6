"""The folder of one job: every path in it, and the only code that reads or writes it. The journals are the truth.

    recipe.json       what is trained: written once, before the first attempt
    attempts.jsonl    a line when an attempt starts: number, time, process, device, study
    environment.json  commit, versions and machine of the last attempt
    model.json        the network: parameters, multiplications, receptive field
    journal.jsonl     a line an epoch: epoch, timestamp, seconds, metrics
    checkpoint.pt     where the training stands; gone when it has ended
    previous.pt       where it stood an epoch before, should the other one be damaged
    last.pt, best.pt  weights after the last epoch, and of the best epoch by validation
    result.json       written last of the training: finished or diverged
    failure.json      why the last attempt failed; gone when another one starts
    outcomes/<id>/    one way of evaluating: outcome.json is written last
    log.txt           what the job printed, tracebacks included
    lock              held by the process that trains
    lease-1           renewed by that process, for machines that locks do not reach; see lease.py

Every file but the two append-only ones is written beside itself and renamed, so that a kill at any instant leaves the
old file or the new one. A torn last line of the other two is not a line. Nothing here asks which machine it is on: a
folder that several share will do.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ablate.recipe import identity
from ablate.recipe.fields import Recipe
from ablate.store import lease
from ablate.store.files import DRAFT, Line, is_held, read_json, write, write_json
from ablate.study.grid import Job


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths of one job."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Return what is trained."""
        return self.path / "recipe.json"

    @property
    def attempts(self) -> Path:
        """List the attempts."""
        return self.path / "attempts.jsonl"

    @property
    def journal(self) -> Path:
        """List the finished epochs."""
        return self.path / "journal.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Hold the state to go on from."""
        return self.path / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """Hold the state of an epoch before."""
        return self.path / "previous.pt"

    @property
    def log(self) -> Path:
        """Hold what the job printed."""
        return self.path / "log.txt"

    def weights(self, select: str) -> Path:
        """Hold the weights that an evaluation judges: of `last` or of `best_validation`."""
        return self.path / ("last.pt" if select == "last" else "best.pt")

    @property
    def result(self) -> Path:
        """Hold the end of the training."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Hold why the last attempt failed."""
        return self.path / "failure.json"

    def outcome(self, evaluation: str) -> Path:
        """Hold one way of evaluating."""
        return self.path / "outcomes" / evaluation[: identity.ID_SHOWN]

    def lock(self) -> FileLock:
        """Make the lock that the training process holds; it is released when the process ends, however it ends."""
        return FileLock(self.path / "lock")


def create(folder: Folder, job: Job) -> None:
    """Write what is trained, where it is not written yet. What is there already is the same, by the job's identity."""
    if not folder.recipe.exists():
        settled = job.recipe.model_dump(mode="json")
        settled["data"].pop("root")  # a path: no part of what is trained
        settled.pop("evaluation")
        content = {"job": job.id, "seed": job.seed, "data": job.data, "code": job.code, "numerics": identity.NUMERICS, "recipe": settled}
        write_json(folder.recipe, content)


def read_recipe(path: Path) -> tuple[Recipe, int]:
    """Read what a recipe.json says is trained: the recipe, whose root and evaluation mean nothing, and the seed."""
    content = read_json(path)
    return Recipe.model_validate(content["recipe"] | {"data": content["recipe"]["data"] | {"root": ""}}), content["seed"]


def restore_journal(folder: Folder, history: list[Line]) -> None:
    """Make the journal say what a checkpoint remembers: the kill came between the checkpoint and the line, or the disk failed."""
    text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in history)
    there = folder.journal.read_bytes() if folder.journal.exists() else b""
    if there != text:
        write(folder.journal, text)


def sweep(folder: Folder) -> None:
    """Remove what a finished training needs no more: its checkpoints, and the drafts of attempts that were killed.

    For who holds the lock: nobody else writes here, but for coordinators that say what is trained, or that it has failed.
    """
    for path in (folder.checkpoint, folder.previous, *folder.path.rglob(".*")):
        is_draft = DRAFT.fullmatch(path.name) and not path.name.startswith((".recipe.json.", ".failure.json."))
        if is_draft or not path.name.startswith("."):
            path.unlink(missing_ok=True)


def fail(folder: Folder, *, kind: str, error: str) -> None:
    """Record why a job failed: `kind` is error (an exception), crash (its process died), memory or stall."""
    write_json(folder.failure, {"kind": kind, "error": error, "timestamp": time.time_ns() // 1_000_000})


def is_running(folder: Folder) -> bool:
    """Whether a process holds the job's lock, or one of another machine its lease."""
    return is_held(folder.path / "lock") or lease.is_held_elsewhere(folder.path)


def artifacts(outcome: Path) -> Iterator[Path]:
    """List the files of one evaluation."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in outcome.iterdir() if not path.name.startswith(".") and not path.is_symlink())
