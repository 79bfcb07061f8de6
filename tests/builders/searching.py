"""What the tests of searches share: studies that search, and a toy with a known optimum as their workers."""

import math
from collections import Counter

import record_files
from resolving import fingerprints

from ablate.execution.search import Searches
from ablate.planning import tuning
from ablate.recipe import fields
from ablate.store import files, job_folder
from ablate.study import file as study_file
from ablate.study import grid

EPOCHS = 4
RATE = {"low": 1e-4, "high": 10.0, "log": True}
DECAY = {"low": 1e-6, "high": 1.0, "log": True}
BOTH = {"optimizer": {"lr": RATE, "weight_decay": DECAY}}


def read(search=None, factors=None, seeds=2, name="x", **recipe):
    """Check a study that searches; `recipe` changes sections of its recipe."""
    small = {
        "data": {"name": "digits", "train_size": 300},
        "model": {"name": "cnn4"},
        "training": {"epochs": EPOCHS},
    }
    raw = {
        "name": name,
        "seeds": seeds,
        "recipe": small | recipe,
        "factors": factors or {"augment": {"flip": [True, False]}},
    }
    return study_file.check(raw | ({"search": search} if search else {}), "x.toml")


def resolve(loaded, store, data="f" * 64, code=""):
    expanded = grid.expand(loaded, precision="fp32")
    return tuning.resolve(loaded, expanded, store, fingerprints(expanded, data, code))


def settled(made):
    """Whether every cell can be trained."""
    return not any(cell.pending for cell in made.grid.cells)


def searches_of(store, search=None, **others):
    return resolve(
        read({"space": BOTH, "sampler": "random", "trials": 6} | (search or {}), **others), store
    ).searches


def distance(recipe):
    """Return the squared distance from the optimum, in decades: a rate of 0.1 and a decay of 0.001."""
    return (math.log10(recipe.optimizer.lr) + 1) ** 2 + (
        math.log10(max(recipe.optimizer.weight_decay, 1e-12)) + 3
    ) ** 2


def accuracy(recipe, seed):
    return 0.9 - distance(recipe) / 100


class Workers:
    """Play the workers: a line of the journal for each epoch, then result.json.

    `slots` jobs at a time, an epoch each in turn.

    `judge(recipe, seed)` is the accuracy of the last epoch; a text instead of it is how the job ends,
    `failed` or `diverged`.
    """

    def __init__(self, store, slots=1, judge=accuracy):
        self.store, self.slots, self.judge = store, slots, judge
        self.handed, self.epochs, self.most = Counter(), Counter(), 0
        self.running = {}

    def run(self, source, until=lambda: False):
        """Work to the end, or until something holds: then whatever runs is lost, as by a kill."""
        self.running = {}
        while not until():
            while len(self.running) < self.slots and (work := source.next(lambda _work: True)) is not None:
                assert work.id not in self.running, "it runs already"
                work.prepare(self.store)
                self.handed[work.id] += 1
                self.running[work.id] = work
            self.most = max(self.most, len(self.running))
            if not self.running:
                return
            for work in list(self.running.values()):
                self._epoch(source, work)

    def _epoch(self, source, work):
        folder, job = work.folder(self.store), work.job
        done, last = len(files.lines(folder.journal)), self.judge(job.recipe, job.seed)
        if last == "failed":
            job_folder.fail(folder, kind="error", error="as the test wants it")
            return self._end(source, work, "failed")
        if not folder.result.exists() and done < job.recipe.training.epochs:
            good = 0.1 if last == "diverged" else last * (done + 1) / job.recipe.training.epochs
            metrics = {"validation/accuracy": good, "validation/loss": 1 - good}
            files.append(folder.journal, record_files.epoch(done + 1, metrics=metrics))
            self.epochs[work.id] += 1
            if source.progressed(work.id):
                return self._end(source, work, "stopped")
            done += 1
        if done >= job.recipe.training.epochs or last == "diverged":
            files.write_json(
                folder.result, record_files.result("diverged" if last == "diverged" else "finished")
            )
            return self._end(source, work, "finished")
        return None

    def _end(self, source, work, kind):
        del self.running[work.id]
        source.ended(work.id, kind)


def opened(searches, store, storage=None, **options):
    return Searches(searches, store, storage, lambda _: None, {}, **options)


def search(searches, store, workers=None, storage=None, **options):
    """Drive searches to their ends; give the workers."""
    workers = workers or Workers(store)
    workers.run(opened(searches, store, storage, **options))
    return workers


def trials_of(store, one):
    return tuning.read_trials(store.search(one.id), one.search)


def near(trial):
    """Return how far from the optimum a trial is."""
    params = trial.params
    return (math.log10(params["optimizer.lr"]) + 1) ** 2 + (
        math.log10(params["optimizer.weight_decay"]) + 3
    ) ** 2


def put(store, one, *trials):
    """Write the trials of a search down: (state, value, fields) each."""
    rows = [
        {"number": i, "state": state, "value": value, "params": params, "jobs": {}}
        for i, (state, value, params) in enumerate(trials)
    ]
    files.write_json(store.search(one.id).trials, {"trials": rows})


def suggest(store, test, status="ok", rate=0.02):
    """Write down what a range test suggests."""
    found = {"rule": "valley", "status": status, "rate": rate, "low": rate, "high": rate}
    files.write_json(store.range(test.id).suggestion, found)


def value_of(cell, path):
    return fields.value(cell.recipe, path)
