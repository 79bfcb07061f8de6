"""`ablate plan`: what a study needs, and what is left of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from ablate.analysis.stats import CAP
from ablate.cli import options, terminal
from ablate.cli.terminal import escape, seconds, show_table
from ablate.messages import count
from ablate.planning.plan import Plan
from ablate.recipe import metrics

if TYPE_CHECKING:
    from ablate.analysis.power import Outlook  # brings pandas
    from ablate.training.models.summary import Summary  # brings torch

LARGE = 0.1
"""A min_effect of a share from which it was probably meant in percent: 10 points."""

NAMED = 5  # cells of one exclusion


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.EXECUTOR
@options.DEVICE
@options.JOBS
@options.PER_GPU
@options.SEEDS
@options.ONLY
@options.JSON
@click.option("--cells", is_flag=True, help="List every cell with its levels.")
@click.option("--verbose", is_flag=True, help="Describe every network: its size, cost, receptive field.")
def plan(
    study: str, sets: tuple[str, ...], store_path: str, seeds: int | None, only: str | None, *,
    executor: str, device: str, jobs: int | None, jobs_per_gpu: int | None, as_json: bool, cells: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Show what a run would do: cells, jobs, time, detectable effects.

    Also what is done, what is excluded and why. Nothing is trained or written.

    \b
    Example:
      ablate plan studies/augmentation.toml --cells
      ablate plan studies/augmentation.toml --verbose
      ablate plan augmentation --seeds 8
    """
    from ablate.workflow import answers
    from ablate.workflow import plan as planning

    where = options.where(store_path, None, device, jobs, jobs_per_gpu, executor=executor)
    loaded = options.load(study, sets, where.store, seeds, asks=True)
    preview = planning.preview(loaded, where, options.how(only), with_networks=verbose)
    if as_json:
        click.echo(answers.text(answers.planned(preview)))
        return
    console = terminal.console()
    show_plan(console, preview.plan, preview.slots, preview.outlook)
    if cells:
        show_cells(console, preview.plan)
    if verbose:
        show_networks(console, preview.networks)


