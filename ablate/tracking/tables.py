"""The runs in the store's own database, read from its tables: MLflow takes 2 ms for each that it shows."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ablate.tracking.sent import Sent

# Put together of constants alone.
OURS = """
    SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
    WHERE runs.experiment_id = ? AND runs.lifecycle_stage = 'active'
    AND tags.key = 'ablate.store' AND tags.value = ?
"""


def runs(database: Path, experiment: str, store: str) -> list[Sent]:
    """Return the runs of a store in an experiment. Raises an sqlite3.Error where the tables are others."""
    given = int(experiment), store
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as opened:
        opened.execute("BEGIN")  # what is read is one moment's
        named = f"SELECT run_uuid, artifact_uri, status, end_time FROM runs WHERE run_uuid IN ({OURS})"  # noqa: S608
        sent = {row[0]: Sent(*row) for row in opened.execute(named, given)}
        for table in ("params", "tags"):
            rows = f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN ({OURS})"  # noqa: S608
            for run, key, value in opened.execute(rows, given):
                getattr(sent[run], table)[key] = value
        rows = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE run_uuid IN ({OURS})"  # noqa: S608
        for run, key, value, is_nan in opened.execute(rows, given):
            sent[run].metrics[key] = math.nan if is_nan else value
    return list(sent.values())
