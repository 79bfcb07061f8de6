"""What MLflow has of a run, and whether it can become what a record says.

Knows no mlflow but by its own objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.tracking import agreement
from ablate.tracking.keys import LONGEST, key, shortened
from ablate.tracking.records import Record

LAYOUT = "2"  # of params, tags and metrics: runs of an older one get what they lack
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
    lines: dict[str, int] = field(
        default_factory=dict
    )  # as far as this process knows: sending more changes nothing


def read(run: Any) -> Sent:
    """Read what MLflow has of a run."""
    info, data = run.info, run.data
    has_images = bool(run.inputs is not None and run.inputs.dataset_inputs)
    return Sent(
        info.run_id,
        info.artifact_uri,
        info.status,
        info.end_time,
        data.params,
        data.metrics,
        data.tags,
        has_images,
    )


def hide(client: Any, run: Sent) -> None:
    """Put a run that the study no longer has where groups and charts do not count it: among MLflow's deleted runs, marked."""
    if "ablate.stale" not in run.tags:
        client.set_tag(run.run_id, "ablate.stale", "true")
    if run.status == "RUNNING":
        client.set_terminated(run.run_id, "KILLED")
    client.delete_run(run.run_id)


def rename(client: Any, run: Sent, record: Record, tags: Mapping[str, str]) -> None:
    """Name a run after what its cell is called now, unless somebody has given it a name of their own."""
    before, label, name = (
        run.tags.get("ablate.cell"),
        tags.get("ablate.cell"),
        shortened(record.name, LONGEST),
    )
    if before is None or before == label or "ablate.seed" not in tags:
        return
    if run.tags.get("mlflow.runName") == shortened(f"{before}/{tags['ablate.seed']}", LONGEST):
        client.update_run(run.run_id, name=name)
        run.tags["mlflow.runName"] = name


def is_other(client: Any, known: Sent, record: Record, tags: Mapping[str, str]) -> bool:
    """Whether MLflow has what cannot be corrected there: a param is written once, and no point of a curve is ever forgotten."""
    if any(known.params.get(name, value) != value for name, value in agreement.params(record).items()):
        return True
    ended_otherwise = known.status == "FINISHED" and known.ended != record.state.ended
    if ended_otherwise or (
        known.status == record.state.status and not known.lines and record.state.status != "RUNNING"
    ):
        return ended_otherwise or agreement.contradicts(agreement.latest(record), known.metrics)
    changed = record.attempts and any(known.tags.get(name) != tags.get(name) for name in CHANGING)
    return bool(changed) and _is_set_back(client, known.run_id, record)


def _is_set_back(client: Any, run_id: str, record: Record) -> bool:
    """Whether MLflow has epochs that the journal has not: a spoilt checkpoint let them be trained anew, at other times.

    Asked where a run is taken up and where it ends.
    """
    for before, lines in record.lines.items():
        points = client.get_metric_history(run_id, key(f"{before}time/epoch_seconds"))  # every epoch has it
        if not {(one.step, one.timestamp) for one in points} <= {
            (line.step, line.timestamp) for line in lines
        }:
            return True
    return False
