"""Tuning: what range tests and searches put into the cells, what is left to do, and what has no answer."""

import pytest
import record_files
from resolving import fingerprints, resolved
from searching import RATE, put, read, resolve, settled, suggest, value_of

from ablate.analysis import status
from ablate.errors import AblateError, StoreError
from ablate.planning import plan, tuning
from ablate.recipe import identity
from ablate.store import files, job_folder
from ablate.store.records import Trial
from ablate.study import grid

LR = {"optimizer": {"lr": RATE}}
FLIP = {"augment": {"flip": [True, False]}}


# What is put into the cells


def test_without_results_every_cell_is_pending_and_every_search_is_open(here):
    made = resolve(read({"space": LR, "trials": 3}), here)
    assert [cell.pending for cell in made.grid.cells] == [True, True]
    assert not settled(made)
    assert len(made.searches) == len(made.open_searches) == 2


def test_with_all_trials_each_cell_has_the_fields_of_its_best(here):
    loaded = read({"space": LR, "trials": 2})
    for i, one in enumerate(resolve(loaded, here).searches):
        put(here, one, ("complete", 0.5, {"optimizer.lr": 0.3 + i}), ("complete", 0.4, {"optimizer.lr": 9.0}))
    made = resolve(loaded, here)
    assert [(value_of(cell, "optimizer.lr"), cell.pending, dict(cell.tuned)) for cell in made.grid.cells] == [
        (0.3, False, {"optimizer.lr": 0.3}), (1.3, False, {"optimizer.lr": 1.3}),
    ]  # fmt: skip
    assert (made.open_searches, settled(made)) == ((), True)
    assert [made.cells[cell.label].trials for cell in made.grid.cells] == [2, 2]


def test_a_tuned_cell_is_the_same_as_one_that_has_these_fields_by_hand(here):
    loaded = read({"space": LR, "trials": 1}, factors={"augment": {"rotation": [0, 15]}})
    for one in resolve(loaded, here).searches:
        put(here, one, ("complete", 0.5, {"optimizer.lr": 0.3}))
    by_hand = resolve(read(optimizer={"lr": 0.3}, factors={"augment": {"rotation": [0, 15]}}), here)
    tuned = resolve(loaded, here).grid.cells
    assert [cell.recipe for cell in tuned] == [cell.recipe for cell in by_hand.grid.cells]
    assert len({cell.id for cell in tuned}) == 2


def test_cells_that_tuning_makes_equal_stay_two_cells_that_share_their_jobs(here):
    loaded = read(factors={"optimizer": {"lr": ["find", 0.02]}})
    (test,) = resolve(loaded, here).ranges
    suggest(here, test)
    made = resolve(loaded, here)
    assert [value_of(cell, "optimizer.lr") for cell in made.grid.cells] == [0.02, 0.02]
    assert len({cell.id for cell in made.grid.cells}) == 2
    runs, jobs = grid.runs_and_jobs(made.grid, (0, 1), fingerprints(made.grid))
    assert (len(runs), len(jobs)) == (4, 2)


def test_by_one_search_for_all_a_cell_still_waits_for_its_own_learning_rate(here):
    asked = {
        "space": {"optimizer": {"weight_decay": {"low": 0.0, "high": 0.01}}},
        "trials": 1,
        "per": "study",
    }
    loaded = read(asked, factors={"optimizer": {"lr": [0.05, "find"]}})
    (one,) = resolve(loaded, here).searches
    put(here, one, ("complete", 0.5, {"optimizer.weight_decay": 0.001}))
    assert [cell.pending for cell in resolve(loaded, here).grid.cells] == [False, True]


def test_what_was_found_for_the_baseline_and_does_not_go_together_with_a_cell_is_said(here):
    space = {"augment": {"padding": {"choices": [4, 20]}}}
    asked, modes = (
        {"space": space, "trials": 1, "per": "study"},
        {"augment": {"padding_mode": ["zeros", "reflect"]}},
    )
    loaded = read(asked, factors=modes, data={"name": "digits", "image_size": 16})
    (one,) = resolve(loaded, here).searches
    put(here, one, ("complete", 0.5, {"augment.padding": 20}))
    made = resolve(loaded, here)
    assert [cell.pending for cell in made.grid.cells] == [False, True]
    assert tuning.unanswered(made, here) == [
        (
            "cell padding_mode=reflect: what the search found for the baseline does not go together with it: "
            'take per = "cell"'
        )
    ]


