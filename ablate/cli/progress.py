"""Live progress of jobs. Not a terminal: plain lines."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ablate.cli.terminal import escape, seconds
from ablate.execution.executors.base import ENDS, Event
from ablate.messages import printable
from ablate.recipe import identity

JUDGING = "judging"


class Terminal:
    """Progress of jobs: a bar, and a line for each job that runs; without a terminal a line for each that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._names: dict[str, str] = {}
        self._running: dict[str, dict[str, Any]] = {}
        self._said: set[str] = set()
        self._done = self._failed = 0
        self._began = 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID | None = None
        self._live: Live | None = None

    def notice(self, text: str) -> None:
        """Show a message once."""
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def _once(self, text: str) -> None:
        """Show once what many jobs say."""
        if text not in self._said:
            self._said.add(text)
            self.notice(text)

    def start(self, what: str, total: int, names: dict[str, str]) -> None:
        """Begin to follow a stage; `names` may grow while it runs."""
        self._names, self._began, self._done, self._failed = names, time.monotonic(), 0, 0
        self._console.print(what)
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task("jobs", total=total, note="")
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def event(self, event: Event) -> None:
        """Follow a job."""
        name = self._names.get(event.task, event.task[: identity.ID_SHOWN])
        if event.kind == "started":
            self._running[event.task] = {"name": name, "slot": event.slot, "text": "starting"}
        elif event.kind == "progress" and "notice" in event.detail:
            self._once(event.detail["notice"])
        elif event.kind == "progress":
            self._running[event.task]["text"] = _epoch(event.detail)
        elif event.kind in ENDS:
            last = self._running.pop(event.task, {"text": ""})
            self._end(event, name, "judged" if last["text"] == JUDGING else last["text"])

    def _end(self, event: Event, name: str, last: str) -> None:
        assert self._task is not None
        if event.kind in ("finished", "failed", "stopped"):  # a trial that was pruned has ended too
            self._done += 1
            self._bar.advance(self._task)
        self._failed += event.kind == "failed"
        if event.kind not in ("finished", "stopped"):
            self._console.print(f"[red]{escape(name)} {_word(event.kind)}: {escape(event.error)}[/]", soft_wrap=True)
        elif not self._console.is_terminal and event.kind in ("finished", "stopped"):
            total = self._bar.tasks[0].total or 0
            ended = "" if event.kind == "finished" else ", stopped"
            self._console.print(escape(f"[{self._done}/{total:.0f}] {name}: {last}{ended}"), soft_wrap=True)
        self._bar.update(self._task, note=self._note())

    def _note(self) -> str:
        left = (self._bar.tasks[0].total or 0) - self._done
        pace = (time.monotonic() - self._began) / self._done if self._done else 0
        eta = f"about {seconds(left * pace)} left" if self._done and left else ""
        return ", ".join(part for part in (f"{self._failed} crashed" if self._failed else "", eta) if part)

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(self._bar.get_renderable())
        for one in list(self._running.values()):
            grid.add_row(f"  [cyan]{one['slot']}[/]  {escape(one['name'])}  [dim]{escape(one['text'])}[/]")
        return grid

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _word(kind: str) -> str:
    """Name the end of an attempt: what failed for good is a run that crashed, as in every table."""
    return "crashed" if kind == "failed" else kind.replace("_", " ")


def _epoch(detail: dict[str, Any]) -> str:
    if "elsewhere" in detail:
        return printable(str(detail["elsewhere"]))
    if "judging" in detail:
        return JUDGING
    if "rates" in detail:
        return f"rate {detail['rate']}/{detail['rates']}"
    shown = {name: value for name, value in detail["metrics"].items() if name in ("train/loss", "validation/accuracy")}
    return f"epoch {detail['epoch']}/{detail['epochs']} " + " ".join(f"{name} {value:.4g}" for name, value in shown.items())
