"""Whether MLflow shows what the store has."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from ablate import descriptors
from ablate.errors import AblateError, RefusedError
from ablate.store.files import is_held
from ablate.tracking import MovedError, first_line, own  # the latter hides passwords
from ablate.upkeep.doctor.files import RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient, can_read

BAD_JOURNAL = (AblateError, KeyError, TypeError, IndexError, AttributeError)
"""What reading a journal may raise: MLflow raises other errors."""


def rebuild(patient: Patient) -> str:
    """Return the advice to rebuild MLflow's database."""
    sync = f"run {patient.command('sync')} STUDY for each study"
    return f"remove mlflow.db, and {sync}: it is rebuilt from the journals"


def database(patient: Patient) -> Iterator[Finding]:
    """Check that the store's own database is whole, by SQLite's own check."""
    path = patient.store.database
    if not path.exists():
        return
    if not can_read(path):
        says = "you may not read mlflow.db, so nothing is said of it"
        yield Finding("database", "note", says, where=path.name)
        return
    try:
        descriptors.check(path)
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
        ) as connection:
            answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except RefusedError:  # another check reports it
        return
    except sqlite3.OperationalError as error:  # locked, or on a store that can only be read amid a change
        yield Finding("database", "note", f"mlflow.db cannot be looked at now: {error}", where=path.name)
    except sqlite3.DatabaseError as error:
        yield Finding("database", "problem", f"mlflow.db is spoilt: {error}", rebuild(patient), path.name)
    else:
        if answers != ["ok"]:
            says = f"mlflow.db is spoilt: {answers[0].splitlines()[-1]}"
            yield Finding("database", "problem", says, rebuild(patient), path.name)


def runs(patient: Patient) -> Iterator[Finding]:
    """Check that MLflow shows every run of every study as the journals have it."""
    if patient.address == own(patient.store) and not patient.store.database.exists():
        yield Finding("mlflow", "ok", "there is no database of MLflow: ablate sync STUDY makes it")
        return
    if patient.address == own(patient.store) and not can_read(patient.store.database):
        says = "you may not read mlflow.db, so it is compared with nothing"
        yield Finding("mlflow", "note", says, where=patient.store.database.name)
        return
    for name, planned in patient.studies.items():
        if is_held(patient.store.study(name) / "lock"):
            yield Finding("mlflow", "note", "is being run: MLflow is compared afterwards", where=name)
            continue
        try:
            wrong = patient.compare(planned)
        except MovedError as error:
            yield _moved(patient, first_line(error), name)
        except BAD_JOURNAL as error:
            says = f"cannot be compared with MLflow ({type(error).__name__}: {error})"
            yield Finding("mlflow", "problem", says, "mend first what else is found here", name)
        except PermissionError as error:
            says = f"cannot be compared: you may not read {error.filename}"
            yield Finding("mlflow", "note", says, RIGHTS, name)
        except Exception as error:  # noqa: BLE001 (whatever a server or a database does is a finding)
            yield _silent(patient, first_line(error))
            return
        else:
            do = patient.command("sync", name)
            yield from (Finding("mlflow", "problem", says, do, name) for says in wrong)


def _moved(patient: Patient, reason: str, study: str) -> Finding:
    if patient.address != own(patient.store):
        do = "move the store back, or name another database with --tracking-uri"
        return Finding("mlflow", "problem", reason, do, study)
    if os.access(patient.store.path, os.W_OK):
        return Finding("mlflow", "problem", reason, rebuild(patient), study)
    return Finding("mlflow", "note", reason, where=study)  # for its owner it may lie where it was made


def _silent(patient: Patient, reason: str) -> Finding:
    says = f"MLflow at {patient.address} does not answer: {reason}"
    do = "start that server or name another with --tracking-uri; trainings go on without it"
    if patient.address == own(patient.store):
        do = "ask again when nobody writes to it" if "locked" in reason else rebuild(patient)
    return Finding("mlflow", "problem", says, do)
