"""Journals to MLflow: the only home of mlflow, and the only writer. MLflow is a view that can be rebuilt from the journals.

Everything is sent with the timestamps of the journals, so that sending it again changes nothing; a run's status is set
last. Runs are flat, one for each cell and seed: nested runs hide from MLflow's table just what people compare.
"""

import csv
import io
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablate import journal, metrics
from ablate import recipe as recipes
from ablate import store as stores
from ablate.errors import StoreError
from ablate.grid import Run, short_names
from ablate.journal import Folder
from ablate.store import Store
from ablate.study import Study

PAUSE = 5.0  # seconds before the next try when the server is away
LONGEST_REASON = 800  # characters of an error
LONGEST = 7900  # characters of a note: MLflow cuts at 8000 and only warns


@dataclass(frozen=True, slots=True)
class Tracked:
    """One run as MLflow shall show it."""

    run: Run
    key: str  # identifies it in the experiment
    folder: Folder
    outcome: Path
    params: Mapping[str, str]


@dataclass(slots=True)
class _Sent:
    """How much of a run is in MLflow."""

    run_id: str
    lines: int = 0
    status: str = "RUNNING"
    described: bool = False  # its params are there for certain


@dataclass(frozen=True, slots=True)
class Report:
    """What a writer leaves behind: how many runs are not up to date, and why."""

    late: int
    error: str


def uri(store: Store, given: str | None) -> str:
    """Say where MLflow is: as given, else MLFLOW_TRACKING_URI, else the store's own SQLite file."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.database}"


def public(text: str) -> str:
    """Write an address, or a message that holds one, without its password."""
    return re.sub(r"//([^/@\s:]*):[^/@\s]*@", r"//\1:***@", text)


def tracked(study: Study, runs: tuple[Run, ...], store: Store) -> tuple[Tracked, ...]:
    """Give every run its key, its place on disk and its params: the factors that vary, and the seed."""
    names = short_names([factor.name for factor in study.factors])
    return tuple(
        Tracked(
            run,
            key=f"{run.cell.id[: recipes.ID_SHOWN]}/{run.seed}/{run.job_id[: recipes.ID_SHOWN]}",
            folder=store.job(run.job_id),
            outcome=store.job(run.job_id).outcome(recipes.evaluation_id(run.cell.recipe)),
            params={names[name]: level for name, level in run.cell.levels.items()} | {"seed": str(run.seed)},
        )
        for run in runs
    )


class Writer:
    """A thread that keeps MLflow up to date with the journals while training goes on, and catches up after a failure."""

    def __init__(self, address: str, study: Study, runs: tuple[Tracked, ...], store: Store, notice: Callable[[str], None]) -> None:
        """Start; `notice` is called, once, when MLflow cannot be reached."""
        self._mlflow = _Mlflow(address, study, store, frozenset(one.key for one in runs))
        self._address, self._notice = address, notice
        self._by_job: dict[str, list[Tracked]] = {}
        for one in runs:
            self._by_job.setdefault(one.run.job_id, []).append(one)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._todo: dict[str, None] = {}  # jobs with something to send, in order
        self._error = ""
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def touch(self, job: str) -> None:
        """Say that a job's journal has something new."""
        self._queue.put(job)

    def close(self) -> Report:
        """Send what is left, and stop. One failure now is final: `ablate sync` sends the rest later."""
        self._queue.put(None)
        self._thread.join()
        return Report(sum(len(self._by_job[job]) for job in self._todo), self._error if self._todo else "")

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._collect(None if not self._todo else PAUSE)
            if closing:  # a run whose job was interrupted is still shown as running
                self._todo |= {job: None for job, runs in self._by_job.items() if any(self._mlflow.is_open(one.key) for one in runs)}
            failed = 0
            for job in list(self._todo):
                if self._send(job, closing=closing):
                    del self._todo[job]
                else:
                    failed += 1
                if failed == 2:  # not one bad run: the server is away
                    break

    def _collect(self, timeout: float | None) -> bool:
        """Wait for the first touch and take all that are there; say whether it is time to close."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                job = self._queue.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                return False
            if job is None:
                return True
            self._todo[job] = None
            end = end if timeout is not None else time.monotonic()

    def _send(self, job: str, *, closing: bool) -> bool:
        try:
            for one in self._by_job.get(job, []):
                self._mlflow.send(one, closing=closing)
        except Exception as error:  # noqa: BLE001 (whatever a server or a full disk does must not stop the training)
            if not self._error:
                reason = first_line(error)
                self._notice(f"MLflow at {public(self._address)} does not take runs ({reason}); training goes on, and they follow later")
            self._error = first_line(error)
            self._mlflow.forget()  # a run may have been deleted there
            return False
        return True


def first_line(error: Exception) -> str:
    """Shorten an error to its first line that says something; SQLAlchemy's starts with advice to programmers in brackets."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    return public((lines or [type(error).__name__])[0][:LONGEST_REASON])