def show_plan(console: Console, plan: Plan, slots: int, outlook: "Outlook | None") -> None:
    """Print what a study needs and what is left of it."""
    study, grid = plan.study, plan.grid
    console.print(f"[bold]{escape(study.name)}[/]  {escape(study.question)}", soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    design = study.design.replace("_", " ")
    table.add_row("cells", f"{len(grid.cells)} ({design}{_shared(plan)}{_merged(plan)})")
    cells, seeds = count(len(grid.cells), "cell"), count(len(study.seeds), "seed")
    table.add_row("runs", f"{len(plan.runs)} = {cells} x {seeds}")
    table.add_row("jobs", count(len(plan.jobs), "training"))
    _add_tuning(table, plan)
    trained = len(plan.work) - plan.trainings
    to_evaluate = f", and {count(trained, 'trained one')} to be evaluated" if trained else ""
    table.add_row("done", f"{plan.done}{to_evaluate}")
    if plan.failed:
        again = "it is" if len(plan.failed) == 1 else "they are"
        table.add_row("crashed", f"{len(plan.failed)} before; {again} tried again with --retry-failed")
    starts = f"; {plan.waiting} of them start from the weights of another cell" if plan.waiting else ""
    table.add_row("to train", f"{plan.trainings}{starts}")
    _add_notes(table, plan)
    _add_statistics(table, plan, outlook)
    if plan.cost is not None:
        time = seconds(plan.cost.seconds / slots)
        table.add_row("time", f"about {time} on {count(slots, 'slot')} ({plan.cost.basis})")
    elif plan.trainings or plan.trials:
        reason = "not known before the first job of each network has ended: nothing here was like it"
        table.add_row("time", reason)
    console.print(table)


def _shared(plan: Plan) -> str:
    """Return how many cells need no training of their own; empty if none."""
    if not plan.evaluation_only:
        return ""
    verb = "evaluates" if plan.evaluation_only == 1 else "evaluate"
    return f", {plan.evaluation_only} of them only {verb} another one's training in another way"


def _merged(plan: Plan) -> str:
    """Return how many combinations are no cells of their own; empty if none."""
    if not plan.grid.merged:
        return ""
    combinations = count(plan.grid.merged, "more combination")
    return f"; {combinations} became equal to one of them, a factor being inactive"


def _add_notes(table: Table, plan: Plan) -> None:
    """Show what is trained again, and what is left out and why."""
    for sentence in plan.trained_again:
        table.add_row("again", escape(sentence))
    if plan.left_out:
        table.add_row("left out", f"{count(plan.left_out, 'job')} of other cells (--only)")
    for exclusion in plan.grid.excluded:
        cells = count(len(exclusion.labels), "cell")
        more = f"; and {len(exclusion.labels) - NAMED} more" if len(exclusion.labels) > NAMED else ""
        labels = escape("; ".join(exclusion.labels[:NAMED]))
        table.add_row("excluded", f"{cells}: {escape(exclusion.why)} ({labels}{more})")
    for name in plan.grid.unused:
        table.add_row("unused", f"{escape(name)} has no two cells to compare")


def _add_statistics(table: Table, plan: Plan, outlook: "Outlook | None") -> None:
    """Show what is doubtful in a study, and which effects it can see."""
    study = plan.study
    if len(study.seeds) < 2:
        reason = "one seed shows effects and allows no verdict: ask for at least 2 seeds, better 5"
        table.add_row("[yellow]warning[/]", reason)
    for note in plan.notes:
        table.add_row("[yellow]note[/]", escape(note))
    if study.min_effect is not None:
        table.add_row("min_effect", escape(_min_effect(study.min_effect, study.metric)))
    if outlook is not None:
        table.add_row("detects", escape(_outlook(plan, outlook)))


def _add_tuning(table: Table, plan: Plan) -> None:
    """Show what must be found before the cells can be trained."""
    tuning, search = plan.tuning, plan.study.search
    if tuning.ranges:
        curves = count(sum(len(test.seeds) for test in tuning.ranges), "curve")
        done = len(tuning.ranges) - len(tuning.open_ranges)
        table.add_row("range tests", f"{len(tuning.ranges)} of the learning rate, with {curves}, {done} done")
    if search is not None:
        searches = count(len(tuning.searches) + len(tuning.waiting), "search", "searches")
        left = f"{count(plan.trials, 'training')} left" if plan.trials else "done"
        of = f"{searches} x {count(search.trials, 'trial')} ({search.sampler}; {', '.join(search.space)})"
        table.add_row("search", f"{of}, {left}")


def _min_effect(least: float, metric: str) -> str:
    """Return the smallest effect worth having in the report's unit; a hint if percent were surely meant."""
    size = f"{metrics.size(least, metric)} of {metric}"
    if metrics.is_fraction(metric) and least >= LARGE:
        return f"{size}: for {least:g} {'point' if least == 1 else 'points'} write {least / 100:g}"
    return size


def _outlook(plan: Plan, outlook: "Outlook") -> str:
    """Return what the design can see, and what the smallest effect worth having would take."""
    study, seeds = plan.study, len(plan.study.seeds)
    needed, least = outlook.seeds_for_min_effect, study.min_effect
    at = f"at {count(seeds, 'seed')}"
    if outlook.is_blind:
        visible = f"nothing {at}: an effect would have to be larger than {study.metric} can change"
    else:
        smallest, ends = _size(outlook.effect, study.metric), ""
        if outlook.low is not None and outlook.high is not None:
            low, high = (_size(end, study.metric).split()[0] for end in (outlook.low, outlook.high))
            ends = f" ({low} to {high})"
        visible = f"effects of {'more than' if outlook.is_bound else 'about'} {smallest}{ends} {at}"
    if needed is not None and least is not None and needed > seeds:
        about = "at least" if outlook.is_bound else "about"
        wanted = f"more than {CAP}" if needed > CAP else f"{about} {needed}"
        visible += f"; {metrics.size(least, study.metric)} would take {wanted} seeds"
    return f"{visible} ({outlook.basis})"


def _size(effect: float, metric: str) -> str:
    return metrics.size(float(f"{effect:.2g}"), metric)


def show_cells(console: Console, plan: Plan) -> None:
    """Print every cell with its levels."""
    names = [factor.name for factor in plan.study.factors]
    table = Table("cell", *map(escape, names), box=None, header_style="bold", pad_edge=False)
    for cell in plan.grid.cells:
        table.add_row(escape(cell.label), *(escape(cell.levels.get(name, "-")) for name in names))
    console.print(table)


def show_networks(console: Console, networks: "Mapping[str, Summary]") -> None:
    """Print what each network is made of and how far it sees."""
    rows = []
    for label, network in networks.items():
        is_whole = network.trainable_parameters == network.parameters
        trained = "" if is_whole else f" ({network.trainable_parameters:,} trained)"
        field = "whole image" if network.receptive_field is None else f"{network.receptive_field} px"
        size, cost = f"{network.parameters:,}{trained}", f"{network.macs / 1e6:,.1f} M"
        rows.append((label, size, cost, field, network.memory_format))
    header = ("network", "parameters", "multiply-adds an image", "receptive field", "memory format")
    show_table(console, header, rows)
