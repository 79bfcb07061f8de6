"""The folder of a search: every path in it, and what lies there, checked when it is read.

search.json   what is searched
trials.json   every trial with its fields, its jobs, its value; rewritten after each
optuna.jsonl  Optuna's memory, where it is not in a database
lock          held by the process that runs the search
"""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ablate.errors import StoreError
from ablate.store import files, records
from ablate.store.files import Json
from ablate.store.records import Trial, Trials
from ablate.study import search_space
from ablate.study.search_space import Search

ENDED = ("complete", "pruned", "failed", "diverged")


@dataclass(frozen=True, slots=True)
class SearchFolder:
    """The paths of one search."""

    path: Path

    @property
    def search(self) -> Path:
        """The file with what is searched."""
        return self.path / "search.json"

    @property
    def trials(self) -> Path:
        """The file with every trial."""
        return self.path / "trials.json"

    @property
    def memory(self) -> Path:
        """The file with Optuna's memory."""
        return self.path / "optuna.jsonl"

    def lock(self) -> FileLock:
        """Return the lock that is held by the process that runs the search."""
        return files.lock(self.path / "lock")


def is_running(folder: SearchFolder) -> bool:
    """Whether a process runs the search."""
    return files.is_held(folder.path / "lock")


def read_search(folder: SearchFolder) -> records.Search | None:
    """Return what is searched; None before it has begun."""
    return records.read(folder.search, records.Search)


def read_any_trials(folder: SearchFolder) -> tuple[Trial, ...]:
    """Return the trials of a search as they are, to show them."""
    written = records.read(folder.trials, Trials)
    return () if written is None else written.trials


def read_trials(folder: SearchFolder, search: Search) -> tuple[Trial, ...]:
    """Return the trials of a search, by their numbers.

    A store may be shared, and what others write into it must not choose what is trained here: a trial that
    counts has exactly the fields of the search, and values from its space. Raises a StoreError otherwise.
    """
    try:
        trials = read_any_trials(folder)
    except StoreError:
        raise spoilt(folder.trials) from None
    space = search.space
    for trial in trials:
        if trial.state == "complete" and not (
            trial.value is not None
            and set(trial.params) == set(space)
            and all(search_space.contains(path, space[path], value) for path, value in trial.params.items())
        ):
            raise spoilt(folder.trials)
    return trials


def write_trials(folder: SearchFolder, trials: tuple[Trial, ...]) -> None:
    """Write every trial."""
    records.write(folder.trials, Trials(trials=trials))


def spoilt(path: Path) -> StoreError:
    """Return the error of a file of a search or a range test that is not what ablate writes there."""
    return StoreError(
        f"{path}: must be what ablate has written there, and it is not: "
        "remove that file, and it is made again"
    )


def ended(trials: tuple[Trial, ...], search: Search) -> tuple[Trial, ...]:
    """Return the trials that have ended, among those that the search now has."""
    return tuple(trial for trial in trials if trial.state in ENDED and trial.number < search.trials)


def repeats(trials: tuple[Trial, ...], search: Search) -> int:
    """Return how many ended trials repeated an earlier one: they cost no training, and add no information."""
    tried = [trial.params for trial in ended(trials, search) if trial.params]
    return sum(params in tried[:i] for i, params in enumerate(tried))


def winner(trials: tuple[Trial, ...], search: Search) -> Json | None:
    """Return the fields of the best trial, the first of equals.

    None before all have ended, or where none is complete.
    """
    over = ended(trials, search)
    complete = [trial for trial in over if trial.state == "complete"]
    if len(over) < search.trials or not complete:
        return None
    sign = 1 if search.direction == "max" else -1
    best = max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))
    return dict(best.params)
