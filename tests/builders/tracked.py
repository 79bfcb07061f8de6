"""Studies whose files are there for MLflow, without any training."""

from resolving import fingerprints

from ablate import tracking
from ablate.recipe import identity as identities
from ablate.store import files
from ablate.study import file as study_file
from ablate.study import grid


def read(name, levels=("one", "two")):
    """Check a study of one factor whose levels have these names."""
    table = {
        "name": "part",
        "levels": [{"name": level, "set": {"augment.rotation": 5 * i}} for i, level in enumerate(levels)],
    }
    small = {
        "data": {"name": "digits", "train_size": 300},
        "model": {"name": "cnn4"},
        "training": {"epochs": 3},
    }
    return study_file.check({"name": name, "seeds": 2, "recipe": small, "factor": [table]}, "x.toml")


def sync(held, loaded, *sources):
    tracking.sync(tracking.uri(held, None), loaded, sources, held)


def begun(held, loaded):
    """Return the runs of a study, each of which has begun."""
    expanded = grid.expand(loaded, precision="fp32")
    runs, _ = grid.runs_and_jobs(
        expanded, loaded.seeds, fingerprints(expanded, identities.digest(loaded.name))
    )
    for one in runs:
        folder = held.job(one.job_id)
        folder.path.mkdir(parents=True)
        files.append(folder.attempts, {"number": 1, "timestamp": 1000})
    return runs
