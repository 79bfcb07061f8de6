"""`ablate run`: the training of a study, and what it came to."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.progress import Terminal
from ablate.cli.terminal import escape, show_table
from ablate.execution.scheduler import ATTEMPTS
from ablate.messages import count
from ablate.planning.tuning import Tuned
from ablate.recipe import identity
from ablate.workflow.run import Ran

if TYPE_CHECKING:
    from ablate.execution.crew import Crew
    from ablate.study.file import Study


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.JSON
@options.training
@click.option(
    "--tasks", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Train nothing: write what is left to a file, for `ablate worker` on other machines.",
)  # fmt: skip
def run(
    study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool, tasks: Path | None, **given: Any
) -> None:
    """Train every cell under every seed, and report the effects.

    Rates are found and fields searched first, where the study asks for it. Only what is missing is trained:
    running it again resumes it, and a second time trains nothing. The first Ctrl-C stops when the running
    epochs have ended, a second at once.

    \b
    Example:
      ablate run studies/augmentation.toml
      ablate run studies/augmentation.toml --set seeds=2 --set training.epochs=3 --set model.name=cnn4
      ablate run augmentation --seeds 8 --budget 2h
      ablate run augmentation --executor slurm --slurm partition=gpu,time=2:00:00,gres=gpu:1 --detach
      ablate run augmentation --only 'model.batch_norm == false and augment.rotation > 0'
    """
    from ablate.workflow import answers
    from ablate.workflow import run as workflow

    console = terminal.console(err=as_json)
    if tasks is not None:
        with assembled(console, study, sets, store_path, **given) as (loaded, crew):
            number = workflow.hand_out(loaded, crew, tasks)
        click.echo(answers.line({"tasks": number, "file": tasks}) if as_json else _handed_out(number, tasks))
        return
    ran = execute(console, study, sets, store_path, **given)
    if as_json:
        click.echo(answers.text(answers.reported(ran)))
    else:
        show_ran(console, ran)
    has_failed = ran.ledger.failures or ran.plan.failed
    sys.exit(130 if ran.ledger.interrupted or ran.left else 1 if has_failed else 0)


@contextmanager
def assembled(
    console: Console, study: str, sets: tuple[str, ...], store_path: str, *, seeds: int | None,
    only: str | None, retry_failed: bool, fail_fast: bool, budget: float | None, stall: float, wait: bool,
    replace: bool, detach: bool, tune_only: bool = False, **place: Any,
) -> "Iterator[tuple[Study, Crew]]":  # fmt: skip
    """Yield a study and who works on it by the options of a command line, with its progress on a console."""
    from ablate.execution.crew import assemble

    where = options.where(store_path, **place)
    loaded = options.load(study, sets, where.store, seeds)
    how = options.how(
        only, retry_failed=retry_failed, fail_fast=fail_fast, budget=budget, stall=stall, wait=wait,
        replace=replace, tune_only=tune_only, detach=detach,
    )  # fmt: skip
    shown = Terminal(console)
    with assemble(where, how, shown.observe, leaves=shown.leaves) as crew:
        yield loaded, crew


def execute(console: Console, study: str, sets: tuple[str, ...], store_path: str, **given: Any) -> Ran:
    """Run a study by the options of a command line, with its progress on a console."""
    from ablate.workflow import run as workflow

    with assembled(console, study, sets, store_path, **given) as (loaded, crew):
        return workflow.run(loaded, crew)


def _handed_out(number: int, path: Path) -> str:
    """Return what there is to do with a file of tasks."""
    if not number:
        return f"nothing is left to train: {path} is empty"
    return (
        f"{count(number, 'task')} in {path}: ablate worker --tasks {path} --index 0"
        + (f" to {number - 1}" if number > 1 else "")
        + ", where the store has this path; then the same command without --tasks reports"
    )


def show_ran(console: Console, ran: Ran) -> None:
    """Print the end of `ablate run`: what happened, the cells, the verdicts in words, the report's path."""
    from ablate.report import summary  # brings pandas

    plan = ran.plan
    if not ran.before.work and not ran.before.trials:
        console.print(f"nothing to train: {_all_done(plan.done)}" if not plan.failed else "nothing to train")
    if plan.tuning.cells:
        show_tuning(console, ran)
    ending = summary.make(ran.findings)
    show_table(console, ending.columns, ending.rows)
    if ending.counted:
        console.print(f"runs that do not count: {escape(ending.counted)}", soft_wrap=True)
    for line in ending.headline:
        console.print(f"[bold]{escape(line)}[/]", soft_wrap=True)
    for line in (*ending.sentences, *ending.claims):
        console.print(escape(line), soft_wrap=True)
    show_end(console, ran)


