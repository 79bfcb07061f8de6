"""Jobs that are killed, damaged or starved: whatever happens, the end is bit for bit the undisturbed one."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from houses import BEST, MC, PLAIN, House, left, run_here
from trainings import Call
from working import EPOCHS, attempts, hear, run_all, run_one

from ablate.errors import AblateError
from ablate.execution.executors.base import Stopped
from ablate.execution.executors.local import LocalExecutor
from ablate.store import files as store_files

pytestmark = pytest.mark.usefixtures("server")


def each(writes: list[str]) -> dict[str, int]:
    return {f"{i} {write}": i for i, write in enumerate(writes)}


@pytest.mark.slow  # 80 trainings
@pytest.mark.parametrize("rarely", [False, True])
def test_a_job_killed_just_before_a_write_ends_as_one_that_was_not_disturbed(
    house: House,
    workers: LocalExecutor,
    rarely: bool,
) -> None:
    ways = (PLAIN, MC, BEST)
    quiet, pace = house.folder("quiet"), {"rarely": rarely}
    writes = run_one(workers, house.payload(quiet, *ways, how="counts", **pace)).detail["writes"]
    assert writes.count("os.rename /checkpoint.pt") == (2 if rarely else EPOCHS)
    assert writes.count("open /journal.jsonl") == EPOCHS
    assert {
        "os.rename /best.pt",
        "os.rename /last.pt",
        "os.rename /result.json",
        "os.remove /checkpoint.pt",
    } <= set(writes)
    chosen = each(writes)
    folders = {name: house.folder(f"killed {i}") for name, i in chosen.items()}
    killed = run_all(
        workers,
        {
            name: house.payload(folders[name], *ways, how="dies_at", at=i, **pace)
            for name, i in chosen.items()
        },
    )
    assert {name: event.kind for name, event in killed.items()} == dict.fromkeys(chosen, "killed")
    again = run_all(workers, {name: house.payload(folder, *ways, **pace) for name, folder in folders.items()})
    assert {name: event.kind for name, event in again.items()} == dict.fromkeys(chosen, "finished")
    expected = left(quiet)
    assert [name for name, folder in folders.items() if left(folder) != expected] == []
    big = {
        name: [path.name for path in folder.path.iterdir() if ".pt" in path.name]
        for name, folder in folders.items()
    }
    assert {name: found for name, found in big.items() if sorted(found) != ["best.pt", "last.pt"]} == {}


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_job_killed_after_an_epoch_goes_on_from_that_epoch(
    house: House, workers: LocalExecutor, epoch: int
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    died = run_one(workers, house.payload(folder, how="dies_after", epoch=epoch, signal=signal.SIGKILL))
    assert (died.kind, len(store_files.lines(folder.journal))) == ("killed", epoch)
    before = store_files.lines(folder.journal)
    workers.submit(Call("again", house.payload(folder)))
    heard = hear(workers, lambda heard: any(event.kind == "finished" for event in heard))
    assert [event.detail["epoch"] for event in heard if event.kind == "progress"] == list(
        range(epoch + 1, EPOCHS + 1)
    )
    assert store_files.lines(folder.journal)[:epoch] == before
    assert attempts(folder) == [1, 2]
    assert f"attempt 2 on cpu: from epoch {epoch} of {EPOCHS}" in folder.log.read_text()
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_a_job_killed_again_and_again_ends_as_one_that_was_not_disturbed(
    house: House, workers: LocalExecutor
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    for epoch in range(1, EPOCHS + 1):
        assert (
            run_one(workers, house.payload(folder, how="dies_after", epoch=epoch, signal=signal.SIGKILL)).kind
            == "killed"
        )
    assert run_one(workers, house.payload(folder)).kind == "finished"
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)
    assert attempts(folder) == [1, 2, 3, 4]


def damage(path: Path) -> None:
    """Turn one bit, as a disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("names", "spoil", "goes_on_from"),
    [
        (("checkpoint.pt",), damage, 1),
        pytest.param(("checkpoint.pt",), cut, 1, marks=pytest.mark.slow),
        (("checkpoint.pt", "previous.pt"), damage, 0),
    ],
)
def test_a_damaged_checkpoint_costs_epochs_and_changes_nothing(
    house: House,
    workers: LocalExecutor,
    names: tuple[str, ...],
    spoil: Callable[[Path], None],
    goes_on_from: int,
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    assert run_one(workers, house.payload(folder, how="stops_after", epoch=2)).kind == "stopped"
    for name in names:
        spoil(folder.path / name)
    assert run_one(workers, house.payload(folder)).kind == "finished"
    log = folder.log.read_text()
    ends = ["goes on from an earlier epoch", "begins at the start"]
    for name, end in zip(names, ends, strict=False):
        assert f"{name} is damaged: the training {end}" in log
    assert f"attempt 2 on cpu: from epoch {goes_on_from} of {EPOCHS}" in log
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)
    assert not [path.name for path in folder.path.iterdir() if path.name in ("checkpoint.pt", "previous.pt")]


