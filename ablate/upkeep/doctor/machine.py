"""Whether this machine can work in the store: room, locks, versions, processors."""

import errno
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement  # MLflow, Optuna and Plotly all bring it
from packaging.specifiers import SpecifierSet

from ablate import hardware
from ablate.execution.executors import devices
from ablate.upkeep.doctor.finding import Finding, Patient

DISTRIBUTION = "ablate-studies"
LEAST_FREE = 100_000_000
"""Bytes below which a store is as good as full: reports, artifacts and MLflow's database grow, too."""
STATE = 4
"""A checkpoint holds about so many times the bytes of the weights: those, the best ones, and two moments of the optimizer."""


def writable(patient: Patient) -> Iterator[Finding]:
    """The store can be written to, and locks on its file system keep processes apart."""
    folder = patient.store.path
    try:
        with (
            tempfile.NamedTemporaryFile(prefix=".doctor.", suffix=f".{os.getpid()}", dir=folder) as file,
            Path(file.name).open("rb") as other,
        ):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            yield Finding(
                "locks",
                "problem",
                "a lock on this file system keeps nobody out",
                "put the store on another with --store DIR",
            )
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            says = (
                f"you may read this store and not write to it ({error.strerror}): all that looks works, "
                "and nothing can be run in it"
            )
            yield Finding("locks", "note", says)
            return
        says = (
            f"cannot be written to, or has no locks ({error.strerror}): it can be read, and nothing can "
            "be run in it"
        )
        yield Finding(
            "locks",
            "problem",
            says,
            "check its permissions and how its disk is mounted, or name another with --store DIR",
        )


def room(patient: Patient) -> Iterator[Finding]:
    """There is room for the next checkpoints of as many jobs as run at once."""
    free, slots = shutil.disk_usage(patient.store.path).free, len(devices.slots("auto", None))
    sizes = {
        name: max((_size(path / name) for path in patient.jobs), default=0)
        for name in ("checkpoint.pt", "last.pt")
    }
    one = sizes["checkpoint.pt"] or STATE * sizes["last.pt"]
    wanted = 3 * one * slots  # the one before it is kept, and both stay until the new one is whole
    if free < max(LEAST_FREE, wanted):
        says = (
            f"{free / 1e6:.0f} MB are free, and {slots} jobs at once want "
            f"{max(LEAST_FREE, wanted) / 1e6:.0f} MB"
        )
        yield Finding(
            "room",
            "problem",
            says,
            f"make room there; {patient.command('gc', '--dry-run')} shows what nothing needs",
        )
    else:
        yield Finding(
            "room",
            "ok",
            f"{free / 1e9:.1f} GB are free; {slots} jobs at once want {wanted / 1e6:.0f} MB for their "
            "checkpoints",
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def versions(_patient: Patient) -> Iterator[Finding]:
    """Python and the packages are as new as they must be. Nothing is imported for it."""
    try:
        asked = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
        python = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        says = f"{DISTRIBUTION} is not installed, so nobody knows which versions it needs"
        yield Finding("versions", "note", says, "python -m pip install -c constraints.txt -e .")
        return
    said = [f"python {platform.python_version()}"]
    if not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        yield Finding(
            "versions",
            "problem",
            f"python {platform.python_version()} must be {python}",
            "install ablate with a newer Python",
        )
    for one in asked:
        optional = one.marker is not None and not one.marker.evaluate({"extra": ""})
        found = _version(one.name)
        install = f'python -m pip install "{one.name}{one.specifier}"'
        if found is None:
            if not optional:
                yield Finding(
                    "versions",
                    "problem",
                    f"{one.name} is not installed, and must be {one.specifier}",
                    install,
                )
        elif not one.specifier.contains(found, prereleases=True):
            yield Finding(
                "versions",
                "note" if optional else "problem",
                f"{one.name} {found} must be {one.specifier}",
                install,
            )
        elif not optional:
            said.append(f"{one.name} {found}")
    yield Finding("versions", "ok", ", ".join(said))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def device(_patient: Patient) -> Iterator[Finding]:
    """What jobs would run on here."""
    slots, precision = devices.slots("auto", None), hardware.precision("auto")
    gpus = sorted({slot.name for slot in slots if slot.device == "cuda"})
    what = f"{len(gpus)} GPUs ({', '.join(gpus)})" if gpus else f"no GPU, {hardware.cores()} CPU cores"
    yield Finding("device", "ok", f'{what}; precision "auto" is {precision}')
    if not gpus and shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        yield Finding(
            "device",
            "note",
            "nvidia-smi is there and lists no GPU",
            "run nvidia-smi, and look at CUDA_VISIBLE_DEVICES",
        )
