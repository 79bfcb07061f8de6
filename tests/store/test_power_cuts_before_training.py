"""Whatever a power cut leaves of decoded images, a range test or a search: it goes on to the same end."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import disks
import numpy as np
import pytest
import searching
from disks import Op, State
from PIL import Image

from ablate.errors import StoreError
from ablate.execution.worker import run_range
from ablate.planning import tuning
from ablate.recipe.fields import Data, Model, Recipe, Training
from ablate.recipe.range_test import Sweep
from ablate.store import files, job_folder, layout, lease, range_folder, records
from ablate.store.records import Epoch, Result
from ablate.store.tasks import RangeTask
from ablate.training import data

DIGITS = Data(name="digits", image_size=16, train_size=60, validation=20)
DRAFT = re.compile(r"(.*/)?\..+\.[0-9a-f]{8}")
FEW, MANY = 12, 400  # states that are tried each time, and in the slow part


def is_ignored(path: str) -> bool:
    """Whether nothing rests on a file: a lock, a log, what is half-written."""
    name = path.rpartition("/")[2]
    return name in ("lock", "log.txt", "optuna.lock") or DRAFT.fullmatch(path) is not None


def some(ops: list[Op], number: int) -> list[State]:
    states = list(disks.after_power_cuts(ops, is_ignored))
    assert len(states) > 20
    return random.Random(0).sample(states, min(number, len(states)))


def check(
    run: Callable[[Path], Any], number: int, folder: Path, patch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Do something while its writes are recorded, and again from what each power cut may leave of them."""
    (folder / "recorded").mkdir()
    with disks.recorded(folder / "recorded", patch) as disk:
        expected = run(folder / "recorded")
    patch.setattr(lease, "TERM", 0.1)  # of a lease that is torn, and so names nobody
    for state in some(disk.ops, number):
        what = sorted((path, len(content)) for path, content in state.items())
        disks.lay_out(state, folder / "cut")
        assert run(folder / "cut") == expected, what
        assert run(folder / "cut") == expected, what
        shutil.rmtree(folder / "cut")


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def number(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (root / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(root / place / f"{i}.png")
    return Data(name="imagefolder", root=str(root), image_size=16)


@pytest.mark.parametrize("name", ["digits", "imagefolder"])
def test_images_that_a_power_cut_leaves_are_whole_or_decoded_again(
    name: str, images: Data, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = DIGITS if name == "digits" else images

    def decoded(root: Path) -> dict[str, bytes]:
        before = data.find(section, root / "data")
        prepared = data.prepare(section, root / "data")
        assert before in (None, prepared)
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not is_ignored(str(path.relative_to(root)))
        }

    check(decoded, number, tmp_path, monkeypatch)


def test_images_are_synced_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recorded").mkdir()
    with disks.recorded(tmp_path / "recorded", monkeypatch) as disk:
        data.prepare(DIGITS, tmp_path / "recorded" / "data")
    for state in disks.after_power_cuts(disk.ops, is_ignored):
        if any("/index/" in path for path in state):
            assert sum(path.endswith((".npy", "meta.json")) for path in state) == 5
    careless = [op for op in disk.ops if op.kind != "fsync"]
    states = disks.after_power_cuts(careless, is_ignored)
    assert any(b"" in state.values() for state in states), "a writer that does not sync is told from ours"


def test_a_range_test_goes_on_from_what_a_power_cut_leaves(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = data.prepare(DIGITS, tmp_path / "data").folder
    recipe = Recipe(
        data=DIGITS, model=Model(name="cnn4", width=0.25),
        training=Training(epochs=1, batch_size=16, precision="fp32"),
    )  # fmt: skip
    test = tuning.range_test("a", recipe, digits.name, "", Sweep(steps=5), seeds=2)

    def swept(root: Path) -> Any:
        store = layout.open_store(root / "store")
        tuning.describe_range(test, store)
        before = range_folder.read_suggestion(store.range(test.id))
        for work in tuning.range_work((test,), store):
            task = RangeTask(
                test=test.id, seed=work.seed, recipe=test.recipe, sweep=test.sweep, data=digits,
                folder=work.folder(store).path, curve=store.range(test.id).curve(work.seed),
            )  # fmt: skip
            assert run_range(task, lambda _: None, lambda: False) == {"status": "finished"}
        tuning.conclude((test,), store)
        suggestion = range_folder.read_suggestion(store.range(test.id))
        assert before in (None, suggestion)
        return suggestion, range_folder.read_curves(store.range(test.id))

    check(swept, number if number == FEW else 60, tmp_path, monkeypatch)


class Workers(searching.Workers):
    """Workers that write as ours do: by the very functions."""

    def _epoch(self, source: Any, work: Any) -> None:
        folder, epochs = work.folder(self.store), work.job.recipe.training.epochs
        if self.epochs[work.id, "attempts"] == 0:  # as each attempt begins
            self.epochs[work.id, "attempts"] = 1
            records.append(folder.attempts, records.Attempt(attempt=1, timestamp=1))
        lines = job_folder.read_epochs(folder)
        if len(lines) < epochs:
            number = len(lines) + 1
            good = searching.accuracy(work.job.recipe, work.job.seed) * number / epochs
            line = Epoch(epoch=number, timestamp=1, seconds=1.0, metrics={"validation/accuracy": good})
            records.append(folder.journal, line)
            self.epochs[work.id] += 1
            source.progressed(work.id)
            return None
        end = {"status": "finished", "reason": "", "epochs": epochs, "train_images": 9, "timestamp": 1}
        metrics = lines[-1].metrics | {"time/epoch_seconds": 1.0}
        job_folder.finish(folder, Result.model_validate(end | {"metrics": metrics}))
        return self._end(source, work, "finished")


@pytest.mark.parametrize("select", [pytest.param("last", marks=pytest.mark.slow), "best_validation"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_search_goes_on_with_the_same_trials_from_what_a_power_cut_leaves(
    select: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(root: Path) -> Any:
        store = layout.open_store(root / "store")
        layout.create(store)
        (search, *_) = searching.searches_of(store, {"trials": 3}, evaluation={"select": select})
        before = [trial for trial in searching.trials_of(store, search) if trial.state == "complete"]
        finished = {path.parent.name for path in (root / "store/jobs").glob("*/result.json")}
        tuning.describe(search, store)
        workers = Workers(store)
        workers.run(searching.opened((search,), store))
        trials = searching.trials_of(store, search)
        timeless = {"started": None, "ended": None}
        assert not finished & set(workers.epochs), "what was finished is not trained again"
        assert [trial for trial in trials if trial in before] == before
        return [trial.model_copy(update=timeless) for trial in trials]

    check(searched, number, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [b"[]\n", b"3\n", b"{}\n", b'{"op_code": 99}\n', b'{"op_code": 4}\n', b"[" * 100_000 + b"\n", b"x\n"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_memory_of_optuna_that_is_none_is_a_sentence_with_the_way_out(line: bytes, tmp_path: Path) -> None:
    store = layout.open_store(tmp_path / "store")
    layout.create(store)
    (search, *_) = searching.searches_of(store, {"trials": 2})
    searching.search((search,), store, Workers(store))
    before = searching.trials_of(store, search)
    memory = store.search(search.id).memory
    memory.write_bytes(line + memory.read_bytes())
    with pytest.raises(StoreError, match=r"must be Optuna's memory .+ remove its folder, and run again"):
        searching.opened((search,), store)
    shutil.rmtree(store.search(search.id).path)
    workers = searching.search((search,), store, Workers(store))
    after = searching.trials_of(store, search)
    assert [(one.params, one.value) for one in after] == [(one.params, one.value) for one in before]
    assert not workers.handed, "nothing is trained again"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_result_whose_journal_is_short_is_no_value_of_a_trial(tmp_path: Path) -> None:
    """Of a store that an earlier version wrote, which had not synced the lines."""
    store = layout.open_store(tmp_path / "store")
    layout.create(store)
    (search, *_) = searching.searches_of(store, {"trials": 3})
    whole = searching.search((search,), store, Workers(store)) and searching.trials_of(store, search)
    for kept in (b"", b'{"epoch": 1}\n'):
        jobs = [job for trial in whole for job in trial.jobs.values()]
        short = store.job(jobs[0])
        first = short.journal.read_bytes().partition(b"\n")[0] + b"\n" if kept else b""
        short.journal.write_bytes(first)
        shutil.rmtree(store.search(search.id).path)
        workers = searching.search((search,), store, Workers(store))
        assert [trial.value for trial in searching.trials_of(store, search)] == [one.value for one in whole]
        assert set(workers.handed) == {short.path.name}
    assert files.is_there(short.result)
