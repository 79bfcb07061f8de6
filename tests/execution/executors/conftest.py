"""A cluster of Slurm, shared by all tests of a process."""

import tempfile
from pathlib import Path

import calls
import pytest
import slurm_cluster

from ablate.execution.executors.slurm_elements import Elements


@pytest.fixture(scope="session")
def whole_cluster():
    """Start a cluster of two nodes; a short path, as there are Unix sockets in it."""
    if reason := slurm_cluster.lacking():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        started = slurm_cluster.start(Path(folder))
        yield started
        started.close()


@pytest.fixture
def cluster(whole_cluster, monkeypatch):
    """Return the cluster with all nodes idle, and let this process submit to it."""
    for name, value in whole_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # of agents, which import jobs.py
    monkeypatch.setattr(Elements, "every", 1.0)
    monkeypatch.setattr(calls, "DEADLINE", 180.0)  # to lose a node, or all of a minute, takes long
    whole_cluster.heal()
    return whole_cluster
