"""What a command has found, and what went wrong."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablate.cli.display.basics import escape, show_table
from ablate.execution.scheduler import ATTEMPTS, Ledger
from ablate.messages import count
from ablate.planning.tuning import Tuned
from ablate.recipe import identity, range_test
from ablate.workflow.run import Ran

if TYPE_CHECKING:
    from ablate.recipe.range_test import Suggestion
    from ablate.report.comparison import Comparison  # brings pandas


def show_comparison(console: Console, found: "Comparison") -> None:
    """Print two things side by side."""
    show_table(console, found.columns, found.rows)
    for line in found.sentences:
        console.print(escape(line), soft_wrap=True)


def show_tuned(console: Console, ran: Ran) -> None:
    """Print the end of `ablate search`: what was found for each cell."""
    _show_found(console, ran)
    _show_end(console, ran)


def _show_found(console: Console, ran: Ran) -> None:
    rows = []
    for cell in ran.plan.grid.cells:
        known = ran.plan.tuning.cells.get(cell.label)
        trials = _trials(known) if known is not None and known.search else "-"
        found = ", ".join(f"{path} = {_short(given)}" for path, given in cell.tuned.items())
        rows.append((cell.label, trials, "not found yet" if cell.pending else found or "untuned"))
    show_table(console, ("cell", "trials", "found"), rows)


def _trials(known: Tuned) -> str:
    """Write how many trials have ended, and how many of them tried what an earlier one had tried."""
    said = f"{known.trials} of {known.of}"
    return said + (f", {count(known.repeats, 'repeat')}" if known.repeats else "")


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
        best = range_test.best(dict(every))
        said = (
            f"optimizer.lr = {best.rate:.2g} ({best.rule})" if best is not None else "no rate was found: try more --steps, or another range"
        )
        console.print(f"{escape(label)}: {said}" if every else f"{escape(label)}: not all curves are there", soft_wrap=True)
    for failure in ledger.failures:
        console.print(f"[red]crashed[/]: {escape(failure.error)}\n  log: {escape(failure.log)}", soft_wrap=True)


def rates_data(found: "Mapping[str, Mapping[str, Suggestion]]") -> dict[str, Any]:
    """Return the same as JSON-able data."""
    data: dict[str, Any] = {}
    for label, every in found.items():
        best = range_test.best(dict(every))
        taken = {"taken": None if best is None else best.rule}
        data[label] = {rule: dataclasses.asdict(one) for rule, one in every.items()} | taken
    return data


def show_ran(console: Console, ran: Ran) -> None:
    """Print the end of `ablate run`: what happened, the cells, the verdicts in words, and where the report is."""
    from ablate.report import summary  # brings pandas

    plan = ran.plan
    if not ran.before.work and not ran.before.trials:
        console.print(f"nothing to train: {_all_done(plan.done)}" if not plan.failed else "nothing to train")
    if plan.tuning.cells:
        _show_found(console, ran)
    said = summary.make(ran.findings)
    show_table(console, said.columns, said.rows)
    if said.counted:
        console.print(f"runs that do not count: {escape(said.counted)}", soft_wrap=True)
    for line in said.headline:
        console.print(f"[bold]{escape(line)}[/]", soft_wrap=True)
    for line in (*said.sentences, *said.claims):
        console.print(escape(line), soft_wrap=True)
    _show_end(console, ran)


def _all_done(jobs: int) -> str:
    return "the one job is done" if jobs == 1 else f"all {jobs:,} jobs are done"


def _left(jobs: int) -> str:
    return "was left alone" if jobs == 1 else "were left alone"


def _show_end(console: Console, ran: Ran) -> None:
    """Print what went wrong, and where the report is."""
    ledger, plan, failed = ran.ledger, ran.plan, ran.plan.failed
    for failure in ledger.failures:
        console.print(f"[red]crashed[/] {failure.job[: identity.ID_SHOWN]}: {escape(failure.error)}".replace(" :", ":"), soft_wrap=True)
        if failure.log:
            console.print(f"  log: {escape(failure.log)}", soft_wrap=True)
    if failed:
        console.print(f"{count(len(failed), 'job')} crashed before and {_left(len(failed))}: --retry-failed tries again")
    if plan.left_out:
        console.print(f"{count(plan.left_out, 'job')} of other cells left out (--only)")
    lost = Counter(end for ends in ledger.ends.values() for end in ends if end in ATTEMPTS)
    if lost:
        console.print(f"attempts that were lost: {', '.join(f'{count} {end}' for end, count in lost.items())}")
    if ran.left:
        said = f"the time is up (--budget): {count(ran.left, 'job')} left, and the same command goes on from here"
        console.print(said, soft_wrap=True)
    elif ledger.halted and not ledger.late:
        console.print(f"stopped: {escape(ledger.halted)}; the same command goes on from here", soft_wrap=True)
    if ledger.interrupted:
        console.print("interrupted: everything finished is kept, and the same command goes on from here")
    if ran.late_reason:
        console.print(f"MLflow is not up to date ({escape(ran.late_reason)}): ablate sync sends what is missing", soft_wrap=True)
    console.print(f"report: {escape(str(ran.report))}", soft_wrap=True)
