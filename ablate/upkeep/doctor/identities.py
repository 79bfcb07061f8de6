"""Whether every folder is what its name says: identities are computed again from its content."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablate.messages import count
from ablate.recipe import identity as identities
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import job_folder, records, study_folder
from ablate.store.files import SPOILT
from ablate.store.job_folder import Folder
from ablate.store.records import JobRecipe
from ablate.store.search_folder import SearchFolder, read_any_trials
from ablate.upkeep.doctor.files import ANEW, FROM_FILE, RIGHTS
from ablate.upkeep.doctor.finding import Finding, Patient

RECIPES = 4096  # of different cells, that are kept parsed


def jobs(patient: Patient) -> Iterator[Finding]:
    """Find jobs whose folder is not named after their recipe."""
    for path in patient.held():
        yield from _jobs(patient, path)


def _jobs(patient: Patient, path: Path) -> Iterator[Finding]:
    try:
        description = job_folder.read_description(Folder(path))
    except SPOILT:  # another check reports it
        return
    if description is None:
        return
    if description.numerics != identities.NUMERICS:
        then, now = description.numerics, identities.NUMERICS
        says = f"jobs were trained under numerics {then}: this version, with {now}, trains them again"
        yield Finding("identity", "note", says, patient.gc(), patient.short(path))
        return
    training = _training(_text(description.recipe), description.data, description.code)
    if training is None:
        says = "recipe.json says what this version of ablate cannot train"
        do = "use the version that wrote it, or remove its folder"
        yield Finding("identity", "problem", says, do, patient.short(path))
        return
    identity = identities.seeded(training, description.seed, description.start)
    if identity != path.name or description.job != path.name:
        says = "a job is not what its folder is named after"
        yield Finding("identity", "problem", says, ANEW, patient.short(path))


def outcomes(patient: Patient) -> Iterator[Finding]:
    """Find outcomes whose folder is not named after their way of evaluating."""
    for path in patient.held():
        yield from _outcomes(patient, path)


def _outcomes(patient: Patient, path: Path) -> Iterator[Finding]:
    paths = sorted(path.glob("outcomes/[!.]*/outcome.json"))
    recipe = _recipe(path) if paths else None
    for outcome in paths if recipe is not None else ():
        try:
            written = records.read(outcome, records.Evaluation)
            if written is None:  # it was there a moment ago
                continue
            identity = _evaluation_id(recipe or "", _text(written.evaluation))
        except SPOILT:  # another check reports it
            continue
        if identity[: identities.ID_SHOWN] != outcome.parent.name:
            says = "an outcome is of another way of evaluating than its folder is named after"
            do = "remove that folder, and run its study again"
            yield Finding("outcomes", "problem", says, do, patient.short(outcome.parent))


def _recipe(path: Path) -> str | None:
    """Return the text of a job's recipe; None where this version cannot read it."""
    try:
        description = job_folder.read_description(Folder(path))
    except SPOILT:
        return None
    text = "" if description is None else _text(description.recipe)
    return text if text and _parsed(text) is not None else None


# The jobs of a cell share a recipe, and parsing it, and bringing it to its canonical form, takes the time.


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)


@lru_cache(RECIPES)
def _parsed(text: str) -> Recipe | None:
    try:
        return JobRecipe(job="", seed=0, data="", numerics=0, recipe=json.loads(text)).parsed()
    except SPOILT:
        return None


@lru_cache(RECIPES)
def _training(text: str, data: str, code: str) -> dict[str, Any] | None:
    recipe = _parsed(text)
    return None if recipe is None else identities.training(recipe, data, code)


@lru_cache(RECIPES)
def _evaluation_id(text: str, evaluation: str) -> str:
    recipe = _parsed(text)
    assert recipe is not None
    chosen = Evaluation.model_validate(json.loads(evaluation))
    return identities.evaluation_id(recipe.model_copy(update={"evaluation": chosen}))


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
