"""`ablate logs`: what a job has printed, or prints."""

from collections.abc import Iterable

import click

from ablate.cli import options, remote


@click.command()
@click.argument("job", metavar="JOB")
@options.STORE
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, or Ctrl-C.")
@remote.reachable
def logs(job: str, store_path: str, *, follow: bool) -> None:
    """Print the log of a job.

    A JOB is the first digits of its identity, or a run as tables show it, STUDY:cell/seed.

    \b
    Example:
      ablate logs 3fa9c1
      ablate logs "augmentation:rotation=15/0" -f
    """
    from ablate.workflow import inspect

    show(inspect.log(job, options.where(store_path), follow=follow), follow=follow)


def show(texts: Iterable[str], *, follow: bool) -> None:
    """Print the parts of a log as they come; an empty one where there is nothing new."""
    has_begun = False
    for text in texts:
        if not text and follow and not has_begun:
            click.echo("no log yet: waiting", err=True)
        has_begun = True
        click.echo(text, nl=False)