def sync(address: str, study: Study, runs: tuple[Tracked, ...], store: Store) -> None:
    """Bring MLflow up to date with the journals now. Raises what MLflow raises."""
    mlflow = _Mlflow(address, study, store, frozenset(one.key for one in runs))
    for one in runs:
        mlflow.send(one, closing=True)


def log_study(address: str, study: Study, store: Store, *, note: str, files: Sequence[Path]) -> None:
    """Put the report and what belongs to it on the study's own run, with the verdicts in its note. Raises what MLflow raises."""
    _Mlflow(address, study, store, frozenset()).log_study(note[:LONGEST], files)


@dataclass(slots=True)
class _Mlflow:
    """A client with an experiment, connected at first use."""

    address: str
    study: Study
    store: Store
    keys: frozenset[str]  # of the runs that the study has now
    _client: Any = None
    _experiment: str = ""
    _known: dict[str, _Sent] | None = None

    def _connect(self) -> Any:
        if self._client is None:
            client = _client(self.address)
            served = self.address.startswith(("http://", "https://"))  # then the server says where artifacts go
            artifacts = None if served else (self.store.artifacts / self.store.study(self.study.name).name).as_uri()
            with FileLock(self.store.path / "mlflow.lock"):  # two studies that start at once make one database
                self._experiment = _experiment(client, self.study.name, artifacts)
            self._client = client
        return self._client

    def forget(self) -> None:
        """Look again at everything before the next send."""
        self._client = self._known = None

    def _runs(self) -> dict[str, _Sent]:
        """List the runs that MLflow has of this store, by key; those that the study no longer has are marked and ended."""
        if self._known is None:
            client, known = self._connect(), {}
            own = f"tags.`ablate.kind` = 'run' and tags.`ablate.store` = '{stores.identity(self.store)}'"
            for run in _search(client, self._experiment, own):
                key, is_stale = run.data.tags.get("ablate.key", ""), "ablate.stale" in run.data.tags
                known[key] = _Sent(run.info.run_id, status=run.info.status)
                if key not in self.keys and not is_stale:
                    client.set_tag(run.info.run_id, "ablate.stale", "true")
                    if run.info.status == "RUNNING":
                        client.set_terminated(run.info.run_id, "KILLED")
                elif key in self.keys and is_stale:
                    client.delete_tag(run.info.run_id, "ablate.stale")
            self._known = known
        return self._known

    def is_open(self, key: str) -> bool:
        """Say whether MLflow shows a run as running."""
        return self._known is not None and key in self._known and self._known[key].status == "RUNNING"

    def send(self, one: Tracked, *, closing: bool) -> None:
        """Send what one run has that MLflow has not; `closing` ends a run whose job does not go on."""
        attempts = journal.lines(one.folder.attempts)
        known = self._runs().get(one.key)
        if not attempts or (known is not None and known.status == "FINISHED"):
            return
        client = self._connect()
        status, tag, ended = _status(one, closing=closing)
        if known is None:
            known = self._runs()[one.key] = self._create(client, one, attempts[0]["timestamp"])
        elif known.status not in ("RUNNING", status):
            client.update_run(known.run_id, status="RUNNING")
        if not known.described:  # sent again by each process: it may have been killed between making the run and this
            client.log_batch(known.run_id, params=_params(one.params))
            known.described = True
        self._log_lines(client, one, known)
        client.log_batch(known.run_id, tags=_tags({"ablate.attempt": str(len(attempts)), "ablate.status": tag}))
        if status != "RUNNING":
            _log_end(client, known.run_id, one)
            client.set_terminated(known.run_id, status, ended)
        known.status = status

    def _create(self, client: Any, one: Tracked, started: int) -> _Sent:
        run = one.run
        tags = {
            "ablate.kind": "run", "ablate.study": self.study.name, "ablate.cell": run.cell.label, "ablate.seed": str(run.seed),
            "ablate.job": run.job_id, "ablate.key": one.key, "ablate.store": stores.identity(self.store), "ablate.status": "running",
        }  # fmt: skip
        return _Sent(client.create_run(self._experiment, start_time=started, tags=tags, run_name=run.name).info.run_id)

    def _log_lines(self, client: Any, one: Tracked, known: _Sent) -> None:
        from mlflow.entities import Metric

        lines = journal.lines(one.folder.journal)
        new = [
            Metric(_key(name), value, line["timestamp"], line["epoch"])
            for line in lines[known.lines :]
            for name, value in (line["metrics"] | {"time/epoch_seconds": line["seconds"]}).items()
        ]
        if new:
            client.log_batch(known.run_id, metrics=new)
        known.lines = len(lines)

    def log_study(self, note: str, files: Sequence[Path]) -> None:
        """Write the study's run, one for each study, made at its first report."""
        client = self._connect()
        identity = stores.identity(self.store)
        found = list(_search(client, self._experiment, f"tags.`ablate.kind` = 'study' and tags.`ablate.store` = '{identity}'"))
        tags = {"ablate.kind": "study", "ablate.study": self.study.name, "ablate.store": identity}
        run_id = found[0].info.run_id if found else client.create_run(self._experiment, tags=tags, run_name="report").info.run_id
        client.set_tag(run_id, "mlflow.note.content", note)
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)


