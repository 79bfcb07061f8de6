"""The doctor finds what is torn; gc takes nothing from an lr-find that runs, and one that fails says so."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from commands import failing
from stores import examine, wrong

from ablate.cli import main
from ablate.errors import AblateError, StoreError
from ablate.execution import options
from ablate.execution.crew import assemble
from ablate.execution.events import StageStarted
from ablate.planning import references
from ablate.recipe import range_test
from ablate.store import layout, study_folder
from ablate.upkeep import gc
from ablate.workflow import answers, argument, run, upkeep


@pytest.fixture
def store(done, tmp_path):
    """Return a finished store of its own."""
    subprocess.run(["cp", "-r", done[0] / "store", tmp_path / "store"], check=True)
    return layout.open_store(tmp_path / "store")


def test_work_of_no_study_is_seen_by_gc_and_leaves_nothing_behind(store):
    where, before = options.Where(store), sorted((store.path / "studies").iterdir())
    with study_folder.hold_free(store, "lr-find"), study_folder.hold_free(store, "lr-find"):
        with pytest.raises(StoreError, match='while a process works there, on study "lr-find 1" by process'):
            upkeep.garbage(where)
        assert study_folder.is_held(store, "lr-find 2")
    assert upkeep.garbage(where) == ()
    assert sorted((store.path / "studies").iterdir()) == before


def test_gc_stops_as_soon_as_work_of_no_study_begins(store):
    (store.data / ("f" * 64)).mkdir()
    items = upkeep.garbage(options.Where(store))
    assert [item.kind for item in items] == ["images"]
    with gc.alone(store, references.read(store, quick=True).studies) as studies:
        with (
            study_folder.hold_free(store, "lr-find"),
            pytest.raises(AblateError, match="a new study has begun"),
        ):
            gc.remove(items, store, studies)
        assert gc.remove(items, store, studies).items == items


@pytest.mark.slow  # seconds
def test_lr_find_holds_the_store_while_it_sweeps(store, study):
    seen = []

    def observe(event):
        if isinstance(event, StageStarted):
            with pytest.raises(StoreError, match=r"while a process works there, on study \"lr-find 1\""):
                upkeep.garbage(options.Where(store))
            seen.append(event)

    where = options.Where(store, device="cpu", jobs=1)
    loaded = argument.load(str(study), ("optimizer.lr=0.1",), store)
    with assemble(where, options.How(retry_failed=True), observe) as crew:
        suggested, ledger = run.lr_find(loaded, crew, (), 1, {"low": 1e-4, "high": 1.0, "steps": 5})
    assert len(seen) == 1
    assert not ledger.failures
    assert set(suggested["baseline"]) == set(range_test.RULES)


def test_a_range_test_without_its_curves_suggests_nothing():
    assert range_test.best({}) is None
    assert answers.rates({"baseline": {}}) == {"baseline": {"taken": None}}


@pytest.mark.slow  # a network of one's own, in workers
def test_an_lr_find_that_fails_is_a_sentence(store, study):
    failing(study)
    command = ["lr-find", str(study), "--cell", "model=broken_net:make", "--seeds", "1", "--steps", "5"]
    asked = [*command, "--store", str(store.path), "--jobs", "1"]
    plain, as_json = CliRunner().invoke(main, asked), CliRunner().invoke(main, [*asked, "--json"])
    assert (plain.exit_code, as_json.exit_code) == (1, 1), plain.output
    assert "model=broken_net:make: not all curves are there" in plain.output
    assert "crashed: ValueError: this network cannot be trained" in plain.output
    assert json.loads(as_json.stdout) == {"model=broken_net:make": {"taken": None}}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: np.save(path, np.ones(3)),
        lambda path: path.unlink(),
    ],
    ids=["empty", "cut off", "other numbers", "gone"],
)
def test_the_doctor_finds_decoded_images_that_are_not_whole(store, spoil):
    path = min(store.data.glob("[0-9a-f]*/train_labels.npy"))
    spoil(path)
    (finding,) = [one for one in wrong(examine(store.path)) if one.check == "images"]
    assert (finding.severity, finding.where) == ("problem", f"data/{path.parent.name}")
    assert "the next run decodes them again" in finding.says


@pytest.mark.parametrize("name", ["result.json", "log.txt", "lock", "journal.jsonl", "last.pt"])
def test_the_doctor_finds_a_folder_in_place_of_a_file(store, name):
    path = min(store.path.glob(f"jobs/*/{name}"))
    path.unlink()
    path.mkdir()
    found = [(one.says, one.do) for one in wrong(examine(store.path)) if one.check == "regular"]
    assert found == [("is a folder, and must be a file", "move it elsewhere")]


@pytest.mark.parametrize("pattern", ["jobs/*/outcomes", "jobs/*", "data/[0-9a-f]*"])
def test_the_doctor_finds_a_file_in_place_of_a_folder(store, pattern):
    path = min(path for path in store.path.glob(pattern) if path.is_dir() and len(path.name) != 5)
    shutil.rmtree(path)
    path.write_text("mine")
    found = [(one.says, one.do) for one in wrong(examine(store.path)) if one.check == "regular"]
    assert found == [("is a file, and must be a folder", "remove it")]
