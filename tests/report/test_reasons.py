"""A run that does not count says why, in one word, wherever it is shown.

And a report that compares nothing says why not.
"""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import record_files
from click.testing import CliRunner
from plans import finish, make, read
from reports import HELPS, ROTATION, by_level, found, page
from rich.console import Console
from statuses import judge, shown, status

from ablate import cli
from ablate.analysis import outcomes
from ablate.cli.plan import show_plan
from ablate.report import canvas, data, exports, headline, html, reasons, sections, summary
from ablate.store import files, job_folder
from ablate.store.layout import Store

ALONE = {
    "design": "one_at_a_time",
    "factors": {"model": {"trainable": ["head", "layer4", "all"]}},
    "seeds": 2,
}
PETS = ("cat", "dog", "ship")


def chance_baseline():
    """Two seeds whose baseline has learnt nothing of three classes."""
    values = {("baseline", 0): 0.342, ("baseline", 1): 0.354}
    return found(
        ALONE,
        lambda c, s: values.get((c.label, s), 0.61),
        status=lambda c, s: "at_chance" if c.is_baseline else "finished",
        classes=PETS,
    )


def all_kinds():
    kinds = ["at_chance", "diverged", "crashed", "stopped", "running", "not_run"]
    raw = {"design": "one_at_a_time", "factors": {"augment": {"rotation": [0, 1, 2, 3, 4, 5, 6]}}, "seeds": 2}
    of = {f"rotation={i}": kind for i, kind in enumerate(kinds, start=1)}
    return found(
        raw,
        lambda c, s: 0.5 if c.label in of else 0.9,
        status=lambda c, s: of.get(c.label, "finished") if s else "finished",
        classes=PETS,
    )


def test_a_baseline_at_chance_is_why_nothing_can_be_compared():
    (said,) = headline.headline(chance_baseline())
    assert said.startswith(
        "The baseline stayed at chance level in 2 of 2 runs (34.2, 35.4 %; chance 33.3 %), so nothing can "
        "be compared with it: "
    )
    assert (
        ": train longer, try another learning rate (ablate lr-find) or take a baseline that learns. " in said
    )
    assert said.endswith(" The others: trainable=layer4 61.0 %, trainable=all 61.0 %.")


def test_a_study_that_stayed_at_chance_altogether_says_so_with_its_values():
    of = found(
        ROTATION | {"seeds": 2}, lambda c, s: 0.33 + s / 100, status=lambda c, s: "at_chance", classes=PETS
    )
    (said,) = headline.headline(of)
    told = "4 at chance level (33.0, 34.0 %; chance 33.3 %)"
    assert said.startswith(
        f"No run has a value of test/accuracy that counts, so nothing can be compared: of 4 runs, {told}. "
        "Train longer or "
    )
    assert summary.make(of).counted == told
    assert said in page(of)


def test_what_naming_the_largest_class_gives_is_chance_where_classes_are_not_equal():
    of = chance_baseline()
    uneven = reasons.at_chance(of.cells, replace(of, images=type(of.images)(1000, 2, 950)))
    assert uneven == "34.2, 35.4 %; always naming the largest class gives 95.0 %"


def test_many_values_are_a_range_and_another_metric_is_named():
    of = found(
        ROTATION | {"seeds": 5}, lambda c, s: 0.3 + s / 100, status=lambda c, s: "at_chance", classes=PETS
    )
    assert reasons.at_chance(of.cells, of) == "30.0 to 34.0 %; chance 33.3 %"
    loss = found(
        ROTATION | {"seeds": 2}, lambda c, s: 0.3, status=lambda c, s: "at_chance", metric="test/loss"
    )
    assert reasons.at_chance(loss.cells, loss) == "test/loss 0.7"


def test_each_reason_has_one_word_in_every_form():
    of = all_kinds()
    named = ["at chance", "diverged", "crashed", "stopped", "running", "not run"]
    assert list(summary.make(of).columns)[2:-3] == named
    made = sections.cells.cells_table(of)
    assert [title for title, _ in made.columns][5:11] == named
    shown_as = {row[1].text: row[12] for row in made.rows}
    assert shown_as["rotation=1"] == "50.00 (at chance)"
    assert [shown_as[f"rotation={i}"] for i in range(2, 7)] == named[1:]
    assert [name for name, _ in html._tiles(of)][1:7] == [
        "at chance level (50.0 %; chance 33.3 %)",
        *named[1:],
    ]
    counted = (
        "1 at chance level (50.0 %; chance 33.3 %), 1 diverged, 1 crashed, 1 stopped, 1 running, 1 not run"
    )
    assert summary.make(of).counted == counted
    assert counted in exports.markdown(of)
    assert counted.replace("%", r"\%") in exports.latex(of)
    cells = {cell["cell"]: cell for cell in data.to_json(of)["cells"]}
    for i, kind in enumerate(reasons.ORDER, start=1):
        one = cells[f"rotation={i}"]
        assert one["outcomes"] == {status: int(status in (kind, "finished")) for status in outcomes.NAMES}
        assert (one["failed"], one["missing"]) == ((1, 0) if kind in outcomes.FAILED_RESULT else (0, 1))
    assert cells["rotation=1"]["at_chance"] == {"1": 0.5}
    (row,) = (
        row
        for row in csv.DictReader(io.StringIO(exports.spreadsheet(of, "cells")))
        if row["cell"] == "rotation=1"
    )
    assert (row["n"], row["at_chance"], row["seed 1"], row["seed 1 at chance"]) == ("1", "1", "", "0.5")


