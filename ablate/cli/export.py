"""`ablate export`: the network of a finished run as a folder that needs no ablate."""

from pathlib import Path

import click

from ablate.cli import options, terminal
from ablate.cli.terminal import escape


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--onnx", is_flag=True, help="Write model.onnx, too, for any number of images at a time.")
@options.STORE
@options.JSON
def export(run: str, folder: Path, store_path: str, *, onnx: bool, as_json: bool) -> None:
    """Write the network of a finished run for use without ablate.

    DIR gets the weights (model.safetensors), the network's operations (network.py), the classes and the
    normalisation (model.json), recipe.json, and load.py, which classifies images with them. Their answers
    are compared with the network's before DIR is there. RUN is as for ablate predict.

    \b
    Example:
      ablate export augmentation:baseline/0 exported
      python exported/load.py cat.jpg
    """
    from ablate.messages import printable
    from ablate.workflow import answers
    from ablate.workflow import export as workflow

    exported = workflow.export(run, folder, options.where(store_path), onnx=onnx)
    for note in exported.notes:
        click.echo(printable(f"note: {note}"), err=True)
    if as_json:
        click.echo(answers.text(exported))
        return
    console = terminal.console()
    rows = [(name, terminal.size(size)) for name, size in exported.files.items()]
    terminal.show_table(console, (str(exported.folder), "size"), rows)
    console.print(escape(f"try it: python {exported.folder / 'load.py'} IMAGE"), soft_wrap=True)
