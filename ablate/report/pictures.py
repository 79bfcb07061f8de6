"""All pictures of a report, and each as files of its own: for slides, papers and mails."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ablate.analysis.findings import Findings
from ablate.report import canvas, sections
from ablate.report.canvas import Picture
from ablate.store import files

WIDTH, SCALE = 760, 2  # px of an image, and dots a px of a PNG: sharp on paper


def every(findings: Findings) -> list[Picture]:
    """Return the pictures of all sections, in the order of the page."""
    return [picture for section in sections.make(findings).values() for picture in section.pictures]


def write(findings: Findings, folder: Path) -> tuple[int, str]:
    """Write every picture as a page that needs no network, and with kaleido and a browser as PNG and SVG.

    Return the number of pictures, and the reason if there are pages only.
    """
    drawn = every(findings)
    for picture in drawn:
        files.write(folder / f"{picture.name}.html", canvas.div(picture, alone=True), durable=False)
    return len(drawn), _images(drawn, folder) if drawn else ""


def _images(drawn: list[Picture], folder: Path) -> str:
    """Let a browser draw; kaleido would fetch MathJax from a network, and no label needs it."""
    if find_spec("kaleido") is None:
        return 'for PNG and SVG, pip install "ablate-studies[figures]"'
    import kaleido

    asked: list[dict[str, Any]] = []
    for picture in drawn:
        figure = canvas.on_white(picture)
        size = {"width": WIDTH, "height": picture.layout["height"], "scale": SCALE}
        asked += [
            {"fig": figure, "path": folder / f"{picture.name}.{form}", "opts": size | {"format": form}}
            for form in ("png", "svg")
        ]
    try:
        kaleido.write_fig_from_object_sync(asked, kopts={"mathjax": False})
    except Exception as error:  # noqa: BLE001 (no browser, or none that starts: the pages are written)
        return f"no PNG and SVG: kaleido has no browser to draw them: {str(error).strip().splitlines()[0]}"
    return ""