def show_tuning(console: Console, ran: Ran) -> None:
    """Print what tuning has chosen for each cell."""
    rows = []
    for cell in ran.plan.grid.cells:
        tuned = ran.plan.tuning.cells.get(cell.label)
        trials = _trials(tuned) if tuned is not None and tuned.search else "-"
        chosen = ", ".join(f"{path} = {_short(value)}" for path, value in cell.tuned.items())
        rows.append((cell.label, trials, "not found yet" if cell.pending else chosen or "untuned"))
    show_table(console, ("cell", "trials", "found"), rows)


def _trials(tuned: Tuned) -> str:
    """Return how many trials have ended, and how many of them repeated an earlier one."""
    ended = f"{tuned.trials} of {tuned.of}"
    return ended + (f", {count(tuned.repeats, 'repeat')}" if tuned.repeats else "")


def _short(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _all_done(jobs: int) -> str:
    return "the one job is done" if jobs == 1 else f"all {jobs:,} jobs are done"


def _left(jobs: int) -> str:
    return "was left alone" if jobs == 1 else "were left alone"


def _goes_on(left: int) -> str:
    """Return how an interrupted run goes on."""
    if left:
        return f"{count(left, 'job')} left to Slurm: the same command follows them, ablate status shows them"
    return "interrupted: everything finished is kept, and the same command goes on from here"


def show_end(console: Console, ran: Ran) -> None:
    """Print what went wrong, and where the report is."""
    ledger, plan, failed = ran.ledger, ran.plan, ran.plan.failed
    for failure in ledger.failures:
        job = f" {failure.job[: identity.ID_SHOWN]}" if failure.job else ""
        console.print(f"[red]crashed[/]{job}: {escape(failure.error)}", soft_wrap=True)
        if failure.log:
            console.print(f"  log: {escape(failure.log)}", soft_wrap=True)
    if failed:
        jobs = count(len(failed), "job")
        console.print(f"{jobs} crashed before and {_left(len(failed))}: --retry-failed tries again")
    if plan.left_out:
        console.print(f"{count(plan.left_out, 'job')} of other cells left out (--only)")
    lost = Counter(end for ends in ledger.ends.values() for end in ends if end in ATTEMPTS)
    if lost:
        ends = ", ".join(f"{number} {end}" for end, number in lost.items())
        console.print(f"attempts that were lost: {ends}")
    if ran.left:
        jobs = count(ran.left, "job")
        line = f"the time is up (--budget): {jobs} left, and the same command goes on from here"
        console.print(line, soft_wrap=True)
    elif ledger.halted and not ledger.late:
        console.print(f"stopped: {escape(ledger.halted)}; the same command goes on from here", soft_wrap=True)
    if ledger.left or ledger.interrupted:
        console.print(_goes_on(len(ledger.left)), soft_wrap=True)
    if ran.late_reason:
        line = f"MLflow is not up to date ({escape(ran.late_reason)}): ablate sync sends what is missing"
        console.print(line, soft_wrap=True)
    console.print(f"report: {escape(str(ran.report))}", soft_wrap=True)
