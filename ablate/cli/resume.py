"""`ablate resume`: a submission that goes on."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.STORE
@options.JSON
def resume(identity: str, store_path: str, *, as_json: bool) -> None:
    """Let a submission go on.

    One that was paused or cancelled goes on from where it was; of one that has failed, what has crashed is
    tried again. What it has waited for, and has ended by now, is not waited for any more.

    \b
    Example:
      ablate resume 12
    """
    submissions.change("resume", identity, store_path, as_json=as_json)
