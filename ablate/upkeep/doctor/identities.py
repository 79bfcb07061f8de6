"""Whether every folder is what its name says: identities are computed anew from what lies in them."""

from collections.abc import Iterator
from pathlib import Path

from ablate.messages import count
from ablate.planning.references import SPOILT
from ablate.recipe import identity as identities
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import files, job_folder, study_folder
from ablate.upkeep.doctor.files import ANEW, FROM_FILE, RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient


def jobs(patient: Patient) -> Iterator[Finding]:
    """The folder of a job has the name that its recipe gives it."""
    for path in patient.jobs:
        try:
            content = files.read_json(path / "recipe.json")
            if content is None:
                continue
            numerics, seed, data, code = content["numerics"], content["seed"], content["data"], content.get("code", "")
        except SPOILT:  # another check says so
            continue
        if numerics != identities.NUMERICS:
            says = f"jobs were trained under numerics {numerics}: this version, with {identities.NUMERICS}, trains them again"
            yield Finding("identity", "note", says, patient.gc(), patient.short(path))
            continue
        recipe = _recipe(path)
        if recipe is None:
            says = "recipe.json says what this version of ablate cannot train"
            yield Finding("identity", "problem", says, "use the version that wrote it, or remove its folder", patient.short(path))
            continue
        found = identities.job_id(recipe, seed, data, code)
        if found != path.name or content["job"] != path.name:
            yield Finding("identity", "problem", "a job is not what its folder is named after", ANEW, patient.short(path))


def outcomes(patient: Patient) -> Iterator[Finding]:
    """The folder of an outcome has the name of its way of evaluating."""
    for path in patient.jobs:
        found = sorted(path.glob("outcomes/[!.]*/outcome.json"))
        recipe = _recipe(path) if found else None
        for outcome in found if recipe is not None else ():
            try:
                evaluation = Evaluation.model_validate(files.read_json(outcome)["evaluation"])
            except SPOILT:  # another check says so
                continue
            assert recipe is not None
            identity = identities.evaluation_id(recipe.model_copy(update={"evaluation": evaluation}))
            if identity[: identities.ID_SHOWN] != outcome.parent.name:
                says = "an outcome is of another way of evaluating than its folder is named after"
                yield Finding("outcomes", "problem", says, "remove that folder, and run its study again", patient.short(outcome.parent))


def _recipe(path: Path) -> Recipe | None:
    try:
        return job_folder.read_recipe(path / "recipe.json")[0]
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
            yield Finding("studies", "problem", says, "give the folder its old name, or remove it", patient.short(path.parent))
    for name, reason in patient.needs.unclear.items():
        if name in patient.needs.hidden:
            yield Finding("studies", "note", f"its jobs cannot be named: {reason}", RIGHTS, f"studies/{name}")
            continue
        is_planned = name in patient.studies
        says = f"its jobs cannot be named: {reason}"
        yield Finding("studies", "note" if is_planned else "problem", says, "run it again" if is_planned else FROM_FILE, f"studies/{name}")


def trials(patient: Patient) -> Iterator[Finding]:
    """The jobs of a search's trials are there."""
    for path in sorted(patient.store.path.glob("searches/*/trials.json")):
        try:
            trials = files.read_json(path)["trials"]
            gone = [job for trial in trials for job in trial["jobs"].values() if not patient.store.job(job).path.is_dir()]
        except SPOILT:  # another check says so
            continue
        if gone:
            says = f"the folders of {count(len(gone), 'job')} of its trials are gone: the values stay, the curves do not"
            yield Finding("trials", "note", says, where=patient.short(path.parent))
