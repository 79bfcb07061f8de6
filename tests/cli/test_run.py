"""`ablate run` from the outside: real processes, images and MLflow, on a study of four short trainings."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from commands import TINY, ablate, attempts, failing, results, start, wait_for


def test_a_run_ends_with_the_cells_the_verdicts_in_words_and_the_path_of_the_report(done):
    folder, out = done
    lines = out.strip().splitlines()
    report = Path(lines[-1].removeprefix("report: "))
    assert report == folder / "store/studies/tiny/report.html"
    assert "<title>" in report.read_text()
    assert any(
        "batch_norm" in line and re.search(r"helps|hurts|equivalent|undecided", line) for line in lines[-6:]
    )
    assert any(line.startswith("batch_norm=false, mc_dropout=3") for line in lines)


def test_cells_that_differ_in_their_evaluation_share_a_training(done):
    folder, out = done
    assert "training 4 jobs on" in out
    assert len(list(folder.glob("store/jobs/*"))) == attempts(folder / "store") == 4
    assert len(list(folder.glob("store/jobs/*/outcomes/*/outcome.json"))) == 8


@pytest.mark.slow
def test_the_same_study_in_a_fresh_store_gives_the_same_bits(done, tmp_path):
    folder, _ = done
    code, _, err = ablate("run", folder / "tiny.toml", "--store", tmp_path / "other", "--jobs", 1)
    assert (code, err) == (0, "")
    first, second = results(folder / "store"), results(tmp_path / "other")
    assert len(first) > 20
    assert first == second
    for weights in folder.glob("store/jobs/*/*.pt"):
        assert (
            weights.read_bytes() == (tmp_path / "other" / weights.relative_to(folder / "store")).read_bytes()
        )


def test_running_again_trains_nothing_and_says_so(done):
    folder, _ = done
    before = results(folder / "store")
    code, out, _ = ablate("run", folder / "tiny.toml", "--store", folder / "store")
    assert code == 0
    assert "nothing to train: all 4 jobs are done" in out
    assert results(folder / "store") == before


def test_a_study_can_be_named_as_it_was_last_run(done):
    folder, _ = done
    code, out, _ = ablate("status", "tiny", "--store", folder / "store", "--json")
    assert code == 0
    assert json.loads(out)["total"] == {"finished": 8}


@pytest.mark.slow  # several runs of a study
def test_plan_counts_what_is_left_and_a_new_seed_or_evaluation_reuses_everything(done, tmp_path):
    folder, _ = done
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", folder / "store", store], check=True)
    more = ("--set", "seeds=3", "--set", "factors.evaluation.mc_dropout=[0, 3, 5]")
    plan = json.loads(ablate("plan", folder / "tiny.toml", "--store", store, "--json", *more)[1])
    counts = tuple(plan[key] for key in ("runs", "jobs", "to_train", "to_evaluate", "done"))
    assert counts == (18, 6, 2, 4, 0)
    code, out, _ = ablate("run", folder / "tiny.toml", "--store", store, *more)
    assert code == 0
    assert "training 2 jobs and evaluating 4 that are trained" in out
    assert attempts(store) == 6
    kept = results(folder / "store")
    assert {name: text for name, text in results(store).items() if name in kept} == kept


def test_plan_says_what_a_run_would_do_and_that_one_seed_decides_nothing(study, tmp_path):
    exclude = 'exclude=[{ if = "model.batch_norm == false and evaluation.mc_dropout > 0", why = "too slow" }]'
    out = ablate("plan", study, "--store", tmp_path, "--set", "seeds=1", "--set", exclude, COLUMNS="200")[1]
    assert re.search(r"cells +3 \(factorial, 1 of them only evaluates another one's training", out)
    assert re.search(r"runs +3 = 3 cells x 1 seed\b", out)
    assert re.search(r"excluded +1 cell: too slow \(batch_norm=false, mc_dropout=3\)", out)
    assert re.search(r"warning +one seed shows effects and allows no verdict", out)
    assert re.search(r"time +about \d+ s on \d+ slots?", out)
    assert "warning" not in ablate("plan", study, "--store", tmp_path)[1]


def test_another_study_finds_the_jobs_it_shares(done, tmp_path):
    folder, _ = done
    store, other = tmp_path / "store", tmp_path / "other.toml"
    # A copy, because other tests look at that store.
    shutil.copytree(folder / "store", store, ignore=shutil.ignore_patterns("mlflow.*", "artifacts"))
    other.write_text(TINY.replace('"tiny"', '"other"').replace("[true, false]", "[false, true]"))
    before = attempts(store)
    code, out, _ = ablate("run", other, "--store", store)
    assert code == 0
    assert "nothing to train" in out
    assert attempts(store) == before


def test_the_report_as_json_has_the_keys_that_programs_rely_on(done):
    folder, _ = done
    report = json.loads(ablate("report", "tiny", "--store", folder / "store", "--format", "json")[1])
    assert {"study", "metric", "direction", "seeds", "cells", "effects", "claims"} <= report.keys()
    assert {"cell", "levels", "n", "failed", "mean", "sd", "values"} <= report["cells"][0].keys()
    keys = {
        "kind",
        "factor",
        "from",
        "to",
        "effect",
        "low",
        "high",
        "p",
        "n",
        "verdict",
        "flags",
        "more_seeds",
    }
    assert all(keys <= effect.keys() for effect in report["effects"])
    assert {effect["kind"] for effect in report["effects"]} == {"main", "interaction", "cell"}
    assert {"text", "verdict", "effect", "low", "high"} <= report["claims"][0].keys()
    assert set(report["cells"][0]["values"]) == {"0", "1"}


def test_another_metric_can_be_asked_for_and_an_unknown_one_is_refused(done):
    folder, _ = done
    report = json.loads(
        ablate(
            "report",
            "tiny",
            "--store",
            folder / "store",
            "--format",
            "json",
            "--metric",
            "test/calibration_error",
        )[1]
    )
    assert (report["metric"], report["direction"]) == ("test/calibration_error", "min")
    code, _, err = ablate("report", "tiny", "--store", folder / "store", "--metric", "test/acuracy")
    assert code == 2
    assert "did you mean test/accuracy?" in err


@pytest.mark.slow  # a network of one's own: every command imports torch
def test_a_job_that_raises_is_reported_with_its_log_and_stops_no_other(study, tmp_path):
    failing(study)
    code, out, err = ablate("run", study, "--store", tmp_path / "store")
    assert (code, err) == (1, "")
    assert "this network cannot be trained" in out
    log = Path(re.search(r"log: (\S+)", out)[1])
    assert "Traceback" in log.read_text()
    status = json.loads(ablate("status", "tiny", "--store", tmp_path / "store", "--json")[1])
    assert status["total"] == {"finished": 4, "crashed": 4}
    before = attempts(tmp_path / "store")
    code, out, _ = ablate("run", study, "--store", tmp_path / "store")
    assert code == 1
    assert "2 jobs crashed before and were left alone" in out
    assert attempts(tmp_path / "store") == before
    assert ablate("run", study, "--store", tmp_path / "store", "--retry-failed")[0] == 1
    assert attempts(tmp_path / "store") == before + 2


@pytest.mark.slow  # two runs of a study
def test_a_diverged_run_is_a_result_that_is_counted_and_never_averaged(study, tmp_path):
    text = TINY.replace('optimizer = { name = "adam", lr = 0.003 }', "")
    text = text.replace("model.batch_norm      = [true, false]", "optimizer.lr = [0.05, 100.0]")
    study.write_text(text.replace("model.batch_norm: true > false", "optimizer.lr: 0.05 > 100.0"))
    code, out, _ = ablate("run", study, "--store", tmp_path / "store")
    assert code == 0
    report = json.loads(ablate("report", "tiny", "--store", tmp_path / "store", "--format", "json")[1])
    bad = next(cell for cell in report["cells"] if cell["cell"] == "lr=100.0")
    assert (bad["n"], bad["failed"], bad["mean"]) == (0, 2, None)
    assert next(e for e in report["effects"] if e["factor"] == "optimizer.lr")["verdict"] == "unstable"
    assert "unstable" in out


@pytest.mark.slow  # several runs of a study
def test_ctrl_c_keeps_what_is_finished_and_the_next_run_does_the_rest(study, tmp_path):
    store, long = tmp_path / "store", ("--set", "training.epochs=15")
    process = start("run", study, "--store", store, "--jobs", 1, *long)
    wait_for(lambda: list(store.glob("jobs/*/result.json")), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, out + err
    assert "interrupted: everything finished is kept" in out
    finished = {path: path.stat().st_mtime_ns for path in store.glob("jobs/*/result.json")}
    assert 1 <= len(finished) < 4
    assert ablate("run", study, "--store", store, *long)[0] == 0
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    undisturbed = tmp_path / "undisturbed"
    assert ablate("run", study, "--store", undisturbed, *long)[0] == 0
    ours, theirs = (
        {
            name: text
            for name, text in results(folder).items()
            if "attempts" not in name and not name.endswith("settled.json")
        }
        for folder in (store, undisturbed)
    )
    assert ours == theirs


@pytest.mark.slow  # several runs of a study
def test_a_study_is_run_part_by_part_and_nothing_is_trained_twice(study, tmp_path):
    store, before = tmp_path / "store", os.umask(0o002)
    try:
        run_part_by_part(study, store)
    finally:
        os.umask(before)
    own = [path for path in store.rglob("*") if not path.stat().st_mode & 0o020]
    assert own == [], "a group that shares a store could not write these"


def run_part_by_part(study, store):
    code, out, _ = ablate("run", study, "--store", store, "--only", "model.batch_norm == false")
    assert (code, attempts(store)) == (0, 2)
    assert "training 2 jobs on" in out
    assert "2 jobs of other cells left out (--only)" in out
    code, out, _ = ablate("run", study, "--store", store, "--seeds", 3, "--jobs", 2)
    assert (code, attempts(store)) == (0, 6)
    assert "training 4 jobs on 2 slots, 2 known already" in out
    code, out, _ = ablate("run", "tiny", "--store", store, "--seeds", 4, "--budget", "0.001s")
    assert (code, attempts(store)) == (130, 6)
    assert "the time is up (--budget): 2 jobs left, and the same command goes on from here" in out
    assert json.loads(ablate("status", "tiny", "--store", store, "--json")[1])["total"] == {
        "finished": 12,
        "not_run": 4,
    }
    code, out, _ = ablate("run", "tiny", "--store", store, "--budget", "10m")
    assert (code, attempts(store)) == (0, 8)


@pytest.mark.slow  # a network of one's own: every command imports torch
def test_the_first_failure_ends_a_run_that_is_to_fail_fast(study, tmp_path):
    failing(study)
    store = tmp_path / "store"
    code, out, err = ablate("run", study, "--store", store, "--jobs", 1, "--fail-fast")
    assert (code, err) == (1, "")
    assert "stopped: a job has failed, and --fail-fast was given; the same command goes on from here" in out
    assert len(list(store.glob("jobs/*/failure.json"))) == 1
    assert attempts(store) == 2
    assert ablate("run", study, "--store", store)[0] == 1
    assert attempts(store) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--only", "model.batchnorm == false"),
            '--only: "model.batchnorm" is not a recipe field (did you mean model.batch_norm?)',
        ),
        (("--budget", "2 hours"), "must be a time such as 90s, 10m, 2h or 1h30m, got 2 hours"),
        (("--stall", "0s"), "must be a time such as 90s, 10m, 2h or 1h30m, got 0s"),
        (("--seeds", "0"), "0 is not in the range 1<=x<=1000"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(study, tmp_path, options, sentence):
    code, out, err = ablate("run", study, "--store", tmp_path / "store", *options)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (tmp_path / "store").exists()


@pytest.mark.slow  # seconds, until it trains
def test_a_study_that_is_being_run_cannot_be_run_a_second_time(study, tmp_path):
    store = tmp_path / "store"
    process = start("run", study, "--store", store, "--set", "training.epochs=200", "--jobs", "1")
    try:
        wait_for(lambda: list(store.glob("jobs/*/journal.jsonl")), process)
        code, _, err = ablate("run", study, "--store", store)
        assert code == 2
        assert f"is being run by process {process.pid} on" in err
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["training.epochs=0"], "recipe.training.epochs: must be a whole number at least 1, got 0"),
        (
            ["data.name=imagefolder", "data.root=/nowhere"],
            "/nowhere must be a folder with train/<class>/* and test/<class>/*, and is not",
        ),
        (["data.train_size=100000"], "data.train_size must be at most the 1442 training images of digits"),
        (
            ["search.space.optimizer.lr={ low = 0.1, high = 1.0 }", "data.validation=0"],
            "needs validation images to compare trials by",
        ),
        (["data.name=imagefolder"], "root must name the folder"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(study, tmp_path, sets, sentence):
    code, out, err = ablate(
        "run", study, "--store", tmp_path / "store", *(part for text in sets for part in ("--set", text))
    )
    assert code == 2
    assert sentence in err
    assert "Traceback" not in out + err
    assert not list(tmp_path.glob("store/jobs/*"))


def test_without_network_and_data_it_says_where_it_looked_and_what_to_do(study, tmp_path):
    nowhere = (
        "http://127.0.0.1:9"  # the discard port: refused at once, so that the test downloads nothing anywhere
    )
    code, _, err = ablate(
        "run", study, "--store", tmp_path / "store",
        "--set", "data.name=cifar10", "--set", f"data.root={tmp_path}",
        https_proxy=nowhere, http_proxy=nowhere, no_proxy="",
    )  # fmt: skip
    assert code == 2
    assert f"cifar10 must be in {tmp_path}" in err
    assert "put cifar-10-python.tar.gz there" in err
    assert "--set data.name=digits" in err
    assert not list(tmp_path.glob("store/jobs/*"))


def test_a_corrupt_image_is_named(study, tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "images" / split / label / f"{i}.png")
    bad = tmp_path / "images/train/b/1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    sets = ("data.name=imagefolder", f"data.root={tmp_path}/images", "data.train_size=none")
    code, _, err = ablate(
        "run", study, "--store", tmp_path / "store", *(part for text in sets for part in ("--set", text))
    )
    assert code == 2
    assert str(bad) in err
    assert str(bad.with_name("0.png")) not in err


def test_a_store_that_cannot_be_written_is_a_sentence(study, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = ablate("run", study, "--store", tmp_path / "file" / "store")
    assert code == 2
    assert "a store must be a folder that can be written to" in err
