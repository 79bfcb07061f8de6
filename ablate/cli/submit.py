"""`ablate submit`: a study for the queue of a service."""

from pathlib import Path

import click

from ablate.cli import options, submissions


@click.command()
@options.STUDY
@options.SET
@options.JSON
@click.option("--after", multiple=True, metavar="ID", help="Start it when this submission is done.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher ones run first.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same one again submits nothing new.")
@click.option(
    "--replace", "replaces", is_flag=True,
    help="Let this file take the place of another one whose study has the same name.",
)  # fmt: skip
@submissions.queued
def submit(
    queue: submissions.Queue, study: str, sets: tuple[str, ...], after: tuple[str, ...], priority: int,
    key: str | None, *, as_json: bool, replaces: bool,
) -> None:  # fmt: skip
    """Put a study into the queue, to be run by `ablate serve`.

    The study is checked and copied, with the code of its own networks: what was submitted is what runs, even
    if the file changes. Without a service it waits until there is one.

    \b
    Example:
      ablate submit studies/augmentation.toml
      ablate submit studies/augmentation.toml --set seeds=8 --after 12 --priority 5
    """
    entry = queue.submit(
        Path(study), sets=sets, priority=priority, after=after, key=key, replaces=replaces
    )  # fmt: skip
    submissions.show(entry, as_json=as_json)
    submissions.note_missing(queue, entry)
