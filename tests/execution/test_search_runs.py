"""Searches and range tests as users run them: real processes, real trainings on digits, real MLflow.

Kills and interruptions.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter

import pytest
from commands import BROKEN, RECIPE, ablate, attempts, start, wait_for, wait_until
from processes import kill, parent_of, workers_of
from shown import client, everything, runs_of

from ablate.store import files

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
KILLS = int(os.environ.get("ABLATE_TEST_KILLS", "5"))
VICTIMS = ("coordinator", "worker", "both")
SEARCHED = f"""
name       = "searched"
seeds      = 1

{RECIPE}
[factors]
model.batch_norm = [true, false]

[search]
trials = 3
sampler = "random"
space.optimizer.lr = {{ low = 1e-4, high = 1e-2, log = true }}
"""
FIND = SEARCHED.replace("lr = 0.003", 'lr = "find"').replace("space.optimizer.lr = { low = 1e-4, high = "
                                                             "1e-2, log = true }", """
space.optimizer.weight_decay = { low = 1e-6, high = 1e-2, log = true }
""").replace("trials = 3", "trials = 2").replace('"searched"', '"found"')  # fmt: skip


@pytest.fixture
def searched(tmp_path):
    """Return the file of a study that searches the rate of two cells."""
    path = tmp_path / "searched.toml"
    path.write_text(SEARCHED)
    return path


def planned(study, store, *more):
    return json.loads(ablate("plan", study, "--store", store, "--json", *more)[1])


def trials(store):
    """Return the trials of every search, by its id."""
    return {
        path.parent.name: json.loads(path.read_text())["trials"]
        for path in store.glob("searches/*/trials.json")
    }


def memory(store, search):
    import optuna

    path = store / "searches" / search / "optuna.jsonl"
    held = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    name = next(name for name in optuna.get_all_study_names(held) if name.endswith(search))
    return [
        (trial.number, trial.state.name) for trial in optuna.load_study(study_name=name, storage=held).trials
    ]


def shown(store, name, kind):
    return runs_of(client(store), name, f"tags.`ablate.kind` = '{kind}'")


def check_whole(store, name, count):
    """See that every search has exactly its trials, each with one result a job, and nothing still runs."""
    for search, rows in trials(store).items():
        assert [trial["number"] for trial in rows] == list(range(count))
        assert Counter(trial["state"] for trial in rows) == {"complete": count}
        assert memory(store, search) == [(i, "COMPLETE") for i in range(count)]
        for trial in rows:
            for job in trial["jobs"].values():
                lines = files.lines(store / "jobs" / job / "journal.jsonl")
                assert (store / "jobs" / job / "result.json").exists()
                assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert {
        run.info.status for kind in ("trial", "search", "range", "run") for run in shown(store, name, kind)
    } == {"FINISHED"}


@pytest.mark.slow  # several runs
def test_a_run_searches_first_and_trains_each_cell_with_the_fields_of_its_best_trial(searched, tmp_path):
    store = tmp_path / "store"
    before = planned(searched, store)
    assert (before["jobs"], before["to_train"], before["trial_trainings_left"], before["done"]) == (
        2,
        2,
        6,
        0,
    )
    code, out, err = ablate("run", searched, "--store", store)
    assert (code, err) == (0, ""), out + err
    assert "2 searches of 3 trials (random) on" in out
    assert "training 2 jobs on" in out
    check_whole(store, "searched", 3)
    rates = {}
    for path in store.glob("searches/*/search.json"):
        label, rows = json.loads(path.read_text())["label"], trials(store)[path.parent.name]
        rates[label] = max(rows, key=lambda trial: (trial["value"], -trial["number"]))["params"][
            "optimizer.lr"
        ]
    trained = {
        "baseline" if content["recipe"]["model"]["batch_norm"] else "batch_norm=false": content["recipe"][
            "optimizer"
        ]["lr"]
        for content in (json.loads(path.read_text()) for path in store.glob("jobs/*/recipe.json"))
        if content["seed"] == 0
    }
    assert trained == rates
    after = planned(searched, store)
    assert (after["jobs"], after["to_train"], after["trial_trainings_left"], after["done"]) == (2, 0, 0, 2)
    done = attempts(store)
    assert done == 8
    code, out, _ = ablate("run", searched, "--store", store)
    assert code == 0
    assert "nothing to train: all 2 jobs are done" in out
    assert attempts(store) == done
    parents = {run.info.run_id for run in shown(store, "searched", "search")}
    assert {run.data.tags["mlflow.parentRunId"] for run in shown(store, "searched", "trial")} == parents
    assert len(parents) == 2
    copy = tmp_path / "copy"
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("mlflow.db", "artifacts", "*lock"))
    assert ablate("sync", searched, "--store", copy)[0] == 0
    assert everything(copy, "searched") == everything(store, "searched")


@pytest.mark.slow  # range tests, searches and trainings
def test_a_rate_is_found_then_other_fields_are_searched_then_the_cells_are_trained(tmp_path):
    study, store = tmp_path / "found.toml", tmp_path / "store"
    study.write_text(FIND)
    before = planned(study, store)
    assert (
        before["range_tests"],
        before["range_tests_left"],
        before["trial_trainings_left"],
        before["to_train"],
    ) == (2, 2, 4, 2)
    code, out, err = ablate("search", study, "--store", store, COLUMNS="200")
    assert (code, err) == (0, ""), out + err
    assert re.search(r"baseline +2 of 2 +optimizer.lr = [\d.e-]+, optimizer.weight_decay = [\d.e-]+", out)
    after = planned(study, store)
    assert (after["range_tests_left"], after["trial_trainings_left"], after["to_train"]) == (0, 0, 2)
    assert attempts(store) == 4
    code, out, _ = ablate("run", study, "--store", store)
    assert code == 0
    assert "range tests of the learning rate" not in out
    assert "trials (random) on" not in out
    assert attempts(store) == 6
    check_whole(store, "found", 2)
    found = {json.loads(path.read_text())["rate"] for path in store.glob("ranges/*/suggestion.json")}
    assert {
        json.loads(path.read_text())["recipe"]["optimizer"]["lr"] for path in store.glob("jobs/*/recipe.json")
    } == found


@pytest.mark.slow  # two range tests
def test_a_range_test_can_be_asked_for_and_a_study_takes_its_curves(tmp_path):
    study, store = tmp_path / "found.toml", tmp_path / "store"
    study.write_text(FIND)
    code, out, err = ablate("lr-find", study, "--store", store, "--json")
    assert code == 0, err
    found = json.loads(out)["baseline"]
    assert set(found) == {"rise", "valley", "steepest", "min/10", "taken"}
    assert found["valley"]["low"] <= found["valley"]["rate"] <= found["valley"]["high"]
    assert len(list(store.glob("ranges/*/curve-*.json"))) == 3
    assert attempts(store) == 0
    assert planned(study, store)["range_tests_left"] == 1
    code, out, err = ablate("lr-find", study, "--store", store, "--cell", "batch_norm=false", "--seeds", 1)
    assert (code, err) == (0, "")
    assert re.search(r"batch_norm=false +valley +[\d.e-]+ +[\d.e-]+ to [\d.e-]+ +(ok|edge)", out)
    assert len(list(store.glob("ranges/*/curve-*.json"))) == 4
    code, out, err = ablate("lr-find", study, "--store", store, "--cell", "batch_norm=false", "--seeds", 1)
    assert (code, err) == (0, "")
    assert "the curves of an earlier time are taken, nothing is trained" in out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--cell", "batch_norm=flase"),
            '--cell: "batch_norm=flase" is not a cell of this study (did you mean batch_norm=false?)',
        ),
        (("--low", 1, "--high", 0.1), "A range test needs 0 < low < high, got low 1 and high 0.1"),
        (("--steps", 3), "3 is not in the range x>=5"),
    ],
)
def test_a_range_test_that_cannot_be_had_is_a_sentence_and_exit_code_2(searched, tmp_path, options, sentence):
    code, out, err = ablate("lr-find", searched, "--store", tmp_path / "store", *options)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in out + err


@pytest.mark.slow  # a run that gets as far as the search
def test_an_optuna_storage_that_cannot_be_had_is_a_sentence_and_another_one_is_used(searched, tmp_path):
    store = tmp_path / "store"
    code, out, err = ablate("search", searched, "--store", store, "--optuna-storage", "nonsense")
    assert code == 2
    assert "Optuna's storage cannot be opened" in err
    assert "Traceback" not in out + err
    code, out, err = ablate(
        "search", searched, "--store", store, "--optuna-storage", f"sqlite:///{tmp_path}/optuna.db"
    )
    assert (code, err) == (0, ""), out + err
    assert not list(store.glob("searches/*/optuna.jsonl"))
    assert attempts(store) == 6


# Kills, interruptions, and two at once


def kill_while_it_searches(searched, store, more, draw, hit):
    """Run a study, and kill it or its workers, until there are enough kills (in `hit`) or it is done."""
    while hit.total() < KILLS:
        process, victim = start("run", searched, "--store", store, *more), VICTIMS[hit.total() % len(VICTIMS)]
        if victim != "coordinator" or hit.total() % 2:  # otherwise anywhere, imports included
            wait_until(
                lambda p=process: (
                    p.poll() is not None or (workers_of(p.pid) and list(store.glob("searches/*/trials.json")))
                )
            )
        time.sleep(draw.uniform(0.1, 2.5))
        workers = workers_of(process.pid)
        if process.poll() is not None:
            out, err = process.communicate()
            assert (process.returncode, err) == (0, ""), out + err
            return
        hit[victim] += 1
        if victim != "coordinator" and workers:
            kill(draw.choice(workers))
        if victim == "worker":
            time.sleep(draw.uniform(0.1, 1.0))  # it goes on with another worker, until it is killed after all
        kill(process.pid)
        process.communicate()
        wait_until(lambda workers=workers: not any(parent_of(child) for child in workers))


@pytest.mark.slow  # a run for each kill
def test_a_search_that_is_killed_again_and_again_ends_with_exactly_its_trials(searched, tmp_path):
    stores, draw, hit = [], random.Random(3), Counter()
    more = ("--set", "search.trials=10", "--set", "training.epochs=6", "--set", "search.pruner=none")
    while hit.total() < KILLS:  # a quick machine ends a study before all: the next store takes the rest
        stores.append(tmp_path / f"store{len(stores)}")
        assert len(stores) < 10 + KILLS, f"studies end before they can be killed: {hit}"
        kill_while_it_searches(searched, stores[-1], more, draw, hit)
    for store in stores:
        code, out, err = ablate("run", searched, "--store", store, *more)
        assert (code, err) == (0, ""), out + err
        check_whole(store, "searched", 10)
        assert planned(searched, store, *more)["to_train"] == 0
        before = attempts(store)
        assert ablate("run", searched, "--store", store, *more)[0] == 0
        assert attempts(store) == before


@pytest.mark.slow  # two runs at once
def test_a_study_that_is_searched_already_says_so_and_can_be_waited_for(searched, tmp_path):
    store, long = tmp_path / "store", ("--set", "training.epochs=12")
    first = start("search", searched, "--store", store, *long)
    wait_for(lambda: list(store.glob("searches/*/trials.json")), first)
    os.kill(first.pid, signal.SIGSTOP)  # else it may be done first
    try:
        code, _, err = ablate("search", searched, "--store", store, *long)
        second = start("search", searched, "--store", store, "--wait", *long)
        said = second.stdout.readline()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert code == 2
    assert f"is being run by process {first.pid} on" in err
    out, err = second.communicate(timeout=300)
    assert (second.returncode, err) == (0, "")
    assert f"is being run by process {first.pid} on" in said
    assert "waiting for it" in said
    assert "trials (random) on" not in out
    out, err = first.communicate(timeout=300)
    assert (first.returncode, err) == (0, "")
    assert attempts(store) == 6


@pytest.mark.slow  # two runs at once
def test_two_studies_that_share_a_search_and_jobs_train_each_of_them_once(searched, tmp_path):
    store, other = tmp_path / "store", tmp_path / "other.toml"
    text = SEARCHED.replace('"searched"', '"other"').replace(
        "model.batch_norm = [true, false]", "model.head_dropout = [0.2, 0.1]"
    )
    other.write_text(text.replace(", head_dropout = 0.2", ""))
    processes = [start("run", study, "--store", store, "--jobs", 1) for study in (searched, other)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, ""), out + err
    assert len(trials(store)) == 3  # the baseline is the same
    counts = Counter(len(path.read_text().splitlines()) for path in store.glob("jobs/*/attempts.jsonl"))
    assert counts == {1: 9 + 3}
    for name in ("searched", "other"):
        check_whole(store, name, 3)


@pytest.mark.slow  # two runs
def test_ctrl_c_during_a_search_keeps_what_there_is_and_the_next_run_goes_on(searched, tmp_path):
    store, long = tmp_path / "store", ("--set", "training.epochs=12")
    process = start("run", searched, "--store", store, *long)
    wait_for(lambda: list(store.glob("jobs/*/journal.jsonl")), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, out + err
    assert "interrupted: everything finished is kept" in out
    kept = trials(store)
    assert "RUNNING" not in {
        run.info.status for kind in ("trial", "search") for run in shown(store, "searched", kind)
    }
    assert "training 2 jobs" not in out
    code, out, err = ablate("run", searched, "--store", store, *long)
    assert (code, err) == (0, ""), out + err
    for search, rows in kept.items():
        now = trials(store)[search]
        assert [(trial["params"], trial["jobs"]) for trial in now[: len(rows)]] == [
            (trial["params"], trial["jobs"]) for trial in rows
        ]
    check_whole(store, "searched", 3)


def with_broken(tmp_path, text):
    """Write a study one of whose two cells raises when it is trained."""
    study = tmp_path / "study.toml"
    study.write_text(text.replace("model.batch_norm = [true, false]", 'model.name = ["cnn4", '
                                                                      '"broken_net:make"]').replace(
        'name = "cnn4", width = 0.25, head_dropout', "head_dropout"
    ))  # fmt: skip
    (tmp_path / "broken_net.py").write_text(BROKEN)
    return study


@pytest.mark.slow  # two runs, and a network of one's own
@pytest.mark.parametrize(
    ("text", "sentence", "states"),
    [
        (SEARCHED, "none of its 3 trials is complete", [("complete",) * 3, ("failed",) * 3]),
        (FIND, "its range test failed", [("complete",) * 2]),
    ],
    ids=["search", "range test"],
)
def test_what_fails_for_one_cell_stops_no_other_and_the_cell_is_named_every_time(
    text, sentence, states, tmp_path
):
    study, store = with_broken(tmp_path, text), tmp_path / "store"
    for _ in range(2):
        code, out, err = ablate("run", study, "--store", store)
        assert (code, err) == (1, ""), out + err
        assert f"cell model=broken_net:make: {sentence}" in out
        assert "Traceback" not in out
        status = json.loads(ablate("status", study, "--store", store, "--json")[1])
        assert status["total"] == {"finished": 1, "not_run": 1}
    assert sorted(tuple(trial["state"] for trial in rows) for rows in trials(store).values()) == states
