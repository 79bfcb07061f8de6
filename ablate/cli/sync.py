"""`ablate sync`: MLflow brought up to date with a store."""

import click

from ablate.cli import options


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.URI
@options.JSON
def sync(
    study: str, sets: tuple[str, ...], store_path: str, tracking_uri: str | None, *, as_json: bool
) -> None:  # fmt: skip
    """Send MLflow what it is missing of a study.

    For a server that was away while the study ran, or that never had it. The store's journals are the truth.

    \b
    Example:
      ablate sync augmentation --tracking-uri http://localhost:5000
    """
    from ablate.messages import count, printable
    from ablate.workflow import answers, tracking

    where = options.where(store_path, tracking_uri)
    loaded = options.load(study, sets, where.store, reads=True)
    runs = tracking.sync(loaded, where, lambda text: click.echo(printable(f"note: {text}"), err=True))
    if as_json:
        click.echo(answers.text(answers.synced(loaded, runs, where)))
    else:
        click.echo(f"MLflow has the {count(runs, 'run')} of the study, as far as it was started")
