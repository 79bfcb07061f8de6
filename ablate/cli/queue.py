"""`ablate queue`: what was submitted."""

import click

from ablate.cli import options, submissions, terminal


@click.command()
@options.JSON
@click.option("--all", "whole", is_flag=True, help="Also list all that have ended.")
@submissions.queued
def queue(queue: submissions.Queue, *, as_json: bool, whole: bool) -> None:
    """List the submissions: running, waiting in their order, ended.

    \b
    Example:
      ablate queue
      ablate queue --json
    """
    from ablate.workflow import answers

    entries = queue.entries()
    if as_json:
        click.echo(answers.text([entry.model_dump(mode="json") for entry in entries]))
    else:
        submissions.show_all(terminal.console(), entries, whole=whole)
