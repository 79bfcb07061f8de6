"""A search that is interrupted, or whose storage is strange, goes on or is refused with a sentence."""

import json
import os
import random

import pytest
from samplers import POINTS, SLOW_IMPORT, diverging, first_of, memory, numbers, states, told
from searching import (
    BOTH,
    EPOCHS,
    Workers,
    accuracy,
    distance,
    near,
    opened,
    read,
    resolve,
    search,
    searches_of,
    settled,
    trials_of,
)

from ablate.errors import AblateError
from ablate.planning import tuning
from ablate.store import files, layout, search_folder
from ablate.study import search_space
from ablate.study.search_space import TUNING_SEED

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # Optuna leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", lambda _: None
    )  # a kill of a process loses nothing by that, and it is most of the time
    made = layout.open_store(tmp_path / "mlruns")
    layout.create(made)
    return made


# Interruptions


def interrupted(here, searches, storage=None, slots=2, judge=accuracy, seed=0):
    """Drive searches with a kill after every few epochs.

    Check at each start that what was known is still known.
    """
    draw, workers, starts, known = random.Random(seed), Workers(here, slots, judge), 0, {}
    while True:
        source = opened(searches, here, storage)
        for one in searches:
            now = {trial.number: trial for trial in trials_of(here, one)}
            for number, trial in known.get(one.id, {}).items():
                assert now[number].params == trial.params
                assert now[number].jobs == trial.jobs
                assert trial.state == "running" or now[number] == trial
        end = sum(workers.epochs.values()) + draw.randint(1, 9)
        workers.run(source, until=lambda end=end: sum(workers.epochs.values()) >= end)
        starts += 1
        known = {one.id: {trial.number: trial for trial in trials_of(here, one)} for one in searches}
        if not workers.running and all(
            len(tuning.ended(trials_of(here, one), one.search)) == one.search.trials for one in searches
        ):
            return workers, starts


@pytest.mark.parametrize("sampler", SLOW_IMPORT)
def test_an_interrupted_search_goes_on_with_the_same_trials(here, sampler):
    both = searches_of(here, {"sampler": sampler, "trials": 7, "space": POINTS})
    workers, starts = interrupted(here, both)
    assert starts > 5
    for one in both:
        trials = trials_of(here, one)
        assert numbers(trials) == list(range(7))
        assert states(trials) == {"complete": 7}
        assert {trial.state.name for trial in memory(here, one)[:7]} == {"COMPLETE"}
    jobs = {job for one in both for trial in trials_of(here, one) for job in trial.jobs.values()}
    assert {job: workers.epochs[job] for job in jobs} == dict.fromkeys(
        jobs, EPOCHS
    )  # no epoch was done twice


def test_an_interrupted_search_goes_on_in_a_database(here, tmp_path):
    both, storage = searches_of(here, {"sampler": "tpe", "trials": 4}), f"sqlite:///{tmp_path}/optuna.db"
    _, starts = interrupted(here, both, storage)
    assert starts > 3
    for one in both:
        assert states(trials_of(here, one)) == {"complete": 4}
        assert not here.search(one.id).memory.exists()
        assert [trial.state.name for trial in memory(here, one, storage)] == ["COMPLETE"] * 4


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_an_interrupted_search_with_a_pruner_and_two_seeds_ends_all_its_trials(here, pruner):
    one = first_of(here, {"trials": 12, "pruner": pruner, "seeds": 2})
    interrupted(here, [one], judge=diverging)
    trials = trials_of(here, one)
    assert numbers(trials) == list(range(12))
    assert set(states(trials)) <= set(search_folder.ENDED)
    assert not any(trial.state.name == "RUNNING" for trial in memory(here, one))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_draws_do_not_depend_on_restarts_where_one_job_runs_at_a_time(here, tmp_path, sampler):
    wanted = {"sampler": sampler, "trials": 13}  # tpe and cmaes draw at random at first
    (one,) = searches_of(here, wanted | {"per": "study"})
    search([one], here)
    elsewhere = layout.open_store(tmp_path / "elsewhere")
    layout.create(elsewhere)
    _, starts = interrupted(elsewhere, [one], slots=1)
    assert starts > 5
    assert told(trials_of(elsewhere, one)) == told(trials_of(here, one))


def test_a_torn_last_line_of_the_memory_is_no_line(here):
    one = first_of(here, {"trials": 5})
    workers = Workers(here, 2)
    workers.run(opened([one], here), until=lambda: len(trials_of(here, one)) == 4)
    before, path = told(trials_of(here, one)), here.search(one.id).memory
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:17])
    search([one], here)
    assert numbers(trials_of(here, one)) == list(range(5))
    assert [trial[:3] for trial in told(trials_of(here, one))[:4]] == [trial[:3] for trial in before]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_memory_that_ends_after_any_of_its_lines_is_gone_on_with(here):
    """As if killed between any two lines that Optuna writes: a trial without fields, or with one of two."""
    one = first_of(here, {"trials": 4, "sampler": "tpe"})
    search([one], here)
    expected, path = told(trials_of(here, one)), here.search(one.id).memory
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 15
    for cut in range(len(lines)):
        path.write_bytes(b"".join(lines[:cut]))
        path.with_name("trials.json").unlink()  # it is written after the memory, so it never knows more
        search([one], here)
        assert told(trials_of(here, one)) == expected, f"after {cut} lines"


