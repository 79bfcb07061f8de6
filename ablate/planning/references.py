"""What the studies of a store refer to, as they were last run: their jobs, searches, range tests and images. Trains and writes nothing."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ablate.errors import AblateError
from ablate.planning import inputs, tuning, work
from ablate.planning.inputs import Inputs
from ablate.planning.plan import Plan
from ablate.recipe.fields import Data, Model
from ablate.store import files, records, study_folder
from ablate.store.layout import Store
from ablate.store.records import JobRecipe
from ablate.store.search_folder import read_trials
from ablate.study import grid
from ablate.study.file import Study
from ablate.study.grid import Grid

SPOILT = (AblateError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OSError)
"""What reading files raises that ablate has not written so."""


IDENTITY = re.compile("[0-9a-f]{64}")
"""Names of the folders of jobs, searches, range tests and images; any other one there is not ours."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is referred to, by identity; and what cannot be known."""

    studies: Mapping[str, Plan]  # by name; of their plans only what is read here: no work, no cost
    unclear: Mapping[str, str]  # the study or its folder, and why its jobs cannot be named
    jobs: frozenset[str]
    searches: frozenset[str]
    ranges: frozenset[str]
    data: frozenset[str]
    hidden: frozenset[str] = frozenset()  # of those that are unclear, what this user may not read


def read(store: Store, *, quick: bool) -> Needs:
    """Look up what every study needs. `quick`: without torch, which only names what pretrained networks will need next.

    Images and networks count as they were at the last run, and as they are now: what either needs is needed.
    """
    studies: dict[str, Plan] = {}
    unclear: dict[str, str] = {}
    hidden: set[str] = set()
    every: list[Plan] = []
    for path in study_folder.study_files(store):
        try:
            study = study_folder.recall(store, files.read_json(path)["study"]["name"])
            plans = list(_plans(study, store, quick=quick))
            _check(plans)
        except SPOILT as error:
            unclear[path.parent.name] = first_line(error)
            if isinstance(error, PermissionError):
                hidden.add(path.parent.name)
            continue
        studies[study.name] = plans[0]
        every += plans
        if any(made.tuning.open_ranges or made.tuning.open_searches for made in plans):
            unclear[study.name] = "its range tests or searches have not ended, so nobody knows which jobs its cells are"
    trials = {job for made in every for one in made.tuning.searches for job in _trials(one, store)}
    return Needs(
        studies, unclear, jobs=frozenset({job.id for made in every for job in made.jobs} | trials),
        searches=frozenset(one.id for made in every for one in made.tuning.searches),
        ranges=frozenset(one.id for made in every for one in made.tuning.ranges),
        data=frozenset(job.data for made in every for job in made.jobs), hidden=frozenset(hidden),
    )  # fmt: skip


def first_line(error: BaseException) -> str:
    """Return in one line what was wrong with a file."""
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be read: {error.strerror}"
    said = str(error).strip().splitlines()
    return (said[0] if said else "") or type(error).__name__


def _check(plans: list[Plan]) -> None:
    if any(job.data.startswith("not decoded yet") for made in plans[:1] for job in made.jobs):
        raise AblateError("settled.json does not say which images it was run on")


def _trials(one: work.CellSearch, store: Store) -> Iterator[str]:
    for trial in read_trials(store.search(one.id), one.search):
        yield from trial.jobs.values()


def _plans(study: Study, store: Store, *, quick: bool) -> Iterator[Plan]:
    """Plan a study as it was last run, and as this machine would run it now."""
    known = inputs.read(study, store, "auto")
    if not known.settled.precision:
        raise AblateError("settled.json does not say in which precision it was run")
    expanded = grid.expand(study, precision=known.precision)
    names = {cell.recipe.model.name for cell in expanded.cells if cell.recipe.model.pretrained}
    codes = _pretrained(store, names) if names else {}
    for i in range(max([1, *map(len, codes.values())])):
        yield _plan(study, expanded, store, partial(_then, known), partial(_code, known, codes, i))
    now = partial(_code, known, codes, 0) if quick else known.code
    yield _plan(study, expanded, store, known.fingerprint, now)


def _plan(study: Study, expanded: Grid, store: Store, fingerprint: Callable[[Data], str], code: Callable[[Model], str]) -> Plan:
    tuned = tuning.resolve(study, expanded, store, fingerprint, code)
    runs, jobs = grid.runs_and_jobs(tuned.grid, study.seeds, fingerprint, code)
    return Plan(study, tuned.grid, runs, jobs, (), (), None, tuned, 0)


def _then(known: Inputs, section: Data) -> str:
    """Identify the images of the last run."""
    return known.settled.fingerprints.get(study_folder.data_key(section)) or known.fingerprint(section)


def _code(known: Inputs, codes: Mapping[str, list[str]], i: int, section: Model) -> str:
    """Identify a network as jobs of the store have it: asking which weights torchvision has would import torch."""
    if not section.pretrained:
        return known.code(section)
    found = codes.get(section.name) or [""]
    return found[min(i, len(found) - 1)]


def _pretrained(store: Store, names: set[str]) -> dict[str, list[str]]:
    """List the weights that pretrained networks have started from in this store."""
    found: dict[str, set[str]] = {}
    for path in store.path.glob("jobs/*/recipe.json"):
        name, code = _started_from(path)
        if name in names:
            found.setdefault(name, set()).add(code)
    return {name: sorted(codes) for name, codes in found.items()}


def _started_from(path: Path) -> tuple[str, str]:
    try:
        description = records.read(path, JobRecipe)
        model = {} if description is None else description.recipe["model"]
        return (model["name"], description.code) if description is not None and model["pretrained"] else ("", "")
    except SPOILT:
        return "", ""
