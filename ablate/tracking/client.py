"""MLflow's client: the connection, searching, and what is sent with it. The only file that imports mlflow."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ablate.tracking import agreement, artifacts
from ablate.tracking.addresses import is_served
from ablate.tracking.facts import Images
from ablate.tracking.keys import key
from ablate.tracking.records import Line, Record
from ablate.tracking.sent import Sent

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # 7 by default: minutes of silence when a server is away. The writer retries by itself, and looks first at
    # what has arrived: MLflow would repeat a request whose answer was late: a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; 120 by default
    # Else it prints two lines for every run, each after a request of its own.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What MLflow is told by its environment, where the user has said nothing else."""


def connect(address: str) -> Any:
    """Return a client."""
    load(address)
    _reach(address)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address)


def load(address: str) -> None:
    """Import what a client of an address needs, quietly, and without telemetry unless the user wants it.

    Nothing is asked yet.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    if not is_served(address):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    for noisy in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # failures are reported as sentences


def _reach(address: str) -> None:
    """Raise the error of a database that cannot be opened: MLflow would try ten times, for 100 seconds."""
    scheme, sign, _ = address.partition("://")
    kind = scheme.partition("+")[0]
    if not sign or kind not in ("postgresql", "sqlite"):
        return
    import sqlalchemy

    url, patience = sqlalchemy.make_url(address), {}
    if kind == "postgresql":
        patience = {"connect_timeout": int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])}
    else:
        folder = Path(unquote((url.database or "").removeprefix("file:"))).parent
        if not os.path.isdir(folder):  # noqa: PTH112 (Path raises where it may not be seen)
            return  # MLflow makes it
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=patience)
    engine.connect().close()


def search(
    client: Any,
    experiment: str,
    condition: str,
    *,
    order: Sequence[str] = (),
    page_size: int = 1000,
    hidden: bool = False,
) -> Iterator[Any]:
    """Return the runs of an experiment that meet a condition, page by page; `hidden`: deleted ones."""
    from mlflow.entities import ViewType

    token, kind = None, ViewType.DELETED_ONLY if hidden else ViewType.ACTIVE_ONLY
    while True:
        page = client.search_runs(
            [experiment], condition, kind, max_results=page_size, page_token=token, order_by=list(order)
        )
        yield from page
        token = page.token
        if not token:
            return


def experiments(client: Any, condition: str) -> Iterator[Any]:
    """Return the experiments that meet a condition, deleted ones included."""
    from mlflow.entities import ViewType

    token = None
    while True:
        page = client.search_experiments(ViewType.ALL, filter_string=condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def is_taken(error: Exception) -> bool:
    """Whether an experiment could not be made because there is one of its name."""
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"


def log_values(client: Any, known: Sent, record: Record, tags: dict[str, str], *, was_ended: bool) -> None:
    """Send the params, metrics and tags that are missing, in one request, which is three transactions.

    A killed process may have left no params, some are known only at the end, and a run of an older version
    lacks some.
    """
    from mlflow.entities import Param, RunTag

    missing = {name: value for name, value in agreement.params(record).items() if name not in known.params}
    new = [
        metric
        for before, each in record.lines.items()
        for line in each[known.lines.get(before, 0) :]
        for metric in _metrics(before, line)
    ]
    new += [metric for line in record.end for metric in _metrics("", line)]
    if was_ended:
        new = [metric for metric in new if metric.key not in known.metrics]
    changed = [RunTag(name, value) for name, value in tags.items() if known.tags.get(name) != value]
    if missing or new or changed:
        client.log_batch(
            known.run_id,
            metrics=new,
            params=[Param(name, value) for name, value in missing.items()],
            tags=changed,
        )
    known.params |= missing
    known.metrics |= {metric.key: metric.value for metric in new}
    known.lines = {before: len(each) for before, each in record.lines.items()}
    known.tags |= tags


def log_images(client: Any, run_id: str, images: Images) -> None:
    """Log the data set that a run was trained on: its name and digest, none of its images."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = Dataset(images.name, images.digest, images.kind, images.source, profile=images.profile)
    client.log_inputs(run_id, [DatasetInput(described, tags=[InputTag("mlflow.data.context", "training")])])


def log_artifacts(
    address: str, run: Sent, texts: Mapping[str, str], placed: Sequence[tuple[Path, str]], place: Path | None
) -> None:
    """Log texts by their names, and files each with the folder that it goes into.

    `place`: of the study's artifacts in the store; none where a server decides where they go, and gets them
    at once. The client is not used, as it would request the run again to know where they go.
    """
    if place is not None:
        artifacts.write(artifacts.folder(run.artifacts, place, run.run_id), texts, placed)
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with artifacts.copied(texts, placed) as held:
        get_artifact_repository(run.artifacts, tracking_uri=address).log_artifacts(str(held))  # type: ignore[no-untyped-call]


def _metrics(before: str, line: Line) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(key(before + name), value, line.timestamp, line.step) for name, value in line.metrics.items()
    ]
