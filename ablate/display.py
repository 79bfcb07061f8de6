"""What a terminal shows: live progress, plans and summaries. The only home of rich. Not a terminal: plain lines."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ablate import metrics, rates
from ablate import recipe as recipes
from ablate.executors.base import Event
from ablate.plan import Plan
from ablate.scheduler import Ledger
from ablate.stats import CAP
from ablate.status import Status
from ablate.workflow import Ran

if TYPE_CHECKING:
    from ablate.outlook import Outlook  # brings pandas
    from ablate.rates import Suggestion
    from ablate.report.comparison import Comparison  # brings pandas
    from ablate.training.models.summary import Summary  # brings torch

ENDED = ("finished", "failed", "crashed", "stopped")


def seconds(value: float) -> str:
    """Write a time as people say it: 45 s, 3 min, 2.5 h."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


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
        """Say something once."""
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def _once(self, text: str) -> None:
        """Say what many jobs say, once."""
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
        name = self._names.get(event.task, event.task[: recipes.ID_SHOWN])
        if event.kind == "started":
            self._running[event.task] = {"name": name, "slot": event.slot, "text": "starting"}
        elif event.kind == "progress" and "notice" in event.detail:
            self._once(event.detail["notice"])
        elif event.kind == "progress":
            self._running[event.task]["text"] = _epoch(event.detail)
        elif event.kind in ENDED:
            last = self._running.pop(event.task, {"text": ""})
            self._end(event, name, last["text"])

    def _end(self, event: Event, name: str, last: str) -> None:
        assert self._task is not None
        if event.kind in ("finished", "failed", "stopped"):  # a trial that was pruned has ended too
            self._done += 1
            self._bar.advance(self._task)
        self._failed += event.kind == "failed"
        if event.kind in ("failed", "crashed"):
            self._console.print(f"[red]{escape(name)} {event.kind}: {escape(event.error)}[/]", soft_wrap=True)
        elif not self._console.is_terminal and event.kind in ("finished", "stopped"):
            total = self._bar.tasks[0].total or 0
            ended = "" if event.kind == "finished" else ", stopped"
            self._console.print(f"[{self._done}/{total:.0f}] {name}: {last}{ended}".replace("[", "\\["), soft_wrap=True)
        self._bar.update(self._task, note=self._note())

    def _note(self) -> str:
        left = (self._bar.tasks[0].total or 0) - self._done
        pace = (time.monotonic() - self._began) / self._done if self._done else 0
        eta = f"about {seconds(left * pace)} left" if self._done and left else ""
        return ", ".join(part for part in (f"{self._failed} failed" if self._failed else "", eta) if part)

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(self._bar.get_renderable())
        for one in list(self._running.values()):
            grid.add_row(f"  [cyan]{one['slot']}[/]  {escape(one['name'])}  [dim]{one['text']}[/]")
        return grid

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _epoch(detail: dict[str, Any]) -> str:
    if "rates" in detail:
        return f"rate {detail['rate']}/{detail['rates']}"
    shown = {name: value for name, value in detail["metrics"].items() if name in ("train/loss", "validation/accuracy")}
    return f"epoch {detail['epoch']}/{detail['epochs']} " + " ".join(f"{name} {value:.4g}" for name, value in shown.items())


