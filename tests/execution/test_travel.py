"""A task works in a folder that its coordinator does not see, and what it leaves here is the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from houses import EVERY_DRAW, House, left

from ablate.errors import AblateError, RefusedError
from ablate.execution import travel
from ablate.execution.executors.base import Stopped
from ablate.recipe.fields import Model
from ablate.recipe.range_test import Sweep
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.store.tasks import Context, RangeTask, TrainTask

LONG = EVERY_DRAW.model_copy(update={"training": EVERY_DRAW.training.model_copy(update={"epochs": 15})})
"""More epochs than end while the line of the first one is on its way."""


@pytest.fixture
def store(tmp_path: Path, digits: Path) -> House:
    return House(tmp_path / "store", digits)


def task_of(store: House, folder: Folder, **context: Any) -> TrainTask:
    return store.task(folder, store=str(store.path), **context)


def work(task: TrainTask, away: Path, epochs: int) -> int:
    """Work elsewhere until so many epochs have come here; return how often something came."""
    trip = travel.depart(task.to_json())
    assert trip is not None
    stay = travel.arrive(task.to_json(), trip.files, away)
    came = 0

    def report(detail: dict[str, Any]) -> None:
        nonlocal came
        if detail and (files := stay.changes()):
            came += 1
            trip.receive(files)

    def is_enough() -> bool:
        return len(job_folder.read_epochs(Folder(task.folder))) >= epochs

    try:
        travel.work(stay.payload, report, is_enough)
    except Stopped:
        pass
    finally:
        trip.receive(stay.changes())
        trip.end()
    return came


def test_a_job_that_moves_from_machine_to_machine_ends_as_one_that_stays(
    tmp_path: Path, store: House
) -> None:
    home, moved = store.folder("home", LONG), store.folder("moved", LONG)
    travel.work(task_of(store, home).to_json(), lambda _: None, lambda: False)
    assert work(task_of(store, moved), tmp_path / "first", epochs=1) >= 1
    assert job_folder.read_result(moved) is None
    assert moved.checkpoint.exists()
    epochs = len(job_folder.read_epochs(moved))
    assert epochs >= 1
    work(task_of(store, moved), tmp_path / "second", epochs=99)
    assert left(moved) == left(home)
    assert [attempt.attempt for attempt in job_folder.read_attempts(moved)] == [1, 2]
    assert epochs < LONG.training.epochs
    assert not moved.checkpoint.exists()
    assert not list(moved.path.glob(".*"))
    passing = {"lock", "log.txt"}
    names = {path.name for path in moved.path.iterdir()} - passing
    assert names == {path.name for path in home.path.iterdir()} - passing


def test_a_curve_of_a_range_test_comes_back(tmp_path: Path, store: House) -> None:
    curves = []
    for name in ("home", "moved"):
        folder = store.path / "ranges" / name / "0"
        task = RangeTask(
            context=Context(store=str(store.path)), test=name, seed=0, recipe=EVERY_DRAW,
            sweep=Sweep(steps=8),
            folder=folder, curve=folder.parent / "curve-0.json", data=store.digits,
        )  # fmt: skip
        folder.mkdir(parents=True)
        if name == "moved":
            trip = travel.depart(task.to_json())
            assert trip is not None
            stay = travel.arrive(task.to_json(), trip.files, tmp_path / "away")
            travel.work(stay.payload, lambda _: None, lambda: False)
            assert not task.curve.exists()
            trip.receive(stay.changes())
            trip.end()
        else:
            travel.work(task.to_json(), lambda _: None, lambda: False)
        curves.append(json.loads(task.curve.read_text()) | {"timestamp": 0})
    assert curves[0] == curves[1]


def test_what_is_trained_is_evaluated_elsewhere(tmp_path: Path, store: House) -> None:
    from houses import MC, PLAIN

    home, moved = store.folder("home"), store.folder("moved")
    for folder in (home, moved):
        travel.work(task_of(store, folder).to_json(), lambda _: None, lambda: False)
    both = store.task(moved, PLAIN, MC, store=str(store.path)).model_copy(update={"trained": True})
    travel.work(store.task(home, PLAIN, MC).to_json(), lambda _: None, lambda: False)
    work(both, tmp_path / "there", epochs=99)
    assert left(moved) == left(home)
    assert len(list(moved.path.glob("outcomes/*/outcome.json"))) == 2


def test_a_folder_is_held_by_one_coordinator_at_a_time(store: House) -> None:
    task = task_of(store, store.folder("job"))
    first = travel.depart(task.to_json())
    assert first is not None
    assert job_folder.is_running(Folder(task.folder))
    assert travel.depart(task.to_json()) is None
    first.end()
    second = travel.depart(task.to_json())
    assert second is not None
    second.end()
    assert not job_folder.is_running(Folder(task.folder))


def test_what_comes_for_a_folder_that_was_taken_over_is_not_written(store: House) -> None:
    task = task_of(store, folder := store.folder("job"))
    trip = travel.depart(task.to_json())
    assert trip is not None
    (folder.path / "lease-2").write_text("{}")
    with pytest.raises(AblateError, match="taken over by another process"):
        trip.receive({"journal.jsonl": b"{}\n", "there": b""})
    trip.end()
    assert not folder.journal.exists()


@pytest.mark.parametrize(
    "name", ["../escape", "lock", "/etc/passwd", "outcomes/x", "other/outcome.json", "code/a.py"]
)
def test_a_name_that_is_not_on_the_list_is_refused_and_nothing_is_written(store: House, name: str) -> None:
    task = task_of(store, folder := store.folder("job"))
    trip = travel.depart(task.to_json())
    assert trip is not None
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(RefusedError, match="no task writes a file"):
        trip.receive({"journal.jsonl": b"x", name: b"x", "there": b""})
    assert sorted(folder.path.rglob("*")) == before
    trip.end()


def test_a_network_of_ones_own_travels_with_the_modules_beside_it(tmp_path: Path, store: House) -> None:
    import hashlib

    code = tmp_path / "study"
    code.mkdir()
    (code / "own_net.py").write_text("from own_part import make\n")
    (code / "own_part.py").write_text(
        "from torch import nn\ndef make(classes, channels, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))\n"
    )
    (code / "notes.txt").write_text("not code")
    recipe = EVERY_DRAW.model_copy(update={"model": Model(name="own_net:make")})
    print_ = hashlib.sha256((code / "own_net.py").read_bytes()).hexdigest()
    from ablate.recipe import identity
    from ablate.study.grid import Job

    folder = Folder(store.path / "own")
    id_ = identity.job_id(recipe, 0, store.digits.name, print_)
    job_folder.create(folder, Job(id_, recipe, 0, store.digits.name, print_))
    task = task_of(store, folder, code=(str(code),))
    trip = travel.depart(task.to_json())
    assert trip is not None
    assert {name for name in trip.files if name.startswith("code/")} == {
        "code/own_net.py",
        "code/own_part.py",
    }
    stay = travel.arrive(task.to_json(), trip.files, tmp_path / "away")
    (there,) = stay.payload["context"]["code"]
    assert sorted(path.name for path in Path(there).iterdir()) == ["own_net.py", "own_part.py"]
    trip.end()
    with pytest.raises(RefusedError, match="leads out"):
        travel.arrive(task.to_json(), trip.files | {"code/../../x.py": b""}, tmp_path / "away")


def test_images_that_cannot_be_had_are_named_with_what_to_do(tmp_path: Path, store: House) -> None:
    task = task_of(store, store.folder("job")).model_copy(update={"data": tmp_path / "digits-of-another"})
    with pytest.raises(AblateError, match=r"does not have the images .* differ\): copy .*digits-of-another"):
        travel.work(task.to_json(), lambda _: None, lambda: False)
