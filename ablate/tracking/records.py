"""Journals to plain values: all that MLflow is to show of a run as of now. Knows no mlflow."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, Protocol

from ablate import descriptors, sheets
from ablate.recipe import confusion, metrics
from ablate.recipe import identity as identities
from ablate.store import files, job_folder, records
from ablate.store.job_folder import Folder
from ablate.store.job_state import JobState, state
from ablate.store.layout import Store
from ablate.store.records import Attempt, Epoch, Evaluation, Result
from ablate.study.file import Study
from ablate.study.grid import Cell, Run, evaluation_ids
from ablate.tracking import facts
from ablate.tracking.facts import Images
from ablate.tracking.keys import labels

Kind = Literal["run", "search", "trial", "range"]
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
LONGEST_NAME = 300  # characters of a label or level in a note


@dataclass(frozen=True, slots=True)
class Line:
    """Metrics of one step, and when they were written."""

    step: int
    timestamp: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run: MLflow's status, the word in the tag `ablate.status`, and when it ended, in ms."""

    status: Status
    word: str
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The files of a run that has ended."""

    texts: Mapping[str, str] = field(default_factory=dict)  # by file name
    files: Sequence[tuple[Path, str]] = ()  # each with the folder that it goes into


@dataclass(frozen=True, slots=True)
class Record:
    """One run as MLflow is to show it now."""

    key: str  # identifies it in the experiment
    kind: Kind
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    started: int  # ms
    state: State
    lines: Mapping[str, tuple[Line, ...]]  # by the prefix of their metrics; each tuple only ever grows
    attempts: int = 0  # 0 where a run of its kind has none
    parent: str = ""  # the key of the run that it is nested in
    note: str = ""  # Markdown
    images: Images | None = None  # that it was trained on
    alike: str = ""  # a filter that finds all runs of the same cell, which the note links to
    end: tuple[Line, ...] = ()  # this and the following only of a run that has ended
    artifacts: Callable[[], Artifacts] = Artifacts  # made where they are sent: a comparison needs none


class Source(Protocol):
    """What a store has of one run, or of one run and those nested in it."""

    @property
    def key(self) -> str:
        """The key of its record; nested ones have it before `/trial/`."""

    @property
    def job(self) -> str:
        """The id that `Writer.touch` is called with when this has something new."""

    def records(self, *, closing: bool, is_done: Callable[[str, int], bool]) -> Iterator[Record]:
        """Return its records, a parent before its children; none where it was never started.

        `closing` ends runs that no process trains; what `is_done` holds of, by key and by the time when it
        ended, need not be read again.
        """


@dataclass(frozen=True, slots=True)
class RunSource:
    """One cell under one seed."""

    run: Run
    key: str
    folder: Folder
    outcome: Path
    params: Mapping[str, str]
    store: Store
    metric: str  # of the study

    @property
    def job(self) -> str:
        """The id of the job that it is a view of."""
        return self.run.job_id

    def records(self, *, closing: bool, is_done: Callable[[str, int], bool]) -> Iterator[Record]:
        """Return the record of the journal; results and artifacts only once it has ended."""
        with descriptors.holding(self.folder.path):
            record = self._record(closing=closing, is_done=is_done)
        if record is not None:
            yield record

    def _record(self, *, closing: bool, is_done: Callable[[str, int], bool]) -> Record | None:
        run, standing = self.run, state(self.folder)
        evaluation = records.read(self.outcome / "outcome.json", Evaluation)
        stands = _state(self.folder, standing, evaluation, closing=closing)
        if is_done(self.key, stands.ended):
            return None
        attempts, lines = job_folder.read_attempts(self.folder), job_folder.read_epochs(self.folder)
        started = _started(attempts, lines, stands)
        if started is None:
            return None
        has_ended = stands.status != "RUNNING"
        end = _end(self, lines, standing.result, evaluation) if has_ended else ()
        files = partial(_artifacts, self, lines, standing.result, evaluation) if has_ended else Artifacts
        identity, origin = run.cell.id[: identities.ID_SHOWN], facts.origin(self.folder)
        own = {
            "ablate.cell": run.cell.label,
            "ablate.cell_id": identity,
            "ablate.seed": str(run.seed),
            "ablate.job": run.job_id,
        }
        return Record(
            self.key, "run", run.name, self.params, tags={**own, **origin.tags},
            started=started, state=stands, lines={"": epochs(lines)}, attempts=max(1, len(attempts)),
            images=facts.images(run.cell.recipe.data, origin.data, self.store),
            note=_note(run.cell, run.seed), alike=f"tags.`ablate.cell_id` = '{identity}'", end=end,
            artifacts=files,
        )  # fmt: skip


def tracked(study: Study, runs: tuple[Run, ...], store: Store) -> tuple[RunSource, ...]:
    """Return the source of every run; its params are the varied factors, the seed, and all of its recipe."""
    names = labels([factor.name for factor in study.factors])
    recipe = {cell.id: facts.fields(cell.recipe) for cell in {run.cell.id: run.cell for run in runs}.values()}
    evaluations = evaluation_ids(runs)
    return tuple(
        RunSource(
            run,
            key=f"{run.cell.id[: identities.ID_SHOWN]}/{run.seed}/{run.job_id[: identities.ID_SHOWN]}",
            folder=store.job(run.job_id),
            outcome=store.job(run.job_id).outcome(evaluations[run.cell.id]),
            params=recipe[run.cell.id]
            | {names[name]: level for name, level in run.cell.levels.items()}
            | {"seed": str(run.seed)},
            store=store,
            metric=study.metric,
        )
        for run in runs
    )


def epochs(lines: Sequence[Epoch]) -> tuple[Line, ...]:
    """Return the epochs of a journal, each with the time that it took."""
    return tuple(
        Line(line.epoch, line.timestamp, line.metrics | {"time/epoch_seconds": line.seconds})
        for line in lines
    )


@lru_cache(maxsize=4096)  # levels and cells recur in each run's note
def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text, escaped for Markdown and HTML, on one line, and cut where it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    short = line if len(line) <= longest else f"{line[:longest]}…"
    return "".join(c if c.isalnum() or c in " ," else f"&#{ord(c)};" for c in short)


def _note(cell: Cell, seed: int) -> str:
    items = {
        "cell": cell.label,
        **{f"level of {name}": level for name, level in cell.levels.items()},
        "seed": str(seed),
    }
    return "\n".join(f"- {plain(name)}: {plain(text)}" for name, text in items.items())


def _started(attempts: Sequence[Attempt], lines: Sequence[Epoch], stands: State) -> int | None:
    """Return when a job was begun, in ms; None where it never was.

    A store of an earlier version may have lost its list of attempts in a power cut, and has the rest.
    """
    if attempts:
        return attempts[0].timestamp
    if lines:
        return lines[0].timestamp - round(1000 * lines[0].seconds)
    return stands.ended or None


def last_sign(folder: Folder) -> int:
    """Return when a job last wrote an attempt or an epoch, in ms."""
    attempts, lines = job_folder.read_attempts(folder)[-1:], job_folder.read_epochs(folder)[-1:]
    return max((*(line.timestamp for line in attempts), *(line.timestamp for line in lines)), default=0)


def _state(folder: Folder, standing: JobState, evaluation: Evaluation | None, *, closing: bool) -> State:
    match standing.stage(is_evaluated=evaluation is not None):
        case "diverged" if standing.result:
            return State("FINISHED", "diverged", standing.result.timestamp)
        case "evaluated" if evaluation:
            return State("FINISHED", evaluation.end()[0], evaluation.timestamp)
        case "crashed" if standing.failure:
            return State("FAILED", "crashed", standing.failure.timestamp)
    if standing.is_running or not closing:
        return State("RUNNING", "running")
    return State("KILLED", "stopped", last_sign(folder))


def _end(
    source: RunSource, lines: list[Epoch], result: Result | None, outcome: Evaluation | None
) -> tuple[Line, ...]:
    """Return the last metrics."""
    end: tuple[Line, ...] = ()
    if outcome is not None and result is not None:
        whole = {
            name: value
            for name, value in metrics.with_derived(outcome.metrics, outcome.confusion).items()
            if name == source.metric or not name.startswith(metrics.PER_CLASS)
        }
        whole |= {"time/train_seconds": result.metrics["time/train_seconds"]}
        end = (Line(lines[-1].epoch if lines else 0, outcome.timestamp, whole),)
    if result is not None:  # at step 0: MLflow draws a metric of later steps alone as a curve of one point
        end += (Line(0, result.timestamp, facts.size(source.folder, result)),)
    return end


def _artifacts(
    source: RunSource, lines: list[Epoch], result: Result | None, outcome: Evaluation | None
) -> Artifacts:
    folder, recipe = source.folder, source.run.cell.recipe
    texts: dict[str, str] = {}
    with descriptors.holding(folder.path):
        if outcome is not None and result is not None:
            texts |= {
                "confusion_matrix.csv": _confusion_csv(outcome),
                "per_class_accuracy.csv": _per_class_csv(outcome),
            }
        if lines:
            texts["curves.csv"] = _curves_csv(lines)
        texts["recipe.json"] = json.dumps(recipe.model_dump(mode="json"), indent=1)
        paths = (folder.environment, folder.model, folder.log, *job_folder.artifacts(source.outcome))
        weights = folder.weights(recipe.evaluation.select)
        placed = [(path, "") for path in paths] + ([(weights, "model")] if outcome is not None else [])
        return Artifacts(texts, [(path, to) for path, to in placed if files.is_regular(path)])


def _curves_csv(lines: list[Epoch]) -> str:
    names = sorted({name for line in lines for name in line.metrics})
    rows = ([line.epoch, line.seconds, *(line.metrics.get(name, "") for name in names)] for line in lines)
    return sheets.text([["epoch", "seconds", *names], *rows])


def _confusion_csv(outcome: Evaluation) -> str:
    rows = zip(outcome.classes, outcome.confusion, strict=True)
    return sheets.text(
        [["true class / answer", *outcome.classes], *([name, *counts] for name, counts in rows)]
    )


def _per_class_csv(outcome: Evaluation) -> str:
    rows = []
    for name, scores in zip(outcome.classes, confusion.by_class(outcome.confusion), strict=True):
        accuracy = outcome.metrics.get(metrics.PER_CLASS + name, "")
        rows.append([name, accuracy, *((scores.precision, scores.f1) if scores else ("", ""))])
    return sheets.text([["class", "accuracy", "precision", "f1"], *rows])
