"""The commands that look into a store and change nothing: how far a study is, what a job is, its log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ablate.analysis import status as standing
from ablate.analysis.status import Status
from ablate.errors import AblateError
from ablate.execution.options import Where
from ablate.planning import explain as explaining
from ablate.planning import job_names
from ablate.planning.explain import Compared, Explained
from ablate.planning.resolve import resolve
from ablate.store import files, logs, study_folder
from ablate.study.file import Study


def status(study: Study, where: Where) -> Status:
    """Return how far a study is: quicker than a plan, which asks of every job what is left, and how long it takes."""
    resolved = resolve(study, where.store, where.device)
    return standing.of(study.name, resolved.runs, resolved.tuning, where.store)


@dataclass(frozen=True, slots=True)
class Listed:
    """A study of the store, and how far it is."""

    study: str
    question: str
    total: Mapping[str, int]  # runs by status
    being_run: bool
    unreadable: str = ""  # why nothing can be said of it


def studies(where: Where) -> tuple[Listed, ...]:
    """List the studies of a store as they were last run; of one that cannot be read, why."""
    found = []
    for name in study_folder.names(where.store):
        try:
            known = study_folder.recall(where.store, name)
            now = status(known, where)
        except (AblateError, ValueError, KeyError, TypeError) as error:
            found.append(Listed(name, "", {}, being_run=False, unreadable=str(error).partition("\n")[0]))
        except OSError as error:  # another user's, or a folder where a file should be
            found.append(
                Listed(
                    name,
                    "",
                    {},
                    being_run=False,
                    unreadable=f"{error.filename or 'a file of it'} cannot be read: {error.strerror}",
                )
            )
        else:
            found.append(Listed(name, known.question, now.total, now.being_run))
    return tuple(found)


def watch(study: Study, where: Where) -> Iterator[Status]:
    """Yield how far a study is, until nothing moves."""
    return standing.follow(partial(status, study, where))


def explain(texts: tuple[str, ...], where: Where) -> Explained | Compared:
    """Return what one job is, or what makes two jobs two; for the forms of a JOB see jobs.py."""
    known = job_names.read(where.store, where.device)
    found = [job_names.find(text, known) for text in texts]
    return (
        explaining.explain(found[0], known)
        if len(found) == 1
        else explaining.compare(found[0], found[1], known)
    )


def log(text: str, where: Where, *, follow: bool) -> Iterator[str]:
    """Return the log of a job as it is, or as it grows until the job has ended.

    Raise an AblateError without one.
    """
    known = job_names.read(where.store, where.device)
    job = job_names.find(text, known)
    folder = where.store.job(job)
    if follow:
        return logs.follow(folder, known.evaluations.get(job, frozenset()))
    if not files.is_there(folder.log):
        raise AblateError(f"{known.name(job)} has no log: it was not started yet; --follow waits for it")
    return logs.read(folder)
