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

    Of one job: the fields that make it this job, the runs that need it, and the jobs nearest to it. A JOB is
    the first digits of its identity, or a run as tables show it, STUDY:cell/seed.

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


def show_explained(console: Console, explained: Explained | Compared) -> None:
    """Print one job, or two side by side."""
    if isinstance(explained, Compared):
        _show_compared(console, explained)
    else:
        _show_job(console, explained)


def _show_compared(console: Console, compared: Compared) -> None:
    first, second = compared.first, compared.second
    if first.job == second.job:
        line = f"both are the same job, {_short(first.job)}: one training for all of them"
        console.print(line, soft_wrap=True)
        console.print(escape(_needed(first.runs)), soft_wrap=True)
        return
    for near in (first, second):
        console.print(f"[bold]{_short(near.job)}[/]  {escape(_needed(near.runs))}", soft_wrap=True)
    rows = [(difference.part, difference.first, difference.second) for difference in second.differences]
    show_table(console, ("what differs", _short(first.job), _short(second.job)), rows)


def _show_job(console: Console, explained: Explained) -> None:
    reason = f": {escape(explained.reason)}" if explained.reason else ""
    console.print(f"[bold]{_short(explained.job)}[/]  {explained.status}{reason}", soft_wrap=True)
    show_table(console, ("what makes it this job", "besides defaults"), list(explained.parts.items()))
    console.print(escape(_needed(explained.runs)), soft_wrap=True)
    others = list(explained.other_seeds.items())
    if others:
        seeds = [f"{seed} ({_short(job)})" for seed, job in others[:MOST_RUNS]]
        more = f" and {len(others) - MOST_RUNS} more" if len(others) > MOST_RUNS else ""
        console.print(f"the same under other seeds: {', '.join(seeds)}{more}", soft_wrap=True)
    if not explained.nearest:
        console.print("no other job is known")
        return
    console.print("nearest other jobs, and what is different here:")
    for near in explained.nearest:
        changes = "; ".join(_change(difference) for difference in near.differences)
        runs = f"  {near.runs[0]}" if near.runs else ""
        state = "" if near.trained else ", not trained"
        console.print(f"  {_short(near.job)}{escape(runs)}{state}  {escape(changes)}", soft_wrap=True)


def _change(difference: Difference) -> str:
    """Return a difference in a few words."""
    if difference.part == "data":
        first, second = (side.removeprefix("images ") for side in (difference.first, difference.second))
        return f"data: other images ({first} -> {second})"
    return f"{difference.part} {difference.first} -> {difference.second}"


def _short(job: str) -> str:
    return job[: identity.ID_SHOWN]


def _needed(runs: Sequence[str]) -> str:
    if not runs:
        return "no study of the store needs it, as last run"
    more = f" and {len(runs) - MOST_RUNS} more" if len(runs) > MOST_RUNS else ""
    return f"needed by {'; '.join(runs[:MOST_RUNS])}{more}"
