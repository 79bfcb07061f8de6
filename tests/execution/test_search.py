"""Searches from proposal to result: a toy with a known optimum plays the workers, and Optuna is the real one."""

import json
import os
import random
from collections import Counter

import pytest
import record_files
from searching import BOTH, EPOCHS, RATE, Workers, accuracy, distance, near, opened, read, resolve, search, searches_of, settled, trials_of

from ablate.errors import AblateError
from ablate.execution import search as searching_module
from ablate.planning import tuning
from ablate.store import files, layout, search_folder
from ablate.study import search_space
from ablate.study.search_space import TUNING_SEED

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Optuna leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAMPLERS = ("tpe", "random", "cmaes", "gp", "grid")
POINTS = {"optimizer": {"lr": RATE | {"steps": 3}, "weight_decay": {"low": 1e-6, "high": 1.0, "log": True, "steps": 4}}}
SLOW_IMPORT = [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS]  # torch and scipy


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill of a process loses nothing by that, and it is most of the time
    made = layout.open_store(tmp_path / "mlruns")
    layout.create(made)
    return made


def first_of(here, wanted=None, **others):
    """Return the search of the baseline."""
    return searches_of(here, wanted, **others)[0]


def numbers(trials):
    return [trial.number for trial in trials]


def states(trials):
    return Counter(trial.state for trial in trials)


def told(trials):
    """Return what must be the same whenever, and however often, a search was interrupted."""
    return [(trial.number, trial.params, trial.jobs, trial.value, trial.state) for trial in trials]


def memory(here, one, storage=None):
    """Open Optuna's own memory of a search."""
    import optuna

    held = storage or optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(here.search(one.id).memory)))
    name = next(name for name in optuna.get_all_study_names(held) if name.endswith(one.id))
    return optuna.load_study(study_name=name, storage=held).trials


# Every sampler


@pytest.mark.parametrize("sampler", SLOW_IMPORT)
def test_a_search_ends_with_exactly_its_trials(here, sampler):
    one = first_of(here, {"sampler": sampler, "trials": 12, "space": POINTS})
    workers = search([one], here, Workers(here, 3))
    trials = trials_of(here, one)
    assert numbers(trials) == list(range(12))
    assert states(trials) == {"complete": 12}
    assert set(workers.handed.values()) == {1}
    assert [trial.number for trial in memory(here, one)][:12] == list(range(12))
    for trial in trials:
        assert trial.value == pytest.approx(0.9 - near(trial) / 100)
        assert trial.ended >= trial.started
    best = tuning.winner(trials, one.search)
    assert best == min(trials, key=near).params


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_sampler_that_learns_ends_nearer_to_the_optimum_than_most_random_draws(here, sampler):
    one = first_of(here, {"sampler": sampler, "trials": 30}, optimizer={"lr": 9.0, "weight_decay": 0.9})
    search([one], here)
    draw = random.Random(1)
    alone = sorted(min((draw.uniform(-4, 1) + 1) ** 2 + (draw.uniform(-6, 0) + 3) ** 2 for _ in range(30)) for _ in range(200))
    assert min(map(near, trials_of(here, one))) < alone[180], "it is among the worst tenth of random searches"
    later = [near(trial) for trial in trials_of(here, one)[15:]]
    assert sum(later) / len(later) < 4.5  # a random draw is 5.3 away, on average


def test_a_grid_tries_every_point_once(here):
    one = first_of(here, {"sampler": "grid", "space": POINTS, "trials": 12})
    search([one], here, Workers(here, 3))
    points = [tuple(trial.params.values()) for trial in trials_of(here, one)]
    assert len(set(points)) == len(points) == 12


def test_a_grid_that_is_given_more_trials_goes_on_behind_the_ones_that_it_has(here):
    for trials in (5, 12):
        one = first_of(here, {"sampler": "grid", "space": POINTS, "trials": trials})
        search([one], here)
    points = [tuple(trial.params.values()) for trial in trials_of(here, one)]
    assert len(set(points)) == len(points) == 12


