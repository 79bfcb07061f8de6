"""The different networks of a study, layer by layer, as their trainings have recorded them."""

from dataclasses import dataclass

from ablate.analysis.outcomes import Outcome
from ablate.store import records
from ablate.store.layout import Store
from ablate.store.network import Network


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A network, and the cells that train it."""

    name: str
    cells: tuple[str, ...]  # their labels
    network: Network


def read(outcomes: tuple[Outcome, ...], store: Store) -> tuple[ModelSummary, ...]:
    """Return each different network whose layers are known, that of the first cell first.

    One job's file is read for all that share recipe and images; another one only where that was written by an
    earlier version, which recorded no layers.
    """
    cells: dict[tuple[str, Network], dict[str, None]] = {}
    of_recipe: dict[object, dict[str, None]] = {}  # the same cells
    for outcome in outcomes:
        recipe, key = outcome.run.cell.recipe, _key(outcome)
        if key not in of_recipe and outcome.trained:
            network = records.read_or_empty(store.job(outcome.run.job_id).model, Network)
            if network.layers:
                of_recipe[key] = cells.setdefault((recipe.model.name, network), {})
    for outcome in outcomes:
        if (key := _key(outcome)) in of_recipe:
            of_recipe[key][outcome.run.cell.label] = None
    return tuple(ModelSummary(name, tuple(labels), network) for (name, network), labels in cells.items())


def _key(outcome: Outcome) -> object:
    """Return what decides on the layers; code of one's own is the same in all of a study."""
    return outcome.run.cell.recipe.model, outcome.run.cell.recipe.data
