"""The content of each file of a job, a search and a range test: typed, and checked when it is read.

There is one reader and one writer. A key that this version does not know is left out, as a later version may
have written it; one that an earlier version did not write has a default. What an earlier version wrote is
read as it stands, and what is written has the keys in this order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from ablate.errors import StoreError
from ablate.recipe import chance, range_test
from ablate.recipe.fields import Recipe, Section
from ablate.recipe.range_test import Suggestion
from ablate.store import files

Number = int | float
Metrics = dict[str, Number]
Sha = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(BaseModel):
    """One file, or one line of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


# Of a job


class JobRecipe(Record):
    """recipe.json: what is trained."""

    job: str
    seed: int
    data: str  # fingerprint of the images
    code: str = ""  # of a network of the user's own, or which weights it starts from
    numerics: int
    recipe: dict[str, dict[str, Any]]  # as the version that wrote it had it; without root and evaluation

    def parsed(self) -> Recipe:
        """Return the recipe, whose root and evaluation mean nothing.

        Raises a ValueError where this version cannot train it.
        """
        return Recipe.model_validate(self.recipe | {"data": self.recipe["data"] | {"root": ""}})


class Attempt(Record):
    """A line of attempts.jsonl: one execution of a job begins."""

    attempt: int = 0
    timestamp: int  # ms
    pid: int | None = None
    device: str = ""
    study: str = ""


class Epoch(Record):
    """A line of journal.jsonl: one epoch of a training."""

    epoch: int
    timestamp: int  # ms
    seconds: Number
    metrics: Metrics


class Result(Record):
    """result.json: the end of a training."""

    status: Literal["finished", "diverged"]
    reason: str
    epochs: int
    best_epoch: int = 0
    train_images: int
    parameters: int | None = None
    peak_memory: int | None = None  # bytes, of the attempt that ended it
    timestamp: int  # ms
    streamed: bool = False
    metrics: Metrics


class Wrong(Record):
    """A test image that was answered wrongly, with high confidence."""

    index: int
    label: int
    answer: int
    confidence: Number


class Evaluation(Record):
    """outcome.json: how a trained network did, evaluated in one way."""

    evaluation: dict[str, Any]
    status: Literal["finished", "at_chance"]  # by the rule of the version that wrote it: see `end`
    reason: str
    timestamp: int  # ms
    seconds: Number | None = None
    classes: tuple[str, ...] = ()
    metrics: Metrics
    confusion: tuple[tuple[int, ...], ...] = ()  # [true class][answer]
    calibration: tuple[tuple[int, Number, Number], ...] = ()
    """A bin each: images, mean confidence, share that was right."""
    wrong: tuple[Wrong, ...] = ()

    def end(self) -> tuple[chance.End, str]:
        """Return whether the network is at chance level, by the rule of this version, and why."""
        return chance.status(self.status, self.reason, self.confusion, self.classes)


class Failure(Record):
    """failure.json: why the last attempt failed."""

    kind: Literal["error", "crash", "memory", "stall"] = "error"
    error: str
    timestamp: int  # ms


# Of a search


class Search(Record):
    """search.json: what is searched, and by which rules."""

    label: str
    metric: str
    direction: Literal["max", "min"]
    sampler: str = ""
    pruner: str = ""
    trials: int
    seeds: tuple[int, ...]
    space: dict[str, dict[str, Any]]
    started: int  # ms


class Trial(Section):
    """One trial of trials.json."""

    number: int = Field(ge=0)
    params: dict[str, Any]
    jobs: dict[Annotated[str, Field(pattern="^[0-9]+$")], Sha] = Field(default_factory=dict)
    value: float | None
    state: Literal["running", "complete", "pruned", "failed", "diverged"]
    proposed: bool = True
    """By the sampler; neither the recipe as it stands nor a point of a grid."""
    started: int | None = None
    ended: int | None = None


class Trials(Record):
    """trials.json: every trial of a search."""

    trials: tuple[Trial, ...]


# Of a range test


class Sweep(Record):
    """What a range test varies, and how."""

    low: Number
    high: Number
    steps: int
    mode: str
    per: str


class RangeTest(Record):
    """range.json: what is tested."""

    label: str
    sweep: Sweep
    seeds: tuple[int, ...]
    started: int  # ms


class SeedCurve(Record):
    """curve-<seed>.json: the losses of one seed over the rates."""

    rates: tuple[Number, ...]
    losses: tuple[Number | str, ...]  # a text where it is not finite
    accuracies: tuple[Number | str, ...]
    stopped: str
    timestamp: int = 0  # ms

    def curve(self) -> range_test.Curve:
        """Return the curve as numbers."""
        return range_test.from_json(self.model_dump())


