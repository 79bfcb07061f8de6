"""What the report says of each network beside the metric: scores, class by class, and learning rates."""

from dataclasses import replace

import pytest
from reports import ROTATION, everything, found, nothing

from ablate.recipe import rates
from ablate.report.sections import inside, range_tests, schedules, scores


def test_train_and_test_stand_side_by_side_where_the_runs_have_them():
    of = everything()
    assert "train accuracy, %" not in [name for name, _ in scores.scores_table(of).columns]
    measured = {
        "test/accuracy": 0.91,
        "fit/accuracy": 0.935,
        "gap/accuracy": 0.025,
        "model/parameters": 1234567.0,
    }
    cells = (replace(of.cells[0], scores=measured), *of.cells[1:])
    table = scores.scores_table(replace(of, cells=cells))
    row = dict(zip([name for name, _ in table.columns], table.rows[0], strict=True))
    assert (row["test accuracy, %"], row["train accuracy, %"], row["gap, points"], row["parameters"]) == (
        "91.00", "93.50", "2.50", "1,234,567",
    )  # fmt: skip
    assert table.rows[1][-1] == "-"
    assert scores.scores_table(nothing()).rows == ()


def test_the_scores_of_a_class_are_means_over_seeds():
    (first, *_) = everything().details
    rows = [row for row in inside.class_table([first]).rows if row[1] == "cat"]
    assert rows[0][2] == "1,000"
    assert float(rows[0][4]) == pytest.approx(100 * first.confusion[0][0], abs=0.01)


def test_cells_with_one_course_of_the_learning_rate_share_a_line():
    raw = ROTATION | {
        "recipe": {"data": {"name": "digits"}, "training": {"epochs": 4}},
        "factors": {"augment": {"rotation": [0, 15]}, "schedule": {"name": ["cosine", "step"]}},
    }
    of = found(raw, lambda cell, seed: 0.9)
    courses = schedules.courses_of(of)
    assert [len(course.cells) for course in courses] == [2, 2]
    schedule, steps = of.cells[0].cell.recipe.schedule, len(courses[0].rates)
    assert courses[0].rates == tuple(
        float(f"{0.1 * rates.lr_factor(schedule, step, steps, 4):.5g}") for step in range(steps)
    )
    assert courses[0].epochs[-1] < 4
    assert [trace["name"] for trace in schedules.schedules(courses).data] == [
        "baseline and 1 more", "schedule=step and 1 more",
    ]  # fmt: skip


def test_of_learning_rates_that_coincide_each_is_seen_beyond_the_shorter_ones():
    epochs = {"baseline": 4, "middle": 2, "long": 9}
    courses = tuple(schedules.Course((name,), (0.0, float(n)), (0.1, 0.1)) for name, n in epochs.items())
    data = schedules.schedules(courses).data
    assert [line["name"] for line in data] == ["long", "baseline", "middle"]
    assert [line["name"] for line in sorted(data, key=lambda line: line["legendrank"])] == list(epochs)


@pytest.mark.parametrize("draw", [range_tests.rates, range_tests.accuracies])
def test_long_names_below_a_range_test_get_room_and_take_none_from_the_plot(draw):
    (curve, *_) = everything().tuning.ranges
    heights = []
    for name in ("short", "a name of four lines " * 7):
        layout = draw([replace(curve, label=name)] * 3).layout
        heights.append((layout["height"], layout["height"] - layout["margin"]["b"]))
    assert heights[1] == (heights[0][0] + 3 * 3 * 20, heights[0][1])


def test_accuracy_is_drawn_over_the_rates_of_a_range_test():
    of = everything()
    (drawn, *_) = range_tests.accuracies(of.tuning.ranges).data
    assert drawn["x"] == list(of.tuning.ranges[0].tried)
    assert drawn["y"][:2] == pytest.approx([10, 12])
