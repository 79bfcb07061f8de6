"""The contract on a real Ray cluster of two nodes, and what only a cluster can do: lose a node."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import Contract
from ray_nodes import NEEDS_RAY, Cluster

from ablate.execution.executors import ray_cluster
from ablate.execution.executors.base import Program, Slot
from ablate.execution.executors.ray import RayExecutor
from ablate.execution.executors.ray_cluster import Node, Place

pytestmark = [pytest.mark.slow, NEEDS_RAY]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        cluster = Cluster(Path(folder), str(HERE))
        try:
            for _ in range(2):
                cluster.add(4, 4)
            yield cluster
        finally:
            cluster.close()


def lay_out(slots: tuple[Slot, ...], nodes: tuple[Node, ...]) -> tuple[Place, ...]:
    """Return a place for each GPU, by turns on the nodes, and one for each CPU slot, all on the second."""
    first, second = nodes[:2]
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.name, []).append(slot)
    return tuple(
        Place(second.id, second.name, tuple(group), cpus=0.5, gpus=0)
        if group[0].device == "cpu"
        else Place(
            (first, second)[i % 2].id, (first, second)[i % 2].name, tuple(group), cpus=0.5, gpus=1
        )
        for i, group in enumerate(groups.values())
    )  # fmt: skip


@pytest.mark.usefixtures("cluster")
class TestRayExecutor(Contract):
    def build(self, slots: tuple[Slot, ...]) -> RayExecutor:
        return RayExecutor(Program("jobs:run"), lay_out(slots, ray_cluster.nodes()))
