"""The crew of a command: real workers, and whoever watches hears the same typed events."""

import io
import json
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from dataclasses import replace as replaced

import pytest
from rich.console import Console
from scripted import Scripted

from ablate.cli.progress import Terminal
from ablate.execution import crew as crews
from ablate.execution import events, stages
from ablate.execution.events import Notice
from ablate.execution.executors import EXECUTORS
from ablate.execution.executors.base import ENDS
from ablate.execution.executors.base import Event as Told
from ablate.execution.interruption import Interruption
from ablate.execution.options import How, Where
from ablate.planning import costs, inputs
from ablate.planning import plan as planning
from ablate.planning.resolve import resolve, resolve_inputs
from ablate.store import files, layout
from ablate.study import file as study_file

EPOCHS = 2
RAW = {
    "name": "watched",
    "seeds": 1,
    "recipe": {
        "data": {"name": "digits", "image_size": 16, "train_size": 100},
        "augment": {"crop": "none", "flip": False},
        "model": {"name": "cnn4", "width": 0.125},
        "training": {"epochs": EPOCHS, "batch_size": 20, "precision": "fp32"},
    },
    "factors": {"optimizer": {"lr": [0.01, 0.02]}},
}


class Lines:
    """An observer that writes each event as a line of JSON, as a page in a browser would be sent it."""

    def __init__(self, file):
        self.file = file

    def observe(self, event):
        self.file.write(json.dumps({"event": type(event).__name__} | asdict(event)) + "\n")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Train a study under the eyes of a terminal and of a file; return its plan, and what either has seen."""
    here, shown = layout.open_store(tmp_path_factory.mktemp("crew") / "store"), io.StringIO()
    layout.create(here)
    study = study_file.check(RAW, "watched.toml")
    first = resolve(study, here, "cpu")
    todo = planning.make(
        resolve_inputs(first.inputs, replaced(first.fingerprints, data=inputs.decode(first.inputs, str)))
    )
    path = here.path / "events.jsonl"
    with path.open("w") as file:
        observers = (Terminal(Console(file=shown, width=200)).observe, Lines(file).observe)
        with (
            crews.assemble(Where(here, device="cpu", jobs=1), How(budget=3600.0), *observers) as crew,
            crew.at_work(todo),
        ):
            stages.train(crew, todo)
    assert crew.ledger.finished == [job.id for job in todo.jobs]
    return todo, shown.getvalue().splitlines(), [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_user_should_know_of_the_slots_is_told_before_anything_starts(tmp_path, monkeypatch):
    here = layout.open_store(tmp_path / "store")
    todo = planning.make(resolve(study_file.check(RAW, "watched.toml"), here, "cpu"))
    heard = []

    def start(_program, _options):
        heard.append("started")
        return Scripted(1)

    row = replaced(EXECUTORS["local"], start=start, notices=lambda options: (f"{options.device}: in turn",))
    monkeypatch.setitem(EXECUTORS, "local", row)
    with crews.assemble(Where(here, device="cpu", jobs=1), How(), heard.append) as crew, crew.at_work(todo):
        pass
    assert heard == [Notice("cpu: in turn"), "started"]


def test_a_second_observer_hears_all_that_the_terminal_shows(watched):
    todo, shown, told = watched
    assert told[0] == {"event": "StageStarted", "what": "training 2 jobs on 1 slot", "tasks": 2}
    assert shown[0] == told[0]["what"]
    assert told[-1] == {"event": "StageEnded"}
    ended = [line for line in told if line["event"] == "TaskEnded"]
    assert [(line["name"], line["end"]) for line in ended] == [(run.name, "finished") for run in todo.runs]
    last = {line["name"]: line for line in told if line["event"] == "EpochEnded"}
    for i, run in enumerate(todo.runs):
        loss = last[run.name]["metrics"]["train/loss"]
        assert shown[i + 1].startswith(
            f"[{i + 1}/2] {run.name}: epoch {EPOCHS}/{EPOCHS} train/loss {loss:.4g}"
        )


def test_the_events_of_a_job_are_its_attempt_from_beginning_to_end(watched):
    todo, _, told = watched
    of_job = defaultdict(list)
    for line in told:
        if "task" in line:
            of_job[line["task"]].append(line)
    assert list(of_job) == [job.id for job in todo.jobs]
    for job, lines in of_job.items():
        assert [line["event"] for line in lines if line["event"] != "EvaluationStarted"] == [
            "TaskStarted", *["EpochEnded"] * EPOCHS, "TaskEnded",
        ]  # fmt: skip
        epochs = [(line["epoch"], line["metrics"]) for line in lines if line["event"] == "EpochEnded"]
        assert epochs == [
            (line["epoch"], line["metrics"]) for line in files.lines(todo.resolved.store.job(job).journal)
        ]
    assert {line["id"] for line in told if line["event"] == "Updated"} == set(of_job)


def test_the_cost_learner_observes_what_has_finished_and_nothing_else(watched):
    todo, _, _ = watched
    store, job = todo.resolved.store, todo.jobs[0]
    pace = costs.Pace(store)
    crews._learn(pace, events.TaskEnded(job.id, "baseline/0", "failed"))
    crews._learn(pace, events.Updated(job.id))
    assert pace.speeds == {}
    crews._learn(pace, events.TaskEnded(job.id, "baseline/0", "finished"))
    assert {kind: len(speeds) for kind, speeds in pace.speeds.items()} == {costs.kind(job.recipe): 1}


def crew_of(here, *observers):
    return crews.Crew(Where(here), How(), Interruption(), observers)


def test_an_observer_for_a_while_hears_only_that_while(tmp_path):
    always, meanwhile = [], []
    crew = crew_of(layout.open_store(tmp_path), always.append)
    crew.notice("before")
    with suppress(KeyboardInterrupt), crew.observed(meanwhile.append):
        crew.updated("a")
        raise KeyboardInterrupt
    crew.notice("after")
    assert always == [events.Notice("before"), events.Updated("a"), events.Notice("after")]
    assert meanwhile == [events.Updated("a")]


def test_observers_hear_one_event_at_a_time_from_several_threads(tmp_path):
    seen = []

    def slow(event):
        seen.append(("begins", event.text))
        time.sleep(0.001)
        seen.append(("ends", event.text))

    crew = crew_of(layout.open_store(tmp_path), slow)
    threads = [
        threading.Thread(target=lambda i=i: [crew.notice(f"{i}.{j}") for j in range(20)]) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert all(
        seen[i] == ("begins", seen[i][1]) and seen[i + 1] == ("ends", seen[i][1]) for i in range(0, 160, 2)
    )


@pytest.mark.parametrize("kind", sorted(ENDS - {"left"}))
def test_every_end_of_an_attempt_is_an_event(kind):
    heard = events.of_task(Told(kind, "a", "cpu:0", error="why"), "baseline/0")
    is_last = kind in ("finished", "failed", "stopped")
    assert heard == (events.TaskEnded if is_last else events.AttemptLost)("a", "baseline/0", kind, "why")


def test_a_task_that_goes_on_without_this_process_has_no_end():
    assert events.of_task(Told("left", "a", "cpu:0"), "baseline/0") is None


def test_a_mere_sign_of_life_is_no_event():
    assert events.of_task(Told("progress", "a", "cpu:0"), "baseline/0") is None
