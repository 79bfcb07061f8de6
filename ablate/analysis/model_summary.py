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

    One job's file is read for all that share recipe and images; the last seeds' first, as earlier versions
    recorded no layers.
    """
    cells = {outcome.run.cell.id: outcome.run.cell for outcome in outcomes}
    keys = {identity: _key(cell) for identity, cell in cells.items()}
    networks: dict[object, Network] = {}
    for outcome in reversed(outcomes):
        key = keys[outcome.run.cell.id]
        if outcome.trained and key not in networks:
            network = records.read_or_empty(store.job(outcome.run.job_id).model, Network)
            if network.layers:
                networks[key] = network
    labels: dict[tuple[str, Network], list[str]] = {}
    for identity, cell in cells.items():
        if (key := keys[identity]) in networks:
            labels.setdefault((cell.recipe.model.name, networks[key]), []).append(cell.label)
    return tuple(ModelSummary(name, tuple(those), network) for (name, network), those in labels.items())


def _key(cell: Cell) -> object:
    """Return what decides on the layers; code of one's own is the same in all of a study."""
    return cell.recipe.model, cell.recipe.data