def test_a_search_that_is_given_more_trials_goes_on_behind_the_ones_that_it_has(here):
    few, more = (first_of(here, {"sampler": "tpe", "trials": trials}) for trials in (4, 9))
    search([few], here)
    before = told(trials_of(here, few))
    search([more], here)
    assert told(trials_of(here, more))[:4] == before
    assert numbers(trials_of(here, more)) == list(range(9))


def test_fewer_trials_than_there_are_train_nothing(here):
    few, more = (first_of(here, {"trials": trials}) for trials in (3, 6))
    search([more], here)
    assert search([few], here).handed == {}


def test_the_first_trial_is_the_recipe_as_it_stands(here):
    one = first_of(here, optimizer={"lr": 0.25, "weight_decay": 0.004})
    search([one], here)
    trials = trials_of(here, one)
    assert trials[0].params == {"optimizer.lr": 0.25, "optimizer.weight_decay": 0.004}
    assert [trial.proposed for trial in trials] == [False] + [True] * 5


def test_a_recipe_outside_of_the_space_is_no_trial(here):
    one = first_of(here, optimizer={"lr": 20.0})
    search([one], here)
    assert all(trial.proposed and trial.params["optimizer.lr"] <= 10 for trial in trials_of(here, one))


def test_a_field_that_is_none_is_tried_first_where_none_is_a_choice(here):
    one = first_of(here, {"space": {"training": {"gradient_clip": {"choices": [1.0, "none"]}}}})
    search([one], here)
    assert trials_of(here, one)[0].params == {"training.gradient_clip": "none"}
    assert len({job for trial in trials_of(here, one) for job in trial.jobs.values()}) == 2


def test_whole_numbers_choices_and_truths_are_what_the_recipe_takes(here):
    space = {"training": {"batch_size": {"low": 16, "high": 64}}, "augment": {"crop": {"choices": ["none", "random_crop"]}}}
    one = first_of(here, {"space": space, "trials": 8}, factors={"augment": {"rotation": [0, 15]}})
    search([one], here)
    for trial in trials_of(here, one)[1:]:
        assert isinstance(trial.params["training.batch_size"], int)
        assert trial.params["augment.crop"] in ("none", "random_crop")


def test_trials_are_trained_under_seeds_of_their_own(here):
    one = first_of(here, {"seeds": 2})
    assert [job.seed for job in one.jobs({"optimizer.lr": 0.1})] == [TUNING_SEED, TUNING_SEED + 1]


# Several searches and several seeds


def test_searches_side_by_side_have_equal_budgets_and_take_turns(here):
    both = searches_of(here, {"trials": 5})
    source, asked = opened(both, here), []
    workers = Workers(here, 1)
    workers.run(source, until=lambda: asked.append([len(trials_of(here, one)) for one in both]))
    assert asked[-1] == [5, 5]
    assert all(abs(one - other) <= 1 for one, other in asked)


def test_several_seeds_of_a_trial_are_averaged(here):
    one = first_of(here, {"seeds": 2, "trials": 4})
    workers = search([one], here, Workers(here, 2, lambda recipe, seed: accuracy(recipe, seed) + 0.02 * (seed - TUNING_SEED)))
    trials = trials_of(here, one)
    assert len(workers.handed) == 8
    assert all(len(trial.jobs) == 2 for trial in trials)
    assert all(trial.value == pytest.approx(0.9 - near(trial) / 100 + 0.01) for trial in trials)


def test_a_search_by_loss_takes_the_smallest(here):
    one = first_of(here, {"metric": "validation/loss"})
    search([one], here)
    trials = trials_of(here, one)
    assert tuning.winner(trials, one.search) == min(trials, key=near).params
    assert min(trial.value for trial in trials) == pytest.approx(0.1 + min(map(near, trials)) / 100)


