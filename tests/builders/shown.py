"""What MLflow shows of a study, for the tests that look at it."""

import ast
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import ViewType


def client(store):
    return MlflowClient(f"sqlite:///{store}/mlflow.db")


def runs_of(api, name, condition="tags.`ablate.kind` = 'run'"):
    experiment = api.get_experiment_by_name(name)
    return sorted(
        api.search_runs([experiment.experiment_id], condition, max_results=1000),
        key=lambda run: run.info.run_name,
    )


def hidden(api, name):
    """Return the runs that MLflow shows among the deleted ones only."""
    experiment = api.get_experiment_by_name(name)
    found = api.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY, max_results=1000)
    return sorted(found, key=lambda run: run.info.run_name)


def history(api, run):
    points = {name: api.get_metric_history(run.info.run_id, name) for name in sorted(run.data.metrics)}
    return {name: [(m.step, m.timestamp, m.value) for m in own] for name, own in points.items()}


def contents(run, store):
    """Return the sha256 of every artifact of a run, by its path.

    Without where the store lies, and when a report was written. A run's log is that of its job when the run
    ended: other ways to evaluate it may have their lines later, and are left out.
    """
    folder = Path(unquote(urlparse(run.info.artifact_uri).path))
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = re.sub(
                rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC",
                b"NOW",
                path.read_bytes().replace(str(store).encode(), b"STORE"),
            )
            if path.name == "log.txt":
                content = "".join(
                    line
                    for line in content.decode().splitlines(keepends=True)
                    if _is_own(line, run.data.params)
                ).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def _is_own(line, params):
    """Whether a line of a log is not that of another way to evaluate than a run's own."""
    if not line.startswith("evaluated {"):
        return True
    way = ast.literal_eval(line[line.index("{") : line.index("}") + 1])
    told = {f"evaluation.{name}": str(value).lower() for name, value in way.items()}
    return all(params.get(name, text) == text for name, text in told.items())


def everything(store, name, condition="tags.`ablate.store` != ''"):
    """Return all that MLflow says about the runs of a study but the identities that it made up."""
    api = client(store)
    found = runs_of(api, name, condition)
    keys = {run.info.run_id: run.data.tags.get("ablate.key") for run in found}
    return [
        (
            run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.data.params,
            {tag: value for tag, value in run.data.tags.items() if tag != "mlflow.parentRunId"},
            keys.get(run.data.tags.get("mlflow.parentRunId")), history(api, run), contents(run, store),
        )
        for run in found
    ]  # fmt: skip
