"""Where jobs run. An executor places tasks and reports events about them; it decides nothing.

EXECUTORS lists all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    # Begins with what a start waits for longest, in the background, while there is something else to do;
    # returns what ends that, where nothing has started after all.
    warm: Callable[[Program, str], Callable[[], None]] = lambda _program, _device: _nothing
    form: str = ""  # of an address that may follow its name, such as HOST:PORT after cloud://


def _start_local(program: Program, options: Options) -> Executor:
    from ablate.execution.executors.local import LocalExecutor

    return LocalExecutor(program.function, devices.slots_of(options), program.preload, program.preflight)


def _warm_local(program: Program, device: str) -> Callable[[], None]:
    from ablate.execution.executors import server

    server.preload(program.function, program.preload)
    return server.cool if server.warm(server.environment(device)) else _nothing


def _nothing() -> None:
    """Nothing was begun."""


def _start_slurm(program: Program, options: Options) -> Executor:
    from ablate.execution.executors.slurm import SlurmExecutor

    return SlurmExecutor(
        program, slurm_elements.array(options),
        detach=options.detach, leaves=options.leaves, notice=options.notice,
    )  # fmt: skip


def _start_ray(program: Program, options: Options) -> Executor:
    from ablate.execution.executors import ray_cluster
    from ablate.execution.executors.ray import RayExecutor

    ray_cluster.connect(options.address)
    return RayExecutor(program, *ray_cluster.ready(options))


def _ray_resources(options: Options) -> Resources:
    from ablate.execution.executors import ray_cluster

    ray_cluster.connect(options.address)
    return ray_cluster.resources(*ray_cluster.ready(options), shares_store=True)


EXECUTORS: dict[str, Row] = {
    "local": Row(
        start=_start_local,
        resources=lambda options: devices.resources(devices.slots_of(options)),
        options=("device", "jobs", "jobs_per_gpu", "threads", "devices", "most"),
        notices=devices.notices,
        warm=_warm_local,
    ),
    "slurm": Row(
        start=_start_slurm,
        resources=lambda options: slurm_elements.array(options).resources,
        options=("device", "jobs", "jobs_per_gpu", "threads", "most", "folder", "slurm", "detach"),
    ),
    "ray": Row(
        start=_start_ray,
        resources=_ray_resources,
        options=("device", "jobs", "jobs_per_gpu", "threads", "devices", "most", "address"),
        needs="ray",
        install='pip install "ablate-studies[ray]"',
        form="HOST:PORT",
    ),
}


def resources(name: str, options: Options) -> Resources:
    """Return what an executor would have to run jobs on, without starting it.

    Raises an AblateError where it has nothing.
    """
    row, options = _resolve(name, options)
    return row.resources(options)


def notices(name: str, options: Options) -> tuple[str, ...]:
    """Return what a user should know of the places where jobs will run."""
    row, options = _resolve(name, options)
    return row.notices(options)


def warm(name: str, program: Program, device: str) -> Callable[[], None]:
    """Begin with what a start of an executor on a kind of device waits for, if it can be begun before.

    Returns what ends that, for the case that it does not start after all.
    """
    return EXECUTORS[name.partition("://")[0]].warm(program, device)


def start(name: str, program: Program, options: Options) -> Executor:
    """Start an executor."""
    row, options = _resolve(name, options)
    return row.start(program, options)


def check(name: str) -> str:
    """Return what a user has named as an executor; raise an AblateError where there is none of that name."""
    kind, separator, address = name.partition("://")
    if kind in EXECUTORS and bool(separator) == bool(address) and (not address or EXECUTORS[kind].form):
        return name
    raise AblateError(f"--executor must be one of {', '.join(names())}, got {name}")


def names() -> tuple[str, ...]:
    """Return what may be named as an executor, each with the form of its address."""
    addressed = (f"{name}://{row.form}" for name, row in EXECUTORS.items() if row.form)
    return (*EXECUTORS, *addressed)


def _resolve(name: str, options: Options) -> tuple[Row, Options]:
    """Return an executor's row, and the options with its address.

    Raises an AblateError unless it is installed and understands the options.
    """
    name, _, address = check(name).partition("://")
    row = EXECUTORS[name]
    if row.needs and find_spec(row.needs) is None:
        raise AblateError(f"--executor {name} needs {row.needs}: {row.install}")
    usual = Options()
    for option in ("device", "jobs", "jobs_per_gpu", "slurm", "detach"):
        if option not in row.options and getattr(options, option) != getattr(usual, option):
            raise AblateError(f"--executor {name} does not know --{option.replace('_', '-')}: leave it out")
    return row, replace(options, address=address)
