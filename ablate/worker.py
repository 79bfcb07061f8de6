"""run_job: one job in any process, on any machine that sees its folder: recipe -> training -> journal.

It writes into the job's folder only, imports neither MLflow nor the study, and does no harm when run twice.
"""

import dataclasses
import functools
import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from ablate import attempt, journal, networks, owncode, provenance, rates
from ablate import recipe as recipes
from ablate.errors import AblateError
from ablate.executors.base import Stopped
from ablate.journal import Folder
from ablate.rates import Curve, Sweep
from ablate.recipe import Evaluation, Model, Recipe
from ablate.training import data, evaluate, gallery, images, layout, loop, lr_finder, models
from ablate.training.models import summary

Json = dict[str, Any]

PROBE_TOLD = 0.25  # seconds between two reports of a probe


def work(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Do whatever a coordinator asks for: the range test of a recipe, or a job."""
    return (run_range if "sweep" in payload else run_job)(payload, report, should_stop)


def run_range(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Sweep the learning rate of a recipe under one seed, and write its curve. Raises what the training raised, and Stopped.

    `payload`: sweep (its fields), recipe, seed, data (folder of the decoded set), folder (for log and lock), curve (path),
    code_fingerprint (of a user's own network), device.
    """
    folder, target = Folder(Path(payload["folder"])), Path(payload["curve"])
    alive = attempt.beats(report)
    with attempt.alone(folder, should_stop, alive, report), attempt.accounted(folder, payload["device"]), attempt.logging_to(folder.log):
        folder.failure.unlink(missing_ok=True)
        if not target.exists():
            curve = _sweep(payload, report, should_stop, alive)
            journal.write_json(target, rates.to_json(curve) | {"timestamp": _now()})
    return {"status": "finished"}


def _sweep(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool], alive: Callable[[], None]) -> Curve:
    recipe, sweep = Recipe.model_validate(payload["recipe"]), Sweep(**payload["sweep"])
    device = torch.device(payload["device"])
    _allow_own_code(recipe, payload, payload["code_fingerprint"])
    prepared = data.read(Path(payload["data"]))
    memory = images.room(device, payload.get("jobs_a_device", 1))

    def stops() -> bool:  # asked before each step
        alive()
        return should_stop()

    return lr_finder.sweep(
        recipe, payload["seed"], prepared, data.open_arrays(prepared.folder), device, sweep, memory=memory, should_stop=stops,
        told=lambda done: report({"rate": done, "rates": sweep.steps}),
    )  # fmt: skip


