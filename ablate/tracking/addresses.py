"""Where MLflow is, and how that and its errors are told without passwords."""

import os
import re

from ablate.store import Store

LONGEST_REASON = 800  # characters of an error


def uri(store: Store, given: str | None) -> str:
    """Say where MLflow is: as given, else MLFLOW_TRACKING_URI, else the store's own SQLite file."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.database}"


def is_served(address: str) -> bool:
    """Whether a server answers there, which then says where artifacts go."""
    return address.startswith(("http://", "https://"))


def public(text: str) -> str:
    """Write an address, or a message that holds one, without its password."""
    named = re.sub(r"://([^/@\s:]*):\S*@", r"://\1:***@", text)  # up to the last @: a password may have one, and slashes
    alone = re.sub(r"://[^/@\s:]+@", "://***@", named)  # a token
    return re.sub(r"([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]*", r"\1***", alone, flags=re.IGNORECASE)


def first_line(error: Exception) -> str:
    """Shorten an error to its first line that says something; SQLAlchemy's starts with advice to programmers in brackets."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    return public((lines or [type(error).__name__])[0][:LONGEST_REASON])
