"""What the studies of a store refer to, as they were last run: jobs, searches, range tests and images."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ablate.errors import AblateError
from ablate.planning import inputs, work
from ablate.planning.resolve import Resolved, resolve_inputs
from ablate.store import records, study_folder
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.store.records import JobRecipe
from ablate.store.search_folder import read_trials
from ablate.study.file import Study
from ablate.study.grid import Fingerprints

IDENTITY = re.compile("[0-9a-f]{64}")
"""Names of the folders of jobs, searches, range tests and images; any other one there is not ours."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is referred to, by identity; and what cannot be known."""

    studies: Mapping[str, Resolved]  # by name
    unclear: Mapping[str, str]  # the study or its folder, and why its jobs cannot be named
    jobs: frozenset[str]
    searches: frozenset[str]
    ranges: frozenset[str]
    data: frozenset[str]
    hidden: frozenset[str] = frozenset()  # of the unclear ones, what this user may not read


def read(store: Store, *, quick: bool) -> Needs:
    """Return what every study needs: with its images and networks as at its last run, and as they are now.

    `quick`: without torch, which names what pretrained networks will need next.
    """
    studies: dict[str, Resolved] = {}
    unclear: dict[str, str] = {}
    hidden: set[str] = set()
    every: list[Resolved] = []
    for path in study_folder.study_files(store):
        try:
            study = study_folder.recall(store, study_folder.name_of(path, store))
            each = list(_resolve(study, store, quick=quick))
            _check(each[0])
        except SPOILT as error:
            unclear[path.parent.name] = first_line(error)
            if isinstance(error, PermissionError):
                hidden.add(path.parent.name)
            continue
        studies[study.name] = each[0]
        every += each
        if any(resolved.tuning.open_ranges or resolved.tuning.open_searches for resolved in each):
            unclear[study.name] = (
                "its range tests or searches have not ended, so nobody knows which jobs its cells are"
            )
    trials = {job for resolved in every for one in resolved.tuning.searches for job in _trials(one, store)}
    return Needs(
        studies, unclear, jobs=frozenset({job.id for resolved in every for job in resolved.jobs} | trials),
        searches=frozenset(one.id for resolved in every for one in resolved.tuning.searches),
        ranges=frozenset(one.id for resolved in every for one in resolved.tuning.ranges),
        data=frozenset(job.data for resolved in every for job in resolved.jobs), hidden=frozenset(hidden),
    )  # fmt: skip


def first_line(error: BaseException) -> str:
    """Return in one line what was wrong with a file."""
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be read: {error.strerror}"
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else "") or type(error).__name__


def _check(resolved: Resolved) -> None:
    if any(job.data.startswith("not decoded yet") for job in resolved.jobs):
        raise AblateError("settled.json does not say which images it was run on")


def _trials(one: work.CellSearch, store: Store) -> Iterator[str]:
    for trial in read_trials(store.search(one.id), one.search):
        yield from trial.jobs.values()


def _resolve(study: Study, store: Store, *, quick: bool) -> Iterator[Resolved]:
    """Resolve a study as it was last run, with all weights that its networks began with, and as it is now."""
    study_inputs = inputs.read(study, store)
    if not study_inputs.settled.precision:
        raise AblateError("settled.json does not say in which precision it was run")
    names = {cell.recipe.model.name for cell in study_inputs.grid.cells if cell.recipe.model.pretrained}
    weights = _pretrained(store, names) if names else {}
    first = replace(
        study_inputs, weights=_nth(weights, 0)
    )  # asking which ones torchvision has would import torch
    now = inputs.fingerprints(first, study_inputs.grid.cells)
    own = {network: code for network, code in now.code.items() if not network[1]}
    kept = study_inputs.settled.fingerprints
    then = {section: kept.get(study_folder.data_key(section)) or name for section, name in now.data.items()}
    for i in range(max([1, *map(len, weights.values())])):
        yield resolve_inputs(replace(study_inputs, weights=_nth(weights, i)), Fingerprints(then, own))
    yield resolve_inputs(first, now) if quick else resolve_inputs(study_inputs, Fingerprints(now.data, own))


def _nth(weights: Mapping[str, list[str]], i: int) -> dict[str, str]:
    """Return the i-th weights of each network, or its last."""
    return {name: files[min(i, len(files) - 1)] for name, files in weights.items()}


def _pretrained(store: Store, names: set[str]) -> dict[str, list[str]]:
    """Return the weights that pretrained networks have started from in this store, by the networks' names."""
    weights: dict[str, set[str]] = {}
    for path in store.path.glob("jobs/*/recipe.json"):
        name, code = _started_from(path)
        if name in names:
            weights.setdefault(name, set()).add(code)
    return {name: sorted(codes) for name, codes in weights.items()}


def _started_from(path: Path) -> tuple[str, str]:
    try:
        description = records.read(path, JobRecipe)
        model = {} if description is None else description.recipe["model"]
        if description is not None and model["pretrained"]:
            return model["name"], description.code
    except SPOILT:
        pass
    return "", ""
