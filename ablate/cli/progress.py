"""Live progress of jobs. Not a terminal: plain lines."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ablate.cli.terminal import escape, seconds
from ablate.execution import events
from ablate.execution.events import (
    AttemptLost,
    EpochEnded,
    EvaluationStarted,
    RateTested,
    TaskElsewhere,
    TaskEnded,
)
from ablate.messages import printable

EVALUATING = "evaluating"


class Terminal:
    """Progress of jobs: a bar and a line for each that runs; without a terminal, a line for each end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[str, dict[str, Any]] = {}
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

    def observe(self, event: events.Event) -> None:
        """Show what happens."""
        match event:
            case events.Notice():
                self._console.print(f"[dim]{escape(event.text)}[/]", soft_wrap=True)
            case events.StageStarted():
                self._start(event.what, event.tasks)
            case events.StageEnded():
                self._stop()
            case events.TaskStarted():
                self._running[event.task] = {"name": event.name, "slot": event.slot, "text": "starting"}
            case EpochEnded() | RateTested() | EvaluationStarted() | TaskElsewhere():
                self._running[event.task]["text"] = _text(event)
            case AttemptLost() | TaskEnded():
                last = self._running.pop(event.task, {"text": ""})
                self._end(event, "evaluated" if last["text"] == EVALUATING else last["text"])

    def leaves(self) -> bool:
        """Ask whether jobs go on that can do without us; without a terminal nobody is asked, and they do."""
        if not (sys.stdin.isatty() and self._console.is_terminal):
            return True
        if self._live is not None:
            self._live.stop()
        question = "the job array runs without this command: [l]eave it running, or [c]ancel it? (leave) "
        try:
            answer = self._console.input(escape(question))
        except EOFError:
            answer = ""
        if not answer.strip().lower().startswith("c"):
            return True
        self._console.print("[dim]stopping when the running epochs have ended; Ctrl-C stops at once[/]")
        if self._live is not None:
            self._live.start()
        return False

    def _start(self, what: str, total: int) -> None:
        """Begin to follow a stage."""
        self._began, self._done, self._failed = time.monotonic(), 0, 0
        self._console.print(escape(what))
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task("jobs", total=total, note="")
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()

    def _end(self, event: AttemptLost | TaskEnded, last: str) -> None:
        assert self._task is not None
        if isinstance(event, TaskEnded):  # a trial that was pruned has ended too
            self._done += 1
            self._bar.advance(self._task)
        self._failed += event.end == "failed"
        if event.end not in ("finished", "stopped"):
            self._console.print(
                f"[red]{escape(event.name)} {_word(event.end)}: {escape(event.error)}[/]", soft_wrap=True
            )
        elif not self._console.is_terminal:
            total = self._bar.tasks[0].total or 0
            ended = "" if event.end == "finished" else ", stopped"
            self._console.print(
                escape(f"[{self._done}/{total:.0f}] {event.name}: {last}{ended}"), soft_wrap=True
            )
        self._bar.update(self._task, note=self._note())

    def _note(self) -> str:
        left = (self._bar.tasks[0].total or 0) - self._done
        pace = (time.monotonic() - self._began) / self._done if self._done else 0
        eta = f"about {seconds(left * pace)} left" if self._done and left else ""
        return ", ".join(part for part in (f"{self._failed} crashed" if self._failed else "", eta) if part)

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(self._bar.get_renderable())
        for task in list(self._running.values()):
            slot, name, text = (escape(task[part]) for part in ("slot", "name", "text"))
            grid.add_row(f"  [cyan]{slot}[/]  {name}  [dim]{text}[/]")
        return grid

    def _stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _word(end: str) -> str:
    """Return the word for the end of an attempt; a run that failed for good crashed, as in every table."""
    return "crashed" if end == "failed" else end.replace("_", " ")


def _text(event: EpochEnded | RateTested | EvaluationStarted | TaskElsewhere) -> str:
    """Return what a task does now."""
    match event:
        case TaskElsewhere():
            return printable(event.who)
        case EvaluationStarted():
            return EVALUATING
        case RateTested():
            return f"rate {event.rate}/{event.rates}"
    shown = ("train/loss", "validation/accuracy")
    values = [f"{name} {value:.4g}" for name, value in event.metrics.items() if name in shown]
    return f"epoch {event.epoch}/{event.epochs} {' '.join(values)}"
