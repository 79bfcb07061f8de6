"""`ablate status`: the progress of a study, once or until nothing moves; or the studies of a store."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ablate.analysis.outcomes import NAMES
from ablate.analysis.status import Broken, Free, Queued, Running, Spot, Status
from ablate.cli import options, remote, terminal
from ablate.cli.terminal import escape, seconds, show_table
from ablate.messages import count
from ablate.recipe import identity
from ablate.workflow.inspect import Listed

MOST_SEEDS = 10  # with a column of their own
MOST_BROKEN = 20  # listed one by one
COLOURS: Mapping[str, str] = {
    "finished": "green", "running": "cyan", "crashed": "red", "diverged": "yellow", "at_chance": "yellow",
    "stopped": "magenta", "not_run": "dim",
}  # fmt: skip
WORDS: Mapping[str, str] = {str(status): word for status, word in NAMES.items()}


@click.command()
@click.argument("study", metavar="[STUDY]", required=False)
@options.SET
@options.SEEDS
@options.STORE
@options.JSON
@click.option(
    "--watch", is_flag=True,
    help="Show it again whenever it has changed, until nothing runs; with --json, a line each time.",
)  # fmt: skip
@remote.reachable
def status(
    study: str | None, sets: tuple[str, ...], seeds: int | None, store_path: str, *,
    as_json: bool, watch: bool,
) -> None:  # fmt: skip
    """Show the progress of a study, or list the studies of a store.

    Of a study: each cell under each seed, what runs and for how long, what failed and why, what needed no
    training of its own. Without STUDY: the studies of the store, and the progress of each.

    \b
    Example:
      ablate status
      ablate status augmentation
      ablate status augmentation --watch
      ablate status studies/augmentation.toml --json
    """
    from ablate.workflow import answers, inspect

    where, console = options.where(store_path), terminal.console()
    if study is None:
        if watch or sets or seeds:
            raise click.UsageError("--watch, --set and --seeds need a STUDY")
        studies = inspect.studies(where)
        if as_json:
            click.echo(answers.text(studies))
        else:
            show_studies(console, studies, where.store.path)
        return
    loaded = options.load(study, sets, where.store, seeds, asks=True, reads=True)
    if watch:
        show_changes(console, inspect.watch(loaded, where), as_json=as_json)
        return
    now = inspect.status(loaded, where)
    if as_json:
        click.echo(answers.text(now))
    else:
        show_status(console, now)


def show_status(console: Console, status: Status) -> None:
    """Print the progress of a study."""
    for part in _parts(console, status):
        if isinstance(part, Table) and not console.is_terminal:  # a file has no width
            console.width = max(console.width, _width(console, part))
        console.print(part, soft_wrap=isinstance(part, Text))


def show_changes(console: Console, changes: Iterable[Status], *, as_json: bool) -> None:
    """Print a status whenever it has changed."""
    from ablate.workflow import answers

    with contextlib.suppress(KeyboardInterrupt):  # nothing is lost by looking away
        if as_json:
            for change in changes:
                click.echo(answers.line(change))
        else:
            watch_status(console, changes)


def watch_status(console: Console, changes: Iterable[Status]) -> None:
    """Show a status that changes: drawn anew in a terminal, else printed again."""
    if not console.is_terminal:
        for i, status in enumerate(changes):
            if i:
                console.print()
            show_status(console, status)
        return
    last = None
    with Live(console=console, refresh_per_second=1, transient=True) as live:
        for status in changes:
            last = status
            live.update(Group(*_parts(console, status)), refresh=True)
    if last is not None:  # whole, also where it was higher than the terminal
        show_status(console, last)


def show_studies(console: Console, studies: Sequence[Listed], folder: Path) -> None:
    """Print the studies of a store, and the progress of each."""
    if not studies:
        console.print(f"no study was run in {escape(str(folder))} yet", soft_wrap=True)
        return
    statuses = [name for name in COLOURS if any(listed.total.get(name) for listed in studies)]
    rows = []
    for listed in studies:
        counts = [str(listed.total.get(name, 0)) for name in statuses]
        now = "now" if listed.being_run else ""
        rows.append((listed.study, str(sum(listed.total.values())), *counts, now))
    show_table(console, ("study", "runs", *(WORDS[name] for name in statuses), "being run"), rows)
    for listed in studies:
        if listed.unreadable:
            console.print(f"{escape(listed.study)}: {escape(listed.unreadable)}", soft_wrap=True)


def _parts(console: Console, status: Status) -> list[RenderableType]:
    table = _by_seed(status)
    if table is None or (console.is_terminal and _width(console, table) > console.width):
        table = _by_count(status)
    return [table, *(Text.from_markup(line) for line in _lines(status))]


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _by_seed(status: Status) -> Table | None:
    """Draw a row for each cell and a column for each seed; none where they are too many."""
    seeds = list(dict.fromkeys(seed for spots in status.runs.values() for seed in spots))
    if not 0 < len(seeds) <= MOST_SEEDS:
        return None
    now = {running.job: running for running in status.running}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("cell", no_wrap=True)
    for seed in seeds:
        table.add_column(f"seed {seed}", no_wrap=True)
    for label, spots in status.runs.items():
        table.add_row(escape(label), *(_spot(spots[seed], now.get(spots[seed].job)) for seed in seeds))
    return table


def _spot(spot: Spot, running: Running | None) -> str:
    word = WORDS.get(spot.status, spot.status)
    if spot.status == "running" and running is not None:
        word = _epoch(running)
    word += f" in epoch {spot.epoch}" if spot.epoch else ""
    return f"[{COLOURS.get(spot.status, 'default')}]{escape(word)}[/]"


def _by_count(status: Status) -> Table:
    """Draw a row for each cell, and how many seeds of it are done, running and so on."""
    names = [name for name in COLOURS if status.total.get(name)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("cell", overflow="fold")
    for name in names:
        table.add_column(WORDS[name], justify="right")
    for label, counts in [*status.cells.items(), ("all", status.total)]:
        table.add_row(escape(label), *(str(counts.get(name, 0)) for name in names))
    return table


def _lines(status: Status) -> list[str]:
    """Return lines of markup: what the table does not."""
    total = sum(status.total.values())
    counts = ", ".join(f"{status.total[name]} {WORDS[name]}" for name in COLOURS if status.total.get(name))
    left = f"; about {seconds(status.seconds_left)} left" if status.seconds_left else ""
    lines = [f"{count(total, 'run')}: {counts}{left}"] if total else []
    if status.queued is not None:
        lines.append(escape(_left_to_slurm(status.queued)))
    elif (status.total.get("not_run") or status.total.get("stopped")) and not status.moves:
        goes_on = "ablate run goes on with what is stopped, and trains what was not run"
        lines.append(f"nothing of it runs now: {goes_on}")
    if status.free.runs:
        lines.append(escape(free(status.free)))
    if status.range_tests[1]:
        lines.append(f"range tests  {status.range_tests[0]} of {status.range_tests[1]}")
    for searched in status.searches:
        more = f", {searched.running} running" if searched.running else ""
        trials = count(searched.trials, "trial")
        lines.append(f"search  {escape(searched.cell)}  {searched.ended} of {trials}{more}")
    for running in status.running:
        eta = f", about {seconds(running.seconds_left)} left" if running.seconds_left else ""
        job = running.job[: identity.ID_SHOWN]
        lines.append(f"[cyan]running[/]  {job}  {escape(running.run)}  {_epoch(running)}{eta}")
    for broken in status.broken[:MOST_BROKEN]:
        lines += _broken(broken)
    if len(status.broken) > MOST_BROKEN:
        lines.append(f"and {len(status.broken) - MOST_BROKEN} more; --json has all of them")
    return lines


def _left_to_slurm(queued: Queued) -> str:
    return (
        f"left to Slurm: {count(queued.running, 'job')} on its nodes, {queued.waiting} in its queue, "
        f"by squeue --name={queued.name}; ablate run --executor slurm follows them"
    )


def _broken(broken: Broken) -> list[str]:
    """Return lines of markup on a run that failed: its reason, and where to look."""
    word = f"[{COLOURS[broken.status]}]{WORDS.get(broken.status, broken.status)}[/]"
    lines = [f"{word}  {broken.job[: identity.ID_SHOWN]}  {escape(broken.run)}: {escape(broken.reason)}"]
    if broken.last_line not in ("", broken.reason):
        lines.append(f"  last line: {escape(broken.last_line)}")
    if broken.log:
        lines.append(f"  [dim]log: {escape(broken.log)}[/]")
    return lines


def _epoch(running: Running) -> str:
    if running.evaluating:
        return "evaluating"
    return f"epoch {running.epoch}/{running.epochs}" if running.epoch else "starting"


def free(free_runs: Free) -> str:
    """Return how many runs cost no training of their own, and why."""
    shared, others = free_runs.shared, free_runs.other_studies
    why = [f"{shared} {'shares' if shared == 1 else 'share'} another cell's training"] if shared else []
    if others:
        were = "was" if sum(others.values()) == 1 else "were"
        why.append(f"{sum(others.values())} {were} trained by another study ({', '.join(sorted(others))})")
    return f"{free_runs.runs} of {count(free_runs.of, 'run')} for free: {', '.join(why)}"
