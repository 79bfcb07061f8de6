"""What a result came from: the commit and its uncommitted changes, versions, and the machine.

Never the environment's variables.
"""

import os
import platform
import pwd
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "ablate-studies",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "pillow",
    "mlflow",
    "optuna",
)
LONGEST_DIFF = 200_000  # characters
DATA_ONLY = (
    # A folder that others write to may be made a repository, and its settings name programs that git starts.
    *("-c", "safe.bareRepository=explicit"),
    *("-c", "core.fsmonitor="),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "diff.external="),
    "--no-pager",
    "--no-optional-locks",
)
"""Options of git by which it reads a repository, and starts no program of its choice."""


def git(folder: Path) -> dict[str, Any]:
    """Describe the repository that a folder lies in; empty where there is none, or no git."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return {}
    diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD") or ""
    cut = diff[:LONGEST_DIFF] + ("\n[cut]" if len(diff) > LONGEST_DIFF else "")
    return {
        "commit": head.strip(),
        "dirty": bool((_git(folder, "status", "--porcelain") or "").strip()),
        "diff": cut,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *DATA_ONLY, *arguments]
    environment = os.environ | {"GIT_NO_LAZY_FETCH": "1"}  # a partial clone would ask its server for the rest
    try:
        done = subprocess.run(  # noqa: S603 (our own arguments)
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30,
            check=False, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    by_package = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_package


def user() -> str:
    """Return the name of the user whose process this is, or the number where a container knows no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
