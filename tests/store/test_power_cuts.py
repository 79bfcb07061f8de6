"""Whatever a power cut leaves of a job, it is resumed, and ends bit for bit as an undisturbed one."""

import json
import random
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disks
import pytest
from disks import Op, State
from trainings import paced

from ablate.execution.worker import run_job
from ablate.recipe import identity
from ablate.recipe.fields import Data, Evaluation, Model, Optimizer, Recipe, Training
from ablate.store import job_folder, lease, records
from ablate.store.job_folder import Folder
from ablate.store.job_state import state as state_of
from ablate.store.tasks import TrainTask
from ablate.study.grid import Job
from ablate.training import data

DIGITS = Data(name="digits", image_size=16, train_size=60, validation=20)
RECIPE = Recipe(
    data=DIGITS, model=Model(name="cnn4", width=0.25), optimizer=Optimizer(lr=0.02),
    training=Training(epochs=3, batch_size=16, precision="fp32"),
)  # fmt: skip
WAYS = Evaluation(), Evaluation(select="best_validation")
SAMPLE = 8  # states that are tried each time; all of them in the slow part
DRAFT = re.compile(r"(.*/)?\..+\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Bench:
    """Decoded digits, and the one job that is trained here again and again."""

    digits: Path
    rarely: bool = False  # checkpoints after the first and the last epoch only

    @property
    def job(self) -> Job:
        return Job(identity.job_id(RECIPE, 0, self.digits.name), RECIPE, 0, self.digits.name)

    def run(self, root: Path) -> Folder:
        """Do what a coordinator and its worker do with the job, from wherever it stands."""
        folder = Folder(root / self.job.id)
        job_folder.create(folder, self.job)
        task = TrainTask(folder=folder.path, job=self.job.id, data=self.digits, evaluations=tuple(WAYS))
        with paced(rarely=self.rarely):
            assert run_job(task, lambda _: None, lambda: False) == {"status": "finished"}
        return folder


@pytest.fixture(scope="module", params=[False, True], ids=["each epoch", "rarely"])
def bench(request: pytest.FixtureRequest, digits: Path) -> Bench:
    return Bench(digits, request.param)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.prepare(DIGITS, tmp_path_factory.mktemp("data")).folder


@pytest.fixture
def ops(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Op]:
    """Record what one whole job does to its folder."""
    (tmp_path / "recorded").mkdir()
    with disks.recorded(tmp_path / "recorded", monkeypatch) as disk:
        bench.run(tmp_path / "recorded")
    monkeypatch.setattr(lease, "TERM", 0.1)  # of a lease that is torn, and so names nobody
    return disk.ops


def is_ignored(path: str) -> bool:
    """Whether nothing rests on a file: the lock, the log, what is half-written."""
    return path.endswith(("/lock", "/log.txt")) or DRAFT.fullmatch(path) is not None


def ended(folder: Folder) -> dict[str, Any]:
    """Return all that a job has found out: everything but times and memory."""

    def timeless(record: Any, *names: str) -> str:
        plain = {
            name: part for name, part in records.plain(record).items() if name not in ("timestamp", *names)
        }
        plain["metrics"] = {
            name: value for name, value in plain["metrics"].items() if not name.startswith("time/")
        }
        return json.dumps(plain)

    result = job_folder.read_result(folder)
    assert result is not None
    return {
        "result": timeless(result, "peak_memory"),
        "epochs": [timeless(epoch, "seconds") for epoch in job_folder.read_epochs(folder)],
        "evaluations": [timeless(one, "seconds") for one in job_folder.read_evaluations(folder)],
        "pictures": [path.read_bytes() for path in sorted(folder.path.rglob("*.png"))],
        "weights": [folder.weights(way.select).read_bytes() for way in WAYS],
        "recipe": folder.recipe.read_bytes(),
        "others": sorted(path.name for path in folder.path.iterdir()),
    }


def check(states: list[State], bench: Bench, tmp_path: Path) -> None:
    """Lay out each state, let the job go on from there, and see that it ends as an undisturbed one."""
    expected = ended(bench.run(tmp_path / "undisturbed"))
    assert len(expected["epochs"]) == 3
    assert len(expected["evaluations"]) == 2
    assert len(expected["pictures"]) == 2 * 2  # what it got wrong, and what right
    for number, state in enumerate(states):
        root = tmp_path / "cut"
        disks.lay_out(state, root)
        what = (
            f"state {number}: "
            f"{sorted((path.partition('/')[2], len(content)) for path, content in state.items())}"
        )
        before = state_of(Folder(root / bench.job.id)).result
        folder = bench.run(root)
        assert ended(folder) == expected, what
        assert len(job_folder.read_attempts(folder)) >= 1, what  # without one MLflow is shown nothing
        assert before in (None, job_folder.read_result(folder)), (
            what
        )  # what was finished is not trained again
        shutil.rmtree(root)


def test_a_job_syncs_what_its_end_rests_on_before_it_and_its_names_after(ops: list[Op]) -> None:
    told = [(op.kind, (op.to or op.path).partition("/")[2]) for op in ops]
    at = told.index(("rename", "result.json"))
    for name in ("journal.jsonl", "attempts.jsonl", ""):
        last = max(i for i, one in enumerate(told[:at]) if one == ("fsync", name))
        assert not [one for one in told[last:at] if one == ("write", name)]
    assert ("fsync", "") in told[at : told.index(("unlink", "checkpoint.pt"))]


def test_a_job_syncs_no_more_than_it_must(ops: list[Op], bench: Bench) -> None:
    """Each costs milliseconds, and a tiny job takes no more than some dozens of them."""
    names = [(op.to or op.path).partition("/")[2] for op in ops if op.kind == "fsync"]
    drafts = sum(bool(DRAFT.fullmatch(name)) for name in names)
    best = sum(op.kind == "rename" and op.to.endswith("best.pt") for op in ops)
    checkpoints = 2 if bench.rarely else RECIPE.training.epochs
    # recipe, environment, checkpoints, best, last, model, result; three files for each way of
    # evaluating
    assert drafts == 2 + checkpoints + best + 3 + 3 * len(WAYS)
    # the folder for each best.pt; what the result rests on, and its name; for each way three names and a new
    # folder
    assert len(names) - drafts == best + 5 + 4 * len(WAYS) + 1


def lacks(states: Iterable[State], ops: list[Op], end: str, *names: str) -> list[State]:
    """Return the states that have a file, and not all that it rests on as it was written."""
    whole = {op.path: op.content for op in ops if op.kind == "write"}
    for op in ops:
        if op.kind == "rename":
            whole[op.to] = whole[op.path]

    def is_short(state: State, path: str) -> bool:
        return any(
            state.get(f"{path.rpartition(end)[0]}{name}") != whole[f"{path.rpartition(end)[0]}{name}"]
            for name in names
        )

    return [state for state in states if any(path.endswith(end) and is_short(state, path) for path in state)]


RESTS_ON = (
    (
        "/result.json",
        "/last.pt",
        "/best.pt",
        "/journal.jsonl",
        "/attempts.jsonl",
        "/recipe.json",
        "/environment.json",
        "/model.json",
    ),
    ("/outcome.json", "/misclassified.png", "/correct.png"),
)


@pytest.mark.slow  # seconds
@pytest.mark.parametrize("names", RESTS_ON)
def test_no_power_cut_leaves_an_end_without_what_it_rests_on(ops: list[Op], names: tuple[str, ...]) -> None:
    states = list(disks.after_power_cuts(ops, is_ignored))
    assert any(path.endswith(names[0]) for state in states for path in state)
    assert lacks(states, ops, *names) == []
    for unsynced in ("folders", "files"):  # a writer that does not sync them is told from ours
        careless = [op for op in ops if op.kind != "fsync" or (op.file < 0) == (unsynced == "files")]
        assert lacks(disks.after_power_cuts(careless, is_ignored), ops, *names), unsynced


def test_what_a_power_cut_leaves_of_a_job_is_resumed_to_the_same_end(
    ops: list[Op], bench: Bench, tmp_path: Path
) -> None:
    states = list(disks.after_power_cuts(ops, is_ignored))
    assert len(states) > 100
    check(random.Random(0).sample(states, SAMPLE), bench, tmp_path)


@pytest.mark.slow  # hundreds of trainings
def test_whatever_a_power_cut_leaves_of_a_job_is_resumed_to_the_same_end(
    ops: list[Op], bench: Bench, tmp_path: Path
) -> None:
    states = list(disks.after_power_cuts(ops, is_ignored))
    # With few checkpoints journals are further ahead of them, and nothing else differs: every second one.
    check(states[:: 2 if bench.rarely else 1], bench, tmp_path)
