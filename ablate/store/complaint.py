"""What is wrong with a file of a store, by its name and its content: what the doctor says of it."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablate.store import records
from ablate.store.network import Network

_KINDS: Mapping[str, TypeAdapter[Any]] = {
    "recipe.json": TypeAdapter(records.JobRecipe), "attempts.jsonl": TypeAdapter(records.Attempt),
    "journal.jsonl": TypeAdapter(records.Epoch), "result.json": TypeAdapter(records.Result),
    "outcome.json": TypeAdapter(records.Evaluation), "failure.json": TypeAdapter(records.Failure),
    "search.json": TypeAdapter(records.Search), "trials.json": TypeAdapter(records.Trials),
    "range.json": TypeAdapter(records.RangeTest), "curve.json": TypeAdapter(records.SeedCurve),
    "suggestion.json": records.SUGGESTION,
    "study.json": TypeAdapter(records.KeptStudy), "settled.json": TypeAdapter(records.Settled),
    "origin.json": TypeAdapter(records.KeptOrigin), "holder.json": TypeAdapter(records.Holder),
    "began.json": TypeAdapter(records.Began), "sent.json": TypeAdapter(records.Mark),
    "environment.json": TypeAdapter(records.Environment),
    "model.json": TypeAdapter(Network), "meta.json": TypeAdapter(records.ImageSet),
    "index.json": TypeAdapter(records.ImageIndex),
}  # fmt: skip
"""The type of a file, by its name; of each of its lines, where it is one of lines."""
INDEX = re.compile("[0-9a-f]{64}\\.json")  # of data/index
_LINE, _ANY = TypeAdapter(dict[str, Any]), TypeAdapter(Any)


def of(name: str, content: bytes) -> str:
    """Return what is wrong with a file of this name, or with one of its lines; empty where nothing is."""
    default = _LINE if name.endswith(".jsonl") else _ANY
    try:
        _KINDS.get(_kind(name), default).validate_json(content)
    except ValidationError as error:
        kinds = [(detail["type"], detail["loc"]) for detail in error.errors()]
        if any(kind == "json_invalid" for kind, _ in kinds):
            return "is no JSON"
        missing = [str(place[0]) for kind, place in kinds if kind == "missing" and len(place) == 1]
        return f"has no {', '.join(missing)}" if missing else "is not what ablate writes there"
    return ""


def _kind(name: str) -> str:
    """Return a name that stands for all files of a kind."""
    if name.startswith("curve-"):
        return "curve.json"
    return "index.json" if INDEX.fullmatch(name) else name
