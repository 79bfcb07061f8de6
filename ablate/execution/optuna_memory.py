"""What Optuna remembers of a search: its storage, sampler and pruner. The only home of optuna."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from ablate import descriptors
from ablate.databases import with_driver
from ablate.errors import AblateError, StoreError
from ablate.messages import public
from ablate.planning import tuning
from ablate.planning.work import CellSearch
from ablate.recipe import fields as recipe_fields
from ablate.recipe import identity
from ablate.store import files, layout, search_folder
from ablate.store.files import Json
from ablate.store.layout import Store
from ablate.store.records import Trial
from ablate.study import search_space
from ablate.study.search_space import Range, Search

NEEDS = {"cmaes": "cmaes"}  # packages that do not come with ablate, by sampler
NOT_OURS = (
    ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError,
    RecursionError, OverflowError,
)  # fmt: skip
"""What Optuna raises of a memory that is not one, or cannot be opened."""
DIVERGED = "ablate.diverged"
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT


@dataclass(slots=True)
class OpenTrial:
    """One trial under way."""

    asked: Any  # optuna's
    fields: Mapping[str, Any]
    jobs: dict[int, str]  # by tuning seed
    told: int = 0  # epochs that the pruner has seen


@dataclass(slots=True)
class OpenSearch:
    """One search under way."""

    search: CellSearch
    memory: Any  # optuna's study
    running: dict[int, OpenTrial] = field(default_factory=dict)  # by number
    asked: int = 0  # trials that there are
    rows: dict[int, Trial] = field(default_factory=dict)  # as they are written down, by number


def worst(opened: OpenSearch) -> float:
    """Return what a sampler is told of a diverged trial.

    As a pruned one, samplers of Gaussian processes would not see it at all.
    """
    if opened.search.search.direction == "max":
        return 0.0  # no accuracy is below
    values: list[float] = [trial.value for trial in opened.rows.values() if trial.value is not None]
    return 2 * max([10.0, *values])


def check(search: Search) -> None:
    """Raise an AblateError where the sampler needs a library that is not here."""
    package = NEEDS.get(search.sampler)
    if package is not None and find_spec(package) is None:
        raise AblateError(
            f'search.sampler: "{search.sampler}" needs the package {package}: '
            f"pip install {package}, or take another sampler"
        )


def open_memory(search: CellSearch, store: Store, storage: str | None) -> Any:
    """Return Optuna's study of a search, which is created where it does not exist.

    Its first trials are the recipe as it stands, or the points of a grid.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # They are of experimental parts, and of values reported again. Ignored for good: `catch_warnings` is not
    # safe beside MLflow's thread.
    warnings.filterwarnings("ignore", module=r"optuna\b|ablate\.search")
    tuning.describe(search, store)
    try:
        held: Any = (
            _database(storage)
            if storage
            else optuna.storages.JournalStorage(_backend(store.search(search.id).memory))
        )
        memory = optuna.create_study(
            storage=held, study_name=f"{layout.identity(store)}/{search.id}" if storage else search.id,
            direction="maximize" if search.search.direction == "max" else "minimize",
            sampler=sampler(search, 0), pruner=_pruner(search), load_if_exists=True,
        )  # fmt: skip
        enqueued = len(memory.get_trials(deepcopy=False))  # a kill may have come between two of them
        for fields in first_values(search)[enqueued:]:
            memory.enqueue_trial(fields)
    except NOT_OURS as error:
        if storage is None and not isinstance(error, ImportError | OSError):
            raise StoreError(
                f"{store.search(search.id).memory}: must be Optuna's memory of a search, and is not: remove "
                "its folder, and run again: the jobs of its trials are kept, and found again"
            ) from None
        reason = public(str(error) or type(error).__name__).splitlines()[0]
        raise AblateError(f"Optuna's storage cannot be opened: {reason}: see --optuna-storage") from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = public(str(error) or type(error).__name__).splitlines()[0]
        raise AblateError(f"Optuna's storage cannot be opened: {reason}: see --optuna-storage") from None
    over = sum(trial.state.is_finished() for trial in memory.get_trials(deepcopy=False))
    written = search_folder.read_trials(store.search(search.id), search.search)
    if over < len(search_folder.ended(written, search.search)):
        raise AblateError(
            f"the search of {search.label} has trials that this memory of Optuna does not know: "
            f"give its first --optuna-storage or, where that is lost, remove {store.search(search.id).path}: "
            "the jobs of its trials are kept, and found again"
        )
    return memory


