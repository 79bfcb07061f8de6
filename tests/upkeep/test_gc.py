"""`ablate gc`: what studies need stays, the rest goes, and a kill leaves whole jobs or none."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter

import pytest
from commands import TINY, ablate, results, start, wait_for
from filelock import FileLock
from resolving import fingerprints
from stores import DEAD, change, job, other_job

from ablate.errors import AblateError
from ablate.execution import options
from ablate.planning import references
from ablate.store import job_folder, layout, study_folder
from ablate.study import file as study_file
from ablate.study import grid
from ablate.upkeep import gc
from ablate.workflow import plan as planning
from ablate.workflow import upkeep

STRANGE = "f" * 64


@pytest.fixture
def store(done, tmp_path):
    """Return a finished store of its own."""
    folder, _ = done
    subprocess.run(["cp", "-r", folder / "store", tmp_path / "store"], check=True)
    return tmp_path / "store"


def where(store):
    return options.Where(layout.open_store(store))


def found(store):
    return {(item.kind, item.path.relative_to(store).as_posix()) for item in upkeep.garbage(where(store))}


def litter(store):
    """Put one of each kind of garbage into a store; give what must be found."""
    other = other_job(store)
    for part in ("searches", "ranges", "data"):
        (store / part / STRANGE).mkdir(parents=True)
        (store / part / STRANGE / "file").write_text("x")
    (job(store) / f".last.pt.{DEAD}").write_text("x")
    (store / "data/draft-abc").mkdir()
    os.utime(store / "data/draft-abc", (0, 0))
    (store / "jobs/.abc.gone").mkdir()
    finished = max(path for path in store.glob("jobs/[0-9a-f]*") if path != other)
    (finished / "checkpoint.pt").write_text("x")
    return {
        ("job", f"jobs/{other.name}"), ("search", f"searches/{STRANGE}"), ("range test", f"ranges/{STRANGE}"),
        ("images", f"data/{STRANGE}"),
        ("draft", f"jobs/{job(store).name}/.last.pt.{DEAD}"), ("draft", "data/draft-abc"),
        ("draft", "jobs/.abc.gone"), ("checkpoint", f"jobs/{finished.name}/checkpoint.pt"),
    }  # fmt: skip


def everything(store):
    return sorted(str(path.relative_to(store)) for path in store.rglob("*"))


def test_what_a_study_needs_is_no_garbage(store):
    assert upkeep.garbage(where(store)) == ()


def test_each_kind_of_garbage_is_found_and_goes_and_nothing_else_does(store):
    needed = everything(store)
    wanted = litter(store)
    assert found(store) == wanted
    removed = upkeep.collect(where(store), upkeep.garbage(where(store)))
    assert removed.kept == ()
    assert len(removed.items) == len(wanted)
    assert set(everything(store)) - set(needed) <= {"searches", "ranges"}
    assert set(needed) <= set(everything(store))
    assert upkeep.garbage(where(store)) == ()


def test_jobs_of_a_removed_study_or_of_older_numerics_go_and_those_of_another_study_stay(store):
    shutil.copytree(store / "studies/tiny", store / "studies/one")
    content = (
        (store / "studies/one/study.json")
        .read_text()
        .replace('"name": "tiny"', '"name": "one"')
        .replace('"seeds": 2', '"seeds": 1')
    )
    (store / "studies/one/study.json").write_text(content)
    assert found(store) == set()
    shutil.rmtree(store / "studies/tiny")
    assert {kind for kind, _ in found(store)} == {"job"}
    assert len(found(store)) == 2  # of the second seed
    change(other_job(store) / "recipe.json", numerics=1)
    assert "trained under numerics 1, and this version trains it anew" in {
        item.why for item in upkeep.garbage(where(store))
    }


def spoil_study(store):
    change(store / "studies/tiny/study.json", study={"name": "tiny", "colours": 3})


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (spoil_study, 'the jobs of the study "tiny" cannot be named'),
        (
            lambda store: (store / "studies/tiny/study.json").write_text("{"),
            'the jobs of the study "tiny" cannot be named',
        ),
        (lambda store: (store / "studies/tiny/settled.json").unlink(), "in which precision it was run"),
        (
            lambda store: (
                change(store / "studies/tiny/settled.json", fingerprints={})
                or shutil.rmtree(store / "data/index")
            ),
            "which images",
        ),
        (lambda store: shutil.rmtree(store / "studies/tiny"), "has no study"),
        (lambda store: shutil.rmtree(store / "jobs"), "must be a store"),
    ],
)
def test_where_nobody_can_say_what_is_needed_nothing_is_removed(store, harm, words):
    other_job(store)
    harm(store)
    with pytest.raises(AblateError, match=words):
        upkeep.garbage(where(store))


def test_a_study_that_is_not_tuned_yet_keeps_its_jobs(store):
    content = (store / "studies/tiny/study.json").read_text()
    assert '"lr": 0.003' in content
    (store / "studies/tiny/study.json").write_text(content.replace('"lr": 0.003', '"lr": "find"'))
    with pytest.raises(AblateError, match="have not ended"):
        upkeep.garbage(where(store))


@pytest.mark.parametrize(
    ("lock", "words"),
    [("studies/tiny/lock", 'study "tiny" by process'), ("jobs/{job}/lock", "job "), ("data/lock", "images")],
)
def test_nothing_is_removed_while_a_process_works_in_the_store(store, lock, words):
    other = other_job(store)
    shown = upkeep.garbage(where(store))
    with FileLock(store / lock.format(job=job(store).name)):
        with pytest.raises(AblateError, match=f"while a process works there, on {words}"):
            upkeep.garbage(where(store))
        with pytest.raises(AblateError):
            upkeep.collect(where(store), shown)
    assert other.is_dir()


def test_a_study_that_was_never_trained_is_held_like_any_other(store):
    other = other_job(store)
    (store / "studies/new").mkdir()
    shown = upkeep.garbage(where(store))
    with (
        FileLock(store / "studies/new/lock"),
        pytest.raises(AblateError, match="while a process works there"),
    ):
        upkeep.collect(where(store), shown)
    assert other.is_dir()
    assert len(upkeep.collect(where(store), shown).items) == 1


def test_what_has_come_to_be_needed_since_it_was_shown_is_kept(store):
    other = other_job(store, seed=2)
    shown = upkeep.garbage(where(store))
    content = (store / "studies/tiny/study.json").read_text()
    (store / "studies/tiny/study.json").write_text(content.replace('"seeds": 2', '"seeds": 3'))
    assert upkeep.collect(where(store), shown).items == ()
    assert other.is_dir()


def test_seeds_that_were_asked_for_by_an_option_are_needed(store):
    other = other_job(store, seed=2)
    more = planning.load("tiny", (), where(store).store, 3)
    assert more.seeds == (0, 1, 2)
    study_folder.keep(where(store).store, more, study_folder.settled(where(store).store, "tiny"))
    assert other.name in references.read(where(store).store, quick=True).jobs
    assert upkeep.garbage(where(store)) == ()


def test_a_study_that_begins_meanwhile_stops_the_removal(store, monkeypatch):
    other_job(store, seed=7)
    other_job(store, seed=8)
    real = gc._remove

    def remove(item):
        real(item)
        (store / "studies/new").mkdir()

    monkeypatch.setattr(gc, "_remove", remove)
    with pytest.raises(AblateError, match="a new study has begun; 1 were removed before"):
        upkeep.collect(where(store), upkeep.garbage(where(store)))
    assert len(found(store)) == 1


def test_a_removal_cut_short_leaves_no_half_job_and_the_next_one_ends_it(store, monkeypatch):
    other = other_job(store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(OSError("no more")))
        removed = upkeep.collect(where(store), upkeep.garbage(where(store)))
    assert [reason for _, reason in removed.kept] == ["no more"]
    assert not other.exists()
    assert not list(store.glob("jobs/.*/result.json"))
    assert found(store) == {("draft", f"jobs/.{other.name}.gone")}
    upkeep.collect(where(store), upkeep.garbage(where(store)))
    assert not list(store.glob("jobs/.*"))


def test_links_are_neither_followed_nor_removed(store, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(other_job(store), outside / STRANGE)
    (store / "jobs" / STRANGE).symlink_to(outside / STRANGE)
    (store / "searches").symlink_to(outside)
    (other_job(store, seed=8) / "outcomes/link").symlink_to(outside)
    removed = upkeep.collect(where(store), upkeep.garbage(where(store)))
    assert {item.kind for item in removed.items} == {"job"}
    assert len(removed.items) == 2
    assert (store / "jobs" / STRANGE).is_symlink()
    assert (outside / STRANGE / "recipe.json").is_file()


def test_the_command_lists_asks_and_removes(store):
    other = other_job(store)
    code, out, err = ablate("gc", "--store", store, "--dry-run", COLUMNS="150")
    assert (code, err) == (0, "")
    assert "job: no study needs it" in out
    code, out, err = ablate("gc", "--store", store)
    assert code == 2
    assert "say --yes" in err
    assert other.is_dir()
    before = {name: text for name, text in results(store).items() if other.name not in name}
    code, out, err = ablate("gc", "--store", store, "--yes")
    assert (code, err) == (0, "")
    assert "removed 1, " in out
    assert results(store) == before
    assert not other.exists()


@pytest.mark.slow  # a process for each kill
def test_killed_amid_a_removal_the_store_is_whole_and_the_next_one_goes_on(store):
    other = other_job(store)
    for number in range(4000):
        folder = store / "jobs" / f"{number:064x}"
        folder.mkdir()
        for name in ("recipe.json", "result.json", "last.pt"):
            (folder / name).hardlink_to(other / name)
    before = len(list(store.glob("jobs/[0-9a-f]*")))
    process = start("gc", "--store", store, "--yes")
    wait_for(lambda: len(list(store.glob("jobs/[0-9a-f]*"))) < before - 50, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = list(store.glob("jobs/[0-9a-f]*"))
    assert len(left) > 100
    assert all((path / "result.json").exists() and (path / "recipe.json").exists() for path in left)
    code, _, err = ablate("gc", "--store", store, "--yes")
    assert (code, err) == (0, "")
    assert len(list(store.glob("jobs/*"))) == 4
    assert json.loads(ablate("plan", "tiny", "--store", store, "--json")[1])["done"] == 4


PRETRAINED = {"name": "resnet18", "pretrained": True, "stem": "imagenet"}


@pytest.mark.parametrize(
    "quick", [True, pytest.param(False, marks=pytest.mark.slow)]
)  # the second imports torch
def test_jobs_of_a_pretrained_network_are_needed_whichever_weights_they_began_with(store, quick):
    here = layout.open_store(store)
    for path in store.glob("jobs/*"):
        shutil.rmtree(path)
    raw = json.loads((store / "studies/tiny/study.json").read_text())["study"]
    raw |= {
        "recipe": raw["recipe"] | {"model": PRETRAINED},
        "factors": {"augment": {"rotation": [0, 15]}},
        "claim": [],
    }
    checked, known = study_file.check(raw, "x.toml"), study_folder.settled(here, "tiny")
    study_folder.keep(here, checked, known)
    (data,) = known.fingerprints.values()
    expanded = grid.expand(checked, precision=known.precision)
    jobs = []
    for code in ("resnet18-5c106cde.pth", "resnet18-of-old.pth"):
        jobs += grid.runs_and_jobs(expanded, checked.seeds, fingerprints(expanded, data, code))[1]
    for one in jobs:
        job_folder.create(here.job(one.id), one)
    found = references.read(here, quick=quick)
    assert found.unclear == {}
    assert len(jobs) == 8
    assert {one.id for one in jobs} <= found.jobs


SPACE = "[search]\ntrials = 3\nspace.optimizer.weight_decay = { low = 1e-6, high = 1e-2, log = true }\n"


@pytest.mark.slow  # two runs of studies
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_what_searches_and_range_tests_have_found_stays_and_goes_with_their_study(tmp_path):
    store = tmp_path / "store"
    text = TINY.replace("seeds      = 2", "seeds = 1").partition("[[claim]]")[0]
    (tmp_path / "search.toml").write_text(text + SPACE)
    rates = text.replace('"tiny"', '"find"').replace(", lr = 0.003", "").replace("[true, false]", "[true]")
    rates = rates.replace("model.batch_norm ", "# ").replace(
        "[factors]", '[factors]\noptimizer.lr = ["find", 0.01]'
    )
    (tmp_path / "find.toml").write_text(rates)
    for name in ("search.toml", "find.toml"):
        code, out, err = ablate("run", tmp_path / name, "--store", store)
        assert (code, err) == (0, ""), out + err
    assert upkeep.garbage(where(store)) == ()
    assert [one for one in upkeep.examine(where(store)) if one.severity != "ok"] == []
    shutil.rmtree(store / "studies/tiny")
    assert Counter(item.kind for item in upkeep.garbage(where(store))) == {"job": 8, "search": 2}
    shutil.rmtree(next(store.glob("ranges/*")))
    with pytest.raises(AblateError, match="have not ended"):
        upkeep.garbage(where(store))
