"""Checkpoints are written while the training goes on; whatever stops either of them, nothing is lost."""

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trainings
from houses import BEST, EVERY_DRAW, PLAIN, House, left, run_here
from working import EPOCHS

from ablate.errors import UnwritableError
from ablate.execution import checkpoints
from ablate.execution.checkpoints import Checkpoints
from ablate.execution.executors.base import Stopped
from ablate.execution.weights import save
from ablate.recipe.fields import Training
from ablate.store import files as store_files
from ablate.store import job_folder
from ablate.store.job_folder import Folder

PATIENCE = 300.0  # seconds, after which a test that would hang fails
LONGER = EVERY_DRAW.model_copy(  # whose best epoch is neither the first nor the last
    update={
        "model": EVERY_DRAW.model.model_copy(update={"width": 1.0}),
        "training": Training(epochs=6, batch_size=16, precision="fp32"),
    }
)


class Gate:
    """In place of `save`: the first checkpoint is on its way until the gate is opened."""

    def __init__(self) -> None:
        self.opened, self.is_reached, self.written = threading.Event(), threading.Event(), []

    def __call__(self, path: Path, content: dict[str, Any], **more: Any) -> None:
        if path.name == "checkpoint.pt" and not self.is_reached.is_set():
            self.is_reached.set()
            assert self.opened.wait(PATIENCE), "the training waits for the disk"
        save(path, content, **more)
        self.written.append((path.name, content.get("epoch")))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(checkpoints, "save", gate)
    return gate


@pytest.fixture
def quiet(house: House) -> dict[str, Any]:
    """Return what a job leaves that nobody disturbed, with a checkpoint after every epoch."""
    folder = house.folder("quiet", LONGER)
    run_here(house.payload(folder, PLAIN, BEST))
    return left(folder)


def test_epochs_go_on_while_a_checkpoint_is_written_and_their_lines_wait_for_the_next(
    house: House, quiet: dict[str, Any], gate: Gate
) -> None:
    folder, journal = house.folder("a", LONGER), []

    def asked() -> bool:  # at the end of every epoch
        journal.append(len(store_files.lines(folder.journal)))
        if len(journal) == 4:
            gate.opened.set()
        return False

    heard: list[dict[str, Any]] = []
    payload = house.payload(folder, PLAIN, BEST, rarely=True)
    trainings.run_job(payload, heard.append, asked)
    assert journal[:4] == [0, 0, 0, 0]
    assert [epoch for name, epoch in gate.written if name == "checkpoint.pt"] == [1, 6]
    assert [detail["epoch"] for detail in heard if "epoch" in detail] == [1, 2, 3, 4, 5, 6]
    assert store_files.read_json(folder.result)["best_epoch"] not in (1, 6), "which a checkpoint has anyway"
    assert left(folder) == quiet


def test_a_line_is_told_when_it_is_in_the_journal_and_not_before(house: House, gate: Gate) -> None:
    gate.opened.set()
    folder = house.folder("a")
    told = []

    def report(detail: dict[str, Any]) -> None:
        if "epoch" in detail:
            told.append(detail["epoch"])
            assert [line["epoch"] for line in store_files.lines(folder.journal)][: len(told)] == told

    trainings.run_job(house.payload(folder), report, lambda: False)
    assert told == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, UnwritableError, "cannot be written .+: make room there and run the same again"),
        (errno.EACCES, PermissionError, "Permission denied"),
    ],
)
def test_what_the_writing_raises_ends_the_job_with_the_same_sentence(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], words: str
) -> None:
    folder, epochs, failed = house.folder("a"), [], threading.Event()

    def fails(path: Path, content: dict[str, Any], **more: Any) -> None:
        failed.set()
        with store_files.writing(path):
            raise OSError(number, os.strerror(number), str(path))

    def stops() -> bool:  # asked at the end of each epoch, before its checkpoint
        epochs.append(1)
        return len(epochs) > 1 and not failed.wait(PATIENCE)

    monkeypatch.setattr(checkpoints, "save", fails)
    with pytest.raises(kind, match=words):
        trainings.run_job(house.payload(folder), lambda _: None, stops)
    assert len(epochs) < EPOCHS, "it is raised at once, not at the end"
    assert folder.failure.exists() is (kind is PermissionError)
    assert not job_folder.is_running(folder)
    monkeypatch.undo()
    run_here(house.payload(folder))
    again = house.folder("quiet")
    run_here(house.payload(again))
    assert left(folder) == left(again)


