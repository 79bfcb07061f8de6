"""Jobs that start from the weights of others: when they run, what they start from, and what stops them."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from commands import BROKEN
from houses import EVERY_DRAW, House, left, run_here
from plans import finish, make, read
from scripted import Scripted, run

from ablate.cli import main
from ablate.errors import AblateError
from ablate.execution import travel
from ablate.planning.plan import Work
from ablate.recipe import identity
from ablate.recipe.fields import Model
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.store.job_state import state
from ablate.store.layout import Store
from ablate.study.grid import Job

STAGE = {
    "name": "stage",
    "levels": [
        {"name": "last", "start": "middle", "set": {"optimizer": {"lr": 0.001}}},
        {"name": "first", "set": {}},
        {"name": "middle", "start": "first", "set": {"optimizer": {"lr": 0.01}}},
    ],
}


def stages(here: Store, seeds: int = 1) -> dict[str, Work]:
    """Return the work of three jobs a seed, each of which starts from the one before, by cell and seed."""
    todo = make(read(seeds=seeds, factors={}, factor=[STAGE]), here)
    return {run.name: next(work for work in todo.work if work.id == run.job_id) for run in todo.runs}


def test_a_job_waits_for_the_one_that_it_starts_from_and_others_go_first(here: Store) -> None:
    work = stages(here, seeds=2)
    executor = Scripted(4)
    ledger, _ = run(tuple(work.values()), here, executor)
    order = [next(name for name, item in work.items() if item.id == job) for job in executor.submitted()]
    assert order == [
        "stage=first/0", "stage=first/1", "stage=middle/0", "stage=middle/1", "baseline/0", "baseline/1"
    ]  # fmt: skip
    assert executor.most == 2
    assert len(ledger.finished) == 6


@pytest.mark.parametrize("end", ["failed", "diverged"])
def test_what_has_nothing_to_start_from_is_not_run(here: Store, end: str) -> None:
    work = stages(here)
    first = work["stage=first/0"]
    executor = Scripted(2, {first.id: ["failed"]} if end == "failed" else {})
    ledger, _ = run(tuple(work.values()), here, executor, is_trained=lambda job: job != first.id)
    assert executor.submitted() == [first.id]
    assert [failure.job for failure in ledger.failures] == ([first.id] if end == "failed" else [])


def test_a_job_that_is_trained_is_started_from_at_once_and_a_failed_one_is_left_alone(here: Store) -> None:
    work = stages(here)
    finish(here, work["stage=first/0"].job)
    todo = make(read(seeds=1, factors={}, factor=[STAGE]), here)
    assert (todo.waiting, todo.trainings) == (2, 2)
    executor = Scripted(2)
    run(todo.work, here, executor, is_trained=lambda job: state(here.job(job)).is_trained)
    assert executor.submitted()[:2] == [work["stage=first/0"].id, work["stage=middle/0"].id]


# In earnest


def child(house: House, parent: Folder, model: Model = EVERY_DRAW.model) -> tuple[Folder, dict[str, object]]:
    """Return the folder of a job that starts from another one, with its task."""
    recipe = EVERY_DRAW.model_copy(update={"model": model})
    start = parent.path.name
    job = Job(
        identity.job_id(recipe, 0, house.digits.name, "", start), recipe, 0, house.digits.name, start=start
    )
    folder = Folder(house.path / job.id)
    job_folder.create(folder, job)
    return folder, house.payload(folder) | {"start": str(parent.weights("last"))}


@pytest.fixture
def parent(house: House) -> Folder:
    name = identity.job_id(EVERY_DRAW, 0, house.digits.name)
    folder = house.folder(name)
    run_here(house.payload(folder))
    return folder


@pytest.mark.usefixtures("server")
def test_a_training_starts_from_the_last_weights_of_another_and_resumes_as_any(
    house: House, parent: Folder
) -> None:
    frozen = EVERY_DRAW.model.model_copy(update={"trainable": "head"})
    folder, payload = child(house, parent, frozen)
    run_here(payload)
    before, after = (torch.load(each.weights("last")) for each in (parent, folder))
    kept = [key for key in before if not key.startswith("head.")]
    assert kept
    assert all(torch.equal(before[key], after[key]) for key in kept), "they were frozen"
    assert not torch.equal(before["head.weight"], after["head.weight"])
    whole = left(folder)
    for path in (folder.result, folder.weights("last"), folder.journal):
        path.unlink()
    for path in folder.path.glob("outcomes/*/*"):
        path.unlink()
    run_here(payload)
    assert left(folder) == whole, "a second time from the start"


@pytest.mark.usefixtures("server")
def test_weights_that_are_gone_or_of_another_network_are_told(house: House, parent: Folder) -> None:
    _, other = child(house, parent, Model(name="cnn4", width=0.5))
    with pytest.raises(
        AblateError, match=r"cannot start from the weights of the job .*: block1.conv, .* other sizes"
    ):
        run_here(other)
    _, payload = child(house, parent)
    with pytest.raises(AblateError, match="is not what the job"):
        run_here(payload | {"start": None})
    parent.weights("last").unlink()
    with pytest.raises(AblateError, match="must be the weights of the training that this one starts from"):
        run_here(payload)


@pytest.mark.usefixtures("server")
def test_the_weights_travel_with_the_job(house: House, parent: Folder, tmp_path: Path) -> None:
    folder, payload = child(house, parent)
    payload |= {"context": payload["context"] | {"store": str(house.path)}}  # type: ignore[operator]
    trip = travel.depart(payload)
    assert trip is not None
    stay = travel.arrive(payload, trip.files, tmp_path / "away")
    there = Path(stay.payload["start"])
    assert there.is_relative_to(tmp_path / "away")
    assert there.parent.name == parent.path.name
    assert there.read_bytes() == parent.weights("last").read_bytes()
    assert (folder.path / "start.pt").exists() is False
    trip.end()


TINY = """name = "tiny"
seeds = 2
[recipe]
data = { name = "digits", image_size = 16, train_size = 200 }
augment = { crop = "none", flip = false }
model = { name = "%s", width = 0.25 }
training = { epochs = 2, batch_size = 20 }
[[factor]]
name = "stage"
levels = [
  { name = "whole", set = {} },
  { name = "head", start = "whole", set = { model.trainable = "head", optimizer.lr = 1e-12 } },
]
"""


def ablate(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.slow  # four trainings, and commands
def test_a_study_trains_them_in_order_and_status_tells_why_some_were_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY % "cnn4")
    code, said = ablate("run", "tiny.toml", "--device", "cpu")
    assert code == 0, said
    told = json.loads(ablate("report", "tiny.toml", "--format", "json")[1])
    means = {cell["cell"]: cell["mean"] for cell in told["cells"]}
    assert means["stage=head"] == means["baseline"], "the head moved by next to nothing"
    Path("tiny.toml").write_text((TINY % "untrainable_net:make").replace("tiny", "broken"))
    Path("untrainable_net.py").write_text(BROKEN)
    code, said = ablate("run", "tiny.toml", "--device", "cpu")
    assert code == 1, said
    status = json.loads(ablate("status", "tiny.toml", "--json")[1])
    assert status["total"] == {"crashed": 2, "not_run": 2}
    assert [(each["run"], each["reason"]) for each in status["broken"] if each["status"] == "not_run"] == [
        (f"stage=head/{seed}", f"it starts from the weights of baseline/{seed}, which has crashed")
        for seed in (0, 1)
    ]
