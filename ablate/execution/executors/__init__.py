"""Where jobs run. An executor places tasks and reports events about them; it decides nothing.

EXECUTORS lists all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from ablate.errors import AblateError
from ablate.execution.executors import devices, slurm_elements
from ablate.execution.executors.base import Executor, Options, Program
from ablate.hardware import Resources


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run jobs."""

    start: Callable[[Program, Options], Executor]  # imports the class late
    resources: Callable[[Options], Resources]  # the same that the executor answers, without starting anything
    options: tuple[str, ...]  # the names of the Options that it understands; any other is a user's mistake
    needs: str = ""  # the module that must be installed
    install: str = ""  # how to install it
    notices: Callable[[Options], tuple[str, ...]] = lambda _: ()  # what a user should know before jobs run


def _start_local(program: Program, options: Options) -> Executor:
    from ablate.execution.executors.local import LocalExecutor

    return LocalExecutor(program.function, devices.slots_of(options), program.preload, program.preflight)


def _start_slurm(program: Program, options: Options) -> Executor:
    from ablate.execution.executors.slurm import SlurmExecutor

    return SlurmExecutor(
        program, slurm_elements.array(options),
        detach=options.detach, leaves=options.leaves, notice=options.notice,
    )  # fmt: skip


EXECUTORS: dict[str, Row] = {
    "local": Row(
        start=_start_local,
        resources=lambda options: devices.resources(devices.slots_of(options)),
        options=("device", "jobs", "jobs_per_gpu", "threads", "devices", "most"),
        notices=devices.notices,
    ),
    "slurm": Row(
        start=_start_slurm,
        resources=lambda options: slurm_elements.array(options).resources,
        options=("device", "jobs", "jobs_per_gpu", "threads", "most", "folder", "slurm", "detach"),
    ),
}


def resources(name: str, options: Options) -> Resources:
    """Return what an executor would have to run jobs on, without starting it.

    Raises an AblateError where it has nothing.
    """
    return _row(name, options).resources(options)


def notices(name: str, options: Options) -> tuple[str, ...]:
    """Return what a user should know of the places where jobs will run."""
    return _row(name, options).notices(options)


def start(name: str, program: Program, options: Options) -> Executor:
    """Start an executor."""
    return _row(name, options).start(program, options)


def _row(name: str, options: Options) -> Row:
    """Return an executor's row; raise an AblateError unless it is installed and understands the options."""
    if name not in EXECUTORS:
        raise AblateError(f"--executor must be one of {', '.join(EXECUTORS)}, got {name}")
    row = EXECUTORS[name]
    if row.needs and find_spec(row.needs) is None:
        raise AblateError(f"--executor {name} needs {row.needs}: {row.install}")
    usual = Options()
    for option in ("device", "jobs", "jobs_per_gpu", "slurm", "detach"):
        if option not in row.options and getattr(options, option) != getattr(usual, option):
            raise AblateError(f"--executor {name} does not know --{option.replace('_', '-')}: leave it out")
    return row