@pytest.mark.parametrize("how", ["fails", "is stopped"])
def test_a_job_that_ends_early_ends_what_is_being_written_first(house: House, gate: Gate, how: str) -> None:
    folder = house.folder("a")

    def asked() -> bool:
        assert how == "is stopped" or gate.is_reached.wait(PATIENCE)
        threading.Timer(0.2, gate.opened.set).start()
        if how == "fails":
            raise ZeroDivisionError
        return True

    payload = house.payload(folder, rarely=True)
    if how == "fails":  # in its second epoch, while the first is written
        first = iter([False])
        with pytest.raises(ZeroDivisionError):
            trainings.run_job(payload, lambda _: None, lambda: next(first, None) is None and asked())
    else:
        with pytest.raises(Stopped):
            trainings.run_job(payload, lambda _: None, asked)
    assert [line["epoch"] for line in store_files.lines(folder.journal)] == [1]
    assert gate.written[-1] == ("checkpoint.pt", 1)
    assert not list(job_folder.drafts(folder))


@pytest.mark.slow  # seconds
def test_checkpoints_take_a_small_share_of_the_time_and_little_is_at_stake(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that only epochs and writes move."""
    import torch

    from ablate.recipe.fields import Recipe
    from ablate.training import data, loop

    clock = [0.0]
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def written(epoch_seconds: float, write_seconds: float, epochs: int = 200) -> list[int]:
        """Return the epochs that have a checkpoint."""
        where = tmp_path / f"{epoch_seconds} {write_seconds}"
        where.mkdir()
        which: list[int] = []

        def takes(path: Path, content: dict[str, Any], **_: Any) -> None:
            if path.name == "checkpoint.pt":
                clock[0] += write_seconds
                which.append(content["epoch"])

        monkeypatch.setattr(checkpoints, "save", takes)
        prepared = data.read(house.digits)
        session = loop.start(
            Recipe.model_validate(EVERY_DRAW.model_dump()), 0, prepared, data.open_arrays(prepared.folder),
            torch.device("cpu"),
        )  # fmt: skip
        line = {"timestamp": 0, "seconds": 1.0, "metrics": {}}
        with Checkpoints(Folder(where), 0, lambda: None, lambda _: None) as several:
            for epoch in range(1, epochs + 1):
                clock[0] += epoch_seconds
                session.epoch = epoch
                session.history.append(line | {"epoch": epoch})
                several.add(session, now=epoch == epochs)
                several.wait()  # so that the clock is the only one
        assert len(store_files.lines(where / "journal.jsonl")) == which[-1] == epochs
        return which

    assert written(60.0, 0.5)[:5] == [1, 2, 3, 4, 5]  # 1 %
    assert written(1.0, 0.2)[:5] == [1, 5, 9, 13, 17]  # 0.2 s are a twentieth of 4 s
    assert written(0.01, 0.02)[:3] == [1, 39, 77]
    assert written(1.0, 9.0)[:3] == [1, 2, 3]  # a disk so slow that MOST seconds have passed
    assert written(1.0, 5.0)[:3] == [1, 6, 11]


def test_a_job_that_stops_between_two_checkpoints_has_one_of_that_epoch(house: House) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    run_here(house.payload(quiet))
    with pytest.raises(Stopped):
        trainings.stops_after(house.payload(folder, epoch=2, rarely=True), lambda _: None, lambda: False)
    assert [line["epoch"] for line in store_files.lines(folder.journal)] == [1, 2]
    _, heard = run_here(house.payload(folder, rarely=True))
    assert [detail["epoch"] for detail in heard] == [3]
    assert left(folder) == left(quiet)