HOSTILE = (
    {"model.name": "evil:net"},
    {"optimizer.lr": 0.1, "model.name": "evil:net"},
    {"optimizer.lr": -1.0},
    {"optimizer.lr": "0.1"},
    {"optimizer.lr": 1e300},
    {"optimizer.lr": True},
    {},
)


@pytest.mark.parametrize("params", HOSTILE, ids=str)
def test_what_others_write_into_a_store_does_not_choose_what_is_trained(here, params):
    loaded = read({"space": LR, "trials": 1})
    for one in resolve(loaded, here).searches:
        put(here, one, ("complete", 0.5, params))
    with pytest.raises(StoreError, match="must be what ablate has written there"):
        resolve(loaded, here)


ELSEWHERE = (
    '{"trials": [{"number": 0, "params": {}, "value": 1, "state": "running", "jobs": {"0": "../../x"}}]}'
)


@pytest.mark.parametrize("text", ["{", "[]", '{"trials": 3}', '{"trials": [{"number": 0}]}', ELSEWHERE])
def test_a_torn_or_hostile_list_of_trials_is_a_sentence(here, text):
    loaded = read({"space": LR, "trials": 1})
    (one, *_) = resolve(loaded, here).searches
    files.write(here.search(one.id).trials, text)
    with pytest.raises(StoreError, match="must be what ablate has written there"):
        resolve(loaded, here)


@pytest.mark.parametrize("rate", [1e300, -1, 0, "0.1", None, True, [0.1], float("nan")], ids=str)
def test_a_hostile_suggestion_is_a_sentence(here, rate):
    loaded = read(factors={"optimizer": {"lr": [0.1, "find"]}})
    (test,) = resolve(loaded, here).ranges
    found = {"rule": "rise", "status": "ok", "rate": rate, "low": 0.01, "high": 0.1}
    files.write_json(here.range(test.id).suggestion, found)
    with pytest.raises(StoreError, match="must be what ablate has written there"):
        resolve(loaded, here)


def test_a_search_for_the_study_tunes_the_baseline_and_all_cells_take_its_values(here):
    loaded = read({"space": LR, "trials": 1, "per": "study"})
    (one,) = resolve(loaded, here).searches
    assert one.label == "baseline"
    assert [cell.pending for cell in resolve(loaded, here).grid.cells] == [True, True]
    put(here, one, ("complete", 0.5, {"optimizer.lr": 0.3}))
    assert [value_of(cell, "optimizer.lr") for cell in resolve(loaded, here).grid.cells] == [0.3, 0.3]


OPTIMIZERS = {"optimizer": {"name": ["sgd", "adam"]}}
MOMENTUM = {"optimizer": {"momentum": {"low": 0.0, "high": 0.99}}}


def test_a_field_that_does_not_matter_in_a_cell_is_not_searched_there(here):
    loaded = read({"space": {"optimizer": {"lr": RATE, **MOMENTUM["optimizer"]}}}, factors=OPTIMIZERS)
    spaces = [set(one.search.space) for one in resolve(loaded, here).searches]
    assert spaces == [{"optimizer.lr", "optimizer.momentum"}, {"optimizer.lr"}]


def test_a_cell_in_which_no_field_of_the_space_matters_is_trained_as_it_stands(here):
    made = resolve(read({"space": MOMENTUM}, factors=OPTIMIZERS), here)
    assert [(cell.label, cell.pending) for cell in made.grid.cells] == [
        ("baseline", True),
        ("optimizer=adam", False),
    ]
    assert [one.label for one in made.searches] == ["baseline"]


def test_values_of_the_study_that_do_not_matter_in_a_cell_are_left_out_of_it(here):
    loaded = read(
        {"space": {"optimizer": {"lr": RATE, **MOMENTUM["optimizer"]}}, "per": "study", "trials": 1},
        factors=OPTIMIZERS,
    )
    put(
        here,
        resolve(loaded, here).searches[0],
        ("complete", 0.5, {"optimizer.lr": 0.3, "optimizer.momentum": 0.5}),
    )
    assert [dict(cell.tuned) for cell in resolve(loaded, here).grid.cells] == [
        {"optimizer.lr": 0.3, "optimizer.momentum": 0.5}, {"optimizer.lr": 0.3},
    ]  # fmt: skip


