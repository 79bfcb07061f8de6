"""`ablate predict`: what the network of a finished run answers to pictures."""

import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from ablate.cli import options, terminal
from ablate.cli.terminal import escape, show_table

if TYPE_CHECKING:
    from ablate.workflow.predict import Answer, Predicted

LEAST = 0.0005  # of a class that the table names: else it is 0.0 %


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@click.option(
    "--mc-dropout", type=click.IntRange(0, 1000), metavar="N",
    help="Average so many passes with dropout on, and show their spread; else as the run was evaluated.",
)  # fmt: skip
@click.option("--show", is_flag=True, help="Open a picture of what the network saw, with its answers.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write that picture, a PNG.")
@options.STORE
@options.DEVICE
@options.JSON
def predict(
    run: str, images: tuple[Path, ...], store_path: str, device: str, top: int, mc_dropout: int | None,
    out: Path | None, *, show: bool, as_json: bool,
) -> None:  # fmt: skip
    """Classify images with the network of a finished run.

    An IMAGE is a file or a folder of them, and is read as the training images were: turned upright, resized,
    normalised. RUN is a run as tables show it, STUDY:cell/seed, or the first digits of a job's identity; with
    a network of your own, the file of its study: FILE.toml:cell/seed.

    One that cannot be read is named, and the exit code is 1; the others are answered all the same.

    \b
    Example:
      ablate predict augmentation:baseline/0 cat.jpg
      ablate predict augmentation:baseline/0 pictures/ --top 3 --show
    """
    from ablate.messages import printable
    from ablate.workflow import answers
    from ablate.workflow import predict as workflow

    where = options.where(store_path, device=device)
    predicted, picture = workflow.predict(
        run, images, where, top=top, mc_dropout=mc_dropout, sheet=show or out is not None
    )
    for note in predicted.notes:
        click.echo(printable(f"note: {note}"), err=True)
    if as_json:
        click.echo(answers.text(predicted))
    else:
        show_predicted(terminal.console(), predicted)
    for broken in (answer for answer in predicted.answers if answer.error):
        click.echo(printable(f"{broken.image}: cannot be read: {broken.error}"), err=True)
    if picture:
        _deliver(picture, out, show=show)
    sys.exit(1 if any(answer.error for answer in predicted.answers) else 0)


def show_predicted(console: Console, predicted: "Predicted") -> None:
    """Print the answer to each picture, with the classes that come next."""
    rows = [
        (
            answer.image,
            answer.answer or "",
            _percent(answer, 0),
            ", ".join(
                f"{share.class_} {_percent(answer, i)}"
                for i, share in enumerate(answer.top)
                if i and share.probability >= LEAST
            ),
        )
        for answer in predicted.answers
        if not answer.error
    ]
    if rows:
        show_table(console, ("image", "answer", "sure", "next"), rows)
    for answer in predicted.answers:
        for remark in answer.remarks:
            console.print(escape(f"{answer.image}: {remark}"), soft_wrap=True)


def _percent(answer: "Answer", place: int) -> str:
    share = answer.top[place]
    spread = "" if share.spread is None else f" ± {100 * share.spread:.1f}"
    return f"{100 * share.probability:.1f}{spread} %"


def _deliver(picture: bytes, out: Path | None, *, show: bool) -> None:
    """Write the picture where it is wanted, and open it if asked to."""
    from ablate.messages import printable

    if out is None:
        with tempfile.NamedTemporaryFile(prefix="ablate-predict-", suffix=".png", delete=False) as file:
            file.write(picture)
            path = Path(file.name)
    else:
        out.write_bytes(picture)
        path = out
    click.echo(printable(f"picture: {path}"), err=True)
    if show and not webbrowser.open(path.absolute().as_uri()):
        click.echo("nothing here opens pictures: look at that file", err=True)