def test_a_study_without_such_runs_has_no_column_for_them():
    of = found(ROTATION, by_level({("augment.rotation", "15"): HELPS}))
    assert summary.make(of).columns == ("cell", "n", "mean", "sd", "s/epoch")
    assert (summary.make(of).counted, "do not count" in exports.markdown(of)) == ("", False)


def test_a_killed_run_is_stopped_in_its_epoch_and_one_never_begun_is_not_run(here: Store) -> None:
    made = make(read(seeds=2, factors={"augment": {"rotation": [0, 15]}}), here)
    killed, at_once, trained, never = made.jobs
    for job in (killed, at_once):
        job_folder.create(here.job(job.id), job)
        files.append(here.job(job.id).attempts, record_files.attempt())
    files.append(here.job(killed.id).journal, record_files.epoch(3))
    finish(here, trained)
    assert [(o.status, o.reason) for o in outcomes.read(made.runs, here)] == [
        ("stopped", "stopped in epoch 3 of 10; ablate run goes on from there"),
        ("stopped", "stopped before the end of its first epoch; ablate run goes on from there"),
        ("not_run", "trained, and not evaluated yet"),
        ("not_run", ""),
    ]
    assert never.id not in {path.name for path in (here.path / "jobs").iterdir()}
    text = shown(status(made, here))
    assert "stopped in epoch 3" in text.splitlines()[1]
    assert "4 runs: 2 stopped, 2 not run" in text


