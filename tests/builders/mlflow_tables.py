"""MLflow's empty database, made once: its migrations take 2 s, and nothing here is a test of them."""

import functools
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from ablate.tracking import client


def share(folder):
    """Let this process copy the tables that the first process has made; `folder` is that of all processes."""
    if not hasattr(client.connect, "__wrapped__"):
        client.connect = _sharing(client.connect, Path(folder) / "tables.db")


def _sharing(connect, template):
    @functools.wraps(connect)
    def connected(address):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # as `connect` does, before the import
        from mlflow.store.db import utils

        if not hasattr(utils._initialize_tables, "__wrapped__"):
            utils._initialize_tables = _copying(utils._initialize_tables, template)
        return connect(address)

    return connected


def _copying(initialize, template):
    @functools.wraps(initialize)
    def copied(engine):
        if engine.dialect.name != "sqlite":
            return initialize(engine)
        with FileLock(f"{template}.lock"), closing(engine.raw_connection()) as own:
            if not template.exists():
                initialize(engine)
                draft = template.with_name("draft.db")
                with closing(sqlite3.connect(draft)) as file:
                    own.driver_connection.backup(file)
                draft.rename(template)
            else:
                with closing(sqlite3.connect(template)) as file:
                    file.backup(own.driver_connection)
        return None

    return copied
