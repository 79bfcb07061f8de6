"""The commands that train, and the one that says what they would do."""

import json
import sys
from typing import Any

import click

from ablate.cli import options


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.training
def run(study: str, sets: tuple[str, ...], store_path: str, **given: Any) -> None:
    """Train every cell of STUDY under every seed, and report.

    Rates are found and fields searched first, where the study asks for it. Only what is missing is trained: running it again
    resumes it, and a second time trains nothing. The first Ctrl-C stops when the running epochs have ended, a second at once.

    \b
    Example:
      ablate run studies/augmentation.toml
      ablate run studies/augmentation.toml --set seeds=2 --set training.epochs=3 --set model.name=cnn4
      ablate run augmentation --seeds 8 --budget 2h
      ablate run augmentation --only 'model.batch_norm == false and augment.rotation > 0'
    """
    from ablate.cli import display

    ran, console = _run(study, sets, store_path, **given)
    display.show_ran(console, ran)
    sys.exit(130 if ran.ledger.interrupted or ran.left else 1 if ran.ledger.failures or ran.plan.failed else 0)


def _run(
    study: str, sets: tuple[str, ...], store_path: str, *, seeds: int | None,
    only: str | None, retry_failed: bool, fail_fast: bool, budget: float | None, stall: float, wait: bool, replace: bool,
    tune_only: bool = False, **place: Any,
) -> tuple[Any, Any]:  # fmt: skip
    from ablate.cli import display
    from ablate.execution.crew import assemble
    from ablate.workflow import run as workflow

    where, console = options.where(store_path, **place), options.console()
    checked = options.load(study, sets, where.store, seeds)
    how = options.how(
        only, retry_failed=retry_failed, fail_fast=fail_fast, budget=budget, stall=stall, wait=wait, replace=replace, tune_only=tune_only
    )
    with assemble(where, how, display.Terminal(console).observe) as crew:
        return workflow.run(checked, crew), console


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.training
def search(study: str, sets: tuple[str, ...], store_path: str, **given: Any) -> None:
    """Do the range tests and the searches of STUDY, and nothing else; `ablate run` does them too, before the cells.

    \b
    Example:
      ablate search studies/lr_search.toml
      ablate search studies/lr_search.toml --set search.trials=40
    """
    from ablate.cli import display

    ran, console = _run(study, sets, store_path, tune_only=True, **given)
    display.show_tuned(console, ran)
    sys.exit(130 if ran.ledger.interrupted or ran.left else 1 if ran.ledger.failures else 0)


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.DEVICE
@options.JOBS
@options.URI
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
    """Test a range of learning rates on cells of STUDY, on throw-away networks, and say which to take.

    In a study, optimizer.lr = "find" does the same for each cell, and trains it with the rate that is found.

    \b
    Example:
      ablate lr-find studies/augmentation.toml
      ablate lr-find studies/augmentation.toml --cell "rotation=15" --low 1e-4 --high 1 --seeds 5
    """
    from ablate.cli import display
    from ablate.execution.crew import assemble
    from ablate.workflow import run as workflow

    where, console = options.where(store_path, tracking_uri, device, jobs), options.console(err=as_json)
    checked = options.load(study, sets, where.store)
    with assemble(where, options.how(retry_failed=True), display.Terminal(console).observe) as crew:
        found, ledger = workflow.lr_find(checked, crew, cells, seeds, sweep)
    if as_json:
        click.echo(json.dumps(display.rates_data(found), indent=1))
    else:
        display.show_rates(console, found, ledger)
    sys.exit(130 if ledger.interrupted else 1 if ledger.failures else 0)


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.DEVICE
@options.JOBS
@options.SEEDS
@options.ONLY
@options.JSON
@click.option("--cells", is_flag=True, help="List every cell with its levels.")
@click.option("--verbose", is_flag=True, help="Describe every network too: parameters, multiplications, receptive field.")
def plan(
    study: str, sets: tuple[str, ...], store_path: str, device: str, jobs: int | None, seeds: int | None, only: str | None,
    *, as_json: bool, cells: bool, verbose: bool,
) -> None:  # fmt: skip
    """Show what `ablate run` would do: cells, jobs, what is done, what is excluded and why, about how long.

    \b
    Example:
      ablate plan studies/augmentation.toml --cells
      ablate plan studies/augmentation.toml --verbose
      ablate plan augmentation --seeds 8
    """
    from ablate.cli import display
    from ablate.execution.executors import devices
    from ablate.workflow import plan as planning

    where = options.where(store_path, None, device, jobs)
    made = planning.plan(options.load(study, sets, where.store, seeds, asks=True), where, options.how(only), check=True)
    slots = max(1, min(len(devices.slots(device, jobs)), len(made.work)))
    outlook = planning.outlook(made, where)
    networks = planning.networks(made) if verbose else {}
    if as_json:
        click.echo(json.dumps(display.plan_data(made, slots, outlook, networks), indent=1))
        return
    console = options.console()
    display.show_plan(console, made, slots, outlook)
    if cells:
        display.show_cells(console, made)
    if verbose:
        display.show_networks(console, networks)
