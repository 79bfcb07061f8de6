"""`ablate explain`: what a job is, and what makes two jobs two."""

from collections.abc import Sequence

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.terminal import escape, show_table
from ablate.planning.explain import Compared, Difference, Explained
from ablate.recipe import identity

MOST_RUNS = 10  # named one by one


@click.command()
@click.argument("jobs", metavar="JOB [JOB]", nargs=-1, required=True)
@options.STORE
@options.JSON
def explain(jobs: tuple[str, ...], store_path: str, *, as_json: bool) -> None:
    """Show what a job consists of, or how two jobs differ.

    Of one job: the fields that make it this job, the runs that need it, and the jobs nearest to it. A JOB is the first
    digits of its identity, or a run as tables show it, STUDY:cell/seed.

    \b
    Example:
      ablate explain augmentation:baseline/0
      ablate explain 3fa9c1 77d0e2
    """
    from ablate.workflow import answers, inspect

    if len(jobs) > 2:
        raise click.UsageError(f"explain takes one job or two, got {len(jobs)}")
    explained = inspect.explain(jobs, options.where(store_path))
    if as_json:
        click.echo(answers.text(explained))
    else:
        show_explained(terminal.console(), explained)


def show_explained(console: Console, found: Explained | Compared) -> None:
    """Print one job, or two side by side."""
    if isinstance(found, Compared):
        _show_compared(console, found)
    else:
        _show_one(console, found)


def _show_compared(console: Console, found: Compared) -> None:
    one, other = found.first, found.second
    if one.job == other.job:
        console.print(f"both are the same job, {_short(one.job)}: one training for all of them", soft_wrap=True)
        console.print(escape(_needed(one.runs)), soft_wrap=True)
        return
    for near in (one, other):
        console.print(f"[bold]{_short(near.job)}[/]  {escape(_needed(near.runs))}", soft_wrap=True)
    rows = [(d.part, d.first, d.second) for d in other.differences]
    show_table(console, ("what differs", _short(one.job), _short(other.job)), rows)


def _show_one(console: Console, found: Explained) -> None:
    console.print(f"[bold]{_short(found.job)}[/]  {found.status}{f': {escape(found.reason)}' if found.reason else ''}", soft_wrap=True)
    show_table(console, ("what makes it this job", "besides defaults"), list(found.parts.items()))
    console.print(escape(_needed(found.runs)), soft_wrap=True)
    if found.other_seeds:
        seeds = [f"{seed} ({_short(job)})" for seed, job in list(found.other_seeds.items())[:MOST_RUNS]]
        more = f" and {len(found.other_seeds) - MOST_RUNS} more" if len(found.other_seeds) > MOST_RUNS else ""
        console.print(f"the same under other seeds: {', '.join(seeds)}{more}", soft_wrap=True)
    if not found.nearest:
        console.print("no other job is known")
        return
    console.print("nearest other jobs, and what is different here:")
    for near in found.nearest:
        said = "; ".join(_change(difference) for difference in near.differences)
        runs = f"  {near.runs[0]}" if near.runs else ""
        state = "" if near.trained else ", not trained"
        console.print(f"  {_short(near.job)}{escape(runs)}{state}  {escape(said)}", soft_wrap=True)


def _change(difference: Difference) -> str:
    """Return a difference in a few words."""
    if difference.part == "data":
        return f"data: other images ({difference.first.removeprefix('images ')} -> {difference.second.removeprefix('images ')})"
    return f"{difference.part} {difference.first} -> {difference.second}"


def _short(job: str) -> str:
    return job[: identity.ID_SHOWN]


def _needed(runs: Sequence[str]) -> str:
    if not runs:
        return "no study of the store needs it, as last run"
    more = f" and {len(runs) - MOST_RUNS} more" if len(runs) > MOST_RUNS else ""
    return f"needed by {'; '.join(runs[:MOST_RUNS])}{more}"
