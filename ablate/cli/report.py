"""`ablate report`: the findings of a study, as a page, tables or text."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablate.cli import options, remote

if TYPE_CHECKING:
    from ablate.analysis.findings import Findings  # brings pandas

FORMS = ("html", "json", "md", "tex", "csv")


@click.command()
@options.STUDY
@options.SET
@options.SEEDS
@options.STORE
@click.option("--format", "form", type=click.Choice(FORMS), show_default="html", help="What to write.")
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path),
    help="By default the store, and the terminal for all but HTML.",
)  # fmt: skip
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
@click.option(
    "--cell", "cells", multiple=True, metavar="LABEL",
    help="Show this cell from inside; else the baseline and the best.",
)  # fmt: skip
@click.option(
    "--figures", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Write each picture as files, too.",
)  # fmt: skip
@remote.reachable
def report(
    study: str, sets: tuple[str, ...], seeds: int | None, store_path: str, form: str | None, out: Path | None,
    metric: str | None, cells: tuple[str, ...], figures: Path | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Write the report: a page, JSON, Markdown, LaTeX or CSV.

    It compares the cells: effects with intervals and verdicts, the answers to claims, curves. csv and tex
    have the effects.

    The page is written to the store, unless --out puts it elsewhere, beside cells.csv (every cell with its
    value under each seed), effects.csv, report.md and findings.json. With --metric or --cell it has a name of
    its own there, such as report-test-loss.html.

    \b
    Example:
      ablate report studies/augmentation.toml
      ablate report augmentation --metric test/calibration_error
      ablate report augmentation --format tex --out effects.tex
      ablate report augmentation --json
      ablate report augmentation --figures slides/
    """
    from ablate.report import publish
    from ablate.workflow import report as reporting

    form = form_of(form, as_json=as_json)
    where = options.where(store_path)
    is_elsewhere = form != "html" or out is not None  # the store's own page is refused
    loaded = options.load(study, sets, where.store, seeds, asks=is_elsewhere, reads=True)
    findings = reporting.report(loaded, where, metric, cells)
    if figures is not None:
        _write_figures(findings, figures)
    if form == "html":
        click.echo(str(publish.write_page(findings, where.store, out, cells=cells)))
    elif out is None:
        click.echo(publish.text(findings, form), nl=False)
    else:
        publish.write(out, publish.text(findings, form))
        click.echo(str(out))


def form_of(form: str | None, *, as_json: bool) -> str:
    """Return the form that is asked for."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} are two forms: choose one of them")
    return "json" if as_json else form or "html"


def _write_figures(findings: "Findings", folder: Path) -> None:
    from ablate.messages import count
    from ablate.report import publish

    number, reason = publish.write_pictures(findings, folder)
    forms = "HTML" if reason else "HTML, PNG and SVG"
    click.echo(f"{folder}: {count(number, 'picture')} as {forms}{f'; {reason}' if reason else ''}", err=True)
