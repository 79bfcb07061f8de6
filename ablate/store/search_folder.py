"""What range tests and searches keep in a store, checked when it is read: see tuning.py for the files."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from ablate.errors import StoreError
from ablate.recipe import range_test
from ablate.recipe.fields import Section
from ablate.recipe.range_test import Suggestion
from ablate.store import files
from ablate.store.files import Json
from ablate.store.layout import Store
from ablate.study import search_space
from ablate.study.search_space import Search

ENDED = ("complete", "pruned", "failed", "diverged")


class Row(Section):
    """One trial, as trials.json has it."""

    number: int = Field(ge=0)
    params: dict[str, Any]
    jobs: dict[Annotated[str, Field(pattern="^[0-9]+$")], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(default_factory=dict)
    value: float | None
    state: Literal["running", "complete", "pruned", "failed", "diverged"]
    proposed: bool = True
    """By the sampler; not the recipe as it stands, nor a point of a grid."""
    started: int | None = None
    ended: int | None = None


def _numbers(content: Any) -> Any:
    """Let no text and no truth pass for a number: a dataclass is not read strictly."""
    given = [content.get(name) for name in ("rate", "low", "high")] if isinstance(content, dict) else []
    if any(isinstance(number, str | bool) for number in given):
        raise ValueError("rates must be numbers")
    return content


def _rate(found: Suggestion) -> Suggestion:
    if found.status == "ok" and (found.rate is None or not 0 < found.rate <= 100):
        raise ValueError("a rate that was found must be one that a recipe may have")
    return found


TRIALS = TypeAdapter(list[Row])
SUGGESTION = TypeAdapter(Annotated[Suggestion, BeforeValidator(_numbers), AfterValidator(_rate)])


def curve_path(store: Store, identity: str, seed: int) -> Path:
    """Name the file of one seed's curve."""
    return store.range(identity) / f"curve-{seed}.json"


def read_suggestion(store: Store, identity: str) -> Suggestion | None:
    """Read what a range test has found; none where it has not ended. Raises a StoreError where it is nothing that one leaves."""
    path = store.range(identity) / "suggestion.json"
    content = _content(path)
    if content is None:
        return None
    try:
        return SUGGESTION.validate_python(content)
    except ValidationError:
        raise _spoilt(path) from None


def read_curves(store: Store, identity: str) -> dict[int, range_test.Curve]:
    """Read the curves of a range test, by seed."""
    found = {}
    for path in sorted(store.range(identity).glob("curve-*.json")):
        seed = path.stem.removeprefix("curve-")
        try:
            found[int(seed)] = range_test.from_json(_content(path))
        except (KeyError, TypeError, ValueError, AssertionError):
            raise _spoilt(path) from None
    return found


def read_trials(store: Store, identity: str, search: Search) -> tuple[Json, ...]:
    """Read the trials of a search, by their numbers.

    A store may be shared, and what others write into it must not choose what is trained here: a trial that counts has the
    very fields of the search, and values that may come out of it. Raises a StoreError where that is not so.
    """
    path = store.search(identity) / "trials.json"
    content = _content(path)
    if content is None:
        return ()
    try:
        rows = TRIALS.validate_python(content["trials"])
    except (ValidationError, KeyError, TypeError):
        raise _spoilt(path) from None
    for row in rows:
        wanted, given = search.space, row.params
        if row.state == "complete" and not (
            row.value is not None
            and set(given) == set(wanted)
            and all(search_space.contains(name, wanted[name], given[name]) for name in given)
        ):
            raise _spoilt(path)
    return tuple(row.model_dump() for row in rows)


def _content(path: Path) -> Any:
    try:
        return files.read_json(path)
    except StoreError:
        raise _spoilt(path) from None


def _spoilt(path: Path) -> StoreError:
    return StoreError(f"{path}: must be what ablate has written there, and it is not: remove that file, and it is made again")


def ended(trials: tuple[Json, ...], search: Search) -> tuple[Json, ...]:
    """Take the trials that have ended, of as many as the search has now."""
    return tuple(trial for trial in trials if trial["state"] in ENDED and trial["number"] < search.trials)


def repeats(trials: tuple[Json, ...], search: Search) -> int:
    """Count the ended trials that tried what an earlier one had tried: they cost no training, and tell nothing new."""
    tried = [trial["params"] for trial in ended(trials, search) if trial["params"]]
    return sum(params in tried[:i] for i, params in enumerate(tried))


def winner(trials: tuple[Json, ...], search: Search) -> Json | None:
    """Return the fields of the best trial, of equals the first; none before all have ended, or where none is complete."""
    over = ended(trials, search)
    complete = [trial for trial in over if trial["state"] == "complete"]
    if len(over) < search.trials or not complete:
        return None
    sign = 1 if search.direction == "max" else -1
    best = max(complete, key=lambda trial: (sign * trial["value"], -trial["number"]))
    return dict(best["params"])
