"""The server of MLflow's own page on a store, and the address of each study on it."""

import os
import sys
from contextlib import suppress

from ablate.errors import AblateError
from ablate.messages import public
from ablate.store import study_folder
from ablate.store.layout import Store
from ablate.tracking import artifacts
from ablate.tracking.addresses import is_served, own
from ablate.tracking.experiment import pages


def serve(
    address: str, store: Store, host: str, port: int
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the command that serves MLflow's page, its environment, and each study's address by name."""
    if is_served(address):
        raise AblateError(f"MLflow is served at {public(address)} already: open that address")
    if address == own(store):
        artifacts.check_database(store)
    if address == own(store) and not store.database.exists():
        start = "start a study with ablate run, or name another store with --store DIR"
        raise AblateError(f"{store.path} has no runs yet: {study_folder.hint(store) or start}")
    serve = ("-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1")
    if address == own(store):
        artifacts.check_served(store)
    command = [sys.executable, "-P", *serve]  # without the current directory, which may be a shared store
    environment = {
        "PYTHONSAFEPATH": "1",  # the same for uvicorn, which MLflow starts
        "UVICORN_APP_DIR": os.devnull,  # by default the current directory, which uvicorn puts first
        "MLFLOW_BACKEND_STORE_URI": address,  # not an argument, which `ps` would show with its password
        # Of what others log to it: by default a folder wherever it was started.
        "MLFLOW_ARTIFACTS_DESTINATION": str(store.artifacts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 processes for GenAI features, unused here
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    shown: dict[str, str] = {}
    with suppress(Exception):  # a database that cannot be read: MLflow's own server reports why
        shown = pages(address, study_folder.names(store), store)
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    return command, os.environ | environment, {name: base + page for name, page in shown.items()}
