"""run_job: one job in any process, on any machine that sees its folder: recipe -> training -> journal.

It writes into the job's folder only, imports neither MLflow nor the study, and does no harm when run twice.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from ablate import descriptors
from ablate.errors import AblateError
from ablate.execution import attempt, memory, probe_worker, provenance
from ablate.execution.attempt import Alive
from ablate.execution.checkpoints import Checkpoints
from ablate.execution.executors.base import Stopped
from ablate.execution.weights import build_network, resumed, save, started
from ablate.recipe import identity, networks, range_test, user_code
from ablate.recipe.fields import Evaluation, Model, Recipe
from ablate.recipe.range_test import Curve
from ablate.store import files, job_folder, records, tasks
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.store.lease import LeaseLostError
from ablate.store.records import Attempt, Result, SeedCurve
from ablate.store.tasks import Context, RangeTask, TrainTask
from ablate.training import data, evaluate, gallery, images, layout, loop, lr_finder, models
from ablate.training.models import summary

Report = Callable[[Json], None]
Asked = Callable[[], bool]


def work(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Run whatever task an executor was handed."""
    task = tasks.from_json(payload)
    if isinstance(task, TrainTask):
        return run_job(task, report, should_stop)
    if isinstance(task, RangeTask):
        return run_range(task, report, should_stop)
    return probe_worker.probe(task, report, should_stop)


def run_range(task: RangeTask, report: Report, should_stop: Asked) -> Json:
    """Sweep the learning rate of a recipe under one seed, and write its curve.

    Raises what the training raised, and Stopped. Where another process takes the task over, it is waited for.
    """
    while True:
        with suppress(LeaseLostError):
            return _run_range(task, report, should_stop)


def _run_range(task: RangeTask, report: Report, should_stop: Asked) -> Json:
    folder, beat = Folder(task.folder), attempt.beats(report)
    with (
        attempt.alone(folder, should_stop, beat, report) as lease,
        attempt.accounted(folder, task.device),
        attempt.logging_to(folder.log),
        memory.shared(torch.device(task.device), task.context.jobs_a_device),
    ):
        descriptors.remove(folder.failure)
        if not task.curve.exists():
            alive = Alive(beat, lease)
            curve = _sweep(task, report, should_stop, alive)
            alive.check()
            content = range_test.to_json(curve) | {"timestamp": _now()}
            records.write(task.curve, SeedCurve.model_validate(content, strict=False))
    return {"status": "finished"}


def _sweep(task: RangeTask, report: Report, should_stop: Asked, alive: Callable[[], None]) -> Curve:
    device = torch.device(task.device)
    _allow_own_code(task.recipe, task.context, task.code)
    prepared = data.read(task.data)
    room = _room(task, device)

    def stops() -> bool:  # asked before each step
        alive()
        return should_stop()

    return lr_finder.sweep(
        task.recipe, task.seed, prepared, data.open_arrays(prepared.folder), device, task.sweep,
        memory=room, should_stop=stops,
        progress=lambda done: report({"rate": done, "rates": task.sweep.steps}),
    )  # fmt: skip


def run_job(task: TrainTask, report: Report, should_stop: Asked) -> Json:
    """Train a job to its end from wherever it stands, then evaluate it in every way that is still missing.

    Returns {"status": finished | diverged}. Raises what the training raised, after writing it to the job's
    log, and Stopped: between two epochs, after a checkpoint, or between two evaluations. OutOfMemory, Crashed
    and UnwritableError leave the job as it was. Where another process takes the job over, it is waited for.
    """
    while True:
        with suppress(LeaseLostError):
            return _run_job(task, report, should_stop)


def _run_job(task: TrainTask, report: Report, should_stop: Asked) -> Json:
    folder, beat = Folder(task.folder), attempt.beats(report)
    with (
        descriptors.holding(folder.path),
        attempt.alone(folder, should_stop, beat, report) as lease,
        attempt.accounted(folder, task.device),
        attempt.logging_to(folder.log),
        memory.shared(torch.device(task.device), task.context.jobs_a_device),
    ):
        alive = Alive(beat, lease)
        descriptors.remove(folder.failure)
        result = job_folder.read_result(folder)
        if result is not None and (lacking := _lacking(folder, task, result)):
            job_folder.reopen(folder)
            print(f"the result is taken back, as {lacking}: the training goes on", flush=True)
            result = None
        if result is not None:
            is_known = task.trained or attempt.is_of(folder, task.context.study)
            report({"evaluating": True} if is_known else {"elsewhere": f"trained by {attempt.last(folder)}"})
        else:
            _train(folder, task, report, should_stop, alive)
        job_folder.sweep(folder)
        result = job_folder.read_result(folder)
        assert result is not None
        if result.status == "finished":
            _evaluate_all(folder, task, should_stop, alive)
    return {"status": result.status}


