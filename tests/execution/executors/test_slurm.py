"""The executor of Slurm keeps the contract, on two real nodes; and what only a cluster can do."""

import pytest
from contract import Contract
from promises import ALL

from ablate.execution.executors.base import Executor, Program, Slot
from ablate.execution.executors.slurm import SlurmExecutor
from ablate.execution.executors.slurm_elements import Array

pytestmark = pytest.mark.slow


class TestSlurmExecutor(Contract):
    """Slots are elements of arrays: their names are Slurm's, and each has its own memory."""

    promises = ALL - {"names", "environment", "memory"}

    @pytest.fixture(autouse=True)
    def _on_the_cluster(self, cluster, tmp_path) -> None:
        self.folder = tmp_path / "mailbox"
        self.number = 0

    def build(self, slots: tuple[Slot, ...]) -> Executor:
        self.number += 1
        array = Array(self.folder.with_name(f"mailbox {self.number}"), "cpu", "fp32", jobs=len(slots))
        return SlurmExecutor(Program("jobs:run"), array)
