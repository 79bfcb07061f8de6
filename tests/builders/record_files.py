"""Records as a store has them on disk, with everything in them that must be there."""

from typing import Any

Json = dict[str, Any]


def attempt(number: int = 1, **fields: Any) -> Json:
    """Return a line of attempts.jsonl."""
    return {"attempt": number, "timestamp": 1} | fields


def epoch(number: int, **fields: Any) -> Json:
    """Return a line of journal.jsonl."""
    return {"epoch": number, "timestamp": 1, "seconds": 1.0, "metrics": {}} | fields


def result(status: str = "finished", **fields: Any) -> Json:
    """Return a result.json."""
    metrics = {"time/epoch_seconds": 1.0, "time/train_seconds": 1.0}
    written = {
        "status": status,
        "reason": "",
        "epochs": 1,
        "train_images": 9,
        "timestamp": 1,
        "metrics": metrics,
    }
    return written | fields


def evaluation(**fields: Any) -> Json:
    """Return an outcome.json."""
    return {"evaluation": {}, "status": "finished", "reason": "", "timestamp": 1, "metrics": {}} | fields


def images(train: int, test: int) -> Json:
    """Return the meta.json of a decoded data set."""
    shape = {"channels": 1, "image_size": 8, "mean": [0.5], "std": [0.5]}
    return {"classes": ["a", "b"], "train": train, "test": test} | shape
