"""The commands that look into a store and change nothing: how far a study is, what a job is, its log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ablate.analysis import status as standing
from ablate.analysis.status import Queued, Status
from ablate.errors import AblateError
from ablate.execution.executors.mailbox import Mailbox
from ablate.execution.options import Where
from ablate.planning import explain as explaining
from ablate.planning import job_names
from ablate.planning.explain import Compared, Explained
from ablate.planning.references import first_line
from ablate.planning.resolve import resolve
from ablate.store import files, logs, study_folder
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.study.file import Study


def status(study: Study, where: Where) -> Status:
    """Return how far a study is; quicker than a plan, which also finds out what is left of every job."""
    resolved = resolve(study, where.store, where.device)
    now = standing.of(study.name, resolved.runs, resolved.tuning, where.store)
    return replace(now, queued=queued(study.name, where.store))


def queued(study: str, store: Store) -> Queued | None:
    """Return what of a study a cluster's queue has; None if nothing."""
    mailbox = Mailbox(store.mailbox(study))
    running, waiting = mailbox.standing()
    return Queued(running, waiting, mailbox.name) if running + waiting else None


@dataclass(frozen=True, slots=True)
class Listed:
    """A study of the store, and how far it is."""

    study: str
    question: str
    total: Mapping[str, int]  # runs by status
    being_run: bool
    unreadable: str = ""  # why the study cannot be read


def studies(where: Where) -> tuple[Listed, ...]:
    """Return the studies of a store as they were last run; of one that cannot be read, why."""
    listed = []
    for name in study_folder.names(where.store):
        try:
            study = study_folder.recall(where.store, name)
            now = status(study, where)
        except OSError as error:  # another user's, or a folder where a file should be
            reason = f"{error.filename or 'a file of it'} cannot be read: {error.strerror}"
        except SPOILT as error:
            reason = first_line(error)
        else:
            listed.append(Listed(name, study.question, now.total, now.being_run))
            continue
        listed.append(Listed(name, "", {}, being_run=False, unreadable=reason))
    return tuple(listed)


def watch(study: Study, where: Where) -> Iterator[Status]:
    """Yield how far a study is, until nothing moves."""
    return standing.follow(partial(status, study, where))


def explain(texts: tuple[str, ...], where: Where) -> Explained | Compared:
    """Return what one job is, or what makes two jobs two; job_names.py has the forms of a JOB."""
    known = job_names.read(where.store, where.device)
    first, *others = (job_names.find(text, known) for text in texts)
    return explaining.compare(first, others[0], known) if others else explaining.explain(first, known)


def log(text: str, where: Where, *, follow: bool) -> Iterator[str]:
    """Return the log of a job as it is, or as it grows until the job has ended.

    Raises an AblateError where there is none.
    """
    known = job_names.read(where.store, where.device)
    job = job_names.find(text, known)
    folder = where.store.job(job)
    if follow:
        return logs.follow(folder, known.evaluations.get(job, frozenset()))
    if not files.is_there(folder.log):
        raise AblateError(f"{known.name(job)} has no log: it was not started yet; --follow waits for it")
    return logs.read(folder)