def _lacking(folder: Folder, task: TrainTask, result: Result) -> str:
    """Return what a result lacks to be evaluated; empty where it was: then it is a run's, and stays."""
    if any(folder.path.glob("outcomes/[!.]*/outcome.json")):
        return ""
    return job_folder.lacks(folder, result, deep=bool(task.evaluations))


def _train(folder: Folder, task: TrainTask, report: Report, should_stop: Asked, alive: Alive) -> None:
    """Train from the last checkpoint, or from the start, to result.json."""
    recipe, seed, code = _read_recipe(folder, task)
    device = torch.device(task.device)
    number = len(job_folder.read_attempts(folder)) + 1
    about = Attempt(
        attempt=number, timestamp=_now(), pid=os.getpid(), device=task.device, study=task.context.study
    )
    records.append(folder.attempts, about)
    files.write_json(folder.environment, _environment(task, device), durable=False)
    _allow_own_code(recipe, task.context, code)
    if recipe.training.compile is True:
        # Importing torch._dynamo has set another one.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = task.context.compile_cache
        print("torch.compile: half a minute when this network is new here", flush=True)
    prepared = data.read(task.data)
    arrays, room = data.open_arrays(prepared.folder), _room(task, device)
    begin = partial(loop.start, recipe, seed, prepared, arrays, device, memory=room)
    session = resumed(folder, partial(started, begin, task.start), device)
    if session.train.streamed:
        notice = (
            f"the training images do not fit into the memory of {task.device}: "
            "they are streamed, batch by batch"
        )
        print(notice, flush=True)
        report({"notice": notice})
    session.shares_device = task.context.jobs_a_device > 1
    job_folder.restore_journal(folder, session.history)
    epochs = f"from epoch {session.epoch} of {recipe.training.epochs}"
    print(f"attempt {number} on {task.device}: {epochs}", flush=True)
    _epochs(folder, session, report, should_stop, alive)
    _finish(folder, session, models.Shape(prepared.channels, prepared.image_size, len(prepared.classes)))


def _room(task: TrainTask | RangeTask, device: torch.device) -> int | None:
    """Return the bytes that images may take on the device: none beside a network that needs all of it."""
    room = images.room(device, task.context.jobs_a_device)
    return 0 if task.context.streamed and room is not None else room


def _epochs(folder: Folder, session: loop.Session, report: Report, should_stop: Asked, alive: Alive) -> None:
    """Train epoch after epoch, to the last weights; checkpoints and the journal are written meanwhile."""
    epochs = session.recipe.training.epochs

    def tell(line: Json) -> None:
        report({"epoch": line["epoch"], "epochs": epochs, "metrics": line["metrics"]})

    with Checkpoints(folder, session.epoch, alive.check, tell) as checkpoints:

        def go_on() -> None:
            alive()
            checkpoints.look()

        session.alive = go_on
        for line in loop.epochs(session):
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in line["metrics"].items())
            print(f"epoch {line['epoch']}: {metrics}", flush=True)
            is_asked = should_stop() and not session.finished
            checkpoints.add(session, now=is_asked or session.finished)
            if is_asked:
                checkpoints.wait()
                raise Stopped
        alive.check()
        if not session.diverged:
            save(folder.weights("last"), session.network.state_dict())


def _read_recipe(folder: Folder, task: TrainTask) -> tuple[Recipe, int, str]:
    """Return the recipe, the seed and the code, which must be those of the very job that was planned.

    A store may be shared, and others write to it.
    """
    description = job_folder.read_description(folder)
    if description is not None:
        recipe, seed, code = description.parsed(), description.seed, description.code
        start = "" if task.start is None else task.start.parent.name
        if identity.job_id(recipe, seed, description.data, code, start) == task.job:
            return recipe, seed, code
    short = task.job[: identity.ID_SHOWN]
    raise AblateError(f"{folder.recipe} is not what the job {short} was planned as: remove that folder")


def _allow_own_code(recipe: Recipe, context: Context, planned: str) -> None:
    """Let a user's own network be imported: of a study file on this machine, as it was when planned.

    A store may be shared, and what others write into it must not choose the code that runs here.
    """
    if not networks.is_own(recipe.model.name):
        return
    folders = context.code
    if folders is None:
        raise AblateError(
            f"{recipe.model.name} is imported for a study file only, and this job comes from a store: "
            "run the study's file"
        )
    if user_code.fingerprint(recipe.model.name, folders) != planned:
        raise AblateError(
            f"the code of {recipe.model.name} has changed since the run was started: run the study again"
        )
    user_code.allow(recipe.model.name, folders)


