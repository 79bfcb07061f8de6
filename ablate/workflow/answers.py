"""What the commands answer, as typed values: `--json` prints them, and a service returns the same.

A value that a room has anyway is its own answer: Status, Explained, Compared, Finding. The others are here,
each made from what its workflow returns. Names that a JSON key shares with Python (`from`) end in an
underscore.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.execution.options import Where
from ablate.execution.scheduler import ATTEMPTS, Failure
from ablate.study.file import Study
from ablate.study.grid import Cell
from ablate.workflow.plan import Preview

if TYPE_CHECKING:
    from ablate.analysis.power import Outlook  # brings pandas
    from ablate.planning.tuning import Tuned
    from ablate.recipe.range_test import Suggestion
    from ablate.training.models.summary import Summary  # brings torch
    from ablate.upkeep.gc import Item, Removed
    from ablate.workflow.run import Ran


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell of a plan."""

    cell: str
    levels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Excluded:
    """Cells that are left out, and why."""

    why: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do: `ablate plan`."""

    study: str
    design: str
    cells: tuple[PlannedCell, ...]
    seeds: tuple[int, ...]
    runs: int
    jobs: int
    done: int
    to_train: int
    to_evaluate: int
    waiting_for_weights: int  # of those to train: they start from another cell's
    trained_under_other_numerics: Mapping[int, int]  # jobs by version
    failed: int
    left_out: int
    notes: tuple[str, ...]
    range_tests: int
    range_tests_left: int
    trial_trainings_left: int
    evaluation_only_cells: int
    excluded: tuple[Excluded, ...]
    unused_factors: tuple[str, ...]
    seconds: int | None
    seconds_basis: str | None
    detectable_effect: float | None
    detectable_effect_range: tuple[float, float] | None
    sees_nothing: bool | None
    detectable_effect_basis: str | None
    seeds_for_min_effect: int | None
    networks: "Mapping[str, Summary]"  # by label, where they were asked for


def planned(preview: Preview) -> Planned:
    """Return the answer of `ablate plan`."""
    plan, outlook, study, cost = preview.plan, preview.outlook, preview.plan.study, preview.plan.cost
    return Planned(
        study=study.name,
        design=study.design,
        cells=tuple(PlannedCell(cell.label, cell.levels) for cell in plan.grid.cells),
        seeds=tuple(study.seeds),
        runs=len(plan.runs),
        jobs=len(plan.jobs),
        done=plan.done,
        to_train=plan.trainings,
        to_evaluate=len(plan.work) - plan.trainings,
        waiting_for_weights=plan.waiting,
        trained_under_other_numerics=dict(sorted(plan.renumbered.items())),
        failed=len(plan.failed),
        left_out=plan.left_out,
        notes=tuple(plan.notes),
        range_tests=len(plan.tuning.ranges),
        range_tests_left=len(plan.tuning.open_ranges),
        trial_trainings_left=plan.trials,
        evaluation_only_cells=plan.evaluation_only,
        excluded=tuple(Excluded(exclusion.why, tuple(exclusion.labels)) for exclusion in plan.grid.excluded),
        unused_factors=tuple(plan.grid.unused),
        seconds=None if cost is None else round(cost.seconds / preview.slots),
        seconds_basis=None if cost is None else cost.basis,
        detectable_effect=None if outlook is None else outlook.effect,
        detectable_effect_range=_range(outlook),
        sees_nothing=None if outlook is None else outlook.is_blind,
        detectable_effect_basis=None if outlook is None else outlook.basis,
        seeds_for_min_effect=None if outlook is None else outlook.seeds_for_min_effect,
        networks=preview.networks,
    )


def _range(outlook: "Outlook | None") -> tuple[float, float] | None:
    if outlook is None or outlook.low is None or outlook.high is None:
        return None
    return outlook.low, outlook.high


@dataclass(frozen=True, slots=True)
class TunedCell:
    """What tuning has chosen for a cell."""

    cell: str
    fields: Mapping[str, Any]  # by path; empty where nothing was tuned, or not yet
    pending: bool  # not chosen yet
    trials: int  # that have ended, of its search
    of: int
    repeats: int  # trials that tried what an earlier one had tried


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run or a search ended: `ablate search`, and `ablate run` with the findings beside it."""

    study: str
    tuned: tuple[TunedCell, ...]
    done: int  # jobs
    failures: tuple[Failure, ...]
    failed_before: int  # jobs that were left alone, as --retry-failed was not given
    left_out: int  # jobs of other cells (--only)
    lost_attempts: Mapping[str, int]  # by their end
    interrupted: bool
    stopped: str  # why nothing more was started; empty where all was
    left: int  # pieces of work for which the time of --budget was too short
    mlflow_late: int  # runs that MLflow does not have yet
    mlflow_reason: str
    report: Path


