"""Addresses of databases, and the driver that each needs."""

from importlib.util import find_spec

from ablate.errors import AblateError

PREFERRED = ("psycopg", "psycopg2")  # drivers for PostgreSQL, the first that is here
INSTALL = 'pip install "ablate-studies[postgres]"'


def with_driver(address: str) -> str:
    """Return the address of a database; for PostgreSQL with the name of the driver that is installed.

    A plain postgresql:// means psycopg2 to SQLAlchemy 2.0 and psycopg to 2.1, and postgres:// nothing to
    either. Raises an AblateError where the driver is missing: no waiting would mend that.
    """
    scheme, sign, rest = address.partition("://")
    dialect, plus, driver = scheme.partition("+")
    if not sign or dialect not in ("postgresql", "postgres"):
        return address
    wanted = (driver,) if plus else PREFERRED
    installed = [name for name in wanted if name.isidentifier() and find_spec(name) is not None]
    if not installed:
        # Without the address: it may hold a password.
        raise AblateError(
            f"a PostgreSQL database needs the package {wanted[0]}, which is not installed: {INSTALL}"
        )
    return f"postgresql+{installed[0]}://{rest}"
