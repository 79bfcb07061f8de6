"""The commands: options to one workflow call to an exit code. The only home of click; no logic lives here.

Exit codes: 0 done, 1 some jobs failed (the report is still written) or a claim is refuted, 2 the user's mistake, 3 a claim is
open under `check --strict`, 130 interrupted.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from ablate import __version__
from ablate.errors import AblateError

STUDY = click.argument("study", metavar="STUDY")
SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: training.epochs=3, seeds=2. Recorded.")
STORE = click.option(
    "--store", "store_path", default="mlruns", show_default=True, metavar="DIR", envvar="ABLATE_STORE", help="Folder of all results."
)
URI = click.option("--tracking-uri", metavar="URI", help="An MLflow server, instead of MLFLOW_TRACKING_URI or the store's own SQLite file.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to train.")
JOBS = click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Jobs at a time; by default one a CPU core, or one a GPU.")
PER_GPU = click.option(
    "--jobs-per-gpu", default="1", show_default=True, metavar="N|auto", callback=lambda _c, _p, given: _count_or_auto(given),
    help="Jobs that share a GPU; auto: a probe with the first job tries 1, 2 and 4.",
)  # fmt: skip
OPTUNA = click.option("--optuna-storage", metavar="URL", help="A database for Optuna's memory, instead of files of the store.")
WAIT = click.option("--wait", is_flag=True, help="Wait for another process that runs this study, instead of ending.")
FORMS = ("html", "json", "md", "tex", "csv")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def _places(command: Any) -> Any:
    """Add the options that say where and how to run."""
    retry = click.option("--retry-failed", is_flag=True, help="Train again what failed before.")
    for option in (retry, WAIT, OPTUNA, URI, PER_GPU, JOBS, DEVICE):
        command = option(command)
    return command


class Group(click.Group):
    """Prints the mistakes of users as sentences, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an AblateError, and a path that cannot be used, end with exit code 2, a Ctrl-C with 130."""
        try:
            return super().invoke(ctx)
        except AblateError as error:
            click.echo(str(error), err=True)
            sys.exit(2)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"{error.filename}: cannot be used: {error.strerror}: check the path and its permissions", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; everything that was finished is kept", err=True)
            sys.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ablate")
def main() -> None:
    r"""Find out which of your training choices really help.

    \b
    Example:
      ablate plan studies/quickstart.toml
      ablate run studies/quickstart.toml
      ablate report studies/quickstart.toml
      ablate ui
    """


def _where(
    store_path: str,
    tracking_uri: str | None = None,
    device: str = "auto",
    jobs: int | None = None,
    jobs_per_gpu: int | None = 1,
    optuna_storage: str | None = None,
) -> Any:
    from ablate import stages, store

    return stages.Where(store.open_store(Path(store_path)), tracking_uri, device, jobs, jobs_per_gpu, optuna_storage)


def _count_or_auto(given: str) -> int | None:
    """Read a count, or None for auto."""
    if given == "auto":
        return None
    if not given.isdecimal() or not 1 <= int(given) <= 64:
        raise click.BadParameter(f"must be a count from 1 to 64, or auto, got {given}")
    return int(given)


def _console(*, err: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=err, highlight=False)


@main.command()
@STUDY
@SET
@STORE
@_places
def run(study: str, sets: tuple[str, ...], store_path: str, *, wait: bool, retry_failed: bool, **place: Any) -> None:
    r"""Train every cell of STUDY under every seed, and report.

    Rates are found and fields searched first, where the study asks for it. Only what is missing is trained: running it again
    resumes it, and a second time trains nothing.

    \b
    Example:
      ablate run studies/augmentation.toml
      ablate run studies/augmentation.toml --set seeds=2 --set training.epochs=3 --set model.name=cnn4
    """
    from ablate import display

    where = _where(store_path, **place)
    ran, console = _run(study, sets, where, retry_failed=retry_failed, wait=wait)
    display.show_ran(console, ran)
    sys.exit(130 if ran.ledger.interrupted else 1 if ran.ledger.failures or ran.plan.failed else 0)


def _run(study: str, sets: tuple[str, ...], where: Any, **how: bool) -> tuple[Any, Any]:
    from ablate import display, workflow
    from ablate.interruption import Interruption

    checked, console = workflow.load(study, sets, where.store), _console()
    with Interruption() as interruption:
        return workflow.run(checked, where, display.Terminal(console), interruption, **how), console


@main.command()
@STUDY
@SET
@STORE
@_places
def search(study: str, sets: tuple[str, ...], store_path: str, *, wait: bool, retry_failed: bool, **place: Any) -> None:
    r"""Do the range tests and the searches of STUDY, and nothing else; `ablate run` does them too, before the cells.

    \b
    Example:
      ablate search studies/lr_search.toml
      ablate search studies/lr_search.toml --set search.trials=40
    """
    from ablate import display

    where = _where(store_path, **place)
    ran, console = _run(study, sets, where, retry_failed=retry_failed, wait=wait, tune_only=True)
    display.show_tuned(console, ran)
    sys.exit(130 if ran.ledger.interrupted else 1 if ran.ledger.failures else 0)


@main.command()
@STUDY
@SET
@STORE
@DEVICE
@JOBS
@URI
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="A cell to test, by default the baseline; can be given again.")
@click.option("--low", type=float, default=1e-6, show_default=True, help="The first rate.")
@click.option("--high", type=float, default=10.0, show_default=True, help="The last rate.")
@click.option("--steps", type=click.IntRange(5), default=100, show_default=True, help="How many rates.")
@click.option(
    "--mode", type=click.Choice(["exponential", "linear"]), default="exponential", show_default=True, help="Spacing of the rates."
)
@click.option("--per", type=click.Choice(["batch", "epoch"]), default="batch", show_default=True, help="How long each rate is trained.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Curves; the median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def lr_find(
    study: str, sets: tuple[str, ...], store_path: str, cells: tuple[str, ...], seeds: int, *, as_json: bool,
    device: str, jobs: int | None, tracking_uri: str | None, **sweep: Any,
) -> None:  # fmt: skip
    r"""Test a range of learning rates on cells of STUDY, on throw-away networks, and say which to take.

    In a study, optimizer.lr = "find" does the same for each cell, and trains it with the rate that is found.

    \b
    Example:
      ablate lr-find studies/augmentation.toml
      ablate lr-find studies/augmentation.toml --cell "rotation=15" --low 1e-4 --high 1 --seeds 5
    """
    from ablate import display, workflow
    from ablate.interruption import Interruption

    where, console = _where(store_path, tracking_uri, device, jobs), _console(err=as_json)
    checked = workflow.load(study, sets, where.store)
    with Interruption() as interruption:
        found, ledger = workflow.lr_find(checked, where, display.Terminal(console), interruption, cells, seeds, sweep)
    if as_json:
        click.echo(json.dumps(display.rates_data(found), indent=1))
    else:
        display.show_rates(console, found, ledger)
    sys.exit(130 if ledger.interrupted else 1 if ledger.failures else 0)


@main.command()
@STUDY
@SET
@STORE
@DEVICE
@JOBS
@JSON
@click.option("--cells", is_flag=True, help="List every cell with its levels.")
@click.option("--verbose", is_flag=True, help="Describe every network too: parameters, multiplications, receptive field.")
def plan(
    study: str, sets: tuple[str, ...], store_path: str, device: str, jobs: int | None, *, as_json: bool, cells: bool, verbose: bool
) -> None:
    r"""Say what `ablate run` would do: cells, jobs, what is done, what is excluded and why, about how long.

    \b
    Example:
      ablate plan studies/augmentation.toml --cells
      ablate plan studies/augmentation.toml --verbose
    """
    from ablate import display, workflow
    from ablate.executors import devices

    where = _where(store_path, None, device, jobs)
    made = workflow.plan(workflow.load(study, sets, where.store), where, check=True)
    slots = max(1, min(len(devices.slots(device, jobs)), len(made.work)))
    outlook = workflow.outlook(made, where)
    networks = workflow.networks(made, where) if verbose else {}
    if as_json:
        click.echo(json.dumps(display.plan_data(made, slots, outlook, networks), indent=1))
        return
    console = _console()
    display.show_plan(console, made, slots, outlook)
    if cells:
        display.show_cells(console, made)
    if verbose:
        display.show_networks(console, networks)


@main.command()
@STUDY
@SET
@STORE
@JSON
def status(study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool) -> None:
    r"""Say how far STUDY is: seeds done, running, failed and missing for each cell.

    \b
    Example:
      ablate status augmentation
      ablate status studies/augmentation.toml --json
    """
    from ablate import display, workflow

    where = _where(store_path)
    found = workflow.status(workflow.load(study, sets, where.store), where)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        display.show_status(_console(), found)


@main.command()
@STUDY
@SET
@STORE
@click.option("--format", "form", type=click.Choice(FORMS), default="html", show_default=True, help="What to write.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="By default the store, and the terminal for all but HTML.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="Show this cell from inside; else the baseline and the best.")
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write each picture as files, too.")
def report(
    study: str,
    sets: tuple[str, ...],
    store_path: str,
    form: str,
    out: Path | None,
    metric: str | None,
    cells: tuple[str, ...],
    figures: Path | None,
) -> None:
    r"""Compare the cells of STUDY: effects with intervals and verdicts, as an HTML page, JSON, Markdown, LaTeX or CSV.

    \b
    Example:
      ablate report studies/augmentation.toml
      ablate report augmentation --metric test/calibration_error
      ablate report augmentation --format tex --out effects.tex
      ablate report augmentation --figures slides/
    """
    from ablate import publishing, workflow

    where = _where(store_path)
    found = workflow.report(workflow.load(study, sets, where.store), where, metric, cells)
    if figures is not None:
        count, reason = publishing.write_pictures(found, figures)
        click.echo(f"{figures}: {count} pictures as {'HTML' if reason else 'HTML, PNG and SVG'}{f'; {reason}' if reason else ''}", err=True)
    if form == "html":
        click.echo(str(publishing.write_page(found, where.store, out)))
    elif out is None:
        click.echo(publishing.text(found, form), nl=False)
    else:
        publishing.write(out, publishing.text(found, form))
        click.echo(str(out))


@main.command()
@STUDY
@SET
@STORE
@JSON
@click.option("--strict", is_flag=True, help="End with exit code 3 where a claim is neither confirmed nor refuted.")
def check(study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool, strict: bool) -> None:
    r"""Answer the claims of STUDY, for CI: exit code 1 if one is refuted, else 0.

    \b
    Example:
      ablate check augmentation
      ablate check augmentation --strict
    """
    from ablate import publishing, workflow

    where = _where(store_path)
    found = workflow.report(workflow.load(study, sets, where.store), where)
    click.echo(publishing.claims(found, as_json=as_json), nl=False)
    verdicts = [claim.verdict for claim in found.claims]
    sys.exit(1 if "refuted" in verdicts else 3 if strict and {"undecided", "not tested"} & set(verdicts) else 0)


@main.command()
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@STORE
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="A cell of the one STUDY, twice; ablate plan --cells lists them.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
def compare(studies: tuple[str, ...], store_path: str, cells: tuple[str, ...], metric: str | None) -> None:
    r"""Put two studies side by side, or two cells of one study seed by seed.

    \b
    Example:
      ablate compare augmentation regularisation
      ablate compare augmentation --cell baseline --cell "rotation=15"
    """
    from ablate import display, workflow

    where = _where(store_path)
    loaded = tuple(workflow.load(study, (), where.store) for study in studies)
    display.show_comparison(_console(), workflow.compare(loaded, cells, where, metric))


@main.command()
@STUDY
@SET
@STORE
@URI
def sync(study: str, sets: tuple[str, ...], store_path: str, tracking_uri: str | None) -> None:
    r"""Bring MLflow up to date with the journals of STUDY, after its server was away.

    \b
    Example:
      ablate sync augmentation --tracking-uri http://localhost:5000
    """
    from ablate import workflow

    where = _where(store_path, tracking_uri)
    count = workflow.sync(workflow.load(study, sets, where.store), where)
    click.echo(f"MLflow has the {count} runs of the study as far as they were started")


@main.command()
@STORE
@URI
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
def ui(store_path: str, tracking_uri: str | None, port: int, host: str) -> None:
    r"""Start MLflow's own page on the store. Group the runs by the tag ablate.cell to compare cells.

    \b
    Example:
      ablate ui --port 5001
    """
    from ablate import workflow

    command, environment = workflow.ui(_where(store_path, tracking_uri), host, port)
    click.echo(f"MLflow on http://{host}:{port} (Ctrl-C ends it)")
    os.execve(command[0], command, environment)  # noqa: S606 (the command is ours; no shell)