def ended(ran: "Ran") -> Ended:
    """Return the answer of `ablate search`."""
    plan, ledger = ran.plan, ran.ledger
    cells = plan.grid.cells if plan.tuning.cells else ()
    lost = Counter(end for ends in ledger.ends.values() for end in ends if end in ATTEMPTS)
    return Ended(
        study=plan.study.name,
        tuned=tuple(_tuned(cell, plan.tuning.cells.get(cell.label)) for cell in cells),
        done=plan.done,
        failures=tuple(ledger.failures),
        failed_before=len(plan.failed),
        left_out=plan.left_out,
        lost_attempts=dict(lost),
        interrupted=ledger.interrupted,
        stopped=ledger.halted,
        left=ran.left,
        mlflow_late=ran.late,
        mlflow_reason=ran.late_reason,
        report=ran.report,
    )


def _tuned(cell: Cell, tuned: "Tuned | None") -> TunedCell:
    trials, of, repeats = (0, 0, 0) if tuned is None else (tuned.trials, tuned.of, tuned.repeats)
    return TunedCell(cell.label, dict(cell.tuned), bool(cell.pending), trials, of, repeats)


def reported(ran: "Ran") -> dict[str, Any]:
    """Return the answer of `ablate run`: how it ended, and the report's JSON as `findings`."""
    from ablate.report import data  # brings pandas

    return {**plain(ended(ran)), "findings": data.to_json(ran.findings)}


def rates(
    suggested: "Mapping[str, Mapping[str, Suggestion]]",
) -> "dict[str, dict[str, Suggestion | str | None]]":
    """Return the answer of `ablate lr-find`: by cell, what each rule suggests, and the one `taken`."""
    from ablate.recipe import range_test

    answer: dict[str, dict[str, Suggestion | str | None]] = {}
    for label, suggestions in suggested.items():
        best = range_test.best(dict(suggestions))
        answer[label] = {**suggestions, "taken": None if best is None else best.rule}
    return answer


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that could not be removed."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Collected:
    """What no study needs, and what was removed of it: `ablate gc`."""

    items: "tuple[Item, ...]"
    removed: tuple[Path, ...]
    kept: tuple[Kept, ...]


def collected(items: "Sequence[Item]", removed: "Removed") -> Collected:
    """Return the answer of `ablate gc`."""
    kept = tuple(Kept(path, why) for path, why in removed.kept)
    return Collected(tuple(items), tuple(item.path for item in removed.items), kept)


@dataclass(frozen=True, slots=True)
class Synced:
    """What MLflow has of a study: `ablate sync`."""

    study: str
    runs: int
    mlflow: str  # its address, without a password


def synced(study: Study, runs: int, where: Where) -> Synced:
    """Return the answer of `ablate sync`."""
    from ablate import tracking

    return Synced(study.name, runs, tracking.public(tracking.uri(where.store, where.tracking_uri)))


def plain(answer: object) -> Any:
    """Return an answer in JSON's types: text as keys, lists for tuples, null where a number is not finite."""
    match answer:
        case None | bool() | int() | str():
            return answer
        case float():
            return float(answer) if math.isfinite(answer) else None
        case Mapping():
            return {str(key): plain(part) for key, part in answer.items()}
        case list() | tuple():
            return [plain(part) for part in answer]
    if is_dataclass(answer):
        return {field.name.removesuffix("_"): plain(getattr(answer, field.name)) for field in fields(answer)}
    return str(answer)


def text(answer: object) -> str:
    """Return an answer as JSON, with an indent for people; what would command a terminal is escaped."""
    return json.dumps(plain(answer), indent=1, allow_nan=False)


def line(answer: object) -> str:
    """Return an answer as JSON in one line, for a stream of them."""
    return json.dumps(plain(answer), allow_nan=False)
