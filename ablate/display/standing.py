"""How far a study is."""

from rich.console import Console
from rich.markup import escape

from ablate.display.basics import show_table
from ablate.status import Status


def show_status(console: Console, status: Status) -> None:
    """Print how far a study is."""
    names = [name for name in ("finished", "running", "missing", "failed", "diverged", "at_chance") if status.total.get(name)]
    rows = [(label, *(str(counts.get(name, 0)) for name in names)) for label, counts in status.cells.items()]
    show_table(console, ("cell", *names), [*rows, ("all", *(str(status.total.get(name, 0)) for name in names))])
    if status.range_tests[1]:
        console.print(f"range tests  {status.range_tests[0]} of {status.range_tests[1]}")
    for searched in status.searches:
        more = f", {searched.running} running" if searched.running else ""
        console.print(f"search  {escape(searched.cell)}  {searched.ended} of {searched.trials} trials{more}")
    for one in status.running:
        console.print(f"running  {escape(one.run)}  epoch {one.epoch}/{one.epochs}")
    for broken in status.broken:
        console.print(f"{broken.status}  {escape(broken.run)}: {escape(broken.reason)}  [dim]{escape(broken.log)}[/]", soft_wrap=True)
