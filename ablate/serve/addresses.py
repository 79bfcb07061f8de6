"""Names in addresses: any name of a study is one part of a path, and nothing else.

A name that a browser or a server would take for something else (a slash, a dot for this folder, a percent
sign) is quoted twice, so that what arrives is still quoted, and is one name.
"""

from urllib.parse import quote, unquote


def segment(name: str) -> str:
    """Return a name as a part of an address."""
    once = quote(name, safe="")
    if "/" not in name and "%" not in name and name.strip(".") and "\\" not in name:
        return once
    return quote(once.replace(".", "%2E") if not name.strip(".") else once, safe="")


def name(part: str) -> str:
    """Return the name that a part of an address means, unquoted once already by the server."""
    return unquote(part) if "%" in part else part