def test_an_outcome_that_an_earlier_version_called_chance_counts_without_another_training(
    here: Store,
) -> None:
    made = make(read(seeds=1, factors={"augment": {"rotation": [0, 15]}}), here)
    for job, confusion in zip(made.jobs, ([[45, 0], [0, 5]], [[45, 0], [5, 0]]), strict=True):
        finish(here, job)
        judge(here, job)
        (path,) = here.job(job.id).path.glob("outcomes/*/outcome.json")
        old = {
            "status": "at_chance",
            "reason": "at chance level: test accuracy 1.0000, ...",
            "confusion": confusion,
        }
        files.write_json(path, files.read_json(path) | old)
    assert [o.status for o in outcomes.read(made.runs, here)] == ["finished", "at_chance"]
    assert make(made.study, here).done == 2


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Copy the store of a finished study."""
    shutil.copytree(Path(__file__).parents[1] / "golden" / "finished", tmp_path / "store")
    return tmp_path / "store"


def ablate(*arguments: object) -> str:
    done = CliRunner().invoke(cli.main, [str(part) for part in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_report_on_another_metric_or_other_cells_overwrites_nothing(finished: Path) -> None:
    written = Path(ablate("report", "tiny", "--store", finished).strip())
    before = {path: path.read_bytes() for path in written.parent.iterdir()}
    assert {path.name for path in before} >= {
        "report.html",
        "report.md",
        "effects.csv",
        "cells.csv",
        "findings.json",
    }
    names = [
        Path(ablate("report", "tiny", "--store", finished, *options).strip()).name
        for options in (
            ("--metric", "test/loss"),
            ("--cell", "batch_norm=false"),
            ("--metric", "test/loss", "--cell", "baseline"),
        )
    ]
    assert names[:2] == ["report-test-loss.html", "report-cell-batch_norm=false.html"]
    assert names[2].startswith("report-test-loss-cell-baseline-")
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in written.parent.iterdir()} - {path.name for path in before} == set(names)


def test_a_plain_report_brings_the_tables_beside_it_up_to_date(finished: Path) -> None:
    folder = Path(ablate("report", "tiny", "--store", finished).strip()).parent
    for name in ("report.md", "effects.csv", "cells.csv", "findings.json"):
        (folder / name).write_text("old")
    ablate("report", "tiny", "--store", finished)
    assert json.loads((folder / "findings.json").read_text())["study"] == "tiny"
    (first, *_) = csv.DictReader(io.StringIO((folder / "effects.csv").read_text()))
    assert (first["metric"], first["unit"]) == ("test/accuracy", "fraction")
    (first, *_) = csv.DictReader(
        io.StringIO(ablate("report", "tiny", "--store", finished, "--metric", "test/loss", "--format", "csv"))
    )
    assert (first["metric"], first["unit"]) == ("test/loss", "nats")


@pytest.mark.parametrize(
    "label", ["rotation=15, crop=none", "name=mynet:Small", "a/../b", "x" * 300, "Öl", "."]
)
def test_any_cell_has_a_file_of_its_own_in_the_study_s_folder(label: str) -> None:
    from ablate.report import publish

    of = found(ROTATION, by_level({("augment.rotation", "15"): HELPS}))
    name = publish._special(of, [label])
    assert len(name) < 120
    assert not set(name) & set("/:, ")
    assert name != publish._special(of, [f"{label}'"])


def test_without_a_study_status_lists_those_of_the_store(finished: Path, tmp_path: Path) -> None:
    lines = ablate("status", "--store", finished).splitlines()
    assert lines[0].split() == ["study", "runs", "done", "being", "run"]
    assert lines[1].split() == ["tiny", "16", "16"]
    broken = finished / "studies" / "broken"
    broken.mkdir()
    (broken / "study.json").write_text('{"study": {"name": "broken"}}')
    told = json.loads(ablate("status", "--store", finished, "--json"))
    assert [(one["study"], one["total"]) for one in told] == [("broken", {}), ("tiny", {"finished": 16})]
    assert "must be a study as ablate writes it" in told[0]["unreadable"]
    assert "broken: " in ablate("status", "--store", finished)
    assert ablate("status", "--store", tmp_path / "none").startswith("no study was run in ")
    assert CliRunner().invoke(cli.main, ["status", "--watch"]).exit_code == 2


def test_one_of_a_thing_is_not_many(here: Store) -> None:
    out = io.StringIO()
    made = make(read(seeds=1, design="one_at_a_time", factors={"augment": {"rotation": [0, 15]}}), here)
    show_plan(Console(file=out, width=200), made, 1, None)
    assert "2 cells x 1 seed\n" in "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    assert " 1 seeds" not in out.getvalue()
    alone = status(make(read(seeds=1, factors={}), here), here)
    assert "1 run: 1 not run" in shown(alone)


def test_the_page_says_what_the_runs_were_about():
    of = found(ROTATION, by_level({("augment.rotation", "15"): HELPS}), classes=PETS)
    assert html._setting(of) == [
        "3,000 test images of 3 classes: one is worth 0.033 points of accuracy.",
        "Network: resnet18.",
        "Baseline: rotation = 0.",
    ]
    assert data.to_json(of)["test_images"] == {"count": 3000, "classes": 3, "largest_class": 1000}


@pytest.mark.parametrize(
    ("most", "ticks"), [(1, 1), (2, 1), (5, 1), (8, 1), (9, 2), (30, 5), (200, 25), (1000, 200)]
)
def test_what_counts_has_whole_ticks_and_not_many(most, ticks):
    made = canvas.whole(most)
    assert (made["dtick"], most / made["dtick"] <= 8) == (ticks, True)


@pytest.mark.parametrize(("first", "kind"), [(2.5, None), (500.0, "log")])
def test_a_loss_that_is_flattened_by_its_first_epoch_is_drawn_on_a_log_axis(first, kind):
    of = found(ROTATION, by_level({("augment.rotation", "15"): HELPS}), epochs=5)
    curves = tuple(
        replace(c, mean=(first, *c.mean[1:]), high=(first, *c.high[1:])) if c.metric.endswith("loss") else c
        for c in of.curves
    )
    drawn = sections.curves.curves(replace(of, curves=curves))
    assert drawn.layout["yaxis2"].get("type") == kind
    assert drawn.layout["yaxis"].get("type") is None, "the accuracy"
    assert ("log scale" in json.dumps(drawn.layout["annotations"])) is (kind == "log")
    assert (drawn.layout["xaxis2"]["dtick"], drawn.layout["xaxis2"]["tick0"]) == (1, 1)


def test_a_confusion_matrix_is_named_by_its_cell():
    of = found(ROTATION, by_level({("augment.rotation", "15"): HELPS}), classes=PETS)
    for i, one in enumerate(of.details):
        drawn = sections.inside.confusion(one, f"confusion-{i}")
        assert f"<b>{one.label}</b>" in json.dumps(drawn.layout["annotations"])
