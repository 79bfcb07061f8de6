"""The commands that read what there is."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path

import click

from ablate.cli import options

FORMS = ("html", "json", "md", "tex", "csv")


@click.command()
@click.argument("study", metavar="[STUDY]", required=False)
@options.SET
@options.SEEDS
@options.STORE
@options.JSON
@click.option("--watch", is_flag=True, help="Show it again whenever it has changed, until nothing runs; with --json a line each time.")
def status(study: str | None, sets: tuple[str, ...], seeds: int | None, store_path: str, *, as_json: bool, watch: bool) -> None:
    """Show how far STUDY is: each cell under each seed, what runs and for how long, what failed and why, what came for free.

    Without STUDY, list the studies of the store and how far each of them is.

    \b
    Example:
      ablate status
      ablate status augmentation
      ablate status augmentation --watch
      ablate status studies/augmentation.toml --json
    """
    from ablate.cli import display
    from ablate.workflow import inspect

    where, console = options.where(store_path), options.console()
    if study is None:
        if watch or sets or seeds:
            raise click.UsageError("--watch, --set and --seeds need a STUDY")
        every = inspect.studies(where)
        if as_json:
            click.echo(json.dumps([dataclasses.asdict(one) for one in every], indent=1))
        else:
            display.show_studies(console, every, where.store.path)
        return
    loaded = options.load(study, sets, where.store, seeds, asks=True, reads=True)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # nothing is lost by looking away
            changes = inspect.watch(loaded, where)
            if as_json:
                for found in changes:
                    click.echo(display.status_line(found))
            else:
                display.watch_status(console, changes)
        return
    found = inspect.status(loaded, where)
    if as_json:
        click.echo(json.dumps(display.status_data(found), indent=1))
    else:
        display.show_status(console, found)


@click.command()
@click.argument("job", metavar="JOB")
@options.STORE
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
def logs(job: str, store_path: str, *, follow: bool) -> None:
    """Print the log of JOB: the first digits of its identity, or a run as tables show it, STUDY:cell/seed.

    \b
    Example:
      ablate logs 3fa9c1
      ablate logs "augmentation:rotation=15/0" -f
    """
    from ablate.workflow import inspect

    said = False
    for text in inspect.log(job, options.where(store_path), follow=follow):
        if not text and follow and not said:
            click.echo("no log yet: waiting", err=True)
        said = True
        click.echo(text, nl=False)


@click.command()
@click.argument("jobs", metavar="JOB [JOB]", nargs=-1, required=True)
@options.STORE
@options.JSON
def explain(jobs: tuple[str, ...], store_path: str, *, as_json: bool) -> None:
    """Show what JOB is, who needs it and which jobs are nearest to it; of two, which fields make them two.

    A JOB is the first digits of its identity, or a run as tables show it, STUDY:cell/seed.

    \b
    Example:
      ablate explain augmentation:baseline/0
      ablate explain 3fa9c1 77d0e2
    """
    from ablate.cli import display
    from ablate.workflow import inspect

    if len(jobs) > 2:
        raise click.UsageError(f"explain takes one job or two, got {len(jobs)}")
    found = inspect.explain(jobs, options.where(store_path))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        display.show_explained(options.console(), found)


@click.command()
@options.STUDY
@options.SET
@options.SEEDS
@options.STORE
@click.option("--format", "form", type=click.Choice(FORMS), default="html", show_default=True, help="What to write.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="By default the store, and the terminal for all but HTML.")
@click.option("--metric", metavar="NAME", help="Compare another metric, such as test/calibration_error.")
@click.option("--cell", "cells", multiple=True, metavar="LABEL", help="Show this cell from inside; else the baseline and the best.")
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write each picture as files, too.")
def report(
    study: str,
    sets: tuple[str, ...],
    seeds: int | None,
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

    csv and tex have the effects. The page lies in the store, unless --out puts it elsewhere, beside cells.csv (every cell with its
    value under each seed), effects.csv, report.md and findings.json. With --metric or --cell it has a name of its own there, such as
    report-test-loss.html.
    """
    from ablate.messages import count, printable
    from ablate.report import publish
    from ablate.workflow import report as reporting

    where = options.where(store_path)
    is_elsewhere = form != "html" or out is not None  # the store's own page is refused
    loaded = options.load(study, sets, where.store, seeds, asks=is_elsewhere, reads=True)
    found = reporting.report(loaded, where, metric, cells)
    if figures is not None:
        number, reason = publish.write_pictures(found, figures)
        forms = "HTML" if reason else "HTML, PNG and SVG"
        click.echo(f"{figures}: {count(number, 'picture')} as {forms}{f'; {reason}' if reason else ''}", err=True)
    if form == "html":
        click.echo(str(publish.write_page(found, where.store, out, cells=cells)))
    elif out is None:
        written = publish.text(found, form)
        click.echo(printable(written) if sys.stdout.isatty() else written, nl=False)  # names of a shared store must not command it
    else:
        publish.write(out, publish.text(found, form))
        click.echo(str(out))


@click.command()
@options.STUDY
@options.SET
@options.SEEDS
@options.STORE
@options.JSON
@click.option("--strict", is_flag=True, help="End with exit code 3 where a claim is neither confirmed nor refuted.")
def check(study: str, sets: tuple[str, ...], seeds: int | None, store_path: str, *, as_json: bool, strict: bool) -> None:
    """Answer the claims of STUDY, for CI: exit code 1 if one is refuted, 3 if none could be tested, else 0.

    \b
    Example:
      ablate check augmentation
      ablate check augmentation --strict
    """
    from ablate.messages import printable
    from ablate.report import publish
    from ablate.workflow import report as reporting

    where = options.where(store_path)
    found = reporting.report(options.load(study, sets, where.store, seeds, reads=True), where)
    click.echo(publish.claims(found, as_json=as_json), nl=False)
    verdicts = {claim.verdict for claim in found.claims}
    untested = publish.untested(found, where.store)
    if untested:
        click.echo(printable(untested), err=True)
    is_open = not verdicts - {"not tested"} or (strict and bool({"undecided", "not tested"} & verdicts))
    sys.exit(1 if "refuted" in verdicts else 3 if is_open else 0)


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
    from ablate.cli import display
    from ablate.workflow import report as reporting

    where = options.where(store_path)
    loaded = tuple(options.load(study, (), where.store, asks=True, reads=True) for study in studies)
    display.show_comparison(options.console(), reporting.compare(loaded, cells, where, metric))
