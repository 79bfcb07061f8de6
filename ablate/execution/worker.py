"""run_job: one job in any process, on any machine that sees its folder: recipe -> training -> journal.

It writes into the job's folder only, imports neither MLflow nor the study, and does no harm when run twice.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ablate.errors import AblateError
from ablate.execution import attempt, provenance
from ablate.execution.executors.base import Stopped
from ablate.execution.weights import build_network, last_state, save
from ablate.recipe import identity, networks, range_test, user_code
from ablate.recipe.fields import Evaluation, Model, Recipe
from ablate.recipe.range_test import Curve, Sweep
from ablate.store import files, job_folder, records
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.store.records import Attempt, Epoch, Result, SeedCurve
from ablate.training import data, evaluate, gallery, images, layout, loop, lr_finder, models
from ablate.training.models import summary


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
            content = range_test.to_json(curve) | {"timestamp": _now()}
            records.write(target, SeedCurve.model_validate(content, strict=False))
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
        if job_folder.read_result(folder) is not None:
            if "trained" in payload:
                is_known = payload["trained"] or attempt.is_of(folder, payload.get("study", ""))
                report({"judging": True} if is_known else {"elsewhere": f"trained by {attempt.last(folder)}"})
        else:
            _train(folder, payload, report, should_stop, alive)
        job_folder.sweep(folder)
        result = job_folder.read_result(folder)
        assert result is not None
        if result.status == "finished":
            _judge_all(folder, payload, should_stop, alive)
    return {"status": result.status}


def _train(
    folder: Folder, payload: Json, report: Callable[[Json], None], should_stop: Callable[[], bool], alive: Callable[[], None]
) -> None:
    """Train from the last checkpoint, or from the start, to result.json."""
    recipe, seed, code = _read_recipe(folder, payload)
    device = torch.device(payload["device"])
    number = len(job_folder.read_attempts(folder)) + 1
    about = Attempt(attempt=number, timestamp=_now(), pid=os.getpid(), device=payload["device"], study=payload.get("study", ""))
    records.append(folder.attempts, about)
    files.write_json(folder.environment, _environment(payload, device), durable=False)
    _allow_own_code(recipe, payload, code)
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
    state = last_state(folder, device)
    if state is not None:
        loop.restore(session, state)
    job_folder.restore_journal(folder, session.history)
    print(f"attempt {number} on {payload['device']}: from epoch {session.epoch} of {recipe.training.epochs}", flush=True)
    for line in loop.epochs(session):
        if session.best_epoch == session.epoch:
            save(folder.weights("best_validation"), session.network.state_dict(), durable=True)
        # Before the line: what stands in the journal is never trained again.
        save(folder.checkpoint, loop.snapshot(session), keep=folder.previous)
        records.append(folder.journal, Epoch.model_validate(line))
        print(f"epoch {line['epoch']}: " + ", ".join(f"{k} {v:.4g}" for k, v in line["metrics"].items()), flush=True)
        report({"epoch": line["epoch"], "epochs": recipe.training.epochs, "metrics": line["metrics"]})
        if should_stop() and not session.finished:
            raise Stopped
    if not session.diverged:
        save(folder.weights("last"), session.network.state_dict())
    _finish(folder, session, models.Shape(prepared.channels, prepared.image_size, len(prepared.classes)))


def _read_recipe(folder: Folder, payload: Json) -> tuple[Recipe, int, str]:
    """Return what is trained, the seed and the code, which must be of the very job that was planned.

    A store may be shared, and others write to it.
    """
    description = job_folder.read_description(folder)
    recipe = None if description is None else description.parsed()
    if (
        description is None
        or recipe is None
        or (identity.job_id(recipe, description.seed, description.data, description.code) != payload["job"])
    ):
        short = payload["job"][: identity.ID_SHOWN]
        raise AblateError(f"{folder.recipe} is not what the job {short} was planned as: remove that folder")
    return recipe, description.seed, description.code


def _allow_own_code(recipe: Recipe, payload: Json, planned: str) -> None:
    """Let a user's own network be imported: of a study file on this machine only, and only as it was when the job was made.

    A store may be shared, and what others write into it must not choose the code that runs here.
    """
    if not networks.is_own(recipe.model.name):
        return
    if payload.get("code") is None:
        raise AblateError(f"{recipe.model.name} is imported for a study file only, and this job comes from a store: run the study's file")
    folders = tuple(payload["code"])
    if user_code.fingerprint(recipe.model.name, folders) != planned:
        raise AblateError(f"the code of {recipe.model.name} has changed since the run was started: run the study again")
    user_code.allow(recipe.model.name, folders)


@functools.cache
def _summary(model: Model, shape: models.Shape) -> Json:
    """Describe a network; jobs of one worker often share it."""
    return dataclasses.asdict(summary.summarise(model, shape))


def _finish(folder: Folder, session: loop.Session, shape: models.Shape) -> None:
    described = _summary(session.recipe.model, shape) | {"memory_format": layout.of(session.network)}
    files.write_json(folder.model, {"model": session.recipe.model.model_dump()} | described, durable=False)
    seconds = [line["seconds"] for line in session.history]
    parameters = sum(p.numel() for p in session.network.parameters())
    compiling = [line["metrics"]["time/compile_seconds"] for line in session.history if "time/compile_seconds" in line["metrics"]]
    last = session.history[-1]
    broken = [f"{name} was {value}" for name, value in last["metrics"].items() if not math.isfinite(value)]
    job_folder.finish(
        folder,
        Result(
            status="diverged" if session.diverged else "finished",
            reason=f"in epoch {last['epoch']}: {', '.join(broken)}" if session.diverged else "",
            epochs=session.epoch,
            best_epoch=session.best_epoch,
            train_images=len(session.train),
            parameters=parameters,
            peak_memory=attempt.peak(session.device),
            timestamp=_now(),
            streamed=session.train.streamed,
            metrics=last["metrics"]
            | {"model/parameters": parameters}
            | {"time/epoch_seconds": sum(seconds) / len(seconds), "time/train_seconds": sum(seconds)}
            | ({"time/compile_seconds": sum(compiling)} if compiling else {}),
        ),
    )


def _judge_all(folder: Folder, payload: Json, should_stop: Callable[[], bool], alive: Callable[[], None]) -> None:
    """Judge the trained network in every way that is missing, looking between two of them whether to stop."""
    for evaluation in payload["evaluations"]:
        if should_stop():
            raise Stopped
        _judge(folder, payload, Evaluation.model_validate(evaluation), alive)


def _judge(folder: Folder, payload: Json, evaluation: Evaluation, alive: Callable[[], None]) -> None:
    """Judge the trained network in one way, unless that was done; outcome.json is written last."""
    recipe, seed, code = _read_recipe(folder, payload)
    recipe = recipe.model_copy(update={"evaluation": evaluation})
    if job_folder.is_evaluated(folder, identity.evaluation_id(recipe)):
        return
    began, device = time.perf_counter(), torch.device(payload["device"])
    loop.settle(recipe, device)
    _allow_own_code(recipe, payload, code)
    prepared = data.read(Path(payload["data"]))
    arrays = data.open_arrays(prepared.folder)
    network = build_network(folder, recipe, prepared, device)
    test = images.for_test(recipe, prepared, arrays, device, memory=images.room(device, payload.get("jobs_a_device", 1)))
    judgement = evaluate.judge(network, recipe, seed, test, prepared.classes, alive)
    outcome = records.Evaluation(
        evaluation=evaluation.model_dump(),
        status="at_chance" if judgement.at_chance else "finished",
        reason=judgement.at_chance or "",
        timestamp=_now(),
        seconds=round(time.perf_counter() - began, 4),
        classes=tuple(prepared.classes),
        metrics=judgement.metrics,
        confusion=tuple(map(tuple, judgement.confusion)),
        calibration=tuple(judgement.calibration),
        wrong=tuple(records.Wrong(**dataclasses.asdict(wrong)) for wrong in judgement.wrong),
    )
    picture = gallery.draw(judgement.wrong, arrays.test_images, prepared.classes)
    job_folder.evaluate(folder, identity.evaluation_id(recipe), outcome, picture)
    print(f"judged {evaluation.model_dump()}: test/accuracy {judgement.metrics['test/accuracy']:.4f}", flush=True)


def _environment(payload: Json, device: torch.device) -> Json:
    decoding = data.read(Path(payload["data"])).decoding
    return {
        "data": Path(payload["data"]).name,
        "git": payload.get("git", {}),
        "user": provenance.user(),
        "versions": provenance.versions(),
        "machine": provenance.machine() | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"},
    } | ({"images": "; ".join(decoding)} if decoding else {})


def _now() -> int:
    return time.time_ns() // 1_000_000