def show_plan(console: Console, plan: Plan, slots: int, outlook: "Outlook | None") -> None:
    """Print what a study needs and what is left of it."""
    study, grid = plan.study, plan.grid
    console.print(f"[bold]{escape(study.name)}[/]  {escape(study.question)}", soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    shared = f", {plan.evaluation_only} of them only judge another one's training in another way" if plan.evaluation_only else ""
    merged = f"; {grid.merged} more combinations became equal to one of them, a factor being inactive" if grid.merged else ""
    table.add_row("cells", f"{len(grid.cells)} ({study.design.replace('_', ' ')}{shared}{merged})")
    table.add_row("runs", f"{len(plan.runs)} = {len(grid.cells)} cells x {len(study.seeds)} seeds")
    table.add_row("jobs", f"{len(plan.jobs)} trainings")
    judged = len(plan.work) - plan.trainings
    _add_tuning(table, plan)
    table.add_row("done", f"{plan.done}" + (f", and {judged} trained ones to be judged" if judged else ""))
    if plan.failed:
        table.add_row("failed", f"{len(plan.failed)} before; they are tried again with --retry-failed")
    table.add_row("to train", f"{plan.trainings}")
    for exclusion in grid.excluded:
        table.add_row("excluded", f"{len(exclusion.labels)} cells: {escape(exclusion.why)} ({escape('; '.join(exclusion.labels[:5]))})")
    for name in grid.unused:
        table.add_row("unused", f"{escape(name)} has no two cells to compare")
    if len(study.seeds) < 2:
        table.add_row("[yellow]warning[/]", "one seed shows effects and allows no verdict: ask for at least 2 seeds, better 5")
    if outlook is not None:
        table.add_row("sees", escape(_outlook(plan, outlook)))
    if plan.cost is not None:
        table.add_row("time", f"about {seconds(plan.cost.seconds / slots)} on {slots} slots ({plan.cost.basis})")
    console.print(table)


def _add_tuning(table: Table, plan: Plan) -> None:
    """Say what must be found before the cells can be trained."""
    made, search = plan.tuning, plan.study.search
    if made.ranges:
        table.add_row("range tests", f"{len(made.ranges)} of the learning rate, {len(made.ranges) - len(made.open_ranges)} done")
    if search is not None:
        count = len(made.searches) + len(made.waiting)
        of = f"{count} {'search' if count == 1 else 'searches'} x {search.trials} trials ({search.sampler}; {', '.join(search.space)})"
        table.add_row("search", f"{of}, {plan.trials} trainings left" if plan.trials else f"{of}, done")


def _outlook(plan: Plan, outlook: "Outlook") -> str:
    """Say what the design can see, and what the smallest effect worth having would take."""
    study = plan.study
    smallest = metrics.size(float(f"{outlook.effect:.2g}"), study.metric)
    said = f"effects of {'more than' if outlook.is_bound else 'about'} {smallest} at {len(study.seeds)} seeds"
    needed, least = outlook.seeds_for_min_effect, study.min_effect
    if needed is not None and least is not None and needed > len(study.seeds):
        seeds = f"more than {CAP}" if needed > CAP else f"{'at least' if outlook.is_bound else 'about'} {needed}"
        said += f"; {metrics.size(least, study.metric)} would take {seeds} seeds"
    return f"{said} ({outlook.basis})"


def show_cells(console: Console, plan: Plan) -> None:
    """Print every cell with its levels."""
    table = Table("cell", *(factor.name for factor in plan.study.factors), box=None, header_style="bold", pad_edge=False)
    for cell in plan.grid.cells:
        table.add_row(escape(cell.label), *(escape(cell.levels.get(factor.name, "-")) for factor in plan.study.factors))
    console.print(table)


def show_networks(console: Console, networks: "Mapping[str, Summary]") -> None:
    """Print what each network is made of and how far it sees."""
    rows = []
    for label, one in networks.items():
        trained = "" if one.trainable_parameters == one.parameters else f" ({one.trainable_parameters:,} trained)"
        field = "whole image" if one.receptive_field is None else f"{one.receptive_field} px"
        rows.append((label, f"{one.parameters:,}{trained}", f"{one.macs / 1e6:,.1f} M", field))
    show_table(console, ("network", "parameters", "multiply-adds an image", "receptive field"), rows)


def show_comparison(console: Console, found: "Comparison") -> None:
    """Print two things side by side."""
    show_table(console, found.columns, found.rows)
    for line in found.sentences:
        console.print(escape(line), soft_wrap=True)


def show_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table: text to the left, numbers to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(part) for part in row))
    console.print(table)


def plan_data(plan: Plan, slots: int, outlook: "Outlook | None", networks: "Mapping[str, Summary]") -> dict[str, Any]:
    """Give a plan as JSON-able data."""
    return {
        "study": plan.study.name,
        "design": plan.study.design,
        "cells": [{"cell": cell.label, "levels": dict(cell.levels)} for cell in plan.grid.cells],
        "seeds": list(plan.study.seeds),
        "runs": len(plan.runs),
        "jobs": len(plan.jobs),
        "done": plan.done,
        "to_train": plan.trainings,
        "to_judge": len(plan.work) - plan.trainings,
        "failed": len(plan.failed),
        "range_tests": len(plan.tuning.ranges),
        "range_tests_left": len(plan.tuning.open_ranges),
        "trial_trainings_left": plan.trials,
        "evaluation_only_cells": plan.evaluation_only,
        "excluded": [{"why": exclusion.why, "cells": list(exclusion.labels)} for exclusion in plan.grid.excluded],
        "unused_factors": list(plan.grid.unused),
        "seconds": None if plan.cost is None else round(plan.cost.seconds / slots),
        "seconds_basis": None if plan.cost is None else plan.cost.basis,
        "detectable_effect": None if outlook is None else outlook.effect,
        "detectable_effect_basis": None if outlook is None else outlook.basis,
        "seeds_for_min_effect": None if outlook is None else outlook.seeds_for_min_effect,
    } | ({"networks": {label: dataclasses.asdict(one) for label, one in networks.items()}} if networks else {})


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


