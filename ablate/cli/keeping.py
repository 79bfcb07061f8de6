"""The commands that look after a store and MLflow."""

import os

import click

from ablate.cli import options


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.URI
def sync(study: str, sets: tuple[str, ...], store_path: str, tracking_uri: str | None) -> None:
    """Bring MLflow up to date with the journals of STUDY, after its server was away.

    \b
    Example:
      ablate sync augmentation --tracking-uri http://localhost:5000
    """
    from ablate import workflow

    where = options.where(store_path, tracking_uri)
    count = workflow.sync(workflow.load(study, sets, where.store), where)
    click.echo(f"MLflow has the {count} runs of the study as far as they were started")


@click.command()
@options.STORE
@options.URI
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
def ui(store_path: str, tracking_uri: str | None, port: int, host: str) -> None:
    """Start MLflow's own page on the store. Group the runs by the tag ablate.cell to compare cells.

    \b
    Example:
      ablate ui --port 5001
    """
    from ablate import workflow

    command, environment = workflow.ui(options.where(store_path, tracking_uri), host, port)
    click.echo(f"MLflow on http://{host}:{port} (Ctrl-C ends it)")
    os.execve(command[0], command, environment)  # noqa: S606 (the command is ours; no shell)
