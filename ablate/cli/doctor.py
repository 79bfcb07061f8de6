"""`ablate doctor`: whether a store and its machine are sound, and what to do where they are not."""

import sys

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.terminal import escape
from ablate.messages import count
from ablate.upkeep.doctor import Finding

COLORS = {"ok": "green", "note": "yellow", "problem": "bold red"}
SHOWN = 3  # places of one finding


@click.command()
@options.STORE
@options.URI
@options.JSON
@click.option("--deep", is_flag=True, help="Also read all weights, and compare their checksums.")
def doctor(store_path: str, tracking_uri: str | None, *, as_json: bool, deep: bool) -> None:
    """Check a store and this machine for problems.

    Each problem is shown with its remedy; nothing is changed. Exit code 1 where there is a problem, else 0.

    \b
    Example:
      ablate doctor
      ablate doctor --store /shared/mlruns --deep
    """
    from ablate.workflow import answers, upkeep

    findings = upkeep.examine(options.where(store_path, tracking_uri), deep=deep)
    if as_json:
        click.echo(answers.text(findings))
    else:
        show_findings(terminal.console(), findings)
    sys.exit(1 if any(finding.severity == "problem" for finding in findings) else 0)


def show_findings(console: Console, findings: tuple[Finding, ...]) -> None:
    """Print findings, those with the same words as one, and how many problems there are."""
    same: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in findings:
        same.setdefault((finding.check, finding.severity, finding.says, finding.do), []).append(finding.where)
    for (check, severity, says, remedy), places in same.items():
        times = f" ({len(places)} times)" if len(places) > 1 else ""
        line = f"[{COLORS[severity]}]{severity:8}[/]{escape(check):12}{escape(says)}{times}"
        console.print(line, soft_wrap=True)
        for place in filter(None, places[:SHOWN]):
            console.print(f"{'':20}[dim]{escape(place)}[/]", soft_wrap=True)
        if len(places) > SHOWN:
            console.print(f"{'':20}[dim]and {len(places) - SHOWN} more; --json lists all[/]")
        if remedy:
            console.print(f"{'':20}-> {escape(remedy)}", soft_wrap=True)
    problems, notes = (sum(key[1] == severity for key in same) for severity in ("problem", "note"))
    console.print(f"{count(problems, 'problem')}, {count(notes, 'note')}")