def test_a_grid_in_a_cell_has_only_the_points_that_differ_there(here):
    space = {"optimizer": {"lr": RATE | {"steps": 3}, "momentum": {"choices": [0.5, 0.9]}}}
    found = resolve(read({"space": space, "sampler": "grid"}, factors=OPTIMIZERS), here).searches
    assert [one.search.trials for one in found] == [6, 3]
    alone = {"optimizer": {"lr": RATE | {"steps": 3}}}
    (shared,) = resolve(
        read({"space": alone, "sampler": "grid", "per": "study"}, optimizer={"name": "adam"}), here
    ).searches
    assert shared.search.trials == 3
    assert (
        shared.id
        == resolve(read({"space": space, "sampler": "grid"}, optimizer={"name": "adam"}), here).searches[0].id
    )


def test_cells_that_differ_in_their_evaluation_share_a_search_unless_other_weights_are_judged(here):
    assert (
        len(resolve(read({"space": LR}, factors={"evaluation": {"tta": ["none", "flip"]}}), here).searches)
        == 1
    )
    assert (
        len(
            resolve(
                read({"space": LR}, factors={"evaluation": {"select": ["last", "best_validation"]}}), here
            ).searches
        )
        == 2
    )


def test_a_search_without_validation_images_is_refused(here):
    with pytest.raises(
        AblateError, match=r"needs validation images to compare trials by, and data\.validation is 0"
    ):
        resolve(read({"space": LR}, data={"name": "digits", "validation": 0}), here)


# Rates that are found


def test_a_cell_that_finds_its_rate_is_pending_until_its_range_test_has_one(here):
    loaded = read(factors={"optimizer": {"lr": [0.1, "find"]}})
    made = resolve(loaded, here)
    assert [(cell.label, cell.pending) for cell in made.grid.cells] == [
        ("baseline", False),
        ("lr=find", True),
    ]
    (test,) = made.open_ranges
    assert test.label == "lr=find"
    suggest(here, test, rate=0.02)
    made = resolve(loaded, here)
    assert [(value_of(cell, "optimizer.lr"), cell.pending) for cell in made.grid.cells] == [
        (0.1, False),
        (0.02, False),
    ]
    assert (made.open_ranges, len(made.ranges), settled(made)) == ((), 1, True)


@pytest.mark.parametrize("status", ["flat", "diverged at once", "edge of the range"])
def test_a_range_test_without_an_answer_leaves_its_cell_pending_and_is_not_done_again(here, status):
    loaded = read(factors={"optimizer": {"lr": [0.1, "find"]}})
    suggest(here, resolve(loaded, here).ranges[0], status, 0.5)
    made = resolve(loaded, here)
    assert [cell.pending for cell in made.grid.cells] == [False, True]
    assert made.open_ranges == ()
    assert tuning.unanswered(made, here) == [
        f"cell lr=find: its range test found no learning rate ({status}): give optimizer.lr a number"
    ]


def test_a_search_waits_for_the_range_test_of_its_cell_and_searches_beside_the_found_rate(here):
    space = {"optimizer": {"weight_decay": {"low": 1e-6, "high": 0.1, "log": True}}}
    loaded = read({"space": space, "trials": 3}, optimizer={"lr": "find"})
    made = resolve(loaded, here)
    assert (len(made.open_ranges), made.searches, len(made.waiting)) == (2, (), 2)
    assert sum(count for _, _, count in tuning.left(made, loaded.search, here)) == 6
    suggest(here, made.ranges[0], rate=0.02)
    made = resolve(loaded, here)
    assert ([one.label for one in made.searches], len(made.waiting)) == (["baseline"], 1)
    assert made.searches[0].recipe.optimizer.lr == 0.02
    put(here, made.searches[0], *[("complete", 0.5, {"optimizer.weight_decay": 0.01})] * 3)
    first = resolve(loaded, here).grid.cells[0]
    assert dict(first.tuned) == {"optimizer.lr": 0.02, "optimizer.weight_decay": 0.01}
    assert not first.pending


