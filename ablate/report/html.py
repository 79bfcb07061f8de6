"""Findings to one HTML page: readable in ten years without a network, because everything stands in it.

The page forbids itself every request by its Content-Security-Policy. plotly.js (4.8 MB) stands in it once,
below the answer, so that the answer is on the screen before a browser has read it; a page without pictures
goes without.
"""

from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ablate.analysis.findings import Findings
from ablate.analysis.outcomes import NAMES, Status
from ablate.messages import count
from ablate.report import canvas, headline, reasons, sections, words
from ablate.report.canvas import Picture
from ablate.report.sections import Sections
from ablate.report.sections.provenance import mixed
from ablate.study.grid import short_names

MOST_NETWORKS = 3  # named at the top of the page; the table of cells has all


def render(
    findings: Findings, every: Sections | None = None, *, created: str = "", version: str, store: str
) -> str:
    """Return the page.

    `every`: the sections, if they exist already; `created` is a time in words, `store` a folder.
    """
    shown = [section for section in (every or sections.make(findings)).values() if section.blocks]
    return _template().render(
        f=findings,
        study=findings.study,
        answer=headline.headline(findings),
        better=words.higher(findings),
        least=words.least(findings),
        setting=_setting(findings),
        tiles=_tiles(findings),
        mixed=mixed(findings),
        sections=shown,
        plotly=Markup(_plotly()) if any(section.pictures for section in shown) else "",  # noqa: S704
        created=created,
        version=version,
        store=store,
    )


def load() -> None:
    """Import what draws a page, and compile its template."""
    import plotly.io  # noqa: F401

    _template()


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["zip"] = partial(zip, strict=True)
    environment.filters["div"] = _div
    return environment.get_template("template.html.j2")


def _div(picture: Picture) -> Markup:
    return Markup(canvas.div(picture))  # noqa: S704 (plotly escapes its JSON, canvas.safe the labels)


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _tiles(findings: Findings) -> list[tuple[str, str]]:
    """Return the few numbers that show the progress of the study, each with its name."""
    counts = {status: sum(cell.counts.get(status, 0) for cell in findings.cells) for status in reasons.ORDER}
    chance = reasons.at_chance(findings.cells, findings)
    named: dict[Status, str] = {
        **NAMES,
        "at_chance": f"at chance level ({chance})" if chance else "at chance level",
    }
    return [
        ("runs finished", f"{findings.finished:,} of {findings.total:,}"),
        *((named[status], f"{count:,}") for status, count in counts.items() if count),
        ("cells", f"{len(findings.cells):,}"),
        ("seeds", f"{len(findings.study.seeds):,}"),
    ]


def _setting(findings: Findings) -> list[str]:
    """Return what the runs were about: the test images, the networks, the levels of the baseline."""
    said = []
    if findings.images is not None:
        images, classes = findings.images.count, count(findings.images.classes, "class", "classes")
        worth = f"one is worth {words.significant(100 / images, 2)} points of accuracy"
        said.append(f"{count(images, 'test image')} of {classes}: {worth}.")
    networks = []
    for network in findings.networks[:MOST_NETWORKS]:
        parameters = " to ".join(f"{number:,}" for number in network.parameters)
        networks.append(f"{network.name} ({parameters} parameters)" if parameters else network.name)
    said.append(f"{'Network' if len(networks) == 1 else 'Networks'}: {', '.join(networks)}.")
    short = short_names([factor.name for factor in findings.study.factors])
    levels = [f"{short[name]} = {level}" for name, level in findings.cells[0].cell.levels.items()]
    return [*said, f"Baseline: {', '.join(levels)}."] if levels else said