def _client(address: str) -> Any:
    """Import MLflow, quietly, and connect. Its telemetry is off unless the user has decided otherwise."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),  # 7 by default: minutes of silence when a server is away
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what fails is said in a sentence
    return MlflowClient(tracking_uri=address)


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """Find or make the experiment of a study; one that was deleted in the UI is brought back.

    Raises a StoreError when its artifacts would go elsewhere: MLflow fixes their absolute place when it makes an experiment.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if artifacts is not None and found.artifact_location != artifacts:
        raise StoreError(
            f"MLflow's database was made for {found.artifact_location}, and this study's artifacts belong in {artifacts}: "
            "where the store was moved or copied, delete its mlflow.db and run ablate sync for each study"
        )
    return str(found.experiment_id)


def _search(client: Any, experiment: str, condition: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _status(one: Tracked, *, closing: bool) -> tuple[str, str, int | None]:
    """Say how MLflow shall show a run: its status, the tag `ablate.status`, and when it ended."""
    result, outcome = journal.read_json(one.folder.result), journal.read_json(one.outcome / "outcome.json")
    if result is not None and result["status"] == "diverged":
        return "FINISHED", "diverged", result["timestamp"]
    if result is not None and outcome is not None:
        return "FINISHED", outcome["status"], outcome["timestamp"]
    failure = journal.read_json(one.folder.failure)
    if failure is not None:
        return "FAILED", "failed", failure["timestamp"]
    if not closing or journal.is_running(one.folder):
        return "RUNNING", "running", None
    return "KILLED", "interrupted", [*journal.lines(one.folder.attempts), *journal.lines(one.folder.journal)][-1]["timestamp"]


def _log_end(client: Any, run_id: str, one: Tracked) -> None:
    """Log the last metrics and the artifacts."""
    from mlflow.entities import Metric

    result, outcome = journal.read_json(one.folder.result), journal.read_json(one.outcome / "outcome.json")
    lines = journal.lines(one.folder.journal)
    step = lines[-1]["epoch"] if lines else 0
    if outcome is not None:
        judged = {name: value for name, value in outcome["metrics"].items() if not name.startswith(metrics.PER_CLASS)}
        end = {"time/train_seconds": result["metrics"]["time/train_seconds"]}
        client.log_batch(run_id, metrics=[Metric(_key(n), v, outcome["timestamp"], step) for n, v in (judged | end).items()])
        client.log_text(run_id, _confusion_csv(outcome), "confusion_matrix.csv")
        client.log_text(run_id, _per_class_csv(outcome), "per_class_accuracy.csv")
    if lines:
        client.log_text(run_id, _curves_csv(lines), "curves.csv")
    client.log_text(run_id, json.dumps(one.run.cell.recipe.model_dump(mode="json"), indent=1), "recipe.json")
    for path in (one.folder.path / "environment.json", one.folder.path / "model.json", one.folder.log, *journal.artifacts(one.outcome)):
        if path.exists():
            client.log_artifact(run_id, str(path))
    weights = one.folder.weights(one.run.cell.recipe.evaluation.select)
    if outcome is not None and weights.exists():
        client.log_artifact(run_id, str(weights), "model")


def _csv(rows: list[list[Any]]) -> str:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows(rows)
    return held.getvalue()


def _curves_csv(lines: list[journal.Line]) -> str:
    names = sorted({name for line in lines for name in line["metrics"]})
    rows = ([line["epoch"], line["seconds"], *(line["metrics"].get(name, "") for name in names)] for line in lines)
    return _csv([["epoch", "seconds", *names], *rows])


def _confusion_csv(outcome: dict[str, Any]) -> str:
    rows = zip(outcome["classes"], outcome["confusion"], strict=True)
    return _csv([["true class / answer", *outcome["classes"]], *([name, *counts] for name, counts in rows)])


def _per_class_csv(outcome: dict[str, Any]) -> str:
    return _csv([["class", "accuracy"], *([n, outcome["metrics"].get(metrics.PER_CLASS + n, "")] for n in outcome["classes"])])


def _key(name: str) -> str:
    """Write a metric's name in the characters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "/._- :" else "_" for c in name)


def _params(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_key(name), value) for name, value in values.items()]


def _tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in values.items()]
