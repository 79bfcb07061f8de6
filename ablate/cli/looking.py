"""The commands that read what there is."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from ablate.cli import options

FORMS = ("html", "json", "md", "tex", "csv")


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.JSON
def status(study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool) -> None:
    """Say how far STUDY is: seeds done, running, failed and missing for each cell.

    \b
    Example:
      ablate status augmentation
      ablate status studies/augmentation.toml --json
    """
    from ablate import display, workflow

    where = options.where(store_path)
    found = workflow.status(workflow.load(study, sets, where.store), where)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        display.show_status(options.console(), found)


@click.command()
@options.STUDY
@options.SET
@options.STORE
@click.option("--format", "form", type=click.Choice(FORMS), default="html", show_default=True, help="What to write.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="By default the store, and the terminal for all but HTML.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="Show this cell from inside; else the baseline and the best.")
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write each picture as files, too.")
def report(
    study: str,
    sets: tuple[str, ...],
    store_path: str,
    form: str,
    out: Path | None,
    metric: str | None,
    cells: tuple[str, ...],
    figures: Path | None,
) -> None:
    """Compare the cells of STUDY: effects with intervals and verdicts, as an HTML page, JSON, Markdown, LaTeX or CSV.

    \b
    Example:
      ablate report studies/augmentation.toml
      ablate report augmentation --metric test/calibration_error
      ablate report augmentation --format tex --out effects.tex
      ablate report augmentation --figures slides/
    """
    from ablate import publishing, workflow

    where = options.where(store_path)
    found = workflow.report(workflow.load(study, sets, where.store), where, metric, cells)
    if figures is not None:
        count, reason = publishing.write_pictures(found, figures)
        click.echo(f"{figures}: {count} pictures as {'HTML' if reason else 'HTML, PNG and SVG'}{f'; {reason}' if reason else ''}", err=True)
    if form == "html":
        click.echo(str(publishing.write_page(found, where.store, out)))
    elif out is None:
        click.echo(publishing.text(found, form), nl=False)
    else:
        publishing.write(out, publishing.text(found, form))
        click.echo(str(out))


@click.command()
@options.STUDY
@options.SET
@options.STORE
@options.JSON
@click.option("--strict", is_flag=True, help="End with exit code 3 where a claim is neither confirmed nor refuted.")
def check(study: str, sets: tuple[str, ...], store_path: str, *, as_json: bool, strict: bool) -> None:
    """Answer the claims of STUDY, for CI: exit code 1 if one is refuted, else 0.

    \b
    Example:
      ablate check augmentation
      ablate check augmentation --strict
    """
    from ablate import publishing, workflow

    where = options.where(store_path)
    found = workflow.report(workflow.load(study, sets, where.store), where)
    click.echo(publishing.claims(found, as_json=as_json), nl=False)
    verdicts = [claim.verdict for claim in found.claims]
    sys.exit(1 if "refuted" in verdicts else 3 if strict and {"undecided", "not tested"} & set(verdicts) else 0)


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@options.STORE
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="A cell of the one STUDY, twice; ablate plan --cells lists them.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
def compare(studies: tuple[str, ...], store_path: str, cells: tuple[str, ...], metric: str | None) -> None:
    """Put two studies side by side, or two cells of one study seed by seed.

    \b
    Example:
      ablate compare augmentation regularisation
      ablate compare augmentation --cell baseline --cell "rotation=15"
    """
    from ablate import display, workflow

    where = options.where(store_path)
    loaded = tuple(workflow.load(study, (), where.store) for study in studies)
    display.show_comparison(options.console(), workflow.compare(loaded, cells, where, metric))
