"""One job: real training of a small network on real digits, in real processes, and all that it leaves."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from houses import BEST, EVERY_DRAW, MC, PLAIN, House, left, run_here
from trainings import Call
from working import EPOCHS, attempts, hear, run_all, run_one

from ablate.errors import AblateError
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.weights import build_network
from ablate.recipe import identity
from ablate.recipe.fields import Data, Model, Optimizer
from ablate.store import files as store_files
from ablate.store import job_folder
from ablate.store.job_folder import Folder
from ablate.training import data, loop
from ablate.training.images import for_training

pytestmark = pytest.mark.usefixtures("server")


def files(folder: Folder) -> dict[str, tuple[int, int, bytes]]:
    """Read every file with its number and its time: a file written anew has others."""
    found = {str(path.relative_to(folder.path)): path for path in folder.path.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for name, path in found.items()
    }


def test_a_job_trains_judges_and_writes_every_file(house: House) -> None:
    folder = house.folder("a")
    result, heard = run_here(house.payload(folder, PLAIN, MC, BEST))
    assert result == {"status": "finished"}
    assert [(one["epoch"], one["epochs"]) for one in heard] == [(1, EPOCHS), (2, EPOCHS), (3, EPOCHS)]
    names = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())
    assert [name for name in names if not name.startswith("outcomes/")] == [
        *(
            "attempts.jsonl",
            "best.pt",
            "environment.json",
            "journal.jsonl",
            "last.pt",
            "lock",
            "log.txt",
            "model.json",
            "recipe.json",
        ),
        "result.json",
    ]
    assert len([name for name in names if name.startswith("outcomes/")]) == 3 * 3
    lines = store_files.lines(folder.journal)
    assert [line["metrics"] for line in lines] == [one["metrics"] for one in heard]
    assert set(lines[0]) == {"epoch", "timestamp", "seconds", "metrics"}
    assert set(lines[0]["metrics"]) == {
        "train/loss",
        "train/accuracy",
        "validation/loss",
        "validation/accuracy",
    }
    finished = store_files.read_json(folder.result)
    assert (finished["status"], finished["epochs"], finished["train_images"]) == ("finished", EPOCHS, 80)
    assert finished["metrics"]["time/train_seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    for evaluation in (PLAIN, MC, BEST):
        judged = EVERY_DRAW.model_copy(update={"evaluation": evaluation})
        outcome = store_files.read_json(folder.outcome(identity.evaluation_id(judged)) / "outcome.json")
        assert outcome["evaluation"] == evaluation.model_dump()
        total, right = (
            sum(map(sum, outcome["confusion"])),
            sum(row[i] for i, row in enumerate(outcome["confusion"])),
        )
        assert outcome["metrics"]["test/accuracy"] == pytest.approx(right / total)


def test_who_has_trained_a_job_is_told_unless_it_was_this_study(house: House) -> None:
    folder = house.folder("a")
    run_here(house.task(folder, PLAIN, study="mine").to_json())
    assert run_here(house.task(folder, MC, study="mine").to_json())[1] == [
        {"evaluating": True}
    ]  # tried again, as it was planned
    (heard,) = run_here(house.task(folder, BEST, study="other").to_json())[1]
    assert re.fullmatch(r"trained by process \d+ \(study mine\)", heard["elsewhere"])
    assert run_here(house.task(folder, BEST, study="other").to_json() | {"trained": True})[1] == [
        {"evaluating": True}
    ]


def test_the_best_weights_are_those_of_the_epoch_with_the_best_validation(
    house: House, workers: LocalExecutor
) -> None:
    import torch

    def weights(path: Path) -> dict[str, Any]:
        return torch.load(path, weights_only=True)

    def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    folder, cut = house.folder("a"), house.folder("cut")
    assert run_one(workers, house.payload(folder, PLAIN, BEST)).kind == "finished"
    scores = [
        (line["metrics"]["validation/accuracy"], -line["metrics"]["validation/loss"])
        for line in store_files.lines(folder.journal)
    ]
    best = scores.index(max(scores)) + 1
    assert store_files.read_json(folder.result)["best_epoch"] == best < EPOCHS
    assert run_one(workers, house.payload(cut, how="stops_after", epoch=best)).kind == "stopped"
    assert same(weights(folder.weights("best_validation")), weights(cut.checkpoint)["network"])
    assert not same(weights(folder.weights("best_validation")), weights(folder.weights("last")))
    judged = [
        store_files.read_json(path)["metrics"]["test/loss"]
        for path in folder.path.glob("outcomes/*/outcome.json")
    ]
    assert len(set(judged)) == 2


def test_the_environment_says_what_a_result_came_from_and_no_variable(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    folder = house.folder("a")
    run_here(house.payload(folder))
    told = store_files.read_json(folder.path / "environment.json")
    assert (told["git"], told["data"]) == ({"commit": "abc"}, house.digits.name)
    assert {"python", "torch", "ablate-studies"} <= set(told["versions"])
    assert {"host", "cores", "processor", "device"} <= set(told["machine"])
    assert not any(b"hunter2" in content for _, _, content in files(folder).values())


def test_the_environment_says_how_the_images_were_read(house: House) -> None:
    shutil.copytree(house.digits, house.path / house.digits.name)
    meta = house.path / house.digits.name / "meta.json"
    meta.write_text(
        json.dumps(
            json.loads(meta.read_text()) | {"decoding": ["2 images turned upright", "left out 1 file"]}
        )
    )
    folder = house.folder("a")
    run_here(house.payload(folder) | {"data": str(meta.parent)})
    told = store_files.read_json(folder.path / "environment.json")
    assert (told["data"], told["images"]) == (house.digits.name, "2 images turned upright; left out 1 file")


def test_a_job_that_is_done_is_left_as_it_is(house: House, workers: LocalExecutor) -> None:
    folder = house.folder("a")
    run_here(house.payload(folder, PLAIN, MC))
    before = files(folder)
    result, heard = run_here(house.payload(folder, PLAIN, MC, trained=True))
    assert (result, heard, attempts(folder)) == ({"status": "finished"}, [{"evaluating": True}], [1])
    assert run_one(workers, house.payload(folder, PLAIN, MC)).detail == {"status": "finished"}
    assert files(folder) == before


def test_a_way_of_judging_that_is_added_later_trains_nothing(house: House, workers: LocalExecutor) -> None:
    apart, together = house.folder("apart"), house.folder("together")
    run_all(
        workers, {"apart": house.payload(apart, PLAIN), "together": house.payload(together, PLAIN, MC, BEST)}
    )
    before = files(apart)
    assert run_one(workers, house.payload(apart, PLAIN, MC, BEST)).kind == "finished"
    after = files(apart)
    assert {name: after[name] for name in before if name != "log.txt"} == {
        name: before[name] for name in before if name != "log.txt"
    }
    assert len([name for name in after if name.endswith("outcome.json")]) == 3
    assert attempts(apart) == [1]
    assert left(apart) == left(together)


def test_the_images_that_were_trained_on_are_judged_as_they_are_once_that_is_asked_for(house: House) -> None:
    folder = house.folder("a")
    run_here(house.payload(folder, PLAIN))
    run_here(house.payload(folder, PLAIN, PLAIN.model_copy(update={"train": True})))
    assert attempts(folder) == [1]
    plain, both = sorted(job_folder.read_evaluations(folder), key=lambda outcome: len(outcome.metrics))
    assert both.metrics.keys() - plain.metrics.keys() == {"fit/accuracy", "fit/loss"}
    assert plain.metrics.items() <= both.metrics.items()
    prepared = data.read(house.digits)
    arrays = data.open_arrays(prepared.folder)
    chosen, _ = data.split(EVERY_DRAW.data, arrays.train_labels, 0)
    seen = for_training(EVERY_DRAW, prepared, arrays, chosen, torch.device("cpu"))
    network = build_network(folder, EVERY_DRAW, prepared, torch.device("cpu"))
    loss, accuracy = loop.score(network, seen, EVERY_DRAW)
    assert (both.metrics["fit/loss"], both.metrics["fit/accuracy"]) == pytest.approx((loss, accuracy))
    assert len(seen) == 80


def test_a_failure_of_the_last_attempt_is_forgotten_when_another_starts(
    house: House, workers: LocalExecutor
) -> None:
    folder = house.folder("a")
    for ways in ((PLAIN,), (PLAIN, MC)):  # to be trained; to be judged only
        job_folder.fail(folder, kind="error", error="x")
        assert run_one(workers, house.payload(folder, *ways)).kind == "finished"
        assert not folder.failure.exists()


# Stopped, broken, diverged


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_job_that_is_asked_to_stop_stops_after_its_epoch_and_goes_on_from_there(
    house: House, workers: LocalExecutor, epoch: int
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    assert run_one(workers, house.payload(folder, how="stops_after", epoch=epoch)).kind == "stopped"
    assert [line["epoch"] for line in store_files.lines(folder.journal)] == list(range(1, epoch + 1))
    assert folder.checkpoint.exists()
    assert not folder.result.exists()
    assert not job_folder.is_running(folder)
    assert run_one(workers, house.payload(folder)).kind == "finished"
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_a_job_that_is_asked_to_stop_in_its_last_epoch_is_trained_and_not_judged(
    house: House, workers: LocalExecutor
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    assert run_one(workers, house.payload(folder, how="stops_after", epoch=EPOCHS)).kind == "stopped"
    assert folder.result.exists()
    assert not (folder.path / "outcomes").exists()
    assert run_one(workers, house.payload(folder)).kind == "finished"
    assert attempts(folder) == [1]
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_a_job_that_is_asked_to_stop_between_two_ways_of_judging_goes_on_there(
    house: House, workers: LocalExecutor
) -> None:
    quiet, folder = house.folder("quiet"), house.folder("a")
    assert run_one(workers, house.payload(folder, PLAIN, MC, how="stops_when_judged")).kind == "stopped"
    assert len(list(folder.path.glob("outcomes/*/outcome.json"))) == 1
    before = files(folder)
    assert run_one(workers, house.payload(folder, PLAIN, MC)).kind == "finished"
    after = files(folder)
    assert {name: after[name] for name in before if name != "log.txt"} == {
        name: before[name] for name in before if name != "log.txt"
    }
    run_here(house.payload(quiet, PLAIN, MC))
    assert left(folder) == left(quiet)


def test_an_exception_is_raised_and_in_the_log_with_its_traceback(
    house: House, workers: LocalExecutor
) -> None:
    coloured = EVERY_DRAW.model_copy(
        update={"data": Data(name="digits", image_size=16, normalize="imagenet")}
    )
    folder = house.folder("a", coloured)
    with pytest.raises(ValueError, match="has 3 channels, and the images have 1"):
        run_here(house.payload(folder))
    failed = run_one(workers, house.payload(folder))
    assert (failed.kind, failed.error) == (
        "failed",
        "ValueError: data.normalize has 3 channels, and the images have 1",
    )
    recorded = store_files.read_json(folder.failure)
    assert (recorded["kind"], recorded["error"]) == ("error", failed.error)
    log = folder.log.read_text()
    assert "Traceback (most recent call last):" in log
    assert "in normalisation" in log
    assert log.endswith("ValueError: data.normalize has 3 channels, and the images have 1\n")
    assert not folder.result.exists()
    assert not job_folder.is_running(folder)
    assert attempts(folder) == [1, 2]


def test_a_worker_goes_on_with_the_next_job_after_an_exception(house: House, workers: LocalExecutor) -> None:
    bad, good = house.folder("bad"), house.folder("good")
    missing = house.payload(bad) | {"data": str(house.path / "nowhere")}
    failed = run_one(workers, missing)
    assert (failed.kind, failed.error.split(":")[0]) == ("failed", "ablate.errors.DataError")
    assert run_one(workers, house.payload(good)).kind == "finished"
    assert len({line["pid"] for folder in (bad, good) for line in store_files.lines(folder.attempts)}) == 1
    run_here(house.payload(house.folder("alone")))
    assert left(good) == left(Folder(house.path / "alone"))


def test_a_job_that_diverges_ends_there_and_is_not_judged(house: House, workers: LocalExecutor) -> None:
    wild = EVERY_DRAW.model_copy(
        update={"optimizer": Optimizer(lr=100.0), "model": Model(name="cnn4", batch_norm=False)}
    )
    folder = house.folder("a", wild)
    assert run_one(workers, house.payload(folder)).detail == {"status": "diverged"}
    result = store_files.read_json(folder.result)
    assert result["status"] == "diverged"
    assert result["reason"].startswith("in epoch 1: train/loss was ")
    assert result["epochs"] == len(store_files.lines(folder.journal)) < EPOCHS
    assert not (folder.path / "outcomes").exists()
    assert not folder.weights("last").exists()
    assert not folder.checkpoint.exists()
    before = files(folder)
    assert run_one(workers, house.payload(folder)).detail == {"status": "diverged"}
    assert files(folder) == before


# What it prints


def test_all_that_a_job_prints_is_in_its_log_and_nothing_else_is(
    house: House, workers: LocalExecutor
) -> None:
    folder = house.folder("a")
    own = run_one(workers, house.payload(folder, how="prints", own=str(house.path / "own.txt"))).detail["own"]
    log = folder.log.read_text()
    for text in ("printed in the job", "said in the job", "written by C", "by a child", "wrong in a child"):
        assert log.count(text) == EPOCHS
    assert "epoch 1: train/loss" in log
    assert "evaluated" in log
    assert "before" not in log
    assert "after" not in log
    assert sorted(own.splitlines()) == ["after", "after, by a child", "before", "wrong after"]


def test_what_a_process_prints_is_its_own_again_after_an_exception(
    house: House, workers: LocalExecutor
) -> None:
    folder, own = house.folder("a"), house.path / "own.txt"
    missing = house.payload(folder, how="prints", own=str(own)) | {"data": str(house.path / "nowhere")}
    assert run_one(workers, missing).kind == "failed"
    assert sorted(own.read_text().splitlines()) == ["after", "after, by a child", "before", "wrong after"]
    assert "after" not in folder.log.read_text()


def test_a_job_leaves_no_file_open(house: House, workers: LocalExecutor) -> None:
    folder = house.folder("a")
    house.folder("a2")
    told = run_one(workers, house.payload(folder, how="prints_twice", own=str(house.path / "own.txt")))
    assert told.detail == {"opened": 0, "status": "finished"}


# Two coordinators, one job


def test_a_job_that_another_process_trains_is_waited_for_and_not_trained_again(
    house: House, workers: LocalExecutor
) -> None:
    folder, gate = house.folder("a"), house.path / "gate"
    workers.submit(Call("first", house.payload(folder, PLAIN, how="pauses", gate=str(gate))))
    hear(workers, lambda heard: any(event.kind == "progress" for event in heard))
    assert job_folder.is_running(folder)
    workers.submit(Call("second", house.payload(folder, PLAIN, MC, how="tells_that_it_waits")))
    heard = hear(workers, lambda heard: any("asked" in event.detail for event in heard))
    assert {event.kind for event in heard} <= {"queued", "started", "progress", "alive"}
    gate.touch()
    heard += hear(workers, lambda heard: sum(event.kind == "finished" for event in heard) == 2)
    other = f"process {store_files.lines(folder.attempts)[0]['pid']}"
    told = [event.detail["elsewhere"] for event in heard if "elsewhere" in event.detail]
    assert told == [f"waits for {other}, which trains it", f"trained by {other}"]
    assert [event.task for event in heard if event.kind == "finished"] == ["first", "second"]
    assert not any("epoch" in event.detail for event in heard if event.task == "second")
    assert (attempts(folder), len(store_files.lines(folder.journal))) == ([1], EPOCHS)
    quiet = house.folder("quiet")
    run_here(house.payload(quiet, PLAIN, MC))
    assert left(folder) == left(quiet)


def test_a_job_whose_other_process_dies_is_taken_over(house: House, workers: LocalExecutor) -> None:
    folder = house.folder("a")
    workers.submit(Call("first", house.payload(folder, how="pauses", gate=str(house.path / "never"))))
    hear(workers, lambda heard: any(event.kind == "progress" for event in heard))
    workers.submit(Call("second", house.payload(folder, how="tells_that_it_waits")))
    hear(workers, lambda heard: any("asked" in event.detail for event in heard))
    workers._workers[0].process.kill()
    heard = hear(workers, lambda heard: sum(event.kind in ("killed", "finished") for event in heard) == 2)
    assert [
        event.detail["epoch"] for event in heard if event.task == "second" and "epoch" in event.detail
    ] == [2, 3]
    assert attempts(folder) == [1, 2]
    quiet = house.folder("quiet")
    run_here(house.payload(quiet))
    assert left(folder) == left(quiet)


def test_a_job_that_waits_for_another_process_stops_when_asked(house: House, workers: LocalExecutor) -> None:
    folder = house.folder("a")
    with folder.lock():
        assert run_one(workers, house.payload(folder, how="tells_that_it_waits", stop=True)).kind == "stopped"
    assert attempts(folder) == []


# What a worker is made of


@pytest.mark.slow
def test_a_worker_that_trained_and_judged_has_imported_nothing_of_the_coordinator(
    house: House, new_server: None, workers: LocalExecutor
) -> None:
    imported = set(
        run_one(workers, house.payload(house.folder("a"), PLAIN, MC, how="modules")).detail["modules"]
    )
    assert {"torch", "ablate.training.loop"} <= imported
    others = {"mlflow", "pandas", "plotly", "optuna", "click", "rich", "jinja2", "sklearn"}
    assert others & imported == set()
    ours = {f"ablate.{part}" for part in ("cli", "workflow", "tracking", "findings", "stats", "plan")}
    assert ours & imported == set()


def test_a_recipe_that_somebody_changed_in_the_store_is_refused_and_runs_no_code(
    house: House, tmp_path: Path
) -> None:
    folder = house.folder("a")
    payload = house.task(folder, code=(str(tmp_path),)).to_json()
    (tmp_path / "evil_net.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    content = store_files.read_json(folder.recipe)
    content["recipe"]["model"]["name"] = "evil_net:make"
    content["code"] = hashlib.sha256((tmp_path / "evil_net.py").read_bytes()).hexdigest()
    store_files.write_json(folder.recipe, content)
    with pytest.raises(AblateError, match="was planned as"):
        run_here(payload)
    assert not (tmp_path / "imported").exists()
    assert not folder.result.exists()
