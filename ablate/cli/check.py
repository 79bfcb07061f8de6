"""`ablate check`: the answers to a study's claims, and an exit code by them."""

import sys

import click

from ablate.cli import options, remote


@click.command()
@options.STUDY
@options.SET
@options.SEEDS
@options.STORE
@options.JSON
@click.option("--strict", is_flag=True, help="Exit with 3 where a claim is neither confirmed nor refuted.")
@remote.reachable
def check(
    study: str, sets: tuple[str, ...], seeds: int | None, store_path: str, *, as_json: bool, strict: bool
) -> None:  # fmt: skip
    """Test the claims of a study, with an exit code for CI.

    Exit code 1 if a claim is refuted, 3 if none could be tested, else 0.

    \b
    Example:
      ablate check augmentation
      ablate check augmentation --strict
    """
    from ablate.messages import printable
    from ablate.report import publish
    from ablate.workflow import report as reporting

    where = options.where(store_path)
    loaded = options.load(study, sets, where.store, seeds, asks=True, reads=True)
    findings = reporting.report(loaded, where)
    click.echo(publish.claims(findings, as_json=as_json), nl=False)
    verdicts = {claim.verdict for claim in findings.claims}
    untested = publish.untested(findings, where.store)
    if untested:
        click.echo(printable(untested), err=True)
    is_open = not verdicts - {"not tested"} or (strict and bool({"undecided", "not tested"} & verdicts))
    sys.exit(1 if "refuted" in verdicts else 3 if is_open else 0)