@pytest.mark.parametrize(("select", "expected"), [("last", 0.2), ("best_validation", 0.8)])
def test_the_value_is_of_the_epoch_whose_weights_the_cell_selects(here, select, expected):
    one = first_of(here, {"trials": 1}, evaluation={"select": select})
    job = one.jobs({"optimizer.lr": 0.1})[0]
    here.job(job.id).path.mkdir(parents=True)
    for epoch, reached in enumerate((0.5, 0.8, 0.2), start=1):
        files.append(here.job(job.id).journal, record_files.epoch(epoch, metrics={"validation/accuracy": reached}))
    assert searching_module.value(one, {job.seed: job.id}, here) == expected


def test_a_trial_that_is_equal_to_a_finished_job_costs_nothing(here):
    one = first_of(here, {"space": {"augment": {"crop": {"choices": ["none", "random_crop"]}}}, "trials": 10})
    workers = search([one], here, Workers(here, 3))
    assert len(trials_of(here, one)) == 10
    assert sum(workers.handed.values()) == 2
    other = first_of(here, {"space": {"augment": {"crop": {"choices": ["random_crop", "none"]}}}, "trials": 10, "sampler": "tpe"})
    assert other.id != one.id
    assert search([other], here).handed == {}
    assert states(trials_of(here, other)) == {"complete": 10}


def test_two_searches_that_need_the_same_job_hand_it_out_once(here):
    space = {"space": {"augment": {"crop": {"choices": ["none", "random_crop"]}}}, "trials": 4}
    both = searches_of(here, space, factors={"evaluation": {"select": ["last", "best_validation"]}})
    workers = search(both, here, Workers(here, 4))
    assert workers.handed == dict.fromkeys(workers.handed, 1)
    assert len(workers.handed) == 2
    assert [len(trials_of(here, one)) for one in both] == [4, 4]


# Pruners


@pytest.mark.parametrize(("pruner", "seeds", "slots"), [("median", 1, 1), ("median", 2, 4), ("hyperband", 2, 1), ("hyperband", 1, 3)])
def test_a_pruner_stops_trials_that_look_bad(here, pruner, seeds, slots):
    long = {"training": {"epochs": 9}}
    one = first_of(here, {"pruner": pruner, "trials": 14, "seeds": seeds}, **long)
    workers = search([one], here, Workers(here, slots))
    trials = trials_of(here, one)
    assert len(trials) == 14
    assert set(states(trials)) == {"complete", "pruned"}
    for trial in trials:
        done = [workers.epochs[job] for job in trial.jobs.values()]
        if trial.state == "complete":
            assert done == [9] * seeds
        else:  # with one slot, a seed is trained to its end before the other one shows anything
            assert 0 < min(done) <= (max(done) if slots > 1 else min(done)) < 9
    assert not workers.running


def test_no_trial_is_pruned_after_its_last_epoch(here):
    one = first_of(here, {"pruner": "median", "trials": 12}, training={"epochs": 1})
    search([one], here)
    assert states(trials_of(here, one)) == {"complete": 12}


def test_a_pruned_job_that_another_search_still_needs_goes_on(here):
    wanted = {"space": POINTS, "sampler": "grid", "trials": 12}
    one, other = first_of(here, wanted | {"pruner": "median"}), first_of(here, wanted)
    workers = search([one, other], here, Workers(here, 3))
    assert states(trials_of(here, one))["pruned"] > 0
    assert states(trials_of(here, other)) == {"complete": 12}
    assert set(workers.epochs.values()) == {EPOCHS}
    assert [trial.jobs for trial in trials_of(here, one)] == [trial.jobs for trial in trials_of(here, other)]


