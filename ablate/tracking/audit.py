"""What MLflow shows, beside what the store has: nothing is changed in either."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.store import Store
from ablate.study import Study
from ablate.tracking.client import latest, shown
from ablate.tracking.records import Record, Source

NAMED = 3  # runs named in one sentence
LARGEST = 1.7e308  # MLflow keeps infinity as the largest number of its database


def compare(address: str, study: Study, sources: Sequence[Source], store: Store) -> list[str]:
    """Say in sentences what MLflow shows otherwise than the store has it: missing runs, their ends, params, last metrics.

    A store that never had a database of its own has nothing to compare. Raises what MLflow raises, and a MovedError where the
    database was made for another path.
    """
    if address == f"sqlite:///{store.database}" and not store.database.exists():
        return []
    there = shown(address, study, store)
    wrong: dict[str, list[str]] = {}
    for source in sources:
        for record in source.records(closing=True, is_done=lambda _: False):
            for what in _differs(record, there.get(record.key)):
                wrong.setdefault(what, []).append(record.name)
    return [f"{len(names)} runs {what} ({_some(names)})" for what, names in wrong.items()]


def _differs(record: Record, run: Any) -> Iterator[str]:
    if run is None:
        yield "are missing in MLflow"
        return
    status, state = run.info.status, record.state
    if status != state.status:
        idle = status == "RUNNING"
        yield "stand as RUNNING in MLflow, though no process trains them" if idle else f"are {status} in MLflow, and {state.status} here"
    if any(name not in run.data.params or run.data.params[name] != value for name, value in record.params.items()):
        yield "have other params in MLflow"
    if not _agree(latest(record), run.data.metrics):
        yield "have other metrics in MLflow than in the journals"


def _agree(ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    return all(name in theirs and _same(value, theirs[name]) for name, value in ours.items())


def _same(ours: float, theirs: float) -> bool:
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    if math.isinf(ours):
        return abs(theirs) > LARGEST and (ours > 0) == (theirs > 0)
    return math.isclose(ours, theirs, rel_tol=1e-9)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
