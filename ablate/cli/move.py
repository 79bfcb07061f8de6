"""`ablate move`: another place in the queue."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.JSON
@click.option("--before", metavar="ID", help="Right before this one, with its priority.")
@click.option("--after", metavar="ID", help="Right after this one, with its priority.")
@click.option("--priority", type=int, help="Higher ones run first.")
@submissions.queued
def move(
    queue: submissions.Queue, identity: str, before: str | None, after: str | None, priority: int | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Change the place of a submission in the queue.

    \b
    Example:
      ablate move 12 --before 9
      ablate move 12 --priority 5
    """
    if [before, after, priority].count(None) != 2:
        raise click.UsageError("move needs one of --before, --after and --priority")
    how = {"before": before, "after": after, "priority": priority}
    submissions.change(queue, "move", identity, as_json=as_json, **how)
