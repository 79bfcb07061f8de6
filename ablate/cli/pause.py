"""`ablate pause`: a submission that waits until it is resumed."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.JSON
@submissions.queued
def pause(queue: submissions.Queue, identity: str, *, as_json: bool) -> None:
    """Let a submission wait until it is resumed.

    Of one that runs, the running epochs end first, and everything finished is kept.

    \b
    Example:
      ablate pause 12
    """
    submissions.change(queue, "pause", identity, as_json=as_json)
