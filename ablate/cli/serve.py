"""`ablate serve`: the tracker as a service."""

from pathlib import Path

import click

from ablate.cli import options


@click.command()
@options.STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Its port; 0: a free one."
)
@click.option(
    "--studies", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N",
    help="Studies at once; they share the slots of this machine.",
)  # fmt: skip
@click.option(
    "--config", "config_path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    envvar="ABLATE_CONFIG", show_default="ablate.toml beside the store", help="Its configuration.",
)  # fmt: skip
@click.option("--no-dispatch", is_flag=True, help="Show the store and take submissions, but run nothing.")
@click.option("--drain", is_flag=True, help="When it is stopped, stop what runs, too; else that goes on.")
def serve(
    store_path: str, host: str, port: int, studies: int, config_path: Path | None, *, no_dispatch: bool,
    drain: bool,
) -> None:  # fmt: skip
    """Run the submissions of a store, with an HTTP interface and pages.

    Studies run in processes of their own: they go on when the service is stopped or killed, and the next one
    takes them over. On another address than 127.0.0.1 everybody needs a token, which is made at first need
    and shown once.

    \b
    Example:
      ablate serve
      ablate serve --host 0.0.0.0 --studies 2
    """
    from ablate.messages import printable
    from ablate.serve import config, run

    store = options.where(store_path).store
    plan = run.Plan(
        store, run.Address(host, port), config.read(store, config_path), studies,
        dispatches=not no_dispatch, drains=drain,
    )  # fmt: skip
    run.serve(plan, lambda text: click.echo(printable(text), err=True))
