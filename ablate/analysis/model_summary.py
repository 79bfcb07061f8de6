"""The different networks of a study, layer by layer, as their trainings have recorded them."""

from dataclasses import dataclass

from ablate.analysis.outcomes import Outcome
from ablate.store import records
from ablate.store.layout import Store
from ablate.store.network import Network
from ablate.study.grid import Cell


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A network, and the cells that train it."""

    name: str
    cells: tuple[str, ...]  # their labels
    network: Network


def read(outcomes: tuple[Outcome, ...], store: Store) -> tuple[ModelSummary, ...]:
    """Return each different network whose layers are known, that of the first cell first.

    One job's file is read for all that share recipe and images; of a cell that of its last trained seed, as
    earlier versions recorded no layers.
    """
    trained: dict[tuple[str, Network], dict[str, None]] = {}  # the labels of each network's cells
    of_key: dict[object, dict[str, None]] = {}  # the same
    cells = {outcome.run.cell.id: outcome.run.cell for outcome in outcomes}
    keys = {identity: _key(cell) for identity, cell in cells.items()}
    last = {outcome.run.cell.id: outcome for outcome in outcomes if outcome.trained}
    for identity, outcome in last.items():
        cell, key = cells[identity], keys[identity]
        if key not in of_key:
            network = records.read_or_empty(store.job(outcome.run.job_id).model, Network)
            if network.layers:
                of_key[key] = trained.setdefault((cell.recipe.model.name, network), {})
    for identity, cell in cells.items():
        if (key := keys[identity]) in of_key:
            of_key[key][cell.label] = None
    return tuple(ModelSummary(name, tuple(labels), network) for (name, network), labels in trained.items())


def _key(cell: Cell) -> object:
    """Return what decides on the layers; code of one's own is the same in all of a study."""
    return cell.recipe.model, cell.recipe.data
