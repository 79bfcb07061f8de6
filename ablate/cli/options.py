"""Options and arguments that several commands share, and what is made of them."""

import re
from pathlib import Path
from typing import Any

import click

STUDY = click.argument("study", metavar="STUDY")
SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: training.epochs=3, seeds=2. Recorded.")
STORE = click.option(
    "--store", "store_path", show_default="mlruns", metavar="DIR", envvar="ABLATE_STORE", help="Folder of all results.",
    callback=lambda context, _option, given: _store(context, given),
)  # fmt: skip
URI = click.option("--tracking-uri", metavar="URI", help="An MLflow server, instead of MLFLOW_TRACKING_URI or the store's own SQLite file.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to train.")
JOBS = click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Jobs at a time; by default one a CPU core, or one a GPU.")
PER_GPU = click.option(
    "--jobs-per-gpu", default="1", show_default=True, metavar="N|auto", callback=lambda _c, _p, given: _count_or_auto(given),
    help="Jobs that share a GPU; auto: a probe with the first job tries 1, 2 and 4.",
)  # fmt: skip
OPTUNA = click.option("--optuna-storage", metavar="URL", help="A database for Optuna's memory, instead of files of the store.")
WAIT = click.option("--wait", is_flag=True, help="Wait for another process that runs this study, instead of ending.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


SEEDS = click.option(
    "--seeds", type=click.IntRange(1, 10_000), metavar="N",
    help="So many seeds, also the next time: those that are there are kept, and what is left out of them is said.",
)  # fmt: skip
REPLACE = click.option("--replace", is_flag=True, help="Let this file take the place of another one whose study has the same name.")
ONLY = click.option("--only", metavar="CONDITION", help="Only cells whose recipe is so: 'model.batch_norm == false'.")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(_context: click.Context, _option: click.Parameter, given: str | None) -> float | None:
    """Read a time such as 90s, 10m or 1h30m."""
    if given is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", given)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != given or not total:
        raise click.BadParameter(f"must be a time such as 90s, 10m, 2h or 1h30m, got {given}")
    return total


def training(command: Any) -> Any:
    """Add the options of all that trains: where, and how to go about it."""
    retry = click.option("--retry-failed", is_flag=True, help="Train again what failed before.")
    fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first job that fails, instead of going on with the others.")
    budget = click.option(
        "--budget", metavar="TIME", callback=_seconds, help="Start nothing that will not end in this time, such as 2h; then stop."
    )
    stall = click.option(
        "--stall", metavar="TIME", default="10m", show_default=True, callback=_seconds,
        help="Stop a job that gives no sign of life for so long, and try it once more.",
    )  # fmt: skip
    for option in (stall, budget, fail_fast, retry, ONLY, SEEDS, REPLACE, WAIT, OPTUNA, URI, PER_GPU, JOBS, DEVICE):
        command = option(command)
    return command


def _store(context: click.Context, given: str | None) -> str:
    """Return the folder of the store: by default the one here, or beside the study's file where only there is one."""
    from ablate.store import layout
    from ablate.workflow import argument

    path = Path(layout.USUAL if given is None else given)
    if given is not None and (not given.strip() or "\0" in given):
        raise click.BadParameter(f"must name a folder, got {given!r}")
    try:
        path = path.expanduser()
    except RuntimeError as error:  # no such user, or none at all
        raise click.BadParameter(f"{given}: {error}: write the whole path") from None
    if path.exists() and not path.is_dir():
        raise click.BadParameter(f"{path} must be a folder, and is a file: choose another with --store DIR")
    study = context.params.get("study")
    if given is None and study and not layout.is_store(path) and argument.is_file(study):
        beside = Path(study).parent / layout.USUAL
        if layout.is_store(beside):
            click.echo(f"the store is {beside}, beside the study: there is none in this folder", err=True)
            return str(beside)
    return str(path)


def load(study: str, sets: tuple[str, ...], place: Any, seeds: int | None = None, *, asks: bool = False, reads: bool = False) -> Any:
    """Read a STUDY argument, and say on the error stream what must be known of it.

    `asks`: also whose place it would take; `reads`: also that there is no store to read.
    """
    from ablate.messages import printable
    from ablate.store import study_folder
    from ablate.workflow import argument

    found = argument.load(study, sets, place, seeds)
    is_missing = reads and not place.path.exists() and not found.notes
    others = (
        study_folder.taken(place, found) if asks else "",
        f"there is no store at {place.path}: --store DIR names one" if is_missing else "",
    )
    for note in filter(None, (*found.notes, *others)):
        click.echo(printable(f"note: {note}"), err=True)
    return found


def how(only: str | None = None, **given: Any) -> Any:
    """Return how to run: the options of execution."""
    from ablate.execution.options import How
    from ablate.workflow import plan as planning

    return How(only=planning.condition(only), **given)


def where(
    store_path: str,
    tracking_uri: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    jobs_per_gpu: int | None = 1,
    optuna_storage: str | None = None,
) -> Any:
    """Return where and how to run."""
    from ablate.execution.options import Where
    from ablate.store import layout

    return Where(layout.open_store(Path(store_path)), tracking_uri, device, jobs, jobs_per_gpu, optuna_storage)


def _count_or_auto(given: str) -> int | None:
    """Read a count, or None for auto."""
    if given == "auto":
        return None
    if not given.isdecimal() or not 1 <= int(given) <= 64:
        raise click.BadParameter(f"must be a count from 1 to 64, or auto, got {given}")
    return int(given)


def console(*, err: bool = False) -> Any:
    """Return what prints to a terminal; `err`: to its error stream, where the output is for programs."""
    from rich.console import Console

    return Console(stderr=err, highlight=False)
