"""`ablate resume`: a submission that goes on."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.JSON
@submissions.queued
def resume(queue: submissions.Queue, identity: str, *, as_json: bool) -> None:
    """Let a submission go on.

    One that was paused or cancelled goes on from where it was; of one that has failed, what has crashed is
    tried again. What it has waited for, and has ended by now, is not waited for any more.

    \b
    Example:
      ablate resume 12
    """
    submissions.change(queue, "resume", identity, as_json=as_json)