def _numbers(content: Any) -> Any:
    """Refuse texts and booleans as numbers: a dataclass is not read strictly."""
    rates = [content.get(name) for name in ("rate", "low", "high")] if isinstance(content, dict) else []
    if any(isinstance(rate, str | bool) for rate in rates):
        raise ValueError("rates must be numbers")
    return content


def _rate(suggestion: Suggestion) -> Suggestion:
    if suggestion.status == "ok" and (suggestion.rate is None or not 0 < suggestion.rate <= 100):
        raise ValueError("a suggested rate must be one that a recipe may have")
    return suggestion


SUGGESTION: TypeAdapter[Suggestion] = TypeAdapter(
    Annotated[Suggestion, BeforeValidator(_numbers), AfterValidator(_rate)]
)
"""suggestion.json: what the curves of a range test suggest."""


# Of a study, and of decoded images


class KeptStudy(Record):
    """study.json: a study as it was last run."""

    source: str
    folder: str = ""
    text: str
    study: dict[str, Any]


class Settled(Record):
    """settled.json: what that run settled."""

    precision: str
    fingerprints: dict[str, str]
    codes: dict[str, str] = Field(default_factory=dict)


class ImageSet(Record):
    """meta.json: a decoded data set."""

    classes: tuple[str, ...]
    train: int  # images
    test: int
    channels: int
    image_size: int
    mean: tuple[Number, ...]
    std: tuple[Number, ...]
    decoding: tuple[str, ...] = ()


# Reading and writing

R = TypeVar("R", bound=BaseModel)


def read(path: Path, kind: type[R]) -> R | None:
    """Return a record; None where there is no file. Raises a StoreError where it is something else."""
    try:
        return kind.model_validate_json(files.read(path))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise StoreError(
            f"{path}: must be JSON as ablate writes it, and it is not: ablate doctor says what to do"
        ) from None


def write(path: Path, record: BaseModel, *, durable: bool = True) -> None:
    """Write a record whole or not at all; for `durable` see `files.write`."""
    files.write_json(path, plain(record), durable=durable)


def lines(path: Path, kind: type[R]) -> list[R]:
    """Return the lines of a file up to the first that is torn or damaged; empty where there is no file."""
    try:
        content = files.read(path)
    except FileNotFoundError:
        return []
    records: list[R] = []
    for part in content.split(b"\n")[:-1]:
        try:
            records.append(kind.model_validate_json(part))
        except ValidationError:
            break
    return records


def append(path: Path, record: BaseModel) -> None:
    """Append a line, dropping a torn one before it."""
    files.append(path, plain(record))


def plain(record: BaseModel) -> files.Json:
    """Return a record as it is written: the keys that it was made with."""
    return record.model_dump(exclude_unset=True)


# Checking

_KINDS: Mapping[str, TypeAdapter[Any]] = {
    "recipe.json": TypeAdapter(JobRecipe), "attempts.jsonl": TypeAdapter(Attempt),
    "journal.jsonl": TypeAdapter(Epoch), "result.json": TypeAdapter(Result),
    "outcome.json": TypeAdapter(Evaluation), "failure.json": TypeAdapter(Failure),
    "search.json": TypeAdapter(Search), "trials.json": TypeAdapter(Trials),
    "range.json": TypeAdapter(RangeTest), "curve.json": TypeAdapter(SeedCurve), "suggestion.json": SUGGESTION,
    "study.json": TypeAdapter(KeptStudy), "settled.json": TypeAdapter(Settled),
    "meta.json": TypeAdapter(ImageSet),
}  # fmt: skip
"""The type of a file, by its name; of each of its lines, where it is one of lines."""
_LINE, _ANY = TypeAdapter(dict[str, Any]), TypeAdapter(Any)


def complaint(name: str, content: bytes) -> str:
    """Return what is wrong with a file of this name, or with one of its lines; empty where nothing is."""
    default = _LINE if name.endswith(".jsonl") else _ANY
    try:
        kind = _KINDS.get("curve.json" if name.startswith("curve-") else name, default)
        record = kind.validate_json(content)
        if isinstance(record, SeedCurve):
            record.curve()
    except ValidationError as error:
        kinds = [(detail["type"], detail["loc"]) for detail in error.errors()]
        if any(kind == "json_invalid" for kind, _ in kinds):
            return "is no JSON"
        missing = [str(place[0]) for kind, place in kinds if kind == "missing" and len(place) == 1]
        return f"has no {', '.join(missing)}" if missing else "is not what ablate writes there"
    except (ValueError, AssertionError):  # of a curve
        return "is not what ablate writes there"
    return ""
