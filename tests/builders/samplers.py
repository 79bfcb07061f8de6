"""What searches by each sampler are asked for, and what is read of their trials."""

from collections import Counter

import pytest
from searching import RATE, accuracy, searches_of

SAMPLERS = ("tpe", "random", "cmaes", "gp", "grid")
POINTS = {
    "optimizer": {
        "lr": RATE | {"steps": 3},
        "weight_decay": {"low": 1e-6, "high": 1.0, "log": True, "steps": 4},
    }
}
SLOW_IMPORT = [
    pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS
]  # torch and scipy


def first_of(here, wanted=None, **others):
    """Return the search of the baseline."""
    return searches_of(here, wanted, **others)[0]


def numbers(trials):
    return [trial.number for trial in trials]


def states(trials):
    return Counter(trial.state for trial in trials)


def told(trials):
    """Return what must be the same whenever, and however often, a search was interrupted."""
    return [(trial.number, trial.params, trial.jobs, trial.value, trial.state) for trial in trials]


def memory(here, one, storage=None):
    """Open Optuna's own memory of a search."""
    import optuna

    held = storage or optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(here.search(one.id).memory))
    )
    name = next(name for name in optuna.get_all_study_names(held) if name.endswith(one.id))
    return optuna.load_study(study_name=name, storage=held).trials


# Bad ends


def diverging(recipe, seed):
    return "diverged" if recipe.optimizer.lr > 0.5 else accuracy(recipe, seed)
