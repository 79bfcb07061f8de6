"""Records by MLflow's own keys, and whether what MLflow shows agrees with them."""

import math
from collections.abc import Mapping

from ablate.tracking.keys import LONGEST_VALUE, key, shortened
from ablate.tracking.records import Record

LARGEST = 1.7e308  # MLflow keeps infinity as the largest number of its database


def params(record: Record) -> dict[str, str]:
    """Return the params of a record, under the names that MLflow takes."""
    return {key(name): shortened(value, LONGEST_VALUE) for name, value in record.params.items()}


def latest(record: Record) -> dict[str, float]:
    """Return the last value of every metric of a record, under the name that MLflow takes."""
    values = [
        (line, key(before + name), value)
        for before, each in record.lines.items()
        for line in each
        for name, value in line.metrics.items()
    ]
    values += [(line, key(name), value) for line in record.end for name, value in line.metrics.items()]
    values.sort(key=lambda entry: (entry[0].step, entry[0].timestamp))
    return {name: value for _, name, value in values}


def has_all(ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    """Whether MLflow shows all metrics of ours, with our values."""
    return all(name in theirs and _same(value, theirs[name]) for name, value in ours.items())


def contradicts(ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    """Whether MLflow shows another value of any metric of ours."""
    return any(name in theirs and not _same(value, theirs[name]) for name, value in ours.items())


def _same(ours: float, theirs: float) -> bool:
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    if math.isinf(ours):
        return abs(theirs) > LARGEST and (ours > 0) == (theirs > 0)
    return math.isclose(ours, theirs, rel_tol=1e-9)