def run_job(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Train a job to its end from wherever it stands, then judge it in every way that is still missing.

    `payload`: folder (of the job, with recipe.json), job (its identity), data (folder of the decoded set), evaluations (a
    list of tables), device, git, trained (as it was planned, for who watches).
    Returns {"status": finished | diverged}; raises what the training raised, after writing it to the
    job's log, and Stopped between two epochs, after a checkpoint, or between two ways of judging; OutOfMemory and UnwritableError
    leave it as it was.
    """
    folder, alive = Folder(Path(payload["folder"])), attempt.beats(report)
    with attempt.alone(folder, should_stop, alive, report), attempt.accounted(folder, payload["device"]), attempt.logging_to(folder.log):
        folder.failure.unlink(missing_ok=True)
        if folder.result.exists():
            if "trained" in payload:
                is_known = payload["trained"] or attempt.is_of(folder, payload.get("study", ""))
                report({"judging": True} if is_known else {"elsewhere": f"trained by {attempt.last(folder)}"})
        else:
            _train(folder, payload, report, should_stop, alive)
        journal.sweep(folder)
        result: Json = journal.read_json(folder.result)
        if result["status"] == "finished":
            _judge_all(folder, payload, should_stop, alive)
    return {"status": result["status"]}


def _train(
    folder: Folder, payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool], alive: Callable[[], None]
) -> None:
    """Train from the last checkpoint, or from the start, to result.json."""
    recipe, seed = _read_recipe(folder, payload)
    device = torch.device(payload["device"])
    number = len(journal.lines(folder.attempts)) + 1
    started = _now()
    about = {"attempt": number, "timestamp": started, "pid": os.getpid(), "device": payload["device"], "study": payload.get("study", "")}
    journal.append(folder.attempts, about)
    journal.write_json(folder.path / "environment.json", _environment(payload, device))
    _allow_own_code(recipe, payload, journal.read_json(folder.recipe).get("code", ""))
    if recipe.training.compile:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = payload["compile_cache"]  # importing torch._dynamo has put another one there
        print("torch.compile: half a minute when this network is new here", flush=True)
    attempt.forget_peak(device)
    prepared = data.read(Path(payload["data"]))
    memory = images.room(device, payload.get("jobs_a_device", 1))
    session = loop.start(recipe, seed, prepared, data.open_arrays(prepared.folder), device, memory=memory)
    if session.train.streamed:
        notice = f"the training images do not fit into the memory of {payload['device']}: they are streamed, batch by batch"
        print(notice, flush=True)
        report({"notice": notice})
    session.alive = alive
    state = _last_state(folder, device)
    if state is not None:
        loop.restore(session, state)
    journal.restore_journal(folder, session.history)
    print(f"attempt {number} on {payload['device']}: from epoch {session.epoch} of {recipe.training.epochs}", flush=True)
    for line in loop.epochs(session):
        if session.best_epoch == session.epoch:
            _save(folder.weights("best_validation"), session.network.state_dict())
        _save(
            folder.checkpoint, loop.snapshot(session), keep=folder.previous
        )  # before the line: what stands in the journal is never trained again
        journal.append(folder.journal, line)
        print(f"epoch {line['epoch']}: " + ", ".join(f"{k} {v:.4g}" for k, v in line["metrics"].items()), flush=True)
        report({"epoch": line["epoch"], "epochs": recipe.training.epochs, "metrics": line["metrics"]})
        if should_stop() and not session.finished:
            raise Stopped
    if not session.diverged:
        _save(folder.weights("last"), session.network.state_dict())
    _finish(folder, session, models.Shape(prepared.channels, prepared.image_size, len(prepared.classes)))


def _read_recipe(folder: Folder, payload: Json) -> tuple[Recipe, int]:
    """Read what is trained, and see that it is the very job that was planned: a store may be shared, and others write to it."""
    recipe, seed = journal.read_recipe(folder.recipe)
    content = journal.read_json(folder.recipe)
    if recipes.job_id(recipe, seed, content["data"], content.get("code", "")) != payload["job"]:
        raise AblateError(f"{folder.recipe} is not what the job {payload['job'][: recipes.ID_SHOWN]} was planned as: remove that folder")
    return recipe, seed


def _allow_own_code(recipe: Recipe, payload: Json, planned: str) -> None:
    """Let a user's own network be imported: of a study file on this machine only, and only as it was when the job was made.

    A store may be shared, and what others write into it must not choose the code that runs here.
    """
    if not networks.is_own(recipe.model.name):
        return
    if payload.get("code") is None:
        raise AblateError(f"{recipe.model.name} is imported for a study file only, and this job comes from a store: run the study's file")
    folders = tuple(payload["code"])
    if owncode.fingerprint(recipe.model.name, folders) != planned:
        raise AblateError(f"the code of {recipe.model.name} has changed since the run was started: run the study again")
    owncode.allow(recipe.model.name, folders)


@functools.cache
def _summary(model: Model, shape: models.Shape) -> Json:
    """Describe a network; jobs of one worker often share it."""
    return dataclasses.asdict(summary.summarise(model, shape))


def _finish(folder: Folder, session: loop.Session, shape: models.Shape) -> None:
    described = _summary(session.recipe.model, shape) | {"memory_format": layout.of(session.network)}
    journal.write_json(folder.path / "model.json", {"model": session.recipe.model.model_dump()} | described)
    seconds = [line["seconds"] for line in session.history]
    parameters = sum(p.numel() for p in session.network.parameters())
    compiling = [line["metrics"]["time/compile_seconds"] for line in session.history if "time/compile_seconds" in line["metrics"]]
    last = session.history[-1]
    broken = [f"{name} was {value}" for name, value in last["metrics"].items() if not math.isfinite(value)]
    journal.write_json(
        folder.result,
        {
            "status": "diverged" if session.diverged else "finished",
            "reason": f"in epoch {last['epoch']}: {', '.join(broken)}" if session.diverged else "",
            "epochs": session.epoch,
            "best_epoch": session.best_epoch,
            "train_images": len(session.train),
            "parameters": parameters,
            "peak_memory": attempt.peak(session.device),  # bytes, of the attempt that ended it
            "timestamp": _now(),
            "streamed": session.train.streamed,
            "metrics": last["metrics"]
            | {"model/parameters": parameters}
            | {"time/epoch_seconds": sum(seconds) / len(seconds), "time/train_seconds": sum(seconds)}
            | ({"time/compile_seconds": sum(compiling)} if compiling else {}),
        },
    )


def probe(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> Json:
    """Train a recipe without keeping anything until asked to stop; tell images, time and memory a few times a second.

    `payload`: recipe, seed, data, device, code, compile_cache, log.
    """
    with attempt.logging_to(Path(payload["log"])):
        _probe(payload, report, should_stop)


def _probe(payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool]) -> NoReturn:
    recipe = Recipe.model_validate(payload["recipe"])
    if networks.is_own(recipe.model.name):
        owncode.allow(recipe.model.name, tuple(payload["code"]))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = payload["compile_cache"]
    device, prepared = torch.device(payload["device"]), data.read(Path(payload["data"]))
    session = loop.start(recipe, payload["seed"], prepared, data.open_arrays(prepared.folder), device)
    images, told = 0, 0.0
    while True:
        for step in loop.steps(session):
            images += min(recipe.training.batch_size, len(session.train))
            if should_stop():
                raise Stopped
            if time.monotonic() - told > PROBE_TOLD:
                step.tolist()  # waits for the device, so that the images are really done
                told = time.monotonic()
                report({"images": images, "time": told} | _memory(device))


def _memory(device: torch.device) -> Json:
    """Give the bytes in use, of the device by all processes or of the main memory by this one, and the bytes there are."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return {"used": total - free, "total": total}
    return {
        "used": attempt.peak(device),
        "total": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _judge_all(folder: Folder, payload: Json, should_stop: Callable[[], bool], alive: Callable[[], None]) -> None:
    """Judge the trained network in every way that is missing, looking between two of them whether to stop."""
    for evaluation in payload["evaluations"]:
        if should_stop():
            raise Stopped
        _judge(folder, payload, Evaluation.model_validate(evaluation), alive)


def _judge(folder: Folder, payload: Json, evaluation: Evaluation, alive: Callable[[], None]) -> None:
    """Judge the trained network in one way, unless that was done; outcome.json is written last."""
    recipe, seed = _read_recipe(folder, payload)
    recipe = recipe.model_copy(update={"evaluation": evaluation})
    target = folder.outcome(recipes.evaluation_id(recipe))
    if (target / "outcome.json").exists():
        return
    began, device = time.perf_counter(), torch.device(payload["device"])
    loop.settle(recipe, device)
    _allow_own_code(recipe, payload, journal.read_json(folder.recipe).get("code", ""))
    prepared = data.read(Path(payload["data"]))
    arrays = data.open_arrays(prepared.folder)
    network = _network(folder, recipe, prepared, device)
    test = images.for_test(recipe, prepared, arrays, device, memory=images.room(device, payload.get("jobs_a_device", 1)))
    judgement = evaluate.judge(network, recipe, seed, test, prepared.classes, alive)
    journal.write(target / "misclassified.png", gallery.draw(judgement.wrong, arrays.test_images, prepared.classes))
    journal.write_json(
        target / "outcome.json",
        {
            "evaluation": evaluation.model_dump(),
            "status": "at_chance" if judgement.at_chance else "finished",
            "reason": judgement.at_chance or "",
            "timestamp": _now(),
            "seconds": round(time.perf_counter() - began, 4),
            "classes": prepared.classes,
            "metrics": judgement.metrics,
            "confusion": judgement.confusion,
            "calibration": judgement.calibration,
            "wrong": [{"index": w.index, "label": w.label, "answer": w.answer, "confidence": w.confidence} for w in judgement.wrong],
        },
    )
    print(f"judged {evaluation.model_dump()}: test/accuracy {judgement.metrics['test/accuracy']:.4f}", flush=True)


def _network(folder: Folder, recipe: Recipe, prepared: data.Prepared, device: torch.device) -> nn.Module:
    """Build the network again and load the weights that the evaluation selects.

    Always from the file, so that it makes no difference whether the training has just ended or ended last year.
    """
    shape = models.Shape(prepared.channels, prepared.image_size, len(prepared.classes))
    network = models.build(recipe.model, shape, seed=0, pretrained=False)
    path = folder.weights(recipe.evaluation.select)
    if not path.exists() or journal.damage(path):
        raise AblateError(f"{path}: must be the weights of a finished training, and is gone or damaged: remove that folder, and run again")
    weights = _load(path, device)
    assert weights is not None
    network.load_state_dict(weights)
    return layout.place(network, recipe.model, shape, recipe.training.precision, device)


def _environment(payload: Json, device: torch.device) -> Json:
    decoding = data.read(Path(payload["data"])).decoding
    return {
        "data": Path(payload["data"]).name,
        "git": payload.get("git", {}),
        "user": provenance.user(),
        "versions": provenance.versions(),
        "machine": provenance.machine() | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"},
    } | ({"images": "; ".join(decoding)} if decoding else {})


def _save(path: Path, content: Json, *, keep: Path | None = None) -> None:
    held = io.BytesIO()
    torch.save(content, held)
    journal.write(path, held.getvalue(), keep=keep)


def _last_state(folder: Folder, device: torch.device) -> Json | None:
    """Read the checkpoint or, where a disk has damaged it, the one before; none where the training has to start anew."""
    for path in (folder.checkpoint, folder.previous):
        if path.exists() and not journal.damage(path):
            return _load(path, device)
        if path.exists():
            print(f"{path.name} is damaged: the training goes on from an earlier epoch", flush=True)
    return None


def _load(path: Path, device: torch.device) -> Json | None:
    """Read tensors and plain values, never code (weights_only)."""
    if not path.exists():
        return None
    loaded: Json = torch.load(path, map_location=device if device.type == "cpu" else "cpu", weights_only=True)
    return loaded


def _now() -> int:
    return time.time_ns() // 1_000_000