def show_tuned(console: Console, ran: Ran) -> None:
    """Print the end of `ablate search`: what was found for each cell."""
    _show_found(console, ran)
    _show_end(console, ran)


def _show_found(console: Console, ran: Ran) -> None:
    rows = []
    for cell in ran.plan.grid.cells:
        known = ran.plan.tuning.cells.get(cell.label)
        trials = f"{known.trials} of {known.of}" if known is not None and known.search else "-"
        found = ", ".join(f"{path} = {_short(given)}" for path, given in cell.tuned.items())
        rows.append((cell.label, trials, "not found yet" if cell.pending else found or "untuned"))
    show_table(console, ("cell", "trials", "found"), rows)


def _short(given: object) -> str:
    return f"{given:.4g}" if isinstance(given, float) else str(given).lower() if isinstance(given, bool) else str(given)


def show_rates(console: Console, found: "Mapping[str, Mapping[str, Suggestion]]", ledger: Ledger) -> None:
    """Print what each rule makes of the range tests."""
    rows = []
    for label, every in found.items():
        for rule, one in every.items():
            rate, low, high = ("-" if number is None else f"{number:.2g}" for number in (one.rate, one.low, one.high))
            rows.append((label, rule, rate, f"{low} to {high}" if one.rate is not None else "-", one.status))
    show_table(console, ("cell", "rule", "rate", "about as good", "status"), rows)
    for label, every in found.items():
        best = rates.best(dict(every))
        said = (
            f"optimizer.lr = {best.rate:.2g} ({best.rule})" if best is not None else "no rate was found: try more --steps, or another range"
        )
        console.print(f"{escape(label)}: {said}" if every else f"{escape(label)}: not all curves are there", soft_wrap=True)
    for failure in ledger.failures:
        console.print(f"[red]failed[/]: {escape(failure.error)}\n  log: {escape(failure.log)}", soft_wrap=True)


def rates_data(found: "Mapping[str, Mapping[str, Suggestion]]") -> dict[str, Any]:
    """Give the same as JSON-able data."""
    data: dict[str, Any] = {}
    for label, every in found.items():
        best = rates.best(dict(every))
        taken = {"taken": None if best is None else best.rule}
        data[label] = {rule: dataclasses.asdict(one) for rule, one in every.items()} | taken
    return data


def show_ran(console: Console, ran: Ran) -> None:
    """Print the end of `ablate run`: what happened, the cells, the verdicts in words, and where the report is."""
    from ablate.report import summary  # brings pandas

    plan = ran.plan
    if not ran.before.work and not ran.before.trials:
        console.print(f"nothing to train: all {plan.done} jobs are done" if not plan.failed else "nothing to train")
    if plan.tuning.cells:
        _show_found(console, ran)
    said = summary.make(ran.findings)
    show_table(console, said.columns, said.rows)
    for line in said.headline:
        console.print(f"[bold]{escape(line)}[/]", soft_wrap=True)
    for line in (*said.sentences, *said.claims):
        console.print(escape(line), soft_wrap=True)
    _show_end(console, ran)


def _show_end(console: Console, ran: Ran) -> None:
    """Print what went wrong, and where the report is."""
    ledger, failed = ran.ledger, ran.plan.failed
    for failure in ledger.failures:
        console.print(f"[red]failed[/] {failure.job[: recipes.ID_SHOWN]}: {escape(failure.error)}".replace(" :", ":"), soft_wrap=True)
        if failure.log:
            console.print(f"  log: {escape(failure.log)}", soft_wrap=True)
    if failed:
        console.print(f"{len(failed)} jobs failed before and were left alone: try them again with --retry-failed")
    if ledger.interrupted:
        console.print("interrupted: everything finished is kept, and the same command goes on from here")
    if ran.late_reason:
        console.print(f"MLflow is not up to date ({escape(ran.late_reason)}): ablate sync sends what is missing", soft_wrap=True)
    console.print(f"report: {escape(str(ran.report))}", soft_wrap=True)
