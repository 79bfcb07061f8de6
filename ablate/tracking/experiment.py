"""The experiment of a study in MLflow: its name, where its artifacts belong, and what it has."""

import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import descriptors
from ablate.errors import StoreError
from ablate.store import files, layout
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking import artifacts, sent, tables, view
from ablate.tracking import client as clients
from ablate.tracking.addresses import is_served, own, sqlite
from ablate.tracking.sent import Sent

DEFAULT = "Default"  # the experiment that MLflow itself makes, with its artifacts elsewhere


class MovedError(StoreError):
    """MLflow's database was made for another path."""


def shown(address: str, study: Study, store: Store) -> dict[str, Sent]:
    """Return the runs that MLflow has of a study of this store, by key.

    Nothing is made or changed there. Raises what MLflow raises, and a MovedError where the artifacts of the
    study belong to another path.
    """
    if not (store.path / "id").exists():
        return {}
    if address == own(store):
        artifacts.check_database(store)
    client = clients.connect(address)
    experiment = find(client, address, study.name, store)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        return {}
    _check_place(experiment.artifact_location, address, study, store)
    runs = _runs(client, address, experiment.experiment_id, store)
    return {run.tags["ablate.key"]: run for run in runs if "ablate.key" in run.tags}


def _runs(client: Any, address: str, experiment: str, store: Store) -> Iterable[Sent]:
    if address == own(store):
        with suppress(sqlite3.Error):  # of another version of MLflow, which may have other tables
            return tables.runs(store.database, experiment, layout.identity(store))
    return map(sent.read, clients.search(client, experiment, _ours(store)))


def pages(address: str, names: Sequence[str], store: Store) -> dict[str, str]:
    """Return where MLflow's page shows each of these studies, relative to its own address.

    Raises what MLflow raises.
    """
    client = clients.connect(address)
    experiments = ((name, find(client, address, name, store)) for name in names)
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


def _check_place(actual: str, address: str, study: Study, store: Store) -> None:
    """Raise a MovedError where artifacts would go elsewhere: MLflow fixes their place with an experiment.

    In the store's own database that is any other place; in another one, which is taken as it is, the place
    where this very store has been before.
    """
    wanted = folder(study, store)
    there = artifacts.local(actual)
    if there == os.path.realpath(wanted):  # a store may be seen by several paths
        return
    if address == own(store):
        raise MovedError(
            f"MLflow's database was made for {actual}, and this study's artifacts belong in "
            f"{wanted.as_uri()}: where the store was moved or copied, {artifacts.AGAIN}"
        )
    if Path(there).parts[-2:] == wanted.parts[-2:]:
        raise MovedError(
            f"the experiment in MLflow's database has its artifacts in {actual}, and they belong in "
            f"{wanted.as_uri()}: where the store was moved or copied, move it back, or name another database"
        )


def find(client: Any, address: str, name: str, store: Store) -> Any:
    """Return the experiment of a study, which may be deleted; None where there is none.

    In a database that others use, too, that is the one with this store's mark, or one of the study's name
    that no other store has taken.
    """
    if address == own(store):
        return client.get_experiment_by_name(_plain_name(name))
    if not (store.path / "id").exists():  # a store that has sent nothing yet
        return None
    for experiment in clients.experiments(client, _ours(store)):
        if experiment.tags.get("ablate.study") == name:
            return experiment
    experiment = client.get_experiment_by_name(name)
    return experiment if experiment is not None and _is_free(client, experiment, store) else None


def _is_free(client: Any, experiment: Any, store: Store) -> bool:
    """Whether an experiment that is not marked as this store's may be used: also one that users have made.

    Earlier versions set no mark, so the runs in it tell whose it is.
    """

    def has(condition: str) -> bool:
        return any(clients.search(client, experiment.experiment_id, condition, page_size=1))

    if has(_ours(store)):
        return True
    if experiment.lifecycle_stage == "deleted" or "ablate.store" in experiment.tags:
        return False
    return experiment.name != DEFAULT and not has("tags.`ablate.store` != ''")


def find_or_make(client: Any, address: str, study: Study, store: Store) -> Any:
    """Return the experiment of a study, which is made or restored where needed, and its view updated.

    Raises a MovedError where its artifacts would go to another place.
    """
    experiment = find(client, address, study.name, store) or _make(client, address, study, store)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    _check_place(experiment.artifact_location, address, study, store)
    kept = experiment.tags
    ours = {} if address == own(store) or "ablate.store" in kept else _marks(study, store)
    for tag, value in (view.tags(study, experiment.creation_time or 0) | ours).items():
        if kept.get(tag) != value and not (tag == view.KIND and tag in kept):  # of whoever made it
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return experiment


def _make(client: Any, address: str, study: Study, store: Store) -> Any:
    """Make the experiment of a study under the first name that is free.

    Another coordinator may have made it meanwhile: then that one is looked at.
    """
    place = None if is_served(address) else folder(study, store).as_uri()
    if address == own(store):
        return client.get_experiment(client.create_experiment(_plain_name(study.name), place))
    for name in names(study.name, store):
        try:
            made = client.create_experiment(name, place, _marks(study, store))
        except Exception as error:
            if not clients.is_taken(error):
                raise
            if experiment := find(client, address, study.name, store):
                return experiment
        else:
            return client.get_experiment(made)
    raise StoreError(f"MLflow has experiments of all the names that this study may have: {study.name}")


def names(study: str, store: Store) -> tuple[str, ...]:
    """Return the names of a study's experiment in a database that others use: the first free one is taken.

    A study of the same name in another store is another study, and its runs belong to others.
    """
    identity = layout.identity(store)
    return study, f"{study} ({identity[:8]})", f"{study} ({identity})"


def _marks(study: Study, store: Store) -> dict[str, str]:
    return {"ablate.store": layout.identity(store), "ablate.study": study.name}


def _ours(store: Store) -> str:
    return f"tags.`ablate.store` = '{layout.identity(store)}'"


def _plain_name(study: str) -> str:
    """Return the name of a study's experiment in the store's own database: the study's, except Default.

    MLflow itself makes an experiment of that name, with its artifacts elsewhere.
    """
    return f"{study} (study)" if re.fullmatch(rf"{DEFAULT}( \(study\))*", study) else study
