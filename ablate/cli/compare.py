"""`ablate compare`: two studies, or two cells of one, side by side."""

from typing import TYPE_CHECKING

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.terminal import escape, show_table

if TYPE_CHECKING:
    from ablate.report.comparison import Comparison  # brings pandas


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@options.STORE
@options.JSON
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="A cell of the study; two are needed.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
def compare(
    studies: tuple[str, ...], store_path: str, cells: tuple[str, ...], metric: str | None, *, as_json: bool
) -> None:  # fmt: skip
    """Compare two studies, or two cells of one study.

    Studies are compared by the effects of the same changes, cells seed by seed. `ablate plan STUDY --cells`
    lists the labels of its cells.

    \b
    Example:
      ablate compare augmentation regularization
      ablate compare augmentation --cell baseline --cell "rotation=15"
    """
    from ablate.workflow import answers
    from ablate.workflow import report as reporting

    where = options.where(store_path)
    loaded = tuple(options.load(study, (), where.store, asks=True, reads=True) for study in studies)
    comparison = reporting.compare(loaded, cells, where, metric)
    if as_json:
        click.echo(answers.text(comparison.values))
    else:
        show_comparison(terminal.console(), comparison)


def show_comparison(console: Console, comparison: "Comparison") -> None:
    """Print two things side by side."""
    show_table(console, comparison.columns, comparison.rows)
    for line in comparison.sentences:
        console.print(escape(line), soft_wrap=True)
