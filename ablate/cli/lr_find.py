"""`ablate lr-find`: range tests of the learning rate, and the rates that they suggest."""

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.progress import Terminal
from ablate.cli.terminal import escape, show_table
from ablate.execution.scheduler import Ledger
from ablate.recipe import range_test
from ablate.recipe.range_test import Suggestion


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.DEVICE
@options.JOBS
@options.PER_GPU
@options.URI
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="A cell to test; else the baseline.")
@click.option("--low", type=float, default=1e-6, show_default=True, help="The first rate.")
@click.option("--high", type=float, default=10.0, show_default=True, help="The last rate.")
@click.option("--steps", type=click.IntRange(5), default=100, show_default=True, help="How many rates.")
@click.option(
    "--mode", type=click.Choice(["exponential", "linear"]), default="exponential", show_default=True,
    help="Spacing of the rates.",
)  # fmt: skip
@click.option(
    "--per", type=click.Choice(["batch", "epoch"]), default="batch", show_default=True,
    help="How long each rate is trained.",
)  # fmt: skip
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="How many curves.")
@options.JSON
def lr_find(
    study: str, sets: tuple[str, ...], store_path: str, cells: tuple[str, ...], seeds: int, *, as_json: bool,
    device: str, jobs: int | None, jobs_per_gpu: int | None, tracking_uri: str | None, **sweep: Any,
) -> None:  # fmt: skip
    """Find a learning rate by a range test.

    Networks that are thrown away are trained at rising rates. In a study, optimizer.lr = "find" does the same
    for each cell, and trains it with the rate that is found.

    \b
    Example:
      ablate lr-find studies/augmentation.toml
      ablate lr-find studies/augmentation.toml --cell "rotation=15" --low 1e-4 --high 1 --seeds 5
    """
    from ablate.execution.crew import assemble
    from ablate.workflow import answers
    from ablate.workflow import run as workflow

    where = options.where(store_path, tracking_uri, device, jobs, jobs_per_gpu)
    console = terminal.console(err=as_json)
    loaded = options.load(study, sets, where.store)
    with assemble(where, options.how(retry_failed=True), Terminal(console).observe) as crew:
        suggested, ledger = workflow.lr_find(loaded, crew, cells, seeds, sweep)
    if as_json:
        click.echo(answers.text(answers.rates(suggested)))
    else:
        show_rates(console, suggested, ledger)
    sys.exit(130 if ledger.interrupted else 1 if ledger.failures else 0)


def show_rates(console: Console, suggested: Mapping[str, Mapping[str, Suggestion]], ledger: Ledger) -> None:
    """Print what each rule makes of the range tests."""
    rows = []
    for label, suggestions in suggested.items():
        for rule, suggestion in suggestions.items():
            numbers = (suggestion.rate, suggestion.low, suggestion.high)
            rate, low, high = ("-" if number is None else f"{number:.2g}" for number in numbers)
            as_good = "-" if suggestion.rate is None else f"{low} to {high}"
            rows.append((label, rule, rate, as_good, suggestion.status))
    show_table(console, ("cell", "rule", "rate", "about as good", "status"), rows)
    for label, suggestions in suggested.items():
        console.print(f"{escape(label)}: {_chosen(suggestions)}", soft_wrap=True)
    for failure in ledger.failures:
        console.print(f"[red]crashed[/]: {escape(failure.error)}", soft_wrap=True)
        console.print(f"  log: {escape(failure.log)}", soft_wrap=True)


def _chosen(suggestions: Mapping[str, Suggestion]) -> str:
    """Return which rate to take, or why there is none."""
    if not suggestions:
        return "not all curves are there"
    best = range_test.best(dict(suggestions))
    if best is None:
        return "no rate was found: try more --steps, or another range"
    return f"optimizer.lr = {best.rate:.2g} ({best.rule})"
