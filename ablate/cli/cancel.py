"""`ablate cancel`: a submission that ends for good."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.JSON
@submissions.queued
def cancel(queue: submissions.Queue, identity: str, *, as_json: bool) -> None:
    """End a submission for good.

    Of one that runs, the running epochs end first, and everything finished is kept.

    \b
    Example:
      ablate cancel 12
    """
    submissions.change(queue, "cancel", identity, as_json=as_json)
