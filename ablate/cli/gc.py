"""`ablate gc`: what no study needs, and its removal."""

import sys

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.terminal import escape, seconds, show_table, size
from ablate.errors import AblateError
from ablate.upkeep import gc as garbage
from ablate.upkeep.gc import Item, Removed


@click.command()
@options.STORE
@options.JSON
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def gc(store_path: str, *, as_json: bool, yes: bool, dry_run: bool) -> None:
    """Remove what no study of a store needs.

    That is jobs, searches, range tests and decoded images that no study, as it was last run, refers to, and
    what killed processes have left behind. They are listed first, and you are asked. To forget a study,
    remove its folder in studies/ first. MLflow's runs and artifacts are left alone.

    \b
    Example:
      ablate gc --dry-run
      ablate gc --store /shared/mlruns --yes
    """
    from ablate.workflow import answers, upkeep

    where, console = options.where(store_path), terminal.console(err=as_json)
    items = upkeep.garbage(where)
    show_garbage(console, items)
    removed = Removed((), ())
    if items and not dry_run and (yes or _confirm(err=as_json)):
        removed = upkeep.collect(where, items)
        show_removed(console, removed)
    if as_json:
        click.echo(answers.text(answers.collected(items, removed)))
    sys.exit(1 if removed.kept else 0)


def _confirm(*, err: bool) -> bool:
    if not sys.stdin.isatty():
        reason = "ablate gc asks before it removes, and nobody can answer here"
        raise AblateError(f"{reason}: say --yes, or --dry-run to only list")
    is_confirmed = click.confirm("remove all this?", err=err)
    if not is_confirmed:
        click.echo("nothing was removed", err=err)
    return is_confirmed


def show_garbage(console: Console, items: tuple[Item, ...]) -> None:
    """Print what can be removed: by kind and reason, with the trainings that went into it."""
    if not items:
        console.print("nothing to remove: the studies need all that is there")
        return
    rows = [
        (f"{kind}: {why}", str(number), size(held), seconds(spent) if spent else "")
        for (kind, why), (number, held, spent) in garbage.counts(items).items()
    ]
    total = ("all", str(len(items)), size(sum(item.size for item in items)), "")
    show_table(console, ("what", "number", "size", "training"), [*rows, total])
    console.print("MLflow's runs and artifacts are left alone", style="dim")


def show_removed(console: Console, removed: Removed) -> None:
    """Print what was removed, and what could not be."""
    console.print(f"removed {len(removed.items)}, {size(sum(item.size for item in removed.items))}")
    for path, reason in removed.kept:
        console.print(f"kept  {escape(str(path))}: {escape(reason)}", soft_wrap=True)
