"""All pictures of a report, and each as files of its own: for slides, papers and mails."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ablate.analysis.effects import Effect
from ablate.analysis.findings import Findings
from ablate.report import canvas, figures, insides, tuning
from ablate.report.canvas import Picture
from ablate.store import files

WIDTH, SCALE = 760, 2  # px of an image, and dots a px of a PNG: sharp on paper


def every(findings: Findings) -> dict[str, tuple[Picture, ...]]:
    """Draw every picture, by the section that it stands in; none where there is nothing to draw."""
    chosen = insides.strongest(findings)
    calibrated = [one for one in findings.details if one.calibration]
    shown = [one for one in findings.details if len(one.classes) <= insides.MOST_CLASSES]
    timed = [cell for cell in findings.cells if cell.mean is not None and cell.epoch_seconds is not None]
    drawn = {
        "forest": [figures.forest(findings.effects, findings)] if any(_is_known(e) for e in findings.effects) else [],
        "curves": [figures.curves(findings)] if findings.curves else [],
        "heat": [insides.heat(findings)] if any(_is_known(e) for e in findings.interactions) else [],
        "interplay": [insides.interplay(findings.interplay, findings)] if findings.interplay else [],
        "classes": [insides.classes(chosen[1], findings)] if chosen else [],
        "confusion": [insides.confusion(one, f"confusion-{i}") for i, one in enumerate(shown)],
        "calibration": [insides.calibration(calibrated)] if calibrated else [],
        **tuning.pictures(findings.tuning),
        "cost": [figures.cost(findings)] if len(timed) > 1 and findings.metric != "time/epoch_seconds" else [],
    }
    return {name: tuple(some) for name, some in drawn.items()}


def _is_known(effect: Effect) -> bool:
    return effect.estimate.effect is not None


def write(findings: Findings, folder: Path) -> tuple[int, str]:
    """Write every picture as a page that needs no network, and as PNG and SVG where kaleido and a browser are there.

    Gives the number of pictures, and the reason if there are pages only.
    """
    drawn = [one for some in every(findings).values() for one in some]
    for one in drawn:
        files.write(folder / f"{one.name}.html", canvas.div(one, alone=True), durable=False)
    return len(drawn), _images(drawn, folder) if drawn else ""


def _images(drawn: list[Picture], folder: Path) -> str:
    """Let a browser draw; kaleido would fetch MathJax from a network, and no label needs it."""
    if find_spec("kaleido") is None:
        return 'for PNG and SVG, pip install "ablate-studies[figures]"'
    import kaleido

    asked: list[dict[str, Any]] = []
    for one in drawn:
        figure, size = canvas.on_white(one), {"width": WIDTH, "height": one.layout["height"], "scale": SCALE}
        asked += [{"fig": figure, "path": folder / f"{one.name}.{form}", "opts": size | {"format": form}} for form in ("png", "svg")]
    try:
        kaleido.write_fig_from_object_sync(asked, kopts={"mathjax": False})
    except Exception as error:  # noqa: BLE001 (a browser that is not there, or does not start: the pages are written)
        return f"no PNG and SVG: kaleido has no browser to draw them: {str(error).strip().splitlines()[0]}"
    return ""