def first_values(search: CellSearch) -> list[Json]:
    """Return the fields of the trials that no sampler proposes."""
    space = search.search.space
    if search.search.sampler == "grid":  # Optuna's own repeats points where trials run side by side
        return list(islice(search_space.grid(space), search.search.trials))
    values = {path: recipe_fields.value(search.recipe, path) for path in space}
    own = {path: "none" if value is None else value for path, value in values.items()}
    return (
        [own] if all(search_space.contains(path, tried, own[path]) for path, tried in space.items()) else []
    )


def suggest(asked: Any, path: str, tried: Range) -> Any:
    """Ask a trial for one field; asking again gives the same."""
    if tried.choices is not None:
        return asked.suggest_categorical(path, tried.choices)
    if search_space.is_whole(path):
        return asked.suggest_int(path, tried.low, tried.high, log=tried.log)
    return asked.suggest_float(path, float(tried.low or 0), float(tried.high or 0), log=tried.log)


def sampler(search: CellSearch, number: int, path: str = "") -> Any:
    """Return the sampler of one field of a trial.

    Its seed depends on the search, the trial and the field alone, so a new process draws the same.
    """
    from optuna import samplers

    seed = identity.stream_seed(number, f"{search.id}/{path}") % 2**32
    match search.search.sampler:
        case "tpe":
            return samplers.TPESampler(seed=seed)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "gp":
            return samplers.GPSampler(seed=seed)
    return samplers.RandomSampler(seed=seed)


def _pruner(search: CellSearch) -> Any:
    from optuna import pruners

    match search.search.pruner:
        case "median":
            return pruners.MedianPruner()
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=search.recipe.training.epochs)
    return pruners.NopPruner()


def milliseconds(moment: Any) -> int | None:
    """Return a moment as milliseconds since 1970, or None for none."""
    return None if moment is None else int(moment.timestamp() * 1000)


def _database(address: str) -> Any:
    """Return Optuna's storage in a database; of a server each connection is tried before it is used again.

    Else the first question after a restart of the server would fail, and end the run.
    """
    import optuna

    named = with_driver(address)
    if not named.startswith("postgresql"):
        return named
    return optuna.storages.RDBStorage(named, engine_kwargs={"pool_pre_ping": True})


def _backend(path: Path) -> Any:
    """Return the file of Optuna's memory, a line for each thing that happened.

    A kill may have torn the last one. Optuna's own class would follow links, and its lock is a file that a
    kill leaves for 30 s.
    """
    from optuna.storages.journal import BaseJournalBackend

    content = files.read(path) if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        files.write(path, whole)
    held, begins = files.lock(path.with_suffix(".lock")), [0]  # where each line begins, as far as read

    class Backend(BaseJournalBackend):
        def read_logs(self, log_number_from: int) -> Iterator[Json]:
            first = min(log_number_from, len(begins) - 1)
            try:
                with files.open_binary(path) as file:
                    file.seek(begins[first])
                    lines = file.read().split(b"\n")[:-1]
            except FileNotFoundError:
                return
            del begins[first + 1 :]
            for number, line in enumerate(lines, first):
                begins.append(begins[-1] + len(line) + 1)
                if number >= log_number_from:
                    yield json.loads(line)

        def append_logs(self, logs: list[Json]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with held, os.fdopen(descriptors.open_file(path, FLAGS), "ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())

    return Backend()
