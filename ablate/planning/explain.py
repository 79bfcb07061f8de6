"""What a job is, who needs it, which jobs are near it, and which fields make two jobs two."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.errors import AblateError, StoreError
from ablate.messages import count, show
from ablate.planning import job_names
from ablate.planning.job_names import Known
from ablate.recipe import fields
from ablate.recipe import identity as identities
from ablate.recipe.fields import Recipe, Section
from ablate.store import files, job_folder
from ablate.store.job_state import state
from ablate.store.layout import Store

NEAREST = 5
INACTIVE = "does not matter here"
CODE = "code or weights"
START = "starts from"
OUTSIDE = ("data", CODE, START, "numerics")  # not in the recipe; shown first, as nobody sees it in a study


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a job this job, by name.

    These are the recipe's fields that matter, and `seed`, `data`, `code or weights`, `starts from` and
    `numerics`.
    """

    id: str
    parts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of the identity that differs, as people read it."""

    part: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Near:
    """Another job, and what makes it another one."""

    job: str
    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    trained: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """What one job is; the nearest others."""

    job: str
    status: str
    reason: str
    parts: Mapping[str, str]  # that differ from the defaults
    runs: tuple[str, ...]  # of studies in the store that need it: "study:label/seed"
    other_seeds: Mapping[int, str]  # the same under other seeds: their jobs
    nearest: tuple[Near, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two jobs, and what makes them two."""

    first: Near  # without differences
    second: Near


def compare(first: str, second: str, known: Known) -> Compared:
    """Return what makes two jobs two."""
    one, other = identity(first, known), identity(second, known)
    return Compared(_near(first, (), known), _near(second, differences(one, other), known))


def _near(job: str, differing: tuple[Difference, ...], known: Known) -> Near:
    return Near(job, known.names.get(job, ()), differing, files.is_there(known.store.job(job).result))


def explain(job: str, known: Known) -> Explained:
    """Return what a job is, and which jobs are nearest to it: those with the fewest differences.

    Of equally many, differences that no study file shows come first.
    """
    own = identity(job, known)
    others: list[Near] = []
    seeds: dict[int, str] = {}
    named = {job.id for job in known.jobs.values() if not job.pending}  # what the others will be is not known
    for name in (job_names.in_store(known.store) | named) - {job}:
        try:
            other = identity(name, known)
        except (AblateError, PermissionError):  # of another job, spoilt or another user's: no matter here
            continue
        # From the other one to this: "numerics 1 -> 2" says why what is there is trained again.
        differing = differences(other, own)
        if [difference.part for difference in differing] == ["seed"]:
            seeds[other.parts["seed"]] = name
        else:
            others.append(_near(name, differing, known))
    others.sort(key=_distance)
    status, reason = _standing(job, known.store)
    if job in known.jobs and known.jobs[job].pending:
        status, reason = "not known yet", "a range test or a search comes first"
    return Explained(
        job=job,
        status=status,
        reason=reason,
        parts={
            part: _shown(part, value)
            for part, value in own.parts.items()
            if "." not in part or value != _default(part)
        },
        runs=known.names.get(job, ()),
        other_seeds=dict(sorted(seeds.items())),
        nearest=tuple(others[:NEAREST]),
    )


def _distance(near: Near) -> tuple[int, bool, bool, str]:
    """Return the key by which the nearest job comes first."""
    is_plain = not any(difference.part in OUTSIDE for difference in near.differences)
    return len(near.differences), is_plain, not near.trained, near.job


def identity(job: str, known: Known) -> Identity:
    """Return what makes a job this job: from its folder, or from the study that needs it."""
    path = known.store.job(job).recipe
    try:
        description = job_folder.read_description(known.store.job(job))
        if description is None:
            planned = known.jobs[job]
            outside = {
                "seed": planned.seed,
                "data": planned.data,
                CODE: planned.code,
                START: planned.start,
                "numerics": identities.NUMERICS,
            }
            return Identity(job, outside | _fields(planned.recipe))
        outside = {
            "seed": description.seed,
            "data": description.data,
            CODE: description.code,
            START: description.start,
            "numerics": description.numerics,
        }
        try:
            return Identity(job, outside | _fields(description.parsed()))
        except ValueError:  # of another version, with other fields: as they stand there
            sections = description.recipe.items()
            flat = {f"{section}.{name}": value for section, part in sections for name, value in part.items()}
            return Identity(job, outside | flat)
    except (KeyError, TypeError, AttributeError, ValueError, StoreError):
        raise AblateError(
            f"{path}: must be what ablate has written there, and it is not: remove that folder"
        ) from None


def _fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that matter in a training, as JSON has them."""
    values = {}
    for path in fields.fields():
        if not path.startswith("evaluation.") and path != "data.root" and fields.is_active(recipe, path):
            value = fields.value(recipe, path)
            if isinstance(value, Section):
                value = value.model_dump(mode="json")
            values[path] = list(value) if isinstance(value, tuple) else value
    return values


def _default(part: str) -> Any:
    info = fields.fields().get(part)
    return None if info is None or info.is_required() else info.default


def differences(one: Identity, other: Identity) -> tuple[Difference, ...]:
    """Return what makes two identities two.

    A field that matters in one of them only counts where its value is not the default.
    """
    pair = (one, other)
    differing = []
    for part in {**one.parts, **other.parts}:
        first, second = (identity.parts.get(part, _default(part)) for identity in pair)
        if first != second:
            texts = (_shown(part, each.parts[part]) if part in each.parts else INACTIVE for each in pair)
            differing.append(Difference(part, *texts))
    return tuple(differing)


def _shown(part: str, value: Any) -> str:
    """Return a part of an identity as people read it."""
    match part:
        case "data":
            *unknown, key = value.rsplit(" ", 1)
            return f"images {key[: identities.ID_SHOWN]}{', not decoded yet' if unknown else ''}"
        case _ if part in (CODE, START):
            return (value[: identities.ID_SHOWN] if len(value) == 64 else value) or "none"
    return show("none" if value is None else value)


def _standing(job: str, store: Store) -> tuple[str, str]:
    """Return the status of a job, and the reason for it."""
    folder = store.job(job)
    standing = state(folder)
    match standing.stage():
        case "diverged" as stage:
            return stage, standing.result.reason if standing.result else ""
        case "crashed" as stage:
            return stage, standing.failure.error if standing.failure else ""
        case "running" | "stopped" as stage:
            return stage, f"{count(len(job_folder.read_epochs(folder)), 'epoch')} done"
        case "not_run":
            return "not run", ""
        case stage:
            return stage, ""