def test_a_range_test_is_concluded_once_all_of_its_curves_are_there(here):
    (test,) = resolve(read(factors={"optimizer": {"lr": [0.1, "find"]}}), here).ranges
    tried = [10 ** (-5 + 6 * i / 99) for i in range(100)]
    losses = [2.3 - 2 * min(1.0, max(0.0, (i - 40) / 35)) + max(0.0, i - 85) for i in range(100)]
    curve = {"rates": tried, "losses": losses, "accuracies": [0.1] * 100, "stopped": "end", "timestamp": 1}
    for i, seed in enumerate(test.seeds):
        assert len(tuning.range_work((test,), here)) == 3 - i
        tuning.conclude((test,), here)
        assert tuning.read_suggestion(here.range(test.id)) is None
        files.write_json(here.range(test.id).curve(seed), curve)
    assert tuning.range_work((test,), here) == ()
    tuning.conclude((test,), here)
    found = tuning.read_suggestion(here.range(test.id))
    assert (found.status, found.rule) == ("ok", "rise")
    assert found.rate == float(f"{found.rate:.2g}")
    assert tried[75] < found.rate < tried[88], "behind the fall, where the loss rises again"


def test_a_seed_of_a_range_test_that_failed_is_left_alone_unless_asked_for(here):
    (test,) = resolve(read(factors={"optimizer": {"lr": [0.1, "find"]}}), here).ranges
    first = tuning.range_work((test,), here)[0]
    first.prepare(here)
    job_folder.fail(first.folder(here), kind="error", error="as the test wants it")
    assert first not in tuning.range_work((test,), here)
    assert first in tuning.range_work((test,), here, retry_failed=True)


# The winner


def won(*trials, count=None, direction="validation/accuracy"):
    search = read({"space": LR, "trials": count or len(trials), "metric": direction}).search
    rows = tuple(
        Trial(number=i, state=state, value=value, params={"optimizer.lr": i})
        for i, (state, value) in enumerate(trials)
    )
    best = tuning.winner(rows, search)
    return None if best is None else best["optimizer.lr"]


def test_the_winner_is_the_best_by_its_metric_and_of_equals_the_first():
    trials = (("complete", 0.5), ("complete", 0.8), ("complete", 0.2), ("complete", 0.8), ("complete", 0.2))
    assert won(*trials) == 1
    assert won(*trials, direction="validation/loss") == 2


def test_what_was_pruned_failed_or_diverged_never_wins():
    assert won(("pruned", 0.9), ("failed", None), ("diverged", None), ("complete", 0.1)) == 3
    assert won(("pruned", 0.9), ("failed", None), ("diverged", None)) is None


def test_there_is_no_winner_before_all_trials_have_ended():
    assert won(("complete", 0.5), ("running", None)) is None
    assert won(("complete", 0.5), count=2) is None


def test_where_fewer_trials_are_asked_for_than_there_are_only_the_first_ones_count():
    assert won(("complete", 0.5), ("complete", 0.6), ("complete", 0.9), ("running", None), count=2) == 1


def test_trials_that_try_what_an_earlier_one_has_tried_are_counted(here):
    study = read({"space": LR, "trials": 4, "per": "study"})
    (one,) = resolve(study, here).searches
    put(here, one, *(("complete", 0.5, {"optimizer.lr": rate}) for rate in (0.3, 0.2, 0.3, 0.3)))
    (known,) = {cell.repeats for cell in resolve(study, here).cells.values()}
    assert known == 2


def test_more_trials_go_on_where_fewer_have_ended(here):
    few, more = (read({"space": LR, "trials": trials, "per": "study"}) for trials in (2, 5))
    (one,) = resolve(few, here).searches
    put(here, one, *[("complete", 0.5, {"optimizer.lr": 0.3})] * 2)
    assert settled(resolve(few, here))
    made = resolve(more, here)
    assert ([item.id for item in made.open_searches], settled(made)) == ([one.id], False)
    assert [count for _, _, count in tuning.left(made, more.search, here)] == [3]


# Cells that cannot be trained yet


def planned(loaded, here):
    return plan.make(resolved(loaded, here))


def finish(here, runs, jobs):
    """Leave what finished and judged trainings leave."""
    for job in jobs:
        job_folder.create(here.job(job.id), job)
        files.write_json(here.job(job.id).result, record_files.result())
    for run in runs:
        judged = here.job(run.job_id).outcome(identity.evaluation_id(run.cell.recipe))
        files.write_json(judged / "outcome.json", record_files.evaluation(metrics={"test/accuracy": 0.5}))


