"""The content of each file of a job, a search and a range test: typed, and checked when it is read.

There is one reader and one writer. A key that this version does not know is left out, as a later version may
have written it; one that an earlier version did not write has a default. Keys are written in this order.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)  # fmt: skip

from ablate.errors import StoreError
from ablate.recipe import chance, range_test
from ablate.recipe.fields import Recipe, Section
from ablate.recipe.range_test import Suggestion
from ablate.store import files
from ablate.store.quantities import Count, Metrics, Number, ResultMetrics, Sha
from ablate.study.head import MOST_SEEDS


class Record(BaseModel):
    """One file, or one line of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


# Of a job


class JobRecipe(Record):
    """recipe.json: what is trained."""

    job: str
    seed: Count
    data: str  # fingerprint of the images
    code: str = ""  # of a network of the user's own, or which weights it starts from
    start: str = ""  # the job whose weights it goes on from
    numerics: Count
    recipe: dict[str, dict[str, Any]]  # as the version that wrote it had it; without root and evaluation

    def parsed(self) -> Recipe:
        """Return the recipe, whose root and evaluation mean nothing.

        Raises a ValueError where this version cannot train it.
        """
        return Recipe.model_validate(self.recipe | {"data": self.recipe["data"] | {"root": ""}})


class Attempt(Record):
    """A line of attempts.jsonl: one execution of a job begins."""

    attempt: Count = 0
    timestamp: Count  # ms
    pid: Count | None = None
    device: str = ""
    study: str = ""


class Epoch(Record):
    """A line of journal.jsonl: one epoch of a training."""

    epoch: Count
    timestamp: Count  # ms
    seconds: Number
    metrics: Metrics


class Result(Record):
    """result.json: the end of a training."""

    status: Literal["finished", "diverged"]
    reason: str
    epochs: Count
    best_epoch: Count = 0
    train_images: Count
    parameters: Count | None = None
    peak_memory: Count | None = None  # bytes, of the attempt that ended it
    timestamp: Count  # ms
    streamed: bool = False
    metrics: ResultMetrics


class Wrong(Record):
    """A test image that was answered wrongly, with high confidence."""

    index: Count
    label: Count
    answer: Count
    confidence: Number


class Evaluation(Record):
    """outcome.json: how a trained network did, evaluated in one way."""

    evaluation: dict[str, Any]
    status: Literal["finished", "at_chance"]  # by the rule of the version that wrote it: see `end`
    reason: str
    timestamp: Count  # ms
    seconds: Number | None = None
    classes: tuple[str, ...] = ()
    metrics: Metrics
    confusion: tuple[tuple[Count, ...], ...] = ()  # [true class][answer]
    calibration: tuple[tuple[Count, Number, Number], ...] = ()
    """A bin each: images, mean confidence, share that was right."""
    wrong: tuple[Wrong, ...] = ()

    @model_validator(mode="after")
    def _square(self) -> Self:
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("a confusion matrix must have a column for each of its rows")
        if self.confusion and self.classes and len(self.confusion) != len(self.classes):
            raise ValueError("a confusion matrix must have a row for each class")
        return self

    def end(self) -> tuple[chance.End, str]:
        """Return whether the network is at chance level, by the rule of this version, and why."""
        return chance.status(self.status, self.reason, self.confusion, self.classes)


class Commit(Record):
    """Of an environment.json: the commit that a job was run from; none outside of git."""

    model_config = ConfigDict(extra="allow")

    commit: str = ""
    dirty: bool = False


class Environment(Record):
    """environment.json: what the last attempt ran on. What it says more is shown as it stands."""

    model_config = ConfigDict(extra="allow")

    data: str = ""  # fingerprint of the images
    git: Commit = Commit()
    user: str = ""


class Failure(Record):
    """failure.json: why the last attempt failed."""

    kind: Literal["error", "crash", "memory", "stall"] = "error"
    error: str
    timestamp: Count  # ms


# Of a search


