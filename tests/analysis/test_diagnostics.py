"""Two cells from inside: confusions, calibration, classes and the strongest interaction, by plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from outcomes import make, outcomes, random_value
from scipy.stats import ttest_1samp

from ablate.analysis import diagnostics, effects, findings, metric_table
from ablate.report import sections

CLASSES = ("cat", "dog", "a/b")
TWO = {
    "augment": {"rotation": [0, 15]},
    "model": {"batch_norm": [True, False], "conv_dropout": [0.0, 0.1, 0.3]},
}


def inside(
    made,
    *,
    missing=lambda cell, seed, name: False,
    status=lambda cell, seed: "finished",
    seed=0,
    classes=CLASSES,
):
    """Fabricate runs with confusions, calibration and an accuracy on each class."""
    rng, found = np.random.default_rng(seed), []
    for o in outcomes(made, random_value(seed), status=status):
        counts = rng.integers(1, 30, (len(classes), len(classes)))
        filled = [0, 0, *rng.integers(0, 4, 13)]
        bins = tuple(
            (int(n), float(c), float(a))
            for n, c, a in zip(filled, rng.random(15), rng.random(15), strict=True)
        )
        shares = {name: float(counts[i, i] / counts[i].sum()) for i, name in enumerate(classes)}
        accuracies = {
            f"test/accuracy/{name}": share
            for name, share in shares.items()
            if not missing(o.run.cell, o.run.seed, name)
        }
        looked_into = replace(
            o,
            metrics=o.metrics | accuracies,
            confusion=tuple(map(tuple, counts.tolist())),
            classes=classes,
            calibration=bins,
        )
        found.append(looked_into if o.status == "finished" else o)
    return tuple(found)


def of(runs, label):
    return [o for o in runs if o.run.cell.label == label and o.status == "finished"]


def test_a_confusion_is_the_mean_over_seeds_of_the_shares_of_each_class():
    runs = inside(make())
    (found,) = diagnostics.of_cells(["rotation=15"], runs)
    for i in range(3):
        for j in range(3):
            shares = [o.confusion[i][j] / sum(o.confusion[i]) for o in of(runs, "rotation=15")]
            assert found.confusion[i][j] == pytest.approx(sum(shares) / 3, abs=1e-12)
    assert [sum(row) for row in found.confusion] == pytest.approx([1, 1, 1])


def test_a_class_without_test_images_has_shares_of_0():
    runs = tuple(replace(o, confusion=(o.confusion[0], (0, 0, 0), o.confusion[2])) for o in inside(make()))
    assert diagnostics.of_cells(["baseline"], runs)[0].confusion[1] == (0.0, 0.0, 0.0)


def test_calibration_is_pooled_over_the_answers_of_all_seeds():
    runs = inside(make())
    (found,) = diagnostics.of_cells(["baseline"], runs)
    expected = []
    for i in range(15):
        bins = [o.calibration[i] for o in of(runs, "baseline")]
        answers = sum(n for n, _, _ in bins)
        if answers:
            expected.append(
                (answers, sum(n * c for n, c, _ in bins) / answers, sum(n * a for n, _, a in bins) / answers)
            )
    assert len(expected) <= 13, "empty bins are left out"
    assert np.array(found.calibration) == pytest.approx(np.array(expected))


def test_cells_stand_in_the_order_asked_for_and_once():
    runs = inside(make())
    assert [d.label for d in diagnostics.of_cells(["rotation=15", "baseline", "rotation=15"], runs)] == [
        "rotation=15",
        "baseline",
    ]


def test_a_cell_of_which_nothing_is_finished_is_left_out():
    runs = inside(make(), status=lambda cell, seed: "finished" if cell.is_baseline and seed else "not_run")
    assert [d.label for d in diagnostics.of_cells(["rotation=15", "baseline"], runs)] == ["baseline"]
    assert diagnostics.of_cells(["baseline"], inside(make(), status=lambda cell, seed: "diverged")) == ()


def test_the_picture_is_that_of_the_first_seed_that_has_one():
    runs = tuple(replace(o, picture="x.png" if o.run.seed > 0 else "") for o in inside(make()))
    (found,) = diagnostics.of_cells(["baseline"], runs)
    assert (found.picture, found.picture_seed) == ("x.png", 1)


def test_the_effect_on_a_class_is_the_main_effect_on_its_metric_in_the_family_of_changes_times_classes():
    made = make()
    runs = inside(made)
    found = diagnostics.by_class(*made, runs)
    assert len(found) == 4 * 3
    for one in found:
        whole = findings.find(*made, runs, metric=f"test/accuracy/{one.name}")
        same = next(e for e in whole.effects if e.changes == one.effect.changes)
        assert one.effect.per_seed == same.per_seed
        p = ttest_1samp(list(same.per_seed.values()), 0).pvalue
        assert one.effect.estimate.p == pytest.approx(1 - (1 - p) ** 12, rel=1e-6)
    sizes = [abs(one.effect.estimate.effect) for one in found[:3]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_classes_that_a_change_moves_most_are_kept():
    made = make({"augment": {"rotation": [0, 15]}})
    runs = inside(made, classes=tuple(f"c{i}" for i in range(30)))
    found = diagnostics.by_class(*made, runs)
    every = [
        abs(findings.find(*made, runs, metric=f"test/accuracy/c{i}").effects[0].estimate.effect)
        for i in range(30)
    ]
    assert [abs(one.effect.estimate.effect) for one in found] == pytest.approx(
        sorted(every, reverse=True)[: diagnostics.MOST_CLASSES]
    )


def test_a_class_that_some_runs_do_not_know_is_compared_where_it_is_known():
    made = make({"augment": {"rotation": [0, 15]}})
    runs = inside(made, missing=lambda cell, seed, name: (seed, name) == (1, "dog") or name == "a/b")
    found = {one.name: one.effect for one in diagnostics.by_class(*made, runs)}
    assert set(found) == {"cat", "dog"}
    assert set(found["dog"].per_seed) == {0, 2}
    assert set(found["cat"].per_seed) == {0, 1, 2}


def test_one_cell_alone_has_an_inside_and_nothing_to_compare():
    made = make({})
    found = findings.find(*made, inside(made))
    assert [d.label for d in found.details] == ["baseline"]
    assert (found.class_effects, found.interplay) == ((), None)


def test_nothing_finished_has_no_inside():
    made = make()
    found = findings.find(*made, inside(made, status=lambda cell, seed: "not_run"))
    assert (found.details, found.class_effects, found.interplay) == ((), (), None)


def test_the_baseline_and_the_best_other_cell_are_looked_into_unless_others_are_asked_for():
    made = make()
    runs = inside(made)
    found = findings.find(*made, runs)
    best = max(found.cells[1:], key=lambda c: c.mean)
    assert [d.label for d in found.details] == ["baseline", best.cell.label]
    worst = min(found.cells, key=lambda c: c.mean).cell.label
    assert [d.label for d in findings.find(*made, runs, looked_into=(worst,)).details] == [worst]


def test_the_interplay_is_of_the_largest_interaction_that_is_more_than_noise():
    made, noise = make(TWO, seeds=5), np.random.default_rng(2)

    def value(cell, seed):
        """Rotation and BatchNorm go together by 4 points.

        Rotation and dropout seem to by 20, as the seed likes.
        """
        r, b, d = (
            cell.levels[name] for name in ("augment.rotation", "model.batch_norm", "model.conv_dropout")
        )
        wild = (1.2, -0.6, 0.9, -0.8, 0.3)[seed] if (r, d) == ("15", "0.3") else 0.0
        return 0.5 + 0.04 * ((r, b) == ("15", "false")) + wild + float(noise.normal(0, 0.001))

    runs = outcomes(made, value)
    table = metric_table.tabulate(*made, runs, "test/accuracy", "max")
    every = effects.interactions(table)
    found = diagnostics.interplay(table, every)
    assert max(every, key=lambda e: abs(e.estimate.effect)).factor == "augment.rotation x model.conv_dropout"
    assert found.factors == ("augment.rotation", "model.batch_norm")
    assert found.levels == (("0", "15"), ("true", "false"))
    for (r, b), mean in found.means.items():
        own = [
            o.metrics["test/accuracy"]
            for o in runs
            if (o.run.cell.levels["augment.rotation"], o.run.cell.levels["model.batch_norm"]) == (r, b)
        ]
        assert mean == pytest.approx(np.mean(own), abs=1e-12)
    assert len(found.means) == 4


def test_the_means_of_an_interplay_are_over_the_seeds_that_lack_nothing():
    made, value = make(TWO, seeds=5), random_value(4)
    gone = made[1].cells[-1].label

    def status(cell, seed):
        return "running" if (cell.label, seed) == (gone, 2) else "finished"

    runs = outcomes(made, value, status=status)
    table = metric_table.tabulate(*made, runs, "test/accuracy", "max")
    found = diagnostics.interplay(table, effects.interactions(table))
    assert not found.uneven
    for levels, mean in found.means.items():
        own = [c for c in made[1].cells if tuple(c.levels[factor] for factor in found.factors) == levels]
        assert mean == pytest.approx(np.mean([value(c, s) for c in own for s in (0, 1, 3, 4)]), abs=1e-12)
    never = outcomes(made, value, status=lambda cell, seed: "running" if cell.label == gone else "finished")
    table = metric_table.tabulate(*made, never, "test/accuracy", "max")
    assert diagnostics.interplay(table, effects.interactions(table)).uneven


@pytest.mark.parametrize(("seeds", "nothing"), [(2, True), (5, False)])
def test_the_interval_of_a_class_never_leaves_what_an_accuracy_can_change_by(seeds, nothing):
    made = make(seeds=seeds)
    found = findings.find(*made, inside(made))
    estimates = [one.effect.estimate for one in found.class_effects]
    assert all(-1 <= e.low < e.effect < e.high <= 1 for e in estimates)
    assert any(one.effect.says_nothing for one in found.class_effects) is nothing
    table = sections.classes.classes_table(found)
    assert (sections.classes.WIDE in table.caption) is nothing
    for row in table.rows:
        ends = [abs(float(end)) for end in row[3].strip("[]").split(", ")] if row[3] != "-" else [0.0]
        assert max(ends) <= 100
    drawn = sections.classes.classes(found.class_effects[:3], found).data
    bars = [trace["x"] for trace in drawn if trace["mode"] == "lines"]
    assert all(-100 <= end <= 100 for bar in bars for end in bar)
    assert [-100.0, 100.0] not in bars
