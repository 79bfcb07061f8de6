"""Journals to MLflow: the only home of mlflow, and the only writer.

MLflow is a view that can be rebuilt from the store.

Everything is sent with the timestamps of the store's files, so that sending it again changes nothing; a run's
status is set last. Runs are flat, one for each cell and seed: nested runs would hide from MLflow's table just
what people compare. Only the trials of a search are nested below it.
"""

from ablate.messages import public
from ablate.tracking import marks
from ablate.tracking.addresses import first_line, own, uri
from ablate.tracking.audit import compare
from ablate.tracking.client import load
from ablate.tracking.experiment import MovedError
from ablate.tracking.records import Source, tracked
from ablate.tracking.searches import ranged, searched
from ablate.tracking.sender import log_study, renamed, sync
from ablate.tracking.server import serve
from ablate.tracking.writer import Report, Writer

__all__ = [
    "MovedError", "Report", "Source", "Writer", "compare", "first_line", "load", "log_study", "marks", "own",
    "public", "ranged", "renamed", "searched", "serve", "sync", "tracked", "uri",
]  # fmt: skip
