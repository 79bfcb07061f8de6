"""A Ray cluster of this machine: nodes as `ray start` makes them, on free ports, with GPUs by word alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from ablate.errors import AblateError
from ablate.execution.executors import ray_cluster

# Not by importing it: every worker of the tests would, in a second, for the one that needs it.
NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

FIXED = ("--disable-usage-stats", "--object-store-memory=100000000")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Cluster:
    """Nodes in process groups of their own; nothing is left of them after `close`."""

    def __init__(self, folder: Path, path: str) -> None:
        """Take a folder with a short path, for sockets, and the PYTHONPATH of the nodes."""
        self.folder, self._path, self._port = folder, path, free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.unseen = folder / "unseen"  # by blind nodes
        self.unseen.mkdir()
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._lost = 0

    def add(self, cpus: int, gpus: int, *, blind: bool = False) -> int:
        """Start a node, the first one as the head; return its number.

        A blind one does not see what lies in `unseen`.
        """
        before = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {self.unseen} && exec "$@"', "sh")
        before = before if blind else ()
        where = (
            ("--head", "--include-dashboard=false", f"--port={self._port}", f"--temp-dir={self.folder}")
            if not self.nodes
            else (f"--address={self.address}",)
        )
        command = (
            *before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where, *FIXED,
            f"--num-cpus={cpus}", f"--num-gpus={gpus}",
        )  # fmt: skip
        # Ray would start a Python for each CPU at once, and they are more than there are.
        environment = os.environ | {
            "PYTHONPATH": self._path, "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }  # fmt: skip
        # Tests of `ablate predict` leave the mask that it sets: under it, `ray start` refuses GPUs.
        for name in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES"):
            environment.pop(name, None)
        with (self.folder / f"node-{len(self.nodes)}.log").open("wb") as log:
            keeper = (sys.executable, "-c", DIES_WITH_US, *command)
            self.nodes.append(subprocess.Popen(keeper, stdout=log, stderr=log, env=environment))
        self._wait()
        return len(self.nodes) - 1

    def _wait(self) -> None:
        """Connect, and wait until all nodes are there."""
        end = time.monotonic() + 300
        while not self._is_up(len(self.nodes)):
            is_late = time.monotonic() > end or self.nodes[-1].poll() is not None
            assert not is_late, [log.read_text() for log in self.folder.glob("node-*.log")]
            time.sleep(0.3)

    def _is_up(self, count: int) -> bool:
        import ray

        logs = [(self.folder / f"node-{number}.log").read_text() for number in range(count)]
        if not all("Ray runtime started" in log for log in logs):
            return False

        os.environ["RAY_ADDRESS"] = self.address
        try:
            if not ray.is_initialized():
                ray_cluster.connect("")
        except (OSError, AblateError):
            return False
        return len(ray_cluster.nodes()) >= count - self._lost

    def raylet(self, number: int) -> int:
        """Return the process of a node's raylet."""
        return next(pid for pid in _below(self.nodes[number].pid) if "raylet/raylet" in _command(pid))

    def actors(self) -> list[int]:
        """Return the processes of ours that Ray runs, and their workers."""
        hosts = self.hosts()
        return [*hosts, *(below for pid in hosts for below in _below(pid))]

    def below(self, pid: int) -> list[int]:
        """Return the processes that one of them has started, and itself where it has none yet."""
        return _below(pid) or [pid]

    def hosts(self) -> list[int]:
        """Return the processes of our actors."""
        return [pid for node in self.nodes for pid in _below(node.pid) if "ray::Host" in _command(pid)]

    def lose(self, number: int) -> None:
        """Kill a node's raylet, as a machine that loses its power."""
        self._lost += 1
        os.kill(self.raylet(number), signal.SIGKILL)

    def close(self) -> None:
        import ray

        ray.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
        for node in reversed(self.nodes):
            for pid in (*_below(node.pid), node.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            node.wait(30)


DIES_WITH_US = """
import ctypes, os, signal, subprocess, sys, threading
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: daemons of ray start stay below us
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
def below(pid):
    out = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.split()[2:]
    pairs = list(zip(map(int, out[::2]), map(int, out[1::2])))
    todo, all = [pid], []
    while todo:
        one = todo.pop()
        children = [p for p, parent in pairs if parent == one]
        todo += children
        all += children
    return all
def end(*_):
    for pid in below(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os._exit(1)
signal.signal(signal.SIGTERM, end)
child = subprocess.Popen(sys.argv[1:])
child.wait()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def _below(pid: int) -> list[int]:
    """Return all processes that a process has started, and theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    every, todo = [], [pid]
    while todo:
        above = todo.pop()
        children = [child for child, parent in parents.items() if parent == above]
        every += children
        todo += children
    return every


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
