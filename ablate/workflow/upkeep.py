"""`ablate doctor` and `gc`."""

from ablate.execution.options import Where
from ablate.planning.resolve import Resolved
from ablate.upkeep.doctor import Finding
from ablate.upkeep.gc import Item, Removed
from ablate.workflow.tracking import sources_of


def examine(where: Where, *, deep: bool = False) -> "tuple[Finding, ...]":
    """Return what is wrong with a store and its machine. `deep`: read all weights for their checksums."""
    from ablate import tracking
    from ablate.upkeep import doctor

    address = tracking.uri(where.store, where.tracking_uri)

    def compare(resolved: Resolved) -> list[str]:
        return tracking.compare(address, resolved.study, sources_of(resolved, whole=True), where.store)

    server = tracking.public(where.tracking_uri or "")
    return doctor.examine(doctor.Patient(where.store, compare, tracking.public(address), deep, server))


def garbage(where: Where) -> "tuple[Item, ...]":
    """Return what nothing in the store refers to.

    Raises an AblateError where that is unclear, or a command runs there.
    """
    from ablate.planning import references
    from ablate.upkeep import gc as garbages

    needed = references.read(where.store, quick=False)
    garbages.check(where.store, needed)
    garbages.check_idle(where.store)
    return garbages.find(where.store, needed)


def collect(where: Where, shown: "tuple[Item, ...]") -> "Removed":
    """Remove what was shown, as far as it is still garbage, while no study can begin."""
    from ablate.planning import references
    from ablate.upkeep import gc as garbages

    with garbages.alone(where.store, references.read(where.store, quick=False).studies) as studies:
        now = references.read(where.store, quick=False)
        garbages.check(where.store, now)
        agreed = {item.path for item in shown}
        items = [item for item in garbages.find(where.store, now) if item.path in agreed]
        return garbages.remove(items, where.store, studies)
