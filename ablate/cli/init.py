"""`ablate init`: a study file to begin with."""

import click


@click.command()
@click.argument("name")
@click.option("--from", "template", metavar="STUDY", help="A study that comes with ablate, or a study file.")
@click.option("--images", metavar="DIR", help="A folder with train/<class>/* and test/<class>/*.")
def init(name: str, template: str | None, images: str | None) -> None:
    """Write a study file to begin with.

    NAME.toml is a copy of one that comes with ablate: that of this name, else the quickstart, or another
    --from. With --images it is a study of your own images: their size, classes and number are looked at and
    filled in.

    \b
    Example:
      ablate init quickstart
      ablate init mine --from augmentation
      ablate init pets --images ~/pets
    """
    from ablate.messages import printable
    from ablate.workflow import new

    if template is not None and images is not None:
        raise click.UsageError("--from and --images exclude each other: leave out one")
    path, seen = new.write(name, template, images)
    for line in seen:
        click.echo(printable(line))
    click.echo(printable(f"{path} is written: look at it, then\n  ablate plan {path}\n  ablate run {path}"))
