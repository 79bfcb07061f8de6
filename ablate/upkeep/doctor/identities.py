"""Whether every folder is what its name says: identities are computed again from its content."""

from collections.abc import Iterator
from pathlib import Path

from ablate.messages import count
from ablate.recipe import identity as identities
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import job_folder, records, study_folder
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.store.search_folder import SearchFolder, read_any_trials
from ablate.upkeep.doctor.files import ANEW, FROM_FILE, RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient


def jobs(patient: Patient) -> Iterator[Finding]:
    """Find jobs whose folder is not named after their recipe."""
    for path in patient.jobs:
        try:
            description = job_folder.read_description(Folder(path))
        except SPOILT:  # another check reports it
            continue
        if description is None:
            continue
        if description.numerics != identities.NUMERICS:
            then, now = description.numerics, identities.NUMERICS
            says = f"jobs were trained under numerics {then}: this version, with {now}, trains them again"
            yield Finding("identity", "note", says, patient.gc(), patient.short(path))
            continue
        recipe = _recipe(path)
        if recipe is None:
            says = "recipe.json says what this version of ablate cannot train"
            do = "use the version that wrote it, or remove its folder"
            yield Finding("identity", "problem", says, do, patient.short(path))
            continue
        identity = identities.job_id(recipe, description.seed, description.data, description.code)
        if identity != path.name or description.job != path.name:
            says = "a job is not what its folder is named after"
            yield Finding("identity", "problem", says, ANEW, patient.short(path))


def outcomes(patient: Patient) -> Iterator[Finding]:
    """Find outcomes whose folder is not named after their way of evaluating."""
    for path in patient.jobs:
        paths = sorted(path.glob("outcomes/[!.]*/outcome.json"))
        recipe = _recipe(path) if paths else None
        for outcome in paths if recipe is not None else ():
            try:
                written = records.read(outcome, records.Evaluation)
                if written is None:  # it was there a moment ago
                    continue
                evaluation = Evaluation.model_validate(written.evaluation)
            except SPOILT:  # another check reports it
                continue
            assert recipe is not None
            identity = identities.evaluation_id(recipe.model_copy(update={"evaluation": evaluation}))
            if identity[: identities.ID_SHOWN] != outcome.parent.name:
                says = "an outcome is of another way of evaluating than its folder is named after"
                do = "remove that folder, and run its study again"
                yield Finding("outcomes", "problem", says, do, patient.short(outcome.parent))


def _recipe(path: Path) -> Recipe | None:
    try:
        return job_folder.read_recipe(Folder(path).recipe)[0]
    except SPOILT:
        return None


def studies(patient: Patient) -> Iterator[Finding]:
    """Find studies whose folder is not named after them, or which this version cannot plan."""
    for path in study_folder.study_files(patient.store):
        try:
            kept = records.read(path, records.KeptStudy)
        except SPOILT:  # another check reports it
            continue
        if kept is None:
            continue
        name = kept.study["name"]
        if patient.store.study(name) != path.parent:
            says = f'the folder is named after another study than the "{name}" in it'
            do = "give the folder its old name, or remove it"
            yield Finding("studies", "problem", says, do, patient.short(path.parent))
    for name, reason in patient.needs.unclear.items():
        says, where = f"its jobs cannot be named: {reason}", f"studies/{name}"
        if name in patient.needs.hidden:
            yield Finding("studies", "note", says, RIGHTS, where)
        elif name in patient.studies:
            yield Finding("studies", "note", says, "run it again", where)
        else:
            yield Finding("studies", "problem", says, FROM_FILE, where)


def trials(patient: Patient) -> Iterator[Finding]:
    """Find searches of whose trials some jobs are missing."""
    for path in sorted(patient.store.path.glob("searches/*/trials.json")):
        try:
            every = read_any_trials(SearchFolder(path.parent))
        except SPOILT:  # another check reports it
            continue
        jobs = [job for trial in every for job in trial.jobs.values()]
        gone = [job for job in jobs if not patient.store.job(job).path.is_dir()]
        if gone:
            jobs_gone = f"the folders of {count(len(gone), 'job')} of its trials are gone"
            says = f"{jobs_gone}: the values stay, the curves do not"
            yield Finding("trials", "note", says, where=patient.short(path.parent))
