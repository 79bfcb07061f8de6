"""Searches, range tests and hostile names to MLflow, from small files: no training is run here."""

import html
import os
import re
import shutil
import signal
import subprocess
import sys
from urllib.parse import unquote

import pytest
from commands import wait_until
from markdown_it import MarkdownIt
from shown import client, everything, hidden, history, runs_of
from tracked import begun, read, sync

from ablate import tracking
from ablate.recipe import identity as identities
from ablate.store import files, job_folder, layout
from ablate.study import file as study_file

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
HOSTILE = "a'b\"c`d](http://x.y) <script>alert(1)</script> **é** &lt; www.x.y\n# $x$ |"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a store for several tests, each with its own study: a database takes seconds to make."""
    held = layout.open_store(tmp_path_factory.mktemp("searches") / "store")
    layout.create(held)
    return held


def rebuilt(held, name, send, tmp_path):
    """Return all that MLflow says when a copy of the store without its database is sent anew."""
    copy = layout.open_store(tmp_path / "copy")
    shutil.copytree(held.path, copy.path, ignore=shutil.ignore_patterns("mlflow.db", "artifacts", "*lock"))
    send(copy)
    return everything(copy.path, name)


class Search:
    """A search on disk, growing as one does while it runs."""

    def __init__(self, held, label, **head):
        self.store, self.id, self.trials = held, identities.digest(label), []
        self.folder = held.path / "searches" / self.id
        self.head = {
            "label": label, "metric": "validation/accuracy", "direction": "max", "sampler": "tpe",
            "pruner": "median", "trials": 2, "seeds": [0, 1],
            "space": {"optimizer.lr": {"low": 1e-3, "high": 1.0, "log": True},
                      "augment.flip": {"choices": [True, False]}},
            "started": 1000,
        } | head  # fmt: skip
        self.write()

    def write(self):
        files.write_json(self.folder / "search.json", self.head)
        files.write_json(self.folder / "trials.json", {"trials": self.trials})

    def start(self, started):
        number = len(self.trials)
        jobs = {str(seed): identities.digest([self.id, number, seed]) for seed in self.head["seeds"]}
        params = {"optimizer.lr": 0.1 * (number + 1), "augment.flip": number % 2 == 0}
        trial = {
            "number": number,
            "params": params,
            "jobs": jobs,
            "value": None,
            "state": "running",
            "started": started,
            "ended": None,
        }
        self.trials.append(trial)
        for job in jobs.values():
            folder = self.store.job(job)
            folder.path.mkdir(parents=True)
            files.append(folder.attempts, {"number": 1, "timestamp": started})
        self.write()
        return trial

    def epoch(self, trial, seed, number, timestamp):
        line = {
            "epoch": number,
            "timestamp": timestamp,
            "seconds": 0.5,
            "metrics": {"train/loss": 1 / number + seed},
        }
        files.append(self.store.job(trial["jobs"][str(seed)]).journal, line)

    def end(self, trial, state, value, ended):
        trial |= {"state": state, "value": value, "ended": ended}
        self.write()

    def quick(self, state, value, ended):
        self.end(self.start(ended - 10), state, value, ended)

    def source(self):
        return tracking.searched([self.id], self.store)[0]


def by_name(held, loaded, condition="tags.`ablate.kind` != 'study'"):
    return {run.info.run_name: run for run in runs_of(client(held.path), loaded.name, condition)}


def test_trials_are_nested_in_their_search_with_what_they_tried(shared):
    loaded, search = read("nested"), Search(shared, "lr of baseline")
    for number, value in enumerate((0.5, 0.75)):
        trial = search.start(1100 + 100 * number)
        for epoch in (1, 2):
            for seed in (0, 1):
                search.epoch(trial, seed, epoch, 1100 + 100 * number + epoch)
        search.end(trial, "complete", value, 1150 + 100 * number)
    sync(shared, loaded, search.source())
    api, (parent,) = (
        client(shared.path),
        runs_of(client(shared.path), "nested", "tags.`ablate.kind` = 'search'"),
    )
    assert (parent.info.run_name, parent.info.status) == ("search: lr of baseline", "FINISHED")
    assert (parent.info.start_time, parent.info.end_time) == (1000, 1250)
    assert parent.data.params == {
        "sampler": "tpe", "pruner": "median", "trials": "2", "metric": "validation/accuracy", "seeds": "0, 1",
    }  # fmt: skip
    assert history(api, parent) == {"best/validation/accuracy": [(0, 1150, 0.5), (1, 1250, 0.75)]}
    assert [item.path for item in api.list_artifacts(parent.info.run_id)] == ["trials.json"]
    nested = runs_of(api, "nested", f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert [run.info.run_name for run in nested] == ["trial 0: lr of baseline", "trial 1: lr of baseline"]
    assert nested[1].data.params == {"lr": "0.2", "flip": "false", "trial": "1"}
    assert history(api, nested[1]) == {
        "train/loss": [(1, 1201, 1.0), (2, 1202, 0.5)],
        "seed 1/train/loss": [(1, 1201, 2.0), (2, 1202, 1.5)],
        "time/epoch_seconds": [(1, 1201, 0.5), (2, 1202, 0.5)],
        "seed 1/time/epoch_seconds": [(1, 1201, 0.5), (2, 1202, 0.5)],
        "trial/value": [(2, 1250, 0.75)],
    }
    assert nested[1].data.tags["ablate.job"] == search.trials[1]["jobs"]["0"]


def test_each_state_of_a_trial_has_a_status_and_the_search_waits_for_all(shared):
    loaded, search = read("states"), Search(shared, "states", trials=6)
    states = ("complete", "pruned", "diverged", "failed")
    for i, state in enumerate(states):
        search.quick(state, 0.5 if state in ("complete", "pruned") else None, 1100 + i)
    search.start(1200)
    sync(shared, loaded, search.source())
    found = by_name(shared, loaded)
    seen = [
        (found[f"trial {i}: states"].info.status, found[f"trial {i}: states"].data.tags["ablate.status"])
        for i in range(5)
    ]
    assert seen == [
        ("FINISHED", "finished"), ("FINISHED", "pruned"), ("FINISHED", "diverged"), ("FAILED", "failed"),
        ("KILLED", "stopped"),
    ]  # fmt: skip
    assert (found["search: states"].info.status, found["search: states"].info.end_time) == ("KILLED", 1103)
    search.end(search.trials[4], "complete", 0.4, 1300)
    search.quick("complete", 0.4, 1400)
    sync(shared, loaded, search.source())
    assert {
        run.info.status for name, run in by_name(shared, loaded).items() if name != "trial 3: states"
    } == {"FINISHED"}


def test_the_best_so_far_is_of_complete_trials_in_the_order_of_their_ends(shared):
    loaded, search = read("best"), Search(shared, "best", direction="min", metric="validation/loss", trials=5)
    for state, value, ended in (
        ("failed", None, 1100), ("complete", 0.5, 1400), ("complete", 0.7, 1200), ("pruned", 0.1, 1300),
        ("diverged", None, 1500),
    ):  # fmt: skip
        search.quick(state, value, ended)
    sync(shared, loaded, search.source())
    run = by_name(shared, loaded)["search: best"]
    points = history(client(shared.path), run)["best/validation/loss"]
    assert sorted(points, key=lambda point: point[1]) == [
        (2, 1200, 0.7),
        (3, 1300, 0.7),
        (1, 1400, 0.5),
        (4, 1500, 0.5),
    ]


def test_what_a_writer_sent_bit_by_bit_is_what_a_lost_database_is_rebuilt_to(shared, tmp_path):
    loaded, search = read("grown"), Search(shared, "grown")
    heard = []
    writer = tracking.Writer(tracking.uri(shared, None), loaded, [search.source()], shared, heard.append)

    def shows(name, key, points):
        run = (
            by_name(shared, loaded).get(name) if client(shared.path).get_experiment_by_name("grown") else None
        )
        return run is not None and len(history(client(shared.path), run).get(key, ())) == points

    trial = search.start(1100)
    for epoch, seed in ((1, 1), (1, 0), (2, 1), (2, 0)):  # the later seed is ahead
        search.epoch(trial, seed, epoch, 1100 + 2 * epoch - seed)
        writer.touch(search.id)
        wait_until(
            lambda e=epoch, s=seed: shows("trial 0: grown", "seed 1/train/loss" if s else "train/loss", e)
        )
    assert {run.info.status for run in by_name(shared, loaded).values()} == {"RUNNING"}
    search.end(trial, "complete", 0.5, 1150)
    search.epoch(search.start(1160), 0, 1, 1170)
    writer.touch(search.id)
    writer.touch("of nobody")
    wait_until(
        lambda: (
            shows("trial 1: grown", "train/loss", 1) and shows("search: grown", "best/validation/accuracy", 1)
        )
    )
    report = writer.close()
    assert (report.late, report.error, heard) == (0, "", [])
    before = everything(shared.path, "grown")
    assert {run[0]: run[1] for run in before} == {
        "search: grown": "KILLED",
        "trial 0: grown": "FINISHED",
        "trial 1: grown": "KILLED",
    }
    sync(shared, loaded, search.source())
    assert everything(shared.path, "grown") == before
    assert (
        rebuilt(
            shared, "grown", lambda copy: sync(copy, loaded, *tracking.searched([search.id], copy)), tmp_path
        )
        == before
    )


def test_a_trial_of_another_process_runs_on_and_one_that_a_killed_process_left_is_ended(shared):
    loaded, search, other = read("left"), Search(shared, "left"), Search(shared, "right", trials=1)
    search.start(1100)
    with shared.job(search.trials[0]["jobs"]["0"]).lock():  # the process of another study trains it
        sync(shared, loaded, search.source(), other.source())
        assert (
            by_name(shared, loaded)["trial 0: left"].info.status
            == by_name(shared, loaded)["search: left"].info.status
            == "RUNNING"
        )
        writer = tracking.Writer(
            tracking.uri(shared, None), loaded, [search.source(), other.source()], shared, print
        )
        assert writer.close().late == 0
        assert (
            by_name(shared, loaded)["trial 0: left"].info.status
            == by_name(shared, loaded)["search: left"].info.status
            == "RUNNING"
        )
    writer = tracking.Writer(
        tracking.uri(shared, None), loaded, [search.source(), other.source()], shared, print
    )
    wait_until(lambda: by_name(shared, loaded)["trial 0: left"].info.status == "KILLED")
    other.quick("complete", 0.5, 1100)
    writer.touch(other.id)
    wait_until(lambda: by_name(shared, loaded)["search: right"].info.status == "FINISHED")
    assert by_name(shared, loaded)["search: left"].info.status == "KILLED"
    writer.touch(search.id)  # taken up again
    wait_until(lambda: by_name(shared, loaded)["trial 0: left"].info.status == "RUNNING")
    assert by_name(shared, loaded)["search: left"].info.status == "RUNNING"
    assert writer.close().late == 0
    assert {name: run.info.status for name, run in by_name(shared, loaded).items()} == {
        "search: left": "KILLED", "trial 0: left": "KILLED", "search: right": "FINISHED",
        "trial 0: right": "FINISHED",
    }  # fmt: skip


def test_a_finished_search_that_is_given_more_trials_goes_on(shared):
    loaded, search = read("more"), Search(shared, "more", trials=1)
    search.quick("complete", 0.5, 1100)
    sync(shared, loaded, search.source())
    search.head["trials"] = 2
    search.quick("complete", 0.6, 1200)
    sync(shared, loaded, search.source())
    run = by_name(shared, loaded)["search: more"]
    assert (run.info.status, run.info.end_time, run.data.metrics["best/validation/accuracy"]) == (
        "FINISHED",
        1200,
        0.6,
    )
    assert run.data.params["trials"] == "2", "MLflow writes a param once: the run of the search is made anew"
    nested = [by_name(shared, loaded)[f"trial {number}: more"] for number in (0, 1)]
    assert {one.data.tags["mlflow.parentRunId"] for one in nested} == {run.info.run_id}
    assert tracking.compare(tracking.uri(shared, None), loaded, [search.source()], shared) == []


def test_a_search_of_two_studies_is_shown_in_both_and_hidden_where_it_is_dropped(shared):
    search = Search(shared, "common", trials=1)
    search.quick("complete", 0.5, 1100)
    one, other = read("first user"), read("second user")
    for loaded in (one, other):
        sync(shared, loaded, search.source())
    assert everything(shared.path, one.name)[0][0] == "search: common"
    shows = [[run[:5] + run[6:] for run in everything(shared.path, loaded.name)] for loaded in (one, other)]
    assert shows[0] == shows[1]
    again = Search(shared, "another", trials=1)
    again.quick("complete", 0.5, 1100)
    sync(shared, one, again.source())
    stale = {
        run.info.run_name: run.data.tags.get("ablate.stale") for run in hidden(client(shared.path), one.name)
    }
    assert stale == {"search: common": "true", "trial 0: common": "true"}
    assert by_name(shared, one).keys() == {"search: another", "trial 0: another"}
    assert by_name(shared, other).keys() == {"search: common", "trial 0: common"}


def sweep(held, label, seeds=(0, 1)):
    identity = identities.digest(label)
    swept = {"low": 0.001, "high": 0.1, "steps": 3, "mode": "exponential", "per": "batch"}
    folder = held.path / "ranges" / identity
    files.write_json(
        folder / "range.json", {"label": label, "sweep": swept, "seeds": list(seeds), "started": 1000}
    )
    return identity, folder


def curve(folder, seed, losses, timestamp):
    content = {
        "rates": [0.001, 0.01, 0.1],
        "losses": losses,
        "accuracies": [0.1, 0.2, 0.1],
        "stopped": "end",
        "timestamp": timestamp,
    }
    files.write_json(folder / f"curve-{seed}.json", content)


def test_a_range_test_has_its_curves_and_ends_with_its_suggestion(shared, tmp_path):
    loaded, (identity, folder) = read("swept"), sweep(shared, "the baseline")
    curve(folder, 0, [2.5, 1.5, "inf"], 1100)

    def send(held):
        sync(held, loaded, *tracking.ranged([identity], held))

    send(shared)
    run = by_name(shared, loaded)["range test: the baseline"]
    assert (run.info.status, run.info.end_time, run.data.tags["ablate.status"]) == ("KILLED", 1100, "stopped")
    curve(folder, 1, [2.25, "nan", 3.0], 1200)
    suggestion = {"rule": "valley", "status": "ok", "rate": 0.01, "low": 0.005, "high": None}
    files.write_json(folder / "suggestion.json", suggestion)
    send(shared)
    run = by_name(shared, loaded)["range test: the baseline"]
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1000, 1200)
    assert run.data.params == {
        "low": "0.001", "high": "0.1", "steps": "3", "mode": "exponential", "per": "batch", "seeds": "0, 1",
        "suggestion/rule": "valley", "suggestion/status": "ok", "suggestion/rate": "0.01",
        "suggestion/low": "0.005", "suggestion/high": "none",
    }  # fmt: skip
    seen = history(client(shared.path), run)
    assert seen["range/loss"] == [(0, 1100, 2.5), (1, 1100, 1.5)]  # infinity would be drawn at 1.8e308
    assert seen["seed 1/range/loss"] == [(0, 1200, 2.25), (2, 1200, 3.0)]
    assert seen["range/lr"] == [(0, 1100, 0.001), (1, 1100, 0.01), (2, 1100, 0.1)]
    assert seen["seed 1/range/accuracy"] == [(0, 1200, 0.1), (1, 1200, 0.2), (2, 1200, 0.1)]
    before = everything(shared.path, "swept")
    assert sorted(before[0][-1]) == ["curve-0.json", "curve-1.json", "range.json", "suggestion.json"]
    send(shared)
    assert everything(shared.path, "swept") == before
    assert rebuilt(shared, "swept", send, tmp_path) == before


def test_a_range_test_and_a_search_that_another_process_runs_go_on_until_it_is_dead(shared):
    loaded, (identity, folder), search = (
        read("elsewhere"),
        sweep(shared, "elsewhere", (0,)),
        Search(shared, "elsewhere"),
    )
    search.quick("complete", 0.5, 1100)
    sources = (*tracking.ranged([identity], shared), search.source())
    (folder / "0").mkdir()
    with job_folder.Folder(folder / "0").lock(), job_folder.Folder(search.folder).lock():
        sync(shared, loaded, *sources)
        assert {name: run.info.status for name, run in by_name(shared, loaded).items()} == {
            "range test: elsewhere": "RUNNING", "search: elsewhere": "RUNNING",
            "trial 0: elsewhere": "FINISHED",
        }  # fmt: skip
    sync(shared, loaded, *sources)
    assert {
        run.info.status for name, run in by_name(shared, loaded).items() if not name.startswith("trial")
    } == {"KILLED"}


def test_what_was_never_started_is_not_shown(shared):
    loaded = read("nothing")
    sync(shared, loaded, *tracking.searched(["0" * 64], shared), *tracking.ranged(["0" * 64], shared))
    assert everything(shared.path, "nothing") == []


def test_each_run_links_all_runs_of_its_cell_whatever_its_name_holds(shared):
    loaded = read("links", ("one", HOSTILE))
    sync(shared, loaded, *tracking.tracked(loaded, begun(shared, loaded), shared))
    api = client(shared.path)
    found = [run for run in runs_of(api, "links") if HOSTILE in run.data.tags["ablate.cell"]]
    assert [run.data.tags["ablate.seed"] for run in found] == ["0", "1"]
    note = found[1].data.tags["mlflow.note.content"]
    link = r"\[All runs of this cell]\(#/experiments/(\d+)/runs\?searchFilter=([\w%.-]+)\)"
    experiment, condition = re.fullmatch(link, note.splitlines()[0]).groups()
    linked = api.search_runs([experiment], unquote(condition))
    assert {run.info.run_id for run in linked} == {run.info.run_id for run in found}
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(note)
    assert set(re.findall(r"<(\w+)", page)) == {"p", "a", "ul", "li"}
    assert page.count("<a ") == 1
    said = html.unescape(re.sub(r"<[^>]+>", "", page)).split("\n")
    one_line = HOSTILE.replace("\n", " ")
    assert [line for line in said if line][1:] == [
        f"cell: part={one_line}",
        f"level of part: {one_line}",
        "seed: 1",
    ]


def test_a_note_that_is_too_long_is_cut_behind_a_whole_line(shared):
    paths = {"augment.rotation": 5, "augment.flip": False, "optimizer.lr": 0.5}
    tables = [
        {
            "name": f"{i}{'<' * 400}",
            "levels": [{"name": "[" * 400, "set": {}}, {"name": "other", "set": {path: level}}],
        }
        for i, (path, level) in enumerate(paths.items())
    ]
    small = {
        "data": {"name": "digits", "train_size": 300},
        "model": {"name": "cnn4"},
        "training": {"epochs": 3},
    }
    loaded = study_file.check(
        {"name": "long", "seeds": 1, "recipe": small, "factor": tables, "design": "one_at_a_time"}, "x.toml"
    )
    sync(shared, loaded, *tracking.tracked(loaded, begun(shared, loaded)[:1], shared))
    (run,) = runs_of(client(shared.path), "long")
    lines = run.data.tags["mlflow.note.content"].splitlines()
    assert [line[:7] for line in lines] == ["[All ru", "", "- cell:", "- level", "- level"]
    assert lines[-1].endswith(f": {'&#91;' * 300}&#8230;")


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from ablate.tracking.sender import Sender
from tracked import read
from ablate import tracking
from ablate.store import layout

@event.listens_for(Engine, "after_cursor_execute")
def see(connection, cursor, statement, *_):
    if "CREATE TABLE scorers" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

held = layout.open_store(Path(sys.argv[1]))
Sender(tracking.uri(held, None), read("killed"), held, None)._connect()
"""


@pytest.mark.slow  # MLflow's import, twice
def test_a_kill_while_mlflow_makes_its_database_leaves_none_that_cannot_be_used(tmp_path):
    held, loaded = layout.open_store(tmp_path / "store"), read("killed")
    layout.create(held)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(held.path)], env=environment, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(held.path.glob("*mlflow.db*"))
    sync(held, loaded, *tracking.tracked(loaded, begun(held, loaded), held))
    assert len(runs_of(client(held.path), "killed")) == 4
    assert [path.name for path in held.path.glob("*mlflow.db*")] == ["mlflow.db"]
