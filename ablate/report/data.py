"""Findings to plain data for other programs: strictly valid JSON, whose keys others rely on."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ablate.analysis.findings import Findings
from ablate.report import headline, sections
from ablate.report.sections import Sections
from ablate.store.files import Json


def to_json(findings: Findings, every: Sections | None = None) -> Json:
    """Return everything as JSON has it: null for what is unknown or no number, text for seeds as keys.

    `every`: the sections, if they exist already.
    """
    study = findings.study
    head = {
        "study": study.name,
        "question": study.question,
        "design": study.design,
        "metric": findings.metric,
        "direction": findings.direction,
        "min_effect": study.min_effect if findings.metric == study.metric else None,
        "alpha": study.alpha,
        "variance": study.variance,
        "seeds": list(study.seeds),
        "finished": findings.finished,
        "total": findings.total,
        "headline": headline.headline(findings),
        "test_images": asdict(findings.images) if findings.images else None,
        "networks": [asdict(network) for network in findings.networks],
    }
    everything: Json = plain(head | sections.data(every or sections.make(findings)))
    return everything


def plain(content: object) -> Any:
    """Return the content as JSON has it: without NaN, infinity and tuples, and with text for keys."""
    match content:
        case None | bool() | int() | str():
            return content
        case float():
            return float(content) if math.isfinite(content) else None
        case Mapping():
            return {str(key): plain(part) for key, part in content.items()}
        case list() | tuple():
            return [plain(part) for part in content]
    return str(content)
