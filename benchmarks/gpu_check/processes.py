"""Processes: who is below whom, who has a GPU open; commands of ablate, watched while they run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.trainings import STUDY


def descendants(pid: int) -> list[int]:
    """List the processes below one, nearest first."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if after[0] != "Z":
            parents[int(path.parent.name)] = int(after[1])
    below, level = [], [pid]
    while level:
        level = sorted(child for child, parent in parents.items() if parent in level)
        below += level
    return below


def workers(pid: int) -> list[int]:
    """List the workers of a coordinator: the children of its children."""
    parents = {child: _parent(child) for child in descendants(pid)}
    return [child for child, parent in parents.items() if parents.get(parent) == pid]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def has_gpu(pid: int) -> bool:
    """Whether a process has a GPU open."""
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if str(path.readlink()).startswith("/dev/nvidia"):
                return True
        except OSError:
            continue
    return False


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def study(folder: Path, epochs: int = 2, side: int = 32) -> Path:
    """Write a small study."""
    path = folder / "small.toml"
    path.write_text(STUDY.replace("EPOCHS", str(epochs)).replace("SIDE", str(side)))
    return path


def ablate(*words: object, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *map(str, words)], text=True, env=os.environ | (environment or {}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def watched(process: "subprocess.Popen[str]", look: Callable[[int], None]) -> tuple[int, str]:
    """Look at a command every quarter of a second until it ends; return its exit code and what it printed."""
    while process.poll() is None:
        look(process.pid)
        time.sleep(0.25)
    out, err = process.communicate()
    return process.returncode, out + err


def doctor(folder: Path, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings of `ablate doctor`."""
    process = ablate("doctor", "--json", "--store", folder / "none", environment=environment)
    out, err = process.communicate()
    try:
        return process.returncode, json.loads(out)
    except ValueError:
        return process.returncode, [{"check": "device", "severity": "problem", "says": err.strip()}]
