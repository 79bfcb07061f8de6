"""Searches from proposal to result: a toy with a known optimum plays the workers, and Optuna is real."""

import os
import random

import pytest
import record_files
from samplers import POINTS, SLOW_IMPORT, diverging, first_of, memory, numbers, states, told
from searching import EPOCHS, Workers, accuracy, near, opened, search, searches_of, trials_of

from ablate.execution import search as searching_module
from ablate.planning import tuning
from ablate.store import files, layout
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
    alone = sorted(
        min((draw.uniform(-4, 1) + 1) ** 2 + (draw.uniform(-6, 0) + 3) ** 2 for _ in range(30))
        for _ in range(200)
    )
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
    space = {
        "training": {"batch_size": {"low": 16, "high": 64}},
        "augment": {"crop": {"choices": ["none", "random_crop"]}},
    }
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
    workers = search(
        [one],
        here,
        Workers(here, 2, lambda recipe, seed: accuracy(recipe, seed) + 0.02 * (seed - TUNING_SEED)),
    )
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
        files.append(
            here.job(job.id).journal, record_files.epoch(epoch, metrics={"validation/accuracy": reached})
        )
    assert searching_module.value(one, {job.seed: job.id}, here) == expected


def test_a_trial_that_is_equal_to_a_finished_job_costs_nothing(here):
    one = first_of(here, {"space": {"augment": {"crop": {"choices": ["none", "random_crop"]}}}, "trials": 10})
    workers = search([one], here, Workers(here, 3))
    assert len(trials_of(here, one)) == 10
    assert sum(workers.handed.values()) == 2
    other = first_of(
        here,
        {
            "space": {"augment": {"crop": {"choices": ["random_crop", "none"]}}},
            "trials": 10,
            "sampler": "tpe",
        },
    )
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


@pytest.mark.parametrize(
    ("pruner", "seeds", "slots"),
    [("median", 1, 1), ("median", 2, 4), ("hyperband", 2, 1), ("hyperband", 1, 3)],
)
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
    workers = search(
        [one],
        here,
        Workers(here, 2, lambda recipe, seed: "diverged" if seed == TUNING_SEED else accuracy(recipe, seed)),
    )
    trials = trials_of(here, one)
    assert states(trials) == {"diverged": 3}
    assert all(workers.epochs[trial.jobs[str(TUNING_SEED + 1)]] < EPOCHS for trial in trials)


def test_failed_trials_are_counted_and_the_search_goes_on(here):
    one = first_of(here, {"trials": 10})
    workers = search(
        [one],
        here,
        Workers(
            here, 2, lambda recipe, seed: "failed" if recipe.optimizer.lr > 0.1 else accuracy(recipe, seed)
        ),
    )
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
    one = first_of(
        here, {"space": space, "sampler": "grid", "trials": 4}, data={"name": "digits", "image_size": 16}
    )
    search([one], here)
    trials = trials_of(here, one)
    wrong = {"augment.padding": 40, "augment.padding_mode": "reflect"}
    assert [trial.state for trial in trials] == [
        "failed" if trial.params == wrong else "complete" for trial in trials
    ]
    assert states(trials) == {"complete": 3, "failed": 1}
    assert search([one], here).handed == {}
    assert told(trials_of(here, one)) == told(trials)