def test_the_job_of_a_pruned_trial_is_handed_out_again_when_another_trial_asks_for_it(here):
    one = first_of(here, {"pruner": "median", "trials": 20})
    workers = search([one], here)
    pruned = [trial for trial in trials_of(here, one) if trial.state == "pruned"]
    assert pruned
    rate = pruned[0].params["optimizer.lr"]
    decay = pruned[0].params["optimizer.weight_decay"]
    (job,) = pruned[0].jobs.values()
    before = workers.epochs[job]
    space = {"optimizer": {"lr": {"choices": [rate]}, "weight_decay": {"choices": [decay]}}}
    again = first_of(here, {"space": space, "trials": 1})
    after = search([again], here)
    (trial,) = trials_of(here, again)
    assert (trial.jobs, trial.state) == (pruned[0].jobs, "complete")
    assert (after.handed, after.epochs[job]) == ({job: 1}, EPOCHS - before)


def test_a_job_that_is_being_stopped_and_is_asked_for_again_is_handed_out_again(here):
    """The worker has been asked to stop, and answers only after another trial has the same fields."""
    choices = {"augment": {"crop": {"choices": ["none", "random_crop"]}}}
    one = first_of(here, {"space": choices, "pruner": "median", "trials": 30}, training={"epochs": 9})
    reached = {"none": 0.9, "random_crop": 0.1}

    class Late(Workers):
        def _end(self, source, work, kind):
            if kind == "stopped":
                while source.next(lambda _work: True) is not None:  # the others have asked for it meanwhile
                    pass
            super()._end(source, work, kind)

    workers = Late(here, 1, lambda recipe, seed: reached[recipe.augment.crop])
    workers.run(opened([one], here))
    assert len(trials_of(here, one)) == 30
    assert "running" not in states(trials_of(here, one))


# Bad ends


def diverging(recipe, seed):
    return "diverged" if recipe.optimizer.lr > 0.5 else accuracy(recipe, seed)


def test_a_diverged_trial_ends_as_such_counts_as_a_bad_one_and_never_wins(here):
    one = first_of(here, {"sampler": "tpe", "trials": 25})
    search([one], here, Workers(here, 1, diverging))
    trials = trials_of(here, one)
    assert len(trials) == 25
    assert all((trial.state == "diverged") == (trial.params["optimizer.lr"] > 0.5) for trial in trials)
    assert all(trial.value is None for trial in trials if trial.state == "diverged")
    assert tuning.winner(trials, one.search)["optimizer.lr"] <= 0.5
    late = states(trials[12:])
    assert late["diverged"] <= 3, "a quarter of the space diverges, and the sampler should have learned it"


def test_a_search_all_of_whose_trials_diverge_ends_without_a_winner(here):
    one = first_of(here)
    search([one], here, Workers(here, 2, lambda *_: "diverged"))
    assert states(trials_of(here, one)) == {"diverged": 6}
    assert tuning.winner(trials_of(here, one), one.search) is None


def test_a_trial_one_of_whose_seeds_diverges_has_diverged_and_the_other_seed_is_stopped(here):
    one = first_of(here, {"seeds": 2, "trials": 3})
    workers = search([one], here, Workers(here, 2, lambda recipe, seed: "diverged" if seed == TUNING_SEED else accuracy(recipe, seed)))
    trials = trials_of(here, one)
    assert states(trials) == {"diverged": 3}
    assert all(workers.epochs[trial.jobs[str(TUNING_SEED + 1)]] < EPOCHS for trial in trials)


def test_failed_trials_are_counted_and_the_search_goes_on(here):
    one = first_of(here, {"trials": 10})
    workers = search([one], here, Workers(here, 2, lambda recipe, seed: "failed" if recipe.optimizer.lr > 0.1 else accuracy(recipe, seed)))
    trials = trials_of(here, one)
    assert len(trials) == 10
    assert states(trials)["failed"] == sum(trial.params["optimizer.lr"] > 0.1 for trial in trials) > 0
    assert set(workers.handed.values()) == {1}
    assert search([one], here).handed == {}


