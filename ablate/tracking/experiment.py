"""The experiment of a study in MLflow: its name, where its artifacts belong, and what it has."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablate import descriptors
from ablate.errors import StoreError
from ablate.store import files, layout
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking import artifacts, view
from ablate.tracking import client as clients
from ablate.tracking.addresses import is_served, own, sqlite


class MovedError(StoreError):
    """MLflow's database was made for another path."""


def shown(address: str, study: Study, store: Store) -> dict[str, Any]:
    """Return the runs that MLflow has of a study of this store, as its own objects by key.

    Nothing is made or changed there. Raises what MLflow raises, and a MovedError where the database was made
    for another path.
    """
    if not (store.path / "id").exists():
        return {}
    if address == own(store):
        artifacts.check_database(store)
    client = clients.connect(address)
    experiment = client.get_experiment_by_name(name_of(address, study.name))
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return {}
    if not is_served(address):
        _check_place(experiment.artifact_location, place(study, store))
    ours = f"tags.`ablate.store` = '{layout.identity(store)}'"
    runs = clients.search(client, experiment.experiment_id, ours)
    return {run.data.tags["ablate.key"]: run for run in runs if "ablate.key" in run.data.tags}


def pages(address: str, names: Sequence[str]) -> dict[str, str]:
    """Return where MLflow's page shows each of these studies, relative to its own address.

    Raises what MLflow raises.
    """
    client = clients.connect(address)
    experiments = ((name, client.get_experiment_by_name(name_of(address, name))) for name in names)
    return {
        name: view.page(experiment.experiment_id, experiment.tags)
        for name, experiment in experiments
        if experiment is not None and experiment.lifecycle_stage == "active"
    }


def make_database(address: str, store: Store) -> None:
    """Make the store's own database whole or not at all: a kill amid MLflow's migrations would break it."""
    database = store.database
    if address != own(store):
        return
    artifacts.check_database(store)
    if database.exists():
        return
    for left in database.parent.glob(f".{database.name}.*"):
        descriptors.remove(left)
    draft = files.draft(database)
    clients.connect(sqlite(draft)).search_experiments(max_results=1)
    layout.identity(store)  # a file as the umask wants it: SQLite makes its own for one user alone
    draft.chmod(stat.S_IMODE((store.path / "id").stat().st_mode))
    descriptors.rename(draft, database.name)


def folder(study: Study, store: Store) -> Path:
    """Return where the artifacts of a study belong, unless a server decides that."""
    return store.artifacts / store.study(study.name).name


def place(study: Study, store: Store) -> str:
    """Return that folder as an address."""
    return folder(study, store).as_uri()


def _check_place(actual: str, wanted: str) -> None:
    if actual != wanted and artifacts.local(actual) != artifacts.local(
        wanted
    ):  # a store may be seen by several paths
        raise MovedError(
            f"MLflow's database was made for {actual}, and this study's artifacts belong in {wanted}: "
            "where the store was moved or copied, delete its mlflow.db and run ablate sync for each study"
        )


def name_of(address: str, study: str) -> str:
    """Return the name of a study's experiment: the study's, except Default.

    MLflow itself makes an experiment of that name, with its artifacts elsewhere.
    """
    is_taken = not is_served(address) and re.fullmatch(r"Default( \(study\))*", study)
    return f"{study} (study)" if is_taken else study


def find_or_make(client: Any, name: str, artifacts: str | None, study: Study) -> str:
    """Return the id of a study's experiment, which is made or restored where needed, and its view updated.

    Raises a MovedError when its artifacts would go elsewhere: MLflow fixes their absolute place when it makes
    an experiment.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        experiment = client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if artifacts is not None:
        _check_place(experiment.artifact_location, artifacts)
    for tag, value in view.tags(study, experiment.creation_time or 0).items():
        if experiment.tags.get(tag) != value:
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return str(experiment.experiment_id)
