"""The view of a study that MLflow's page opens with: MLflow keeps it as a tag of the experiment."""

import json
from collections.abc import Mapping
from urllib.parse import quote

from ablate.study.file import Study
from ablate.tracking.keys import key

SHARE = "ablate"  # names the view in an address
VIEW = f"mlflow.sharedViewState.{SHARE}"
KIND = "mlflow.experimentKind"
GROUPED = ("ablate.cell", "ablate.status")  # a run at chance level is in no mean of its cell


def tags(study: Study, created: int) -> dict[str, str]:
    """Return the tags of a study's experiment; `created`: when it was made, in ms.

    The view has only the runs of the grid (range tests, searches and the report are behind the filter),
    grouped by cell, in the order in which they were trained, with the study's metric.
    """
    widths = {f"metrics.`{key(study.metric)}`": 150, "tags.`ablate.cell`": 350, "tags.`ablate.seed`": 100}
    state = {
        "searchFilter": "tags.`ablate.kind` = 'run'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*widths],
        "columnOrder": [*widths],
        "columnWidths": widths,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": name} for name in GROUPED],
        },
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    view = {"name": "cells", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return {KIND: "custom_model_development", VIEW: json.dumps(view)}


def page(experiment: str, shown: Mapping[str, str]) -> str:
    """Return the address of an experiment's runs, relative to MLflow's; with the view if it has one."""
    view = f"&viewStateShareKey={SHARE}" if VIEW in shown else ""
    return f"#/experiments/{quote(experiment, safe='')}/runs?workflowType=machine_learning{view}"
