"""`ablate search`: the range tests and searches of a study, and what they have chosen."""

import sys
from typing import Any

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.run import execute, show_end, show_tuning
from ablate.workflow.run import Ran


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.JSON
@options.training
def search(study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool, **given: Any) -> None:
    """Run the range tests and searches of a study, and nothing else.

    `ablate run` does them too, before it trains the cells.

    \b
    Example:
      ablate search studies/lr_search.toml
      ablate search studies/lr_search.toml --set search.trials=40
    """
    from ablate.workflow import answers

    console = terminal.console(err=as_json)
    ran = execute(console, study, sets, store_path, tune_only=True, **given)
    if as_json:
        click.echo(answers.text(answers.ended(ran)))
    else:
        show_tuned(console, ran)
    sys.exit(130 if ran.ledger.interrupted or ran.left else 1 if ran.ledger.failures else 0)


def show_tuned(console: Console, ran: Ran) -> None:
    """Print the end of `ablate search`: what was chosen for each cell."""
    show_tuning(console, ran)
    show_end(console, ran)
