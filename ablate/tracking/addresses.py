"""The address of MLflow, and its errors without passwords."""

import os
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from packaging.version import Version  # MLflow brings it

from ablate.databases import with_driver
from ablate.messages import public
from ablate.store.layout import Store

LONGEST_REASON = 800  # characters of an error


def uri(store: Store, given: str | None) -> str:
    """Return MLflow's address: the given one, else MLFLOW_TRACKING_URI, else the store's own SQLite file.

    Raises an AblateError where it is of a database whose driver is missing.
    """
    address = given or os.environ.get("MLFLOW_TRACKING_URI")
    return with_driver(address) if address and not _is_own(address, store) else own(store)


def own(store: Store) -> str:
    """Return the address of the store's own SQLite file."""
    return sqlite(store.database)


def _is_own(address: str, store: Store) -> bool:
    """Whether an address is the store's own SQLite file, in whatever words: it is trusted no further."""
    path = address.removeprefix("sqlite:///")
    return address != path and os.path.realpath(path) == os.path.realpath(store.database)


def sqlite(path: Path) -> str:
    """Return the address of a SQLite file; in addresses ? begins a query, and % may escape a character."""
    text = str(path)
    if not any(letter in "?%#" or not letter.isprintable() for letter in text):
        return f"sqlite:///{text}"
    # With the driver's name: MLflow takes what follows sqlite:/// alone for a path, and makes that folder.
    quoted = quote(text, errors="surrogateescape")
    is_unquoted = Version(metadata.version("sqlalchemy")) >= Version("2.1")  # else SQLite does that
    return f"sqlite+pysqlite:///{quoted}" if is_unquoted else f"sqlite+pysqlite:///file:{quoted}?uri=true"


def is_served(address: str) -> bool:
    """Whether it is the address of a server, which then decides where artifacts go."""
    return address.startswith(("http://", "https://"))


def first_line(error: Exception) -> str:
    """Return the first meaningful line of an error: SQLAlchemy begins with advice to programmers."""
    text = public(str(error).strip())  # before it is cut: of half a token nothing tells what it is
    lines = [line for line in text.splitlines() if not line.startswith("(raised as a result")]
    return (lines or [type(error).__name__])[0][:LONGEST_REASON]