def test_a_memory_that_knows_less_than_the_store_is_refused_and_loses_nothing(here, tmp_path):
    one = first_of(here, {"trials": 3, "sampler": "random"})
    search([one], here)
    before = trials_of(here, one)
    with pytest.raises(AblateError, match="give its first --optuna-storage"):
        opened([one], here, f"sqlite:///{tmp_path}/other.db")
    assert trials_of(here, one) == before


def test_trials_that_nobody_asks_for_any_more_are_left_as_they_are(here):
    more, few = (first_of(here, {"trials": trials}) for trials in (8, 2))
    workers = Workers(here, 4)
    workers.run(
        opened([more], here), until=lambda: len(workers.running) == 4 and sum(workers.epochs.values()) >= 4
    )
    running = list(workers.running)
    assert len(running) == 4
    again = search([few], here)
    assert set(again.handed) == set(running[:2])
    assert states(trials_of(here, few))["complete"] == 2
    search([more], here)
    assert states(trials_of(here, more)) == {"complete": 8}


# Storage


@pytest.mark.parametrize(
    "address", ["nonsense", "sqlite:////nowhere/at/all/optuna.db", "nosuchdatabase://host/x"]
)
def test_a_storage_that_cannot_be_opened_is_a_sentence(here, address):
    with pytest.raises(AblateError, match=r"Optuna's storage cannot be opened: .*--optuna-storage"):
        opened([first_of(here)], here, address)


def test_a_search_is_described_for_those_that_only_look(here):
    one = first_of(here, {"seeds": 2, "trials": 3})
    search([one], here)
    said = files.read_json(here.search(one.id).search)
    described = {
        "label": "baseline",
        "metric": "validation/accuracy",
        "direction": "max",
        "sampler": "random",
        "pruner": "none",
        "trials": 3,
        "seeds": [TUNING_SEED, TUNING_SEED + 1],
    }
    assert {key: said[key] for key in described} == described
    search([first_of(here, {"seeds": 2, "trials": 5})], here)
    assert files.read_json(here.search(one.id).search) == said | {"trials": 5}


def test_a_search_that_is_held_is_waited_for_and_let_go_at_the_end(here):
    from contextlib import ExitStack

    both = searches_of(here)
    said = []
    with ExitStack() as first:
        assert tuning.hold(both, here, first, said.append, lambda: False)
        assert said == []
        with ExitStack() as second:
            assert not tuning.hold(both[1:], here, second, said.append, lambda: bool(said))
        assert said == [f"the search of {both[1].label} is run by another study: waiting for it"]
    with ExitStack() as third:
        assert tuning.hold(both, here, third, said.append, lambda: False)


def test_what_is_found_is_what_the_cells_are_trained_with(here):
    loaded = read({"space": BOTH, "sampler": "random", "trials": 6})
    made = resolve(loaded, here)
    search(made.searches, here, Workers(here, 2))
    tuned = resolve(loaded, here)
    assert settled(tuned)
    for cell, one in zip(tuned.grid.cells, made.searches, strict=True):
        assert distance(cell.recipe) == pytest.approx(min(map(near, trials_of(here, one))))


@pytest.mark.parametrize(("optimizer", "rates"), [
    ({}, {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}),
    ({"name": "adamw"}, {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}),
    ({"lr": 0.1}, dict.fromkeys(("sgd", "adam", "adamw"), 0.1)),
])  # fmt: skip
def test_a_rate_that_is_left_out_is_that_of_each_trials_own_optimizer(here, optimizer, rates):
    by_name = {"optimizer": {"name": {"choices": ["sgd", "adam", "adamw"]}}}
    (search, *_) = searches_of(here, {"space": by_name, "sampler": "grid", "trials": 3}, optimizer=optimizer)
    made = [search.jobs({"optimizer.name": name})[0].recipe.optimizer for name in rates]
    assert {one.name: one.lr for one in made} == rates


def test_only_searches_of_optimizers_without_a_rate_are_others_than_before(here):
    by_name = {"optimizer": {"name": {"choices": ["sgd", "adam"]}}}
    left, given = (
        searches_of(here, {"space": by_name}, optimizer=optimizer)[0].id for optimizer in ({}, {"lr": 0.1})
    )
    assert left != given
    by_decay = {"optimizer": {"weight_decay": BOTH["optimizer"]["weight_decay"]}}
    left, given = (
        searches_of(here, {"space": by_decay}, optimizer=optimizer)[0].id for optimizer in ({}, {"lr": 0.1})
    )
    assert left == given


def test_a_trial_is_called_by_what_it_tries():
    assert search_space.written({"optimizer.lr": 0.31234, "optimizer.name": "adam"}) == "lr 0.312, name adam"
    assert (
        search_space.written({"optimizer.name": "adam", "schedule.name": "step"})
        == "optimizer.name adam, schedule.name step"
    )