def test_a_pending_cell_never_takes_the_results_of_its_untuned_recipe(here):
    plain = planned(read(), here)
    finish(here, plain.runs, plain.jobs)
    assert planned(read(), here).done == 4
    for loaded in (read({"space": LR, "trials": 2}), read(optimizer={"lr": "find"})):
        todo = planned(loaded, here)
        assert (todo.done, todo.trainings, todo.ready) == (0, 4, ())


def test_a_report_of_pending_cells_has_no_results(here):
    from ablate.analysis import findings, outcomes

    plain, loaded = planned(read(), here), read({"space": LR, "trials": 2})
    finish(here, plain.runs, plain.jobs)
    todo = planned(loaded, here)
    assert {outcome.status for outcome in outcomes.read(todo.runs, here)} == {"not_run"}
    assert [cell.n for cell in findings.find(loaded, todo.grid, outcomes.read(todo.runs, here)).cells] == [
        0,
        0,
    ]


def test_a_plan_counts_the_trainings_of_cells_and_those_of_trials(here):
    loaded = read({"space": LR, "trials": 3, "seeds": 2})
    todo = planned(loaded, here)
    assert (len(todo.jobs), todo.trainings, todo.trials) == (4, 4, 12)
    put(
        here,
        todo.tuning.searches[0],
        ("complete", 0.5, {"optimizer.lr": 0.3}),
        ("running", None, {"optimizer.lr": 0.3}),
    )
    assert planned(loaded, here).trials == 10
    for one in todo.tuning.searches:
        put(here, one, *[("complete", 0.5, {"optimizer.lr": 0.3})] * 3)
    todo = planned(loaded, here)
    assert (todo.trainings, todo.trials, len(todo.ready)) == (4, 0, 4)


@pytest.mark.parametrize("tuned", [{"search": {"space": LR, "trials": 1}}, {"optimizer": {"lr": "find"}}])
def test_pending_cells_that_will_share_a_training_are_one_job_already(here, tuned):
    factors = {"evaluation": {"tta": ["none", "flip"]}, "augment": {"flip": [True, False]}}
    assert len(planned(read(factors=factors, **tuned), here).jobs) == 4


# Sentences


def test_a_search_none_of_whose_trials_is_complete_is_named(here):
    loaded = read({"space": LR, "trials": 2})
    first, second = resolve(loaded, here).searches
    put(here, first, ("failed", None, {}), ("diverged", None, {}))
    put(here, second, ("complete", 0.5, {"optimizer.lr": 0.3}), ("pruned", None, {}))
    made = resolve(loaded, here)
    assert [cell.pending for cell in made.grid.cells] == [True, False]
    assert made.open_searches == ()
    assert tuning.unanswered(made, here) == [
        "cell baseline: none of its 2 trials is complete: look at their logs, or change search.space"
    ]


def test_a_range_test_that_failed_is_named_with_its_log_and_how_to_try_again(here):
    loaded = read(factors={"optimizer": {"lr": [0.1, "find"]}})
    (test,) = resolve(loaded, here).ranges
    folder = here.range(test.id).seed(test.seeds[1])
    job_folder.fail(folder, kind="error", error="ValueError: as the test wants it")
    (sentence,) = tuning.unanswered(resolve(loaded, here), here)
    assert sentence.startswith("cell lr=find: its range test failed")
    assert str(folder.log) in sentence
    assert "--retry-failed" in sentence


def test_what_is_only_not_done_yet_needs_no_sentence(here):
    for loaded in (read({"space": LR, "trials": 2}), read(optimizer={"lr": "find"})):
        assert tuning.unanswered(resolve(loaded, here), here) == []


def test_the_status_of_a_study_says_how_far_its_tuning_is(here):
    asked = read(
        search={"trials": 3, "space": {"optimizer": {"weight_decay": {"low": 0.0, "high": 0.01}}}},
        factors={"model": {"batch_norm": [True, False]}},
    )
    made = resolve(asked, here)
    fields, states = {"optimizer.weight_decay": 0.001}, ("complete", "running")
    rows = [{"number": i, "state": state, "params": fields, "value": 0.5} for i, state in enumerate(states)]
    files.write_json(here.search(made.searches[1].id).trials, {"trials": rows})
    found = status.with_tuning(status.summarise(()), made, here)
    assert found.searches == (
        status.Searched("baseline", 0, 3, 0),
        status.Searched("batch_norm=false", 1, 3, 1),
    )
    assert found.range_tests == (0, 0)
