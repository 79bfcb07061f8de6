"""Whether every folder is what its name says: identities are computed anew from what lies in them."""

from collections.abc import Iterator
from pathlib import Path

from ablate.messages import count
from ablate.planning.references import SPOILT
from ablate.recipe import identity as identities
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import files, job_folder, records, study_folder
from ablate.store.job_folder import Folder
from ablate.store.search_folder import SearchFolder, read_any_trials
from ablate.upkeep.doctor.files import ANEW, FROM_FILE, RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient


def jobs(patient: Patient) -> Iterator[Finding]:
    """The folder of a job has the name that its recipe gives it."""
    for path in patient.jobs:
        try:
            description = job_folder.read_description(Folder(path))
        except SPOILT:  # another check says so
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
            yield Finding(
                "identity",
                "problem",
                says,
                "use the version that wrote it, or remove its folder",
                patient.short(path),
            )
            continue
        found = identities.job_id(recipe, description.seed, description.data, description.code)
        if found != path.name or description.job != path.name:
            yield Finding(
                "identity",
                "problem",
                "a job is not what its folder is named after",
                ANEW,
                patient.short(path),
            )


def outcomes(patient: Patient) -> Iterator[Finding]:
    """The folder of an outcome has the name of its way of evaluating."""
    for path in patient.jobs:
        found = sorted(path.glob("outcomes/[!.]*/outcome.json"))
        recipe = _recipe(path) if found else None
        for outcome in found if recipe is not None else ():
            try:
                written = records.read(outcome, records.Evaluation)
                if written is None:  # it was there a moment ago
                    continue
                evaluation = Evaluation.model_validate(written.evaluation)
            except SPOILT:  # another check says so
                continue
            assert recipe is not None
            identity = identities.evaluation_id(recipe.model_copy(update={"evaluation": evaluation}))
            if identity[: identities.ID_SHOWN] != outcome.parent.name:
                says = "an outcome is of another way of evaluating than its folder is named after"
                yield Finding(
                    "outcomes",
                    "problem",
                    says,
                    "remove that folder, and run its study again",
                    patient.short(outcome.parent),
                )


def _recipe(path: Path) -> Recipe | None:
    try:
        return job_folder.read_recipe(Folder(path).recipe)[0]
    except SPOILT:
        return None


def studies(patient: Patient) -> Iterator[Finding]:
    """The folder of a study has its name, and this version can plan it."""
    for path in study_folder.study_files(patient.store):
        try:
            name = files.read_json(path)["study"]["name"]
        except SPOILT:  # another check says so
            continue
        if patient.store.study(name) != path.parent:
            says = f'the folder is named after another study than the "{name}" in it'
            yield Finding(
                "studies",
                "problem",
                says,
                "give the folder its old name, or remove it",
                patient.short(path.parent),
            )
    for name, reason in patient.needs.unclear.items():
        if name in patient.needs.hidden:
            yield Finding("studies", "note", f"its jobs cannot be named: {reason}", RIGHTS, f"studies/{name}")
            continue
        is_planned = name in patient.studies
        says = f"its jobs cannot be named: {reason}"
        yield Finding(
            "studies",
            "note" if is_planned else "problem",
            says,
            "run it again" if is_planned else FROM_FILE,
            f"studies/{name}",
        )


def trials(patient: Patient) -> Iterator[Finding]:
    """The jobs of a search's trials are there."""
    for path in sorted(patient.store.path.glob("searches/*/trials.json")):
        try:
            jobs = [
                job for trial in read_any_trials(SearchFolder(path.parent)) for job in trial.jobs.values()
            ]
        except SPOILT:  # another check says so
            continue
        gone = [job for job in jobs if not patient.store.job(job).path.is_dir()]
        if gone:
            says = (
                f"the folders of {count(len(gone), 'job')} of its trials are gone: the values stay, the "
                "curves do not"
            )
            yield Finding("trials", "note", says, where=patient.short(path.parent))