def test_a_trial_whose_job_failed_before_fails_at_once_unless_it_is_to_be_tried_again(here):
    space = {"augment": {"crop": {"choices": ["none", "random_crop"]}}}
    one = first_of(here, {"space": space, "trials": 4})
    search([one], here, Workers(here, 1, lambda *_: "failed"))
    assert states(trials_of(here, one)) == {"failed": 4}
    other = first_of(here, {"space": space, "trials": 4, "sampler": "tpe"})
    assert search([other], here, retry_failed=False).handed == {}
    third = first_of(here, {"space": space, "sampler": "grid"})
    workers = Workers(here)
    workers.run(opened([third], here, retry_failed=True))
    assert sum(workers.handed.values()) == 2
    assert states(trials_of(here, third)) == {"complete": 2}


def test_fields_that_do_not_go_together_are_a_failed_trial_and_not_the_end_of_the_search(here):
    space = {"augment": {"padding": {"choices": [4, 40]}, "padding_mode": {"choices": ["zeros", "reflect"]}}}
    one = first_of(here, {"space": space, "sampler": "grid", "trials": 4}, data={"name": "digits", "image_size": 16})
    search([one], here)
    trials = trials_of(here, one)
    wrong = {"augment.padding": 40, "augment.padding_mode": "reflect"}
    assert [trial.state for trial in trials] == ["failed" if trial.params == wrong else "complete" for trial in trials]
    assert states(trials) == {"complete": 3, "failed": 1}
    assert search([one], here).handed == {}
    assert told(trials_of(here, one)) == told(trials)


# Interruptions


def interrupted(here, searches, storage=None, slots=2, judge=accuracy, seed=0):
    """Drive searches with a kill after every few epochs; check at each start that what was known is still known."""
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
        if not workers.running and all(len(tuning.ended(trials_of(here, one), one.search)) == one.search.trials for one in searches):
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
    assert {job: workers.epochs[job] for job in jobs} == dict.fromkeys(jobs, EPOCHS)  # no epoch was done twice


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
    """As if killed between any two things that Optuna writes down: a trial without fields, or with one of two."""
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
    workers.run(opened([more], here), until=lambda: len(workers.running) == 4 and sum(workers.epochs.values()) >= 4)
    running = list(workers.running)
    assert len(running) == 4
    again = search([few], here)
    assert set(again.handed) == set(running[:2])
    assert states(trials_of(here, few))["complete"] == 2
    search([more], here)
    assert states(trials_of(here, more)) == {"complete": 8}


# Storage


@pytest.mark.parametrize("address", ["nonsense", "sqlite:////nowhere/at/all/optuna.db", "nosuchdatabase://host/x"])
def test_a_storage_that_cannot_be_opened_is_a_sentence(here, address):
    with pytest.raises(AblateError, match=r"Optuna's storage cannot be opened: .*--optuna-storage"):
        opened([first_of(here)], here, address)


def test_a_search_is_described_for_those_that_only_look(here):
    one = first_of(here, {"seeds": 2, "trials": 3})
    search([one], here)
    said = files.read_json(here.search(one.id).search)
    assert {key: said[key] for key in ("label", "metric", "direction", "sampler", "pruner", "trials", "seeds")} == {
        "label": "baseline", "metric": "validation/accuracy", "direction": "max", "sampler": "random", "pruner": "none", "trials": 3,
        "seeds": [TUNING_SEED, TUNING_SEED + 1],
    }  # fmt: skip
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
    left, given = (searches_of(here, {"space": by_name}, optimizer=optimizer)[0].id for optimizer in ({}, {"lr": 0.1}))
    assert left != given
    by_decay = {"optimizer": {"weight_decay": BOTH["optimizer"]["weight_decay"]}}
    left, given = (searches_of(here, {"space": by_decay}, optimizer=optimizer)[0].id for optimizer in ({}, {"lr": 0.1}))
    assert left == given


def test_a_trial_is_called_by_what_it_tries():
    assert search_space.written({"optimizer.lr": 0.31234, "optimizer.name": "adam"}) == "lr 0.312, name adam"
    assert search_space.written({"optimizer.name": "adam", "schedule.name": "step"}) == "optimizer.name adam, schedule.name step"
