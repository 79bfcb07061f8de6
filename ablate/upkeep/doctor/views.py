"""Whether MLflow shows what the store has."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from ablate.errors import AblateError
from ablate.store.files import is_held
from ablate.tracking import MovedError, first_line, own  # the latter hides passwords
from ablate.upkeep.doctor.files import RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient, can_read


def rebuild(patient: Patient) -> str:
    """Return how MLflow's database is made anew."""
    return (
        f"remove mlflow.db, and run {patient.command('sync')} STUDY for each study: it is rebuilt from "
        "the journals"
    )


def database(patient: Patient) -> Iterator[Finding]:
    """The store's own database is whole, by SQLite's own check."""
    path = patient.store.database
    if not path.exists():
        return
    if not can_read(path):
        yield Finding(
            "database", "note", "you may not read mlflow.db, so nothing is said of it", where=path.name
        )
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
        ) as connection:
            answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.OperationalError as error:  # locked, or on a store that can only be read amid a change
        yield Finding("database", "note", f"mlflow.db cannot be looked at now: {error}", where=path.name)
    except sqlite3.DatabaseError as error:
        yield Finding("database", "problem", f"mlflow.db is spoilt: {error}", rebuild(patient), path.name)
    else:
        if answers != ["ok"]:
            yield Finding(
                "database",
                "problem",
                f"mlflow.db is spoilt: {answers[0].splitlines()[-1]}",
                rebuild(patient),
                path.name,
            )


def runs(patient: Patient) -> Iterator[Finding]:
    """Every run of every study stands in MLflow as the journals have it."""
    if patient.address == own(patient.store) and not patient.store.database.exists():
        yield Finding("mlflow", "ok", "there is no database of MLflow: ablate sync STUDY makes it")
        return
    if patient.address == own(patient.store) and not can_read(patient.store.database):
        yield Finding(
            "mlflow",
            "note",
            "you may not read mlflow.db, so it is compared with nothing",
            where=patient.store.database.name,
        )
        return
    for name, planned in patient.studies.items():
        if is_held(patient.store.study(name) / "lock"):
            yield Finding("mlflow", "note", "is being run: MLflow is compared afterwards", where=name)
            continue
        try:
            wrong = patient.compare(planned)
        except MovedError as error:
            mine = os.access(patient.store.path, os.W_OK)  # else it may lie elsewhere for whoever made it
            yield Finding(
                "mlflow",
                "problem" if mine else "note",
                first_line(error),
                rebuild(patient) if mine else "",
                name,
            )
        except (
            AblateError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
        ) as error:  # of journals: MLflow raises its own
            says = f"cannot be compared with MLflow ({type(error).__name__}: {error})"
            yield Finding("mlflow", "problem", says, "mend first what else is found here", name)
        except PermissionError as error:
            yield Finding(
                "mlflow", "note", f"cannot be compared: you may not read {error.filename}", RIGHTS, name
            )
        except Exception as error:  # noqa: BLE001 (whatever a server or a database does is a finding)
            yield _silent(patient, first_line(error))
            return
        else:
            yield from (
                Finding("mlflow", "problem", says, patient.command("sync", name), name) for says in wrong
            )


def _silent(patient: Patient, reason: str) -> Finding:
    says = f"MLflow at {patient.address} does not answer: {reason}"
    do = "start that server or name another with --tracking-uri; trainings go on without it"
    if patient.address == own(patient.store):
        do = "ask again when nobody writes to it" if "locked" in reason else rebuild(patient)
    return Finding("mlflow", "problem", says, do)
