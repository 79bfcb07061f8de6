"""The commands that look after a store and MLflow."""

import dataclasses
import json
import os
import sys

import click

from ablate.cli import options
from ablate.errors import AblateError


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
    from ablate.messages import count as counted
    from ablate.workflow import tracking as tracking_workflow

    where = options.where(store_path, tracking_uri)
    count = tracking_workflow.sync(options.load(study, sets, where.store, reads=True), where)
    click.echo(f"MLflow has the {counted(count, 'run')} of the study, as far as it was started")


@click.command()
@options.STORE
@options.URI
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
def ui(store_path: str, tracking_uri: str | None, port: int, host: str) -> None:
    """Start MLflow's own page on the store, and print where it shows each study: its runs grouped by cell, with the metric.

    \b
    Example:
      ablate ui --port 5001
    """
    from ablate.workflow import tracking as tracking_workflow

    command, environment, pages = tracking_workflow.ui(options.where(store_path, tracking_uri), host, port)
    for name, address in pages.items():
        click.echo(f"{''.join(c if c.isprintable() else '?' for c in name)}: {address}")
    click.echo(f"MLflow on http://{host}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()  # before another program takes this one's place
    os.execve(command[0], command, environment)  # noqa: S606 (the command is ours; no shell)


@click.command()
@options.STORE
@options.URI
@options.JSON
@click.option("--deep", is_flag=True, help="Read all weights, too, for their checksums.")
def doctor(store_path: str, tracking_uri: str | None, *, as_json: bool, deep: bool) -> None:
    """Check a store and its machine, and say what to do: exit code 1 where there is a problem, else 0. Changes nothing.

    \b
    Example:
      ablate doctor
      ablate doctor --store /shared/mlruns --deep
    """
    from ablate.cli import display
    from ablate.workflow import upkeep

    found = upkeep.examine(options.where(store_path, tracking_uri), deep=deep)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    else:
        display.show_findings(options.console(), found)
    sys.exit(1 if any(one.severity == "problem" for one in found) else 0)


@click.command()
@options.STORE
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def gc(store_path: str, *, yes: bool, dry_run: bool) -> None:
    """Remove what no study of a store, as it was last run, refers to; lists it, and asks first.

    That is jobs, searches, range tests and decoded images that no study needs, and what killed processes have left. To forget
    a study, remove its folder in studies/ first. MLflow's runs and artifacts are left alone.

    \b
    Example:
      ablate gc --dry-run
      ablate gc --store /shared/mlruns --yes
    """
    from ablate.cli import display
    from ablate.workflow import upkeep

    where, console = options.where(store_path), options.console()
    found = upkeep.garbage(where)
    display.show_garbage(console, found)
    if dry_run or not found:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise AblateError("ablate gc asks before it removes, and nobody can answer here: say --yes, or --dry-run to only list")
        if not click.confirm("remove all this?"):
            click.echo("nothing was removed")
            return
    removed = upkeep.collect(where, found)
    display.show_removed(console, removed)
    sys.exit(1 if removed.kept else 0)
