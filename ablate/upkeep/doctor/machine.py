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

from ablate import gpus, hardware
from ablate.execution import preflight
from ablate.execution.executors import devices
from ablate.messages import count
from ablate.upkeep.doctor.finding import Finding, Patient

DISTRIBUTION = "ablate-studies"
LEAST_FREE = 100_000_000
"""Free bytes below which a store counts as full: reports, artifacts and MLflow's database grow, too."""
STATE = 4
"""Size of a checkpoint, in sizes of the weights: those, the best ones, and two moments of the optimizer."""


def writable(patient: Patient) -> Iterator[Finding]:
    """Check that the store can be written to, and that locks on its file system keep processes apart."""
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
            says = "a lock on this file system keeps nobody out"
            yield Finding("locks", "problem", says, "put the store on another with --store DIR")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            says = (
                f"you may read this store and not write to it ({error.strerror}): "
                "commands that only read work, and nothing can be run in it"
            )
            yield Finding("locks", "note", says)
            return
        says = (
            f"cannot be written to, or has no locks ({error.strerror}): "
            "it can be read, and nothing can be run in it"
        )
        do = "check its permissions and how its disk is mounted, or name another with --store DIR"
        yield Finding("locks", "problem", says, do)


def room(patient: Patient) -> Iterator[Finding]:
    """Check that there is room for the next checkpoints of as many jobs as run at once."""
    free, slots = (
        shutil.disk_usage(patient.store.path).free,
        len(devices.slots("cpu" if gpus.survey().trouble else "auto", None)),
    )
    sizes = {
        name: max((_size(path / name) for path in patient.jobs), default=0)
        for name in ("checkpoint.pt", "last.pt")
    }
    checkpoint = sizes["checkpoint.pt"] or STATE * sizes["last.pt"]
    wanted = 3 * checkpoint * slots  # the previous one is kept, and both stay until the new one is whole
    least = max(LEAST_FREE, wanted)
    if free < least:
        says = f"{free / 1e6:.0f} MB are free, and {slots} jobs at once want {least / 1e6:.0f} MB"
        do = f"make room there; {patient.command('gc', '--dry-run')} shows what nothing needs"
        yield Finding("room", "problem", says, do)
    else:
        want = f"{slots} jobs at once want {wanted / 1e6:.0f} MB for their checkpoints"
        yield Finding("room", "ok", f"{free / 1e9:.1f} GB are free; {want}")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def versions(_patient: Patient) -> Iterator[Finding]:
    """Check the versions of Python and of the packages, without an import."""
    try:
        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
        python = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        says = f"{DISTRIBUTION} is not installed, so the versions that it needs are unknown"
        yield Finding("versions", "note", says, "python -m pip install -c constraints.txt -e .")
        return
    fine = [f"python {platform.python_version()}"]
    if not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        says = f"python {platform.python_version()} must be {python}"
        yield Finding("versions", "problem", says, "install ablate with a newer Python")
    for package in requirements:
        is_optional = package.marker is not None and not package.marker.evaluate({"extra": ""})
        version = _version(package.name)
        install = f'python -m pip install "{package.name}{package.specifier}"'
        if version is None:
            if not is_optional:
                says = f"{package.name} is not installed, and must be {package.specifier}"
                yield Finding("versions", "problem", says, install)
        elif not package.specifier.contains(version, prereleases=True):
            says = f"{package.name} {version} must be {package.specifier}"
            yield Finding("versions", "note" if is_optional else "problem", says, install)
        elif not is_optional:
            fine.append(f"{package.name} {version}")
    yield Finding("versions", "ok", ", ".join(fine))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def device(_patient: Patient) -> Iterator[Finding]:
    """Report the devices that jobs would run on here."""
    survey, cores = gpus.survey(), count(hardware.cores(), "CPU core")
    if survey.trouble:
        do = "mend that, or use --device cpu"
        yield Finding("device", "problem", f"{gpus.UNUSABLE}: {survey.trouble}", do)
    listed = ", ".join(f"{gpu.model}, {gpu.memory / 1e9:.0f} GB" for gpu in survey.gpus)
    what = f"{count(len(survey.gpus), 'GPU')} ({listed})" if survey.gpus else f"no GPU, {cores}"
    if not survey.trouble:
        yield Finding("device", "ok", f'{what}; precision "auto" is {hardware.precision("auto")}')
    for note in hardware.notes("auto"):
        yield Finding("device", "note", note)
    for gpu, wrong in preflight.examine([gpu.name for gpu in survey.gpus]).items():
        yield Finding("device", "problem", f"{gpu}: {wrong}", "mend that, or use --device cpu")