def whole_and_not_ours(path: Path) -> None:
    """Put a file of torch there that only loads by running what is in it."""
    torch.save({"epoch": 2, "network": torch.nn.Linear(2, 2)}, path)


def of_another_network(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"network": {"a": torch.zeros(3)}}, path)


def of_another_history(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"history": [{"epoch": "one"}]}, path)


@pytest.mark.parametrize(
    ("spoil", "names", "goes_on_from"),
    [
        (whole_and_not_ours, ("checkpoint.pt",), 1),
        (of_another_network, ("checkpoint.pt", "previous.pt"), 0),
        (of_another_history, ("checkpoint.pt",), 1),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_costs_epochs_and_recommends_nothing(
    house: House,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    names: tuple[str, ...],
    goes_on_from: int,
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    run_here(house.payload(quiet))
    with pytest.raises(Stopped):
        trainings.run(house.payload(folder, how="stops_after", epoch=2), lambda _: None, lambda: False)
    for name in names:
        spoil(folder.path / name)
    capsys.readouterr()
    run_here(house.payload(folder))
    log = capsys.readouterr().out
    assert "checkpoint.pt cannot be loaded as a checkpoint of this training: the training goes on" in log
    assert ("previous.pt cannot be loaded" in log) == (goes_on_from == 0)
    assert f"attempt 2 on cpu: from epoch {goes_on_from} of {EPOCHS}" in log
    assert "weights_only" not in log
    assert left(folder) == left(quiet)


@pytest.mark.parametrize("lost", ["last.pt", "journal.jsonl"])
def test_a_result_without_what_it_rests_on_is_trained_again_unless_it_was_judged(
    house: House, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    run_here(house.payload(quiet))
    run_here(house.payload(folder))
    shutil.rmtree(folder.path / "outcomes")
    (folder.path / lost).unlink()
    run_here(house.payload(folder))
    assert left(folder) == left(quiet)
    assert attempts(folder) == [1, 2]
    assert "the result is taken back, as its" in capsys.readouterr().out


def test_weights_that_only_load_by_running_what_is_in_them_are_named(house: House) -> None:
    folder = house.folder("a")
    run_here(house.payload(folder))
    whole_and_not_ours(folder.weights("last"))
    with pytest.raises(AblateError, match=r"last\.pt: must be the weights .+ and is not: remove that folder"):
        run_here(house.payload(folder, MC))


@pytest.mark.parametrize(
    "tail",
    [
        b'{"epoch": 3, "metr',
        b'{"epoch": 7, "metrics": {}}\n',
        *(pytest.param(tail, marks=pytest.mark.slow) for tail in (b"\0\0\0\0", b"\0\0\0\n")),
    ],
)
def test_a_torn_or_damaged_journal_is_mended_from_the_checkpoint(
    house: House, workers: LocalExecutor, tail: bytes
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    assert run_one(workers, house.payload(folder, how="stops_after", epoch=2)).kind == "stopped"
    folder.journal.write_bytes(folder.journal.read_bytes() + tail)
    assert run_one(workers, house.payload(folder)).kind == "finished"
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_damaged_weights_are_named_and_never_judged(house: House) -> None:
    folder = house.folder("a")
    run_here(house.payload(folder))
    damage(folder.weights("last"))
    with pytest.raises(
        AblateError, match=r"last\.pt: must be the weights of a finished training.+remove that folder"
    ):
        run_here(house.payload(folder, MC))


def test_a_job_that_gets_no_memory_says_so_and_is_no_failure_yet(
    house: House, workers: LocalExecutor
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    event = run_one(workers, house.payload(folder, how="lacks_memory"))
    assert event.kind == "out_of_memory", event
    assert "GiB at most" in event.error
    assert "Traceback" in folder.log.read_text()
    assert not folder.failure.exists()
    assert run_one(workers, house.payload(folder)).kind == "finished"
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_every_batch_is_a_sign_of_life_in_training_and_in_judging(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.execution import attempt

    monkeypatch.setattr(attempt, "BEAT", 0.0)
    heard: list[dict[str, Any]] = []
    trainings.run_job(house.payload(house.folder("a"), PLAIN, MC), heard.append, lambda: False)
    of_epochs = EPOCHS * (80 // 16 + 1)  # whole batches of training, and one of validation
    of_judging = -(-357 // 128) * (1 + 2)  # batches of the test images, once plain and twice with dropout
    assert sum(not detail for detail in heard) == of_epochs + of_judging


def test_a_crash_in_c_is_in_the_log_with_the_place_in_python(house: House, workers: LocalExecutor) -> None:
    folder = house.folder("a")
    died = run_one(workers, house.payload(folder, how="dies_after", epoch=1, signal=signal.SIGSEGV))
    assert (died.kind, died.error) == ("crashed", "the process was ended by SIGSEGV")
    assert "Fatal Python error: Segmentation fault" in folder.log.read_text()
    assert "in _train" in folder.log.read_text()