class Search(Record):
    """search.json: what is searched, and by which rules."""

    label: str
    metric: str
    direction: Literal["max", "min"]
    sampler: str = ""
    pruner: str = ""
    trials: Count
    seeds: tuple[Count, ...]
    space: dict[str, dict[str, Any]]
    started: Count  # ms


class Trial(Section):
    """One trial of trials.json."""

    number: Count
    params: dict[str, Any]
    jobs: dict[Annotated[str, Field(pattern="^[0-9]+$")], Sha] = Field(default_factory=dict)
    value: float | None
    state: Literal["running", "complete", "pruned", "failed", "diverged"]
    proposed: bool = True
    """By the sampler; neither the recipe as it stands nor a point of a grid."""
    started: Count | None = None
    ended: Count | None = None


class Trials(Record):
    """trials.json: every trial of a search."""

    trials: tuple[Trial, ...]


# Of a range test


class Sweep(Record):
    """What a range test varies, and how."""

    low: Number
    high: Number
    steps: Count
    mode: str
    per: str


class RangeTest(Record):
    """range.json: what is tested."""

    label: str
    sweep: Sweep
    seeds: tuple[Count, ...]
    started: Count  # ms


Loss = Number | Literal["nan", "inf", "-inf"]  # a text where it is not finite


class SeedCurve(Record):
    """curve-<seed>.json: the losses of one seed over the rates."""

    rates: tuple[Number, ...]
    losses: tuple[Loss, ...]
    accuracies: tuple[Loss, ...]
    stopped: str
    timestamp: Count = 0  # ms

    @model_validator(mode="after")
    def _even(self) -> Self:
        if not len(self.rates) == len(self.losses) == len(self.accuracies):
            raise ValueError("a curve must have a loss and an accuracy for each rate")
        return self

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


def _named(study: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(study.get("name"), str):
        raise ValueError("a study must have a name")  # noqa: TRY004 (pydantic's)
    return study


class KeptStudy(Record):
    """study.json: a study as it was last run."""

    source: str
    folder: str = ""
    text: str
    study: Annotated[dict[str, Any], AfterValidator(_named)]  # the rest is checked where it becomes a Study


class KeptOrigin(Record):
    """origin.json: the file that a study was last run from, and the seeds that it ever had."""

    file: str
    place: str
    host: str
    seeds: tuple[Count, ...] = ()
    asked_seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] | None = None


class Holder(Record):
    """holder.json: the process that runs a study."""

    pid: Count
    host: str


class Began(Record):
    """began.json: when a study's own run in MLflow began."""

    timestamp: Count | None = None  # ms


class Mark(Record):
    """sent.json: MLflow has all of a study in this state, as long as its database is this one."""

    state: str = ""
    database: tuple[tuple[Count, ...] | None, ...] = ()


class Settled(Record):
    """settled.json: what that run settled."""

    precision: str
    fingerprints: dict[str, str]
    codes: dict[str, str] = Field(default_factory=dict)


class ImageSet(Record):
    """meta.json: a decoded data set."""

    classes: tuple[str, ...]
    train: Count  # images
    test: Count
    channels: Count
    image_size: Count
    mean: tuple[Number, ...]
    std: tuple[Number, ...]
    decoding: tuple[str, ...] = ()


class ImageIndex(Record):
    """A file of data/index: which decoded set a source has become."""

    fingerprint: Sha
    name: str
    root: str | None = None
    image_size: Count


R = TypeVar("R", bound=BaseModel)


def read_or_empty(path: Path, kind: type[R]) -> R:
    """Return a record that no result rests on; without any fields where its file is gone or spoilt."""
    with suppress(FileNotFoundError, StoreError):
        return parse_or_empty(files.read(path), kind)
    return kind()


def parse_or_empty(content: bytes, kind: type[R]) -> R:
    """Return a record of which a file's content was read; without any fields where it is spoilt."""
    with suppress(ValidationError):
        return kind.model_validate_json(content)
    return kind()


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
