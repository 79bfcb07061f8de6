"""A folder with a study file, and what `ablate run` does with its store but for the training."""

from pathlib import Path

from ablate.planning.resolve import resolve
from ablate.store import files, job_folder, layout, study_folder
from ablate.store.study_folder import Settled
from ablate.workflow import argument

TEXT = """name = "pets"
seeds = 3
[recipe]
data = { name = "digits", image_size = 16 }
training = { epochs = 2, precision = "fp32" }
[factors]
augment.rotation = [0, 15]
"""


def run(path, *sets, store=None, replace=False, seeds=None, begin=True):
    """Do what `ablate run` does with the store but for the training; return the notice and the study."""
    store = store or layout.open_store(Path("mlruns"))
    layout.create(store)
    study = argument.load(str(path), sets, store, seeds)
    notice = study_folder.take_over(store, study, replace=replace)
    study_folder.keep(store, study, Settled("fp32"))
    if begin:
        for job in resolve(study, store, "cpu").jobs:
            job_folder.create(store.job(job.id), job)
            files.append(store.job(job.id).attempts, {"timestamp": 1, "pid": 3349, "study": study.name})
    return notice, study
