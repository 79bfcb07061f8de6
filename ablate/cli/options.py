"""Options and arguments that several commands share, and what is made of them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablate.errors import AblateError
from ablate.execution import executors
from ablate.study.head import MOST_SEEDS

if TYPE_CHECKING:
    from ablate.execution.options import How, Where
    from ablate.store.layout import Store
    from ablate.study.file import Study

STUDY = click.argument("study", metavar="STUDY")
SET = click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE",
    help="Change the study: training.epochs=3, seeds=2. Recorded.",
)  # fmt: skip
STORE = click.option(
    "--store", "store_path", show_default="mlruns", metavar="DIR", envvar="ABLATE_STORE",
    callback=lambda context, _option, value: _store(context, value), help="Folder of all results.",
)  # fmt: skip
URI = click.option(
    "--tracking-uri", metavar="URI",
    help="An MLflow server, instead of MLFLOW_TRACKING_URI or the store's own SQLite file.",
)  # fmt: skip
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where to compute.",
)  # fmt: skip
JOBS = click.option(
    "--jobs", type=click.IntRange(1, 1024), metavar="N",
    help="Jobs at a time; by default one a CPU core, or one a GPU.",
)  # fmt: skip
PER_GPU = click.option(
    "--jobs-per-gpu", default="1", show_default=True, metavar="N|auto",
    callback=lambda _context, _option, value: _count_or_auto(value),
    help="Jobs that share a GPU; auto: a probe of the largest tries 1, 2 and 4 (a plan reckons with 1).",
)  # fmt: skip
EXECUTOR = click.option(
    "--executor", default="local", show_default=True, metavar="NAME",
    callback=lambda _context, _option, value: _executor(value),
    help=f"What places the jobs: {', '.join(executors.names())}.",
)  # fmt: skip
SLURM = click.option(
    "--slurm", multiple=True, metavar="OPTIONS",
    help="Options of sbatch, for --executor slurm: partition=gpu,time=2:00:00,gres=gpu:1.",
)  # fmt: skip
OPTUNA = click.option(
    "--optuna-storage", metavar="URL", envvar="ABLATE_OPTUNA_STORAGE", show_envvar=True,
    help="A database for Optuna's memory, instead of files of the store.",
)  # fmt: skip
WAIT = click.option(
    "--wait", is_flag=True, help="Wait for another process that runs this study, instead of ending."
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON; notes and progress go to stderr.")
SEEDS = click.option(
    "--seeds", type=click.IntRange(1, MOST_SEEDS), metavar="N",
    help="So many seeds: those in the store are kept, and a note names those left out. A run remembers it.",
)  # fmt: skip
REPLACE = click.option(
    "--replace", is_flag=True,
    help="Let this file take the place of another one whose study has the same name.",
)  # fmt: skip
ONLY = click.option(
    "--only", metavar="CONDITION", help="Only cells whose recipe meets it: 'model.batch_norm == false'."
)  # fmt: skip
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Read a time such as 90s, 10m or 1h30m."""
    if value is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != value or not total:
        raise click.BadParameter(f"must be a time such as 90s, 10m, 2h or 1h30m, got {value}")
    return total


def training(command: Any) -> Any:
    """Add the options of all that trains: where, and how to go about it."""
    retry = click.option("--retry-failed", is_flag=True, help="Train again what failed before.")
    fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first job that fails.")
    budget = click.option(
        "--budget", metavar="TIME", callback=_seconds,
        help="Start nothing that will not end in this time after the first job has started, such as 2h; "
             "then stop.",
    )  # fmt: skip
    stall = click.option(
        "--stall", metavar="TIME", default="10m", show_default=True, callback=_seconds,
        help="Stop a job that gives no sign of life for so long, and try it once more.",
    )  # fmt: skip
    detach = click.option(
        "--detach", is_flag=True,
        help="With --executor slurm: end once all is submitted; the same command again follows it.",
    )  # fmt: skip
    own = (stall, budget, fail_fast, retry)
    where = (URI, PER_GPU, JOBS, DEVICE, detach, SLURM, EXECUTOR)
    for option in (*own, ONLY, SEEDS, REPLACE, WAIT, OPTUNA, *where):
        command = option(command)
    return command


def _store(context: click.Context, value: str | None) -> str:
    """Return the store's folder: by default the one here, else the one beside the study's file."""
    from ablate.store import layout
    from ablate.workflow import argument

    path = Path(layout.USUAL if value is None else value)
    if value is not None and (not value.strip() or "\0" in value):
        raise click.BadParameter(f"must name a folder, got {value!r}")
    try:
        path = path.expanduser()
    except RuntimeError as error:  # no such user, or none at all
        raise click.BadParameter(f"{value}: {error}: write the whole path") from None
    if path.exists() and not path.is_dir():
        raise click.BadParameter(f"{path} must be a folder, and is a file: choose another with --store DIR")
    study = context.params.get("study")
    if value is None and study and not layout.is_store(path) and argument.is_file(study):
        beside = Path(study).parent / layout.USUAL
        if layout.is_store(beside):
            click.echo(f"the store is {beside}, beside the study: there is none in this folder", err=True)
            return str(beside)
    return str(path)


def load(
    study: str, sets: tuple[str, ...], place: "Store", seeds: int | None = None, *,
    asks: bool = False, reads: bool = False,
) -> "Study":  # fmt: skip
    """Read a STUDY argument, and print its notes on the error stream.

    `asks`: also a note on another study whose name it has; `reads`: also one where there is no store to read.
    """
    from ablate.messages import printable
    from ablate.store import study_folder
    from ablate.workflow import argument

    loaded = argument.load(study, sets, place, seeds)
    is_missing = reads and not place.path.exists() and not loaded.notes
    others = (
        study_folder.taken(place, loaded) if asks else "",
        f"there is no store at {place.path}: --store DIR names one" if is_missing else "",
    )
    for note in filter(None, (*loaded.notes, *others)):
        click.echo(printable(f"note: {note}"), err=True)
    return loaded


def how(only: str | None = None, **options: Any) -> "How":
    """Return how to run: the options of execution."""
    from ablate.execution.options import How
    from ablate.workflow import plan as planning

    return How(only=planning.condition(only), **options)


def where(
    store_path: str,
    tracking_uri: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    jobs_per_gpu: int | None = 1,
    optuna_storage: str | None = None,
    executor: str = "local",
    slurm: tuple[str, ...] = (),
) -> "Where":
    """Return where to run: the store, MLflow, and the machine's devices."""
    from ablate.execution.options import Where
    from ablate.store import layout

    store = layout.open_store(Path(store_path))
    return Where(store, tracking_uri, device, jobs, jobs_per_gpu, optuna_storage, executor, slurm)


def _executor(value: str) -> str:
    """Read the name of an executor, with the address that may follow it."""
    try:
        return executors.check(value)
    except AblateError as error:
        raise click.BadParameter(str(error).removeprefix("--executor ")) from None


def _count_or_auto(value: str) -> int | None:
    """Read a count, or None for auto."""
    if value == "auto":
        return None
    if not value.isdecimal() or not 1 <= int(value) <= 64:
        raise click.BadParameter(f"must be a count from 1 to 64, or auto, got {value}")
    return int(value)
