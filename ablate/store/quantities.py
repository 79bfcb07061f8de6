"""The numbers in a store's files, with their bounds."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ablate.recipe.section import LARGEST

Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]  # times, in ms, are counts, too
Number = Whole | float
Sha = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Metrics = dict[str, Number]
TIME = "time/epoch_seconds"


def _has_time(metrics: Metrics) -> Metrics:
    if TIME not in metrics:
        raise ValueError(f"{TIME} is missing")
    return metrics


ResultMetrics = Annotated[Metrics, AfterValidator(_has_time)]
"""The metrics of a training that has ended: none ends without the time of its epochs."""
