"""What MLflow has of a run, and whether it can be updated to a record. Knows mlflow only by its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.tracking import agreement
from ablate.tracking.keys import LONGEST, key, shortened
from ablate.tracking.records import Record

LAYOUT = "3"  # of params, tags and metrics: runs of an older one get what they lack
CHANGING = ("ablate.status", "ablate.attempt")  # the tags that change while a run is running


@dataclass(slots=True)
class Sent:
    """What MLflow has of a run."""

    run_id: str
    artifacts: str  # their address
    status: str = "RUNNING"
    ended: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # their last values
    tags: dict[str, str] = field(default_factory=dict)
    has_images: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    """Number of lines sent, by prefix, as far as this process knows: sending a line again changes nothing."""


def read(run: Any) -> Sent:
    """Return what MLflow has of a run."""
    info, data = run.info, run.data
    return Sent(
        info.run_id, info.artifact_uri, info.status, info.end_time, data.params, data.metrics, data.tags,
        has_images=bool(run.inputs is not None and run.inputs.dataset_inputs),
    )  # fmt: skip


def hide(client: Any, run: Sent) -> None:
    """Mark and delete a run that the study no longer has, so that no group or chart of MLflow counts it."""
    if "ablate.stale" not in run.tags:
        client.set_tag(run.run_id, "ablate.stale", "true")
    if run.status == "RUNNING":
        client.set_terminated(run.run_id, "KILLED")
    client.delete_run(run.run_id)


def rename(client: Any, run: Sent, record: Record, tags: Mapping[str, str]) -> None:
    """Name a run after the present name of its cell, unless a user has renamed it."""
    before, label = run.tags.get("ablate.cell"), tags.get("ablate.cell")
    name = shortened(record.name, LONGEST)
    if before is None or before == label or "ablate.seed" not in tags:
        return
    if run.tags.get("mlflow.runName") == shortened(f"{before}/{tags['ablate.seed']}", LONGEST):
        client.update_run(run.run_id, name=name)
        run.tags["mlflow.runName"] = name


def is_other(client: Any, run: Sent, record: Record, tags: Mapping[str, str]) -> bool:
    """Whether a run cannot be corrected: a param is written once, and a point of a curve is never removed."""
    if any(run.params.get(name, value) != value for name, value in agreement.params(record).items()):
        return True
    if run.status == "FINISHED" and run.ended != record.state.ended:
        return True
    if run.status == record.state.status and not run.lines and record.state.status != "RUNNING":
        return agreement.contradicts(agreement.latest(record), run.metrics)
    has_changed = record.attempts > 0 and any(run.tags.get(name) != tags.get(name) for name in CHANGING)
    return has_changed and _is_set_back(client, run.run_id, record)


def _is_set_back(client: Any, run_id: str, record: Record) -> bool:
    """Whether MLflow has epochs that the journal lacks: after a spoilt checkpoint they were trained again.

    Asked where a run is resumed and where it ends.
    """
    for prefix, lines in record.lines.items():
        points = client.get_metric_history(run_id, key(f"{prefix}time/epoch_seconds"))  # every epoch has it
        journal = {(line.step, line.timestamp) for line in lines}
        if not {(point.step, point.timestamp) for point in points} <= journal:
            return True
    return False
