"""Changes to a finished store."""

import json
import shutil

from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity as identities
from ablate.store import layout
from ablate.upkeep import doctor

DEAD = 2**22 + 1  # no process has this number


def job(store):
    return min(store.glob("jobs/[0-9a-f]*"))


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def other_job(store, seed=7):
    """Put a finished job into a store that no study there needs."""
    content = json.loads((job(store) / "recipe.json").read_text())
    made = recipe_fields.Recipe.model_validate(content["recipe"])
    identity = identities.job_id(made, seed, content["data"], content["code"])
    shutil.copytree(job(store), store / "jobs" / identity)
    change(store / "jobs" / identity / "recipe.json", seed=seed, job=identity)
    return store / "jobs" / identity


def examine(store, *, deep=False):
    """Return the findings of the doctor, without MLflow."""
    return doctor.examine(doctor.Patient(layout.open_store(store), lambda _: [], deep=deep))


def wrong(found):
    """Return those that are not ok."""
    return [one for one in found if one.severity != "ok"]
