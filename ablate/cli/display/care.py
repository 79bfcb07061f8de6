"""What the doctor has found, and what can be removed."""

from rich.console import Console

from ablate.cli.display.basics import escape, seconds, show_table
from ablate.messages import count
from ablate.upkeep import gc
from ablate.upkeep.doctor import Finding
from ablate.upkeep.gc import Item, Removed

COLORS = {"ok": "green", "note": "yellow", "problem": "bold red"}
SHOWN = 3  # places of one finding


def show_findings(console: Console, found: tuple[Finding, ...]) -> None:
    """Print findings, those with the same words as one, and how many problems there are."""
    same: dict[tuple[str, str, str, str], list[str]] = {}
    for one in found:
        same.setdefault((one.check, one.severity, one.says, one.do), []).append(one.where)
    for (check, severity, says, do), places in same.items():
        times = f" ({len(places)} times)" if len(places) > 1 else ""
        console.print(f"[{COLORS[severity]}]{severity:8}[/]{escape(check):12}{escape(says)}{times}", soft_wrap=True)
        for place in filter(None, places[:SHOWN]):
            console.print(f"{'':20}[dim]{escape(place)}[/]", soft_wrap=True)
        if len(places) > SHOWN:
            console.print(f"{'':20}[dim]and {len(places) - SHOWN} more; --json lists all[/]")
        if do:
            console.print(f"{'':20}-> {escape(do)}", soft_wrap=True)
    problems, notes = (sum(key[1] == severity for key in same) for severity in ("problem", "note"))
    console.print(f"{count(problems, 'problem')}, {count(notes, 'note')}")


def show_garbage(console: Console, items: tuple[Item, ...]) -> None:
    """Print what can be removed: by kind and reason, with the trainings that went into it."""
    if not items:
        console.print("nothing to remove: the studies need all that is there")
        return
    rows = [
        (f"{kind}: {why}", str(number), size(held), seconds(spent) if spent else "")
        for (kind, why), (number, held, spent) in gc.counts(items).items()
    ]
    show_table(console, ("what", "number", "size", "training"), [*rows, ("all", str(len(items)), size(sum(one.size for one in items)), "")])
    console.print("MLflow's runs and artifacts are left alone", style="dim")


def show_removed(console: Console, removed: Removed) -> None:
    """Print what was removed, and what could not be."""
    console.print(f"removed {len(removed.items)}, {size(sum(one.size for one in removed.items))}")
    for path, reason in removed.kept:
        console.print(f"kept  {escape(str(path))}: {escape(reason)}", soft_wrap=True)


def size(count: float) -> str:
    """Write bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
