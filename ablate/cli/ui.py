"""`ablate ui`: MLflow's own pages on a store."""

import os
import sys

import click

from ablate.cli import options


@click.command()
@options.STORE
@options.URI
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Its port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
def ui(store_path: str, tracking_uri: str | None, port: int, host: str) -> None:
    """Open the store in MLflow's web interface.

    The address of each study is printed: its runs grouped by cell, with the metric.

    \b
    Example:
      ablate ui --port 5001
    """
    from ablate.workflow import tracking

    command, environment, pages = tracking.ui(options.where(store_path, tracking_uri), host, port)
    for name, address in pages.items():
        click.echo(f"{''.join(c if c.isprintable() else '?' for c in name)}: {address}")
    click.echo(f"MLflow on http://{host}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()  # before another program takes this one's place
    os.execve(command[0], command, environment)  # noqa: S606 (the command is ours; no shell)
