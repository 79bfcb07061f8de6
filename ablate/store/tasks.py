"""Tasks: what an executor is handed, as typed values in memory or as one line of a file.

A task is complete except for its `device`, which only the process that runs it knows.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ablate import descriptors
from ablate.errors import AblateError
from ablate.recipe.fields import Evaluation, Recipe
from ablate.recipe.range_test import Sweep
from ablate.store import files
from ablate.store.files import Json


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Context(_Value):
    """What all tasks of one command share."""

    store: str = ""  # its folder: what lies below is mistrusted in every process
    study: str = ""  # for the line of the attempt
    git: dict[str, Any] = {}  # commit, dirty, diff: see provenance.git
    compile_cache: str = ""  # folder of what torch.compile has compiled
    code: tuple[str, ...] | None = None  # folders to import a user's own network from; None: not allowed
    jobs_a_device: int = 1
    streamed: bool = False  # images stay off a GPU, whatever room there is: the job did not fit beside them


class _Task(_Value):
    context: Context = Context()
    device: str = "cpu"  # cpu or cuda: filled in where the task runs

    def to_json(self) -> Json:
        """Return the task as plain JSON values."""
        return self.model_dump(mode="json")


class TrainTask(_Task):
    """Train a job, unless it is trained, and evaluate it in every way that is missing."""

    kind: Literal["train"] = "train"
    folder: Path  # of the job, with its recipe.json
    job: str  # identity that was planned; the recipe in the folder must have it
    data: Path  # folder of the decoded set
    evaluations: tuple[Evaluation, ...]
    trained: bool = False  # when it was planned
    start: Path | None = None  # the weights that it starts from, of another job

    @property
    def id(self) -> str:
        """The identity of the job."""
        return self.job


class RangeTask(_Task):
    """Measure one curve of a range test: the loss of a recipe under one seed at ever higher rates."""

    kind: Literal["range"] = "range"
    test: str  # identity of the range test
    seed: int
    recipe: Recipe
    sweep: Sweep
    folder: Path  # for log and lock
    curve: Path  # file to write
    data: Path
    code: str = ""  # fingerprint of a user's own network

    @property
    def id(self) -> str:
        """The identity of the range test with the seed."""
        return f"{self.test}/{self.seed}"


class ProbeTask(_Task):
    """Train without keeping anything until asked to stop, to measure speed and memory."""

    kind: Literal["probe"] = "probe"
    number: int = 0
    seed: int
    recipe: Recipe
    data: Path
    log: Path

    @property
    def id(self) -> str:
        """A name that differs among probes that run together."""
        return f"probe-{self.number}"


Task = Annotated[TrainTask | RangeTask | ProbeTask, Field(discriminator="kind")]
_TASK: TypeAdapter[TrainTask | RangeTask | ProbeTask] = TypeAdapter(Task)


def from_json(content: Json) -> TrainTask | RangeTask | ProbeTask:
    """Return the task of these values, as `to_json` writes them. Raises a ValidationError for others."""
    task = _TASK.validate_python(content)
    if task.context.store:
        descriptors.mistrust(Path(task.context.store))
    return task


def write(path: Path, batch: Iterable[TrainTask | RangeTask | ProbeTask]) -> None:
    """Write tasks to a file, one a line: the index of a task is its line number, from 0."""
    files.write(path, "".join(json.dumps(task.to_json()) + "\n" for task in batch))


def read(path: Path, index: int) -> TrainTask | RangeTask | ProbeTask:
    """Return one task of a file. Raises an AblateError where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise AblateError(
            f"{path}: must be a file of tasks as ablate writes it, one a line, and is no text"
        ) from None
    if lines == [""]:
        raise AblateError(f"{path}: has no tasks")
    if not 0 <= index < len(lines):
        there = f"0 to {len(lines) - 1}"
        raise AblateError(f"{path}: has no task {index}: its tasks are {there}")
    try:
        return from_json(json.loads(lines[index]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
    except (ValueError, RecursionError):
        reason = "no JSON"
    raise AblateError(f"{path}: line {index + 1} is no task of this version of ablate ({reason})")
