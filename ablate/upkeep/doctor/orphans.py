"""What no study needs, what was not finished, and what is being worked on now."""

from collections.abc import Iterator
from pathlib import Path

from ablate.messages import count
from ablate.planning.references import IDENTITY
from ablate.store import files, job_folder
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.store.job_state import state
from ablate.upkeep import leftovers
from ablate.upkeep.doctor.files import ANEW
from ablate.upkeep.doctor.finding import Finding, Patient
from ablate.upkeep.locks import holders

RUN = "run its study again"


def drafts(patient: Patient) -> Iterator[Finding]:
    """Find files that a killed process has left half-written."""
    for path in leftovers.drafts(patient.store, patient.entries):
        gone = path.name.endswith(leftovers.GONE)
        draft = "drafts of killed processes: nothing reads them"
        says = "folders whose removal was cut short" if gone else draft
        yield Finding("drafts", "note", says, patient.gc(), patient.short(path))


def unneeded(patient: Patient) -> Iterator[Finding]:
    """Find jobs that no study needs, unless a study cannot be planned, and folders that are no jobs."""
    jobs, needed = set(patient.jobs), patient.needs
    for path in patient.jobs:
        if not Folder(path).recipe.exists():
            jobs.remove(path)
            yield _without_recipe(patient, path)
    idle = [path for path in jobs if path.name not in needed.jobs]
    if not idle or needed.unclear:
        return
    size = sum(map(leftovers.size, idle)) / 1e6
    says = f"jobs that no study needs as it was last run: {len(idle)} of {len(patient.jobs)}, {size:.1f} MB"
    do = patient.gc() if needed.studies else "run a study in this store or, where all of it can go, remove it"
    yield Finding("unneeded", "note", says, do)


def _without_recipe(patient: Patient, path: Path) -> Finding:
    where = patient.short(path)
    if not IDENTITY.fullmatch(path.name):
        says = "a folder among the jobs that is none: nothing reads it"
        return Finding("unneeded", "note", says, "put it elsewhere", where)
    if Folder(path).result.exists():
        says = "a job has a result and no recipe.json: what it trained is unknown"
        return Finding("unneeded", "problem", says, ANEW, where)
    do = _begin_or_remove(patient, path, RUN)
    return Finding("unneeded", "note", "a job that was never begun", do, where)


def _begin_or_remove(patient: Patient, path: Path, begin: str) -> str:
    """Return what to do with an unfinished job: one that no study needs any more is never resumed."""
    if path.name in patient.needs.jobs:
        return begin
    if patient.needs.unclear:
        return f"{begin} or, where no study needs it, remove its folder"
    return patient.gc() if patient.studies else "remove its folder"


def interrupted(patient: Patient) -> Iterator[Finding]:
    """Find jobs that were interrupted."""
    for path in patient.jobs:
        folder = Folder(path)
        if files.is_there(folder.result):  # it has ended
            continue
        try:
            if state(folder).stage() != "stopped":
                continue
            done = len(job_folder.read_epochs(folder))
        except SPOILT:  # another check reports it
            continue
        says = f"interrupted, with {count(done, 'epoch')} in the journal"
        do = _begin_or_remove(patient, path, f"{RUN}: it goes on from its last checkpoint")
        yield Finding("interrupted", "note", says, do, patient.short(path))


def held(patient: Patient) -> Iterator[Finding]:
    """Report what processes work on now."""
    for holder in holders(patient.store):
        yield Finding("held", "ok", f"worked on now: {holder.words}", where=patient.short(holder.lock))
