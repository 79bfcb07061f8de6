"""`ablate cancel`: a submission that ends for good."""

import click

from ablate.cli import options, submissions


@click.command()
@submissions.ID
@options.STORE
@options.JSON
def cancel(identity: str, store_path: str, *, as_json: bool) -> None:
    """End a submission for good.

    Of one that runs, the running epochs end first, and everything finished is kept.

    \b
    Example:
      ablate cancel 12
    """
    submissions.change("cancel", identity, store_path, as_json=as_json)
