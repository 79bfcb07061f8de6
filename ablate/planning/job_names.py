"""The names of jobs: how a JOB argument names a job that a store has, or that one of its studies needs.

It is a beginning of a job's identity, or `STUDY:cell-label/seed`, the name of a run as tables show it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ablate import descriptors
from ablate.errors import AblateError
from ablate.messages import near, show, unknown
from ablate.planning.resolve import resolve
from ablate.recipe import identity
from ablate.store import files, search_folder, study_folder
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.study.grid import Job, Run

SHORTEST = 4  # hex digits of a beginning
IDENTITY = re.compile("[0-9a-f]{64}")
NAMED = 8  # candidates in one message
FORMS = (
    f"a beginning of a job's identity, of at least {SHORTEST} hex digits, or a run as tables show it: "
    "STUDY:cell/seed"
)


@dataclass(frozen=True, slots=True)
class Known:
    """The jobs that the studies of a store need, and how these name them."""

    store: Store
    jobs: Mapping[str, Job] = field(default_factory=dict)  # that a study needs, trained or not
    # By job: the runs that need it, as "study:label/seed", and the evaluations that they want.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    evaluations: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)  # why a study cannot be read, by its name
    runs: Mapping[str, Run] = field(default_factory=dict)  # by these names

    def name(self, job: str) -> str:
        """Return a job's short identity, with the first run that needs it."""
        run = f" ({self.names[job][0]})" if job in self.names else ""
        return f"{job[: identity.ID_SHOWN]}{run}"


def read(store: Store, device: str = "auto") -> Known:
    """Read what the studies of a store, as last run, need."""
    jobs: dict[str, Job] = {}
    names: dict[str, dict[str, None]] = {}
    evaluations: dict[str, set[str]] = {}
    unreadable: dict[str, str] = {}
    named: dict[str, Run] = {}
    for study in study_folder.names(store):
        try:
            runs, needed, trials = _needs(study_folder.recall(store, study), store, device)
        except PermissionError as error:
            unreadable[study] = (
                f"{error.filename}: cannot be read: {error.strerror}: ask its owner for the right to read it"
            )
            continue
        except SPOILT as error:  # of another version, or not ours
            unreadable[study] = str(error)
            continue
        jobs |= {job.id: job for job in needed if job.id not in jobs}
        for run in runs:
            names.setdefault(run.job_id, {})[f"{study}:{run.name}"] = None
            named[f"{study}:{run.name}"] = run
            evaluations.setdefault(run.job_id, set()).add(identity.evaluation_id(run.cell.recipe))
        for job, name in trials:
            names.setdefault(job, {})[f"{study}:{name}"] = None
    wanted = {job: frozenset(evaluation_ids) for job, evaluation_ids in evaluations.items()}
    return Known(store, jobs, {job: tuple(runs) for job, runs in names.items()}, wanted, unreadable, named)


def _needs(
    study: Study, store: Store, device: str
) -> tuple[tuple[Run, ...], tuple[Job, ...], list[tuple[str, str]]]:
    """Return the runs and jobs of a study, and the jobs of its trials with what they are."""
    resolved = resolve(study, store, device)
    trials = [
        (job, f"trial {trial.number} of {search.label}/{seed}")
        for search in resolved.tuning.searches
        for trial in search_folder.read_trials(store.search(search.id), search.search)
        for seed, job in trial.jobs.items()
    ]
    return resolved.runs, resolved.jobs, trials


def in_store(store: Store) -> set[str]:
    """Return the jobs that have a folder, also of folders that only another user can read."""
    folder, jobs = store.path / "jobs", set()
    for path in map(folder.joinpath, descriptors.names(folder)):
        if not IDENTITY.fullmatch(path.name):
            continue
        try:
            if files.is_there(path / "recipe.json"):
                jobs.add(path.name)
        except OSError:
            jobs.add(path.name)
    return jobs


def find(text: str, known: Known, word: str = "JOB") -> str:
    """Return the one job that a text names; `word`: what a command calls this argument.

    Raises an AblateError with the candidates where it names none, or several.
    """
    if re.fullmatch(rf"[0-9a-fA-F]{{{SHORTEST},64}}", text):
        return _by_identity(text, known, word)
    # The longest names first: a name may begin with another one and a colon.
    for study in sorted(study_folder.names(known.store), key=len, reverse=True):
        if text.startswith(f"{study}:"):
            return _by_run(text, study, known, word)
    runs = [name for names in known.names.values() for name in names]
    if ":" in text and "/" in text:
        name = text.partition(":")[0]
        hint = study_folder.hint(known.store, name)
        is_none = unknown(name, f"a study in {known.store.path}", study_folder.names(known.store))
        raise AblateError(f"{word}: {is_none}{f'; {hint}' if hint else ''}")
    meant = [name for name in runs if name.partition(":")[2] == text]
    hint = f" (did you mean {_listed(meant)}?)" if meant else ""
    if own := [name for name in runs if name.startswith(f"{text}:")]:
        hint = f", which is a study: its runs are {_listed(own)}"
    raise AblateError(f"{word} must be {FORMS}, got {show(text)}{hint}")


def _by_identity(text: str, known: Known, word: str) -> str:
    jobs = sorted(job for job in in_store(known.store) | set(known.jobs) if job.startswith(text.lower()))
    if not jobs:
        raise AblateError(
            f"{word}: no job in {known.store.path} begins with {text}: "
            "ablate status STUDY --json lists the jobs of a study, or name a run: STUDY:cell/seed"
        )
    if len(jobs) > 1:
        names = _listed([known.name(job) for job in jobs])
        raise AblateError(f"{word}: {len(jobs)} jobs begin with {text}, give more digits: {names}")
    return jobs[0]


def _by_run(text: str, study: str, known: Known, word: str) -> str:
    if study in known.unreadable:
        raise AblateError(known.unreadable[study])
    for job, names in known.names.items():
        if text in names:
            return job
    own = [name for names in known.names.values() for name in names if name.startswith(f"{study}:")]
    if seeded := [name for name in own if name.rpartition("/")[0] == text.rstrip("/")]:
        raise AblateError(
            f"{word}: {show(text)} is a cell of {study}, with a job for each seed: "
            f"add a seed, such as {seeded[0]}"
        )
    raise AblateError(
        f"{word}: {show(text)} is not a run of {study}{near(text, own)}; runs are {_listed(own)}"
    )


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return "; ".join(every[:NAMED]) + more  # a cell's label may have commas
