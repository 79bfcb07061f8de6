"""What MLflow shows, compared with what the store has: nothing is changed in either."""

from collections.abc import Iterator, Sequence

from ablate.messages import count
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking.addresses import own
from ablate.tracking.agreement import has_all, latest, params
from ablate.tracking.experiment import shown
from ablate.tracking.records import Record, Source
from ablate.tracking.sent import LAYOUT, Sent

NAMED = 3  # runs named in one sentence


def compare(address: str, study: Study, sources: Sequence[Source], store: Store) -> list[str]:
    """Return the differences between MLflow and the store, in sentences.

    Compared are the runs, their status, their params and their last metrics. A store without a database of
    its own has nothing to compare. Raises what MLflow raises, and a MovedError where the database was made
    for another path.
    """
    if address == own(store) and not store.database.exists():
        return []
    there = shown(address, study, store)
    wrong: dict[str, list[str]] = {}
    for source in sources:
        for record in source.records(closing=True, is_done=lambda *_: False):
            for difference in _differences(record, there.get(record.key)):
                wrong.setdefault(difference, []).append(record.name)
    return [f"{what}: {count(len(names), 'run')} ({_some(names)})" for what, names in wrong.items()]


def _differences(record: Record, run: Sent | None) -> Iterator[str]:
    if run is None:
        yield "missing in MLflow"
        return
    status, state = run.status, record.state
    if status != state.status:
        idle = "RUNNING in MLflow, and trained by no process"
        yield idle if status == "RUNNING" else f"{status} in MLflow, and {state.status} here"
    if run.tags.get("ablate.layout") != LAYOUT:
        yield "shown by MLflow as an older version of ablate did"
        return
    if any(run.params.get(name) != value for name, value in params(record).items()):
        yield "other params in MLflow"
    if not has_all(latest(record), run.metrics):
        yield "other metrics in MLflow than in the journals"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