@functools.cache
def _summary(model: Model, shape: models.Shape) -> Json:
    """Describe a network and its layers; jobs of one worker often share it."""
    described, layers = summary.describe(model, shape)
    image = (shape.channels, shape.image_size, shape.image_size)
    rows = [
        {key: value for key, value in dataclasses.asdict(layer).items() if value or key in ("name", "kind")}
        for layer in layers  # most are activations: without zeros, model.json is a third shorter
    ]
    return dataclasses.asdict(described) | {"image": image, "layers": rows}


def _finish(folder: Folder, session: loop.Session, shape: models.Shape) -> None:
    described = _summary(session.recipe.model, shape) | {"memory_format": layout.of(session.network)}
    files.write_json(folder.model, {"model": session.recipe.model.model_dump()} | described, durable=False)
    seconds = [line["seconds"] for line in session.history]
    parameters = sum(p.numel() for p in session.network.parameters())
    compiling = [
        line["metrics"]["time/compile_seconds"]
        for line in session.history
        if "time/compile_seconds" in line["metrics"]
    ]
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
            peak_memory=memory.peak(session.device),
            timestamp=_now(),
            streamed=session.train.streamed,
            metrics=last["metrics"]
            | {"model/parameters": parameters}
            | {"time/epoch_seconds": sum(seconds) / len(seconds), "time/train_seconds": sum(seconds)}
            | ({"time/compile_seconds": sum(compiling)} if compiling else {}),
        ),
    )


def _evaluate_all(folder: Folder, task: TrainTask, should_stop: Asked, alive: Alive) -> None:
    """Evaluate the trained network in every way that is missing, unless asked to stop between two of them."""
    for evaluation in task.evaluations:
        if should_stop():
            raise Stopped
        _evaluate(folder, task, evaluation, alive)


def _evaluate(folder: Folder, task: TrainTask, evaluation: Evaluation, alive: Alive) -> None:
    """Evaluate the trained network in one way, unless that was done; outcome.json is written last."""
    recipe, seed, code = _read_recipe(folder, task)
    recipe = recipe.model_copy(update={"evaluation": evaluation})
    if job_folder.is_evaluated(folder, identity.evaluation_id(recipe)):
        return
    began, device = time.perf_counter(), torch.device(task.device)
    loop.settle(recipe, device)
    _allow_own_code(recipe, task.context, code)
    prepared = data.read(task.data)
    arrays = data.open_arrays(prepared.folder)
    network = build_network(folder, recipe, prepared, device)
    room = _room(task, device)
    test = images.for_test(recipe, prepared, arrays, device, memory=room)
    seen = None
    if evaluation.train:
        chosen, _ = data.split(recipe.data, arrays.train_labels, seed)
        seen = images.for_training(recipe, prepared, arrays, chosen, device, memory=room)
    evaluated = evaluate.evaluate(network, recipe, seed, test, prepared.classes, alive, trained_on=seen)
    alive.check()
    outcome = records.Evaluation(
        evaluation=evaluation.model_dump(),
        status="at_chance" if evaluated.at_chance else "finished",
        reason=evaluated.at_chance or "",
        timestamp=_now(),
        seconds=round(time.perf_counter() - began, 4),
        classes=tuple(prepared.classes),
        metrics=evaluated.metrics,
        confusion=tuple(map(tuple, evaluated.confusion)),
        calibration=tuple(evaluated.calibration),
        wrong=tuple(records.Wrong(**dataclasses.asdict(wrong)) for wrong in evaluated.wrong),
    )
    pictures = {
        job_folder.MISCLASSIFIED: gallery.draw(evaluated.wrong, arrays.test_images, prepared.classes),
        job_folder.CORRECT: gallery.draw(evaluated.right, arrays.test_images, prepared.classes, "none"),
    }
    job_folder.evaluate(folder, identity.evaluation_id(recipe), outcome, pictures)
    print(
        f"evaluated {evaluation.model_dump()}: test/accuracy {evaluated.metrics['test/accuracy']:.4f}",
        flush=True,
    )


def _environment(task: TrainTask, device: torch.device) -> Json:
    decoding = data.read(task.data).decoding
    return {
        "data": task.data.name,
        "git": task.context.git,
        "user": provenance.user(),
        "versions": provenance.versions(),
        "machine": provenance.machine()
        | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"},
    } | ({"images": "; ".join(decoding)} if decoding else {})


def _now() -> int:
    return time.time_ns() // 1_000_000
